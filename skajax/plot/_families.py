"""Families of networks side by side: when the knowledge of their layers flows."""

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from skajax._checks import require
from skajax.plot._axes import AxesArray, AxesLike, legend_below, single
from skajax.plot._ensemble import Curves, band_key, draw
from skajax.plot._style import layer_line

if TYPE_CHECKING:
    import xarray


def families(data: "xarray.Dataset", *, axes: AxesLike | None = None) -> AxesArray:
    """‖Φ‖ of each layer over its highest, against time: one panel a family, with bands over the seeds.

    ``data`` is what ``skajax.study.families`` returns. Each run's flow is divided by the highest of its
    layer, because layers differ a hundredfold in it, and the question is when. Lines are medians over the
    seeds, and the bands reach from 25 to 75 % and, fainter, from 5 to 95 %. Time is logarithmic, and has the
    same range in all panels.

    Returns the axes, one a family. Raises ValueError for axes that are not one for each.

    >>> axes = ska.plot.families(ska.study.families(seeds=[0], quick=True))  # doctest: +SKIP
    """
    names = [str(name) for name in data["family"].values]
    layers = data.sizes["layer"]
    own = axes is None
    if axes is None:
        columns = min(len(names), 3)
        rows = -(-len(names) // columns)
        size = (3.35 * columns, 2.45 * rows + 0.45)
        figure, grid = plt.subplots(
            rows, columns, figsize=size, layout="constrained", squeeze=False
        )
        for spare in grid.flat[len(names) :]:
            figure.delaxes(spare)
        axes = grid.ravel()[: len(names)]
    panels = np.asarray(axes, dtype=object).ravel()
    require(
        len(panels) == len(names),
        "axes",
        f"hold one Axes for each of the {len(names)} families",
        f"there were {len(panels)}",
    )
    times = data["t"].values[..., 1:]  # t = 0 has no place on a logarithmic axis
    drawn = []
    for index, (name, ax) in enumerate(zip(names, panels, strict=True)):
        single(ax)
        one = data.sel(family=name).transpose("seed", "record", "layer", ...)
        t, each = one["t"].values[0], one["flow"].values.astype(float)
        flows = np.stack([_shares(t, *run) for run in zip(one["t"].values, each, strict=True)])
        for layer in range(1, layers + 1):
            style = layer_line(layer, layers)
            draw(ax, t[1:], flows[:, 1:, layer - 1], label=f"layer {layer}", **style)
        drawn.append(Curves(t, flows, 0, None))
        ax.set_title(name, loc="left", fontsize="medium", fontweight="bold")
        ax.set(xscale="log", xlim=(times.min(), times.max()))
        ax.set_ylim(0, 1.05)
        ax.set_xlabel("time $t$")
        if index % 3 == 0 or not own:
            ax.set_ylabel("flow over its highest")
    legend_below(panels, own=own, also=band_key(*drawn))
    return panels


def _shares(t: np.ndarray, own: np.ndarray, flows: np.ndarray) -> np.ndarray:
    """A run's flows over their highest, at times t of another run; NaN where it has ended."""
    columns = [np.interp(t, own, flow / flow.max(), right=np.nan) for flow in flows.T]
    return np.stack(columns, axis=-1)
