"""Class separation over time, against inputs and untrained layers."""

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullLocator

from skajax._checks import require
from skajax.plot._axes import TIME, AxesArray, AxesLike, legend_below, single
from skajax.plot._style import GREY, INK, layer_colour, layer_line

if TYPE_CHECKING:
    import xarray

_TEXT = {
    "fisher": "Fisher ratio\nbetween / within classes",
    "probe": "linear probe\naccuracy",
    "ari": "k-means clusters\nadjusted Rand index",
    "nmi": "k-means clusters\nmutual information",
}


def separation(data: "xarray.Dataset", *, axes: AxesLike | None = None) -> AxesArray:
    """How well each layer's decisions separate the classes over time, one panel a measure.

    ``data`` is what ``skajax.study.separation`` returns; with an axis ``seed`` (by ``xarray.concat``)
    curves are medians over the seeds, in bands from the least to the largest. The black dashed line is
    of the inputs, the grey dotted one the best of all untrained layers, over layers and scales. Times
    are logarithmic, but for the beginning, up to the first time after 0.

    Returns the axes, one for each of ``data``'s metrics. Raises ValueError for other data.

    >>> found = ska.study.separation(network, weights, x, y)  # doctest: +SKIP
    >>> axes = ska.plot.separation(found)  # doctest: +SKIP
    """
    missing = {"trained", "inputs", "random"} - set(data.data_vars)
    require(
        not missing and {"time", "layer", "metric"} <= set(data["trained"].dims),
        "data",
        "be what skajax.study.separation returns",
        f"it lacked {sorted(missing)}" if missing else f"it had the axes {data['trained'].dims}",
    )
    if "seed" not in data["trained"].dims:
        data = data.expand_dims("seed")
    metrics = [str(name) for name in data["metric"].values]
    own = axes is None
    if own:
        columns = min(len(metrics), 2)
        rows = -(-len(metrics) // columns)
        size = (3.4 * columns + 0.4, 2.6 * rows + 0.5)
        _, grid = plt.subplots(
            rows, columns, figsize=size, layout="constrained", squeeze=False, sharex=True
        )
        for spare in grid.ravel()[len(metrics) :]:
            spare.remove()
        axes = grid.ravel()[: len(metrics)]
    given = np.asarray(axes, dtype=object).ravel()
    require(
        len(given) == len(metrics),
        "axes",
        f"hold one Axes for each of the {len(metrics)} measures",
        f"there were {len(given)}",
    )
    t, layers = np.asarray(data["time"].values, float), data.sizes["layer"]
    first = float(t[t > 0].min())
    for metric, ax in zip(metrics, given, strict=True):
        single(ax)
        of = data.sel(metric=metric)
        for layer in range(1, layers + 1):
            values = of["trained"].sel(layer=layer).transpose("seed", "time").values
            ax.plot(
                t, np.median(values, axis=0), label=f"layer {layer}",
                **layer_line(layer, layers, len(t)),
            )  # fmt: skip
            if len(values) > 1:
                band = {"color": layer_colour(layer, layers), "linewidth": 0, "alpha": 0.2}
                ax.fill_between(t, values.min(axis=0), values.max(axis=0), **band)
        inputs = float(np.median(of["inputs"].values))
        best = float(of["random"].max(["scale", "layer"]).median("seed"))
        ax.axhline(inputs, color=INK, linewidth=1.2, linestyle=(0, (5, 2)), label="inputs")
        ax.axhline(best, color=GREY, linewidth=1.4, linestyle=":", label="best untrained")
        ax.set_xscale("symlog", linthresh=first, linscale=0.4)
        ax.set_xlim(0, t.max())
        ticks = LogLocator(subs=(1, 2, 5)).tick_values(first, t.max())
        ax.set_xticks([0, *(tick for tick in ticks if first <= tick <= t.max())])
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
        ax.set_ylabel(_TEXT.get(metric, metric))
        if not own or ax.get_subplotspec().is_last_row():
            ax.set_xlabel(TIME)
    legend_below(given, own=own)
    return given
