"""Rules of learning side by side."""

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from skajax._checks import require
from skajax.plot._axes import AxesArray, AxesLike, legend_below, single
from skajax.plot._style import GREY, INK, layer_colour, layer_line

if TYPE_CHECKING:
    import xarray

_ROWS = (
    ("flow", "knowledge flow\nover its largest"),
    ("cosine", "cosine with the\ngradient flow"),
    ("probe", "linear probe\naccuracy"),
    ("fisher", "Fisher ratio\nbetween / within"),
)


def rules(data: "xarray.Dataset", *, axes: AxesLike | None = None) -> AxesArray:
    """Knowledge flow, cosine with the gradient flow, probe and Fisher ratio over time: a column a rule.

    ``data`` is what ``skajax.study.rules`` returns. Time is a part of each rule's own horizon, which
    stands below, logarithmic but for the beginning. Curves are medians over the seeds, in bands from the
    least to the largest; black dashed lines are of the images themselves.

    Returns the axes (4, rules). Raises ValueError for other data.

    >>> axes = ska.plot.rules(ska.study.rules(quick=True))  # doctest: +SKIP
    """
    missing = {"flow_norm", "cosine", "probe", "fisher"} - set(data.data_vars)
    require(
        not missing, "data", "be what skajax.study.rules returns", f"it lacked {sorted(missing)}"
    )
    names, layers = data["rule"].values, data.sizes["layer"]
    shape = (len(_ROWS), len(names))
    own = axes is None
    if own:
        size = (1.75 * shape[1] + 0.9, 1.7 * shape[0] + 0.7)
        _, axes = plt.subplots(
            *shape, figsize=size, layout="constrained", squeeze=False, sharex=True, sharey="row"
        )
    grid = np.asarray(axes, dtype=object)
    require(grid.shape == shape, "axes", f"have the shape {shape}", f"it was {grid.shape}")
    for ax, (_, text) in zip(grid[:, 0], _ROWS, strict=True):
        ax.set_ylabel(text)
    for column, name in zip(grid.T, names, strict=True):
        of = data.sel(rule=name)
        flows = of["flow_norm"] / of["flow_norm"].max("time")
        values = {"flow": flows, **{key: of[key] for key in ("cosine", "probe", "fisher")}}
        for ax, (key, _) in zip(column, _ROWS, strict=True):
            single(ax)
            there = values[key]
            dim = "look" if "look" in there.dims else "time"
            t = there[dim].values
            for layer in range(1, layers + 1):
                curves = there.sel(layer=layer).transpose("seed", dim).values
                ax.plot(
                    t, np.median(curves, axis=0), label=f"layer {layer}",
                    **layer_line(layer, layers, len(t)),
                )  # fmt: skip
                if len(curves) > 1:
                    band = {"color": layer_colour(layer, layers), "linewidth": 0, "alpha": 0.2}
                    ax.fill_between(t, curves.min(axis=0), curves.max(axis=0), **band)
            if f"inputs_{key}" in data:
                ax.axhline(
                    float(data[f"inputs_{key}"]), color=INK, linewidth=1.0, linestyle=(0, (5, 2)),
                    label="images",
                )  # fmt: skip
            if key == "cosine":
                ax.axhline(0, color=GREY, linewidth=0.8)
            ax.set_xscale("symlog", linthresh=float(data["time"][1]), linscale=0.4)
            ax.set_xlim(0, 1)
            ax.set_xticks([0, 0.01, 1], ["0", "0.01", "1"])
        column[0].set_title(str(of["text"].item()), fontsize="small", loc="left")
        column[-1].set_xlabel(f"$t$ / {of['horizon'].item():g}")
    legend_below(grid.ravel(), own=own)
    return grid
