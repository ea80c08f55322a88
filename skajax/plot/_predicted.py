"""Predicted times against measured ones."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from skajax._checks import require
from skajax.plot._axes import legend_beside, single
from skajax.plot._style import GREY, INK, layer_colour

if TYPE_CHECKING:
    import xarray

_MARKERS = "osD^vPXh*p"


def predicted_times(data: "xarray.Dataset", *, ax: Axes | None = None) -> Axes:
    """Predicted against measured time of peak flow, one mark a layer: on the line, they are equal.

    ``data`` is what ``skajax.study.architectures`` returns. Colours tell layers, and marks data sets;
    hollow marks are predictions that failed, and the band is 15 % to either side. Layers without both
    times are not drawn.

    Returns the axes.

    >>> ax = ska.plot.predicted_times(ska.study.architectures(quick=True))  # doctest: +SKIP
    """
    ax = single(ax, size=(6.6, 4.6))
    layers = data.sizes["layer"]
    sets = list(dict.fromkeys(str(name) for name in data["data"].values))
    markers = dict(zip(sets, _MARKERS, strict=False))
    ends = []
    for name in data["setting"].values:
        row = data.sel(setting=name)
        for layer in range(1, layers + 1):
            one = row.sel(layer=layer)
            x, y = one["measured"].item(), one["predicted"].item()
            if not (x > 0 and y > 0):
                continue
            ends += [x, y]
            colour = layer_colour(layer, layers)
            off = abs(y / x - 1) > (0.10 if layer == 1 else 0.15)
            ax.plot(
                x,
                y,
                marker=markers[str(row["data"].item())],
                color=colour,
                markerfacecolor="white" if off else colour,
                markersize=5.5,
                alpha=0.9,
                zorder=2.5,
            )
    require(len(ends) >= 2, "data", "hold a measured and a predicted time", "it held none")
    line = np.array([min(ends) / 1.3, max(ends) * 1.3])
    ax.plot(line, line, color=INK, linewidth=0.8, zorder=1.5)
    ax.fill_between(line, line * 0.85, line * 1.15, color=GREY, alpha=0.25, linewidth=0, zorder=1)
    ax.set(xscale="log", yscale="log", xlim=line, ylim=line)
    ax.set(xlabel="measured time of peak flow $t$", ylabel="predicted time of peak flow $t$")
    mark = lambda **style: Line2D([], [], linestyle="", markersize=5.5, **style)
    handles = [
        mark(marker="o", color=layer_colour(layer, layers), label=f"layer {layer}")
        for layer in range(1, layers + 1)
    ]
    handles += [mark(marker=m, color=INK, label=name) for name, m in markers.items()]
    handles.append(mark(marker="o", color=INK, markerfacecolor="white", label="hollow: failed"))
    legend_beside(ax, handles)
    return ax
