"""Errors against their cost: what each solver pays for being exact."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from skajax._checks import require
from skajax.observables import BY_NAME, DIAGNOSTICS
from skajax.plot._axes import legend_beside, named, single
from skajax.plot._style import INK, layer_colour

if TYPE_CHECKING:
    import xarray

_COSTS = {
    "evaluations": "evaluations of the flow",
    "seconds": "seconds",
    "steps": "steps",
}
_MARKERS = "osD^vPXh"


def work_precision(
    data: "xarray.Dataset",
    *,
    cost: str = "evaluations",
    error: str = "weights",
    ax: Axes | None = None,
) -> Axes:
    """Relative error against cost, both on logarithmic scales, one curve a solver.

    ``data`` is what ``skajax.study.work_precision`` returns, with one end time and one scale
    chosen: ``data.sel(T=0.5, scale=1)``. Full lines are adaptive steps, dashed ones with hollow marks
    constant steps of the solver with the same colour; where the data hold both precisions, float64
    is drawn pale. ``cost`` is "evaluations", "seconds" or "steps"; ``error`` is "weights" or the name
    of an observable.

    Returns the axes. Raises ValueError for more than one end time or scale, and unknown names.

    >>> data = ska.study.work_precision(network, weights, x, t1=[0.5])  # doctest: +SKIP
    >>> ax = ska.plot.work_precision(data.sel(T=0.5, scale=1))  # doctest: +SKIP
    """
    require(cost in _COSTS, "cost", f"be one of {list(_COSTS)}", f"it was {cost!r}")
    require(
        error == "weights" or error in DIAGNOSTICS,
        "error",
        f"be 'weights' or one of {list(DIAGNOSTICS)}",
        f"it was {error!r}",
    )
    for name in ("scale", "T"):
        sizes = data.sizes.get(name, 1)
        require(sizes == 1, "data", f"have one {name} (data.sel({name}=...))", f"it has {sizes}")
        if name in data.dims:
            data = data.isel({name: 0})
    if "precision" not in data.dims:
        data = data.expand_dims("precision")
    if error == "weights":
        errors = data["error"]
    else:
        require("observable_error" in data, "data", "hold observables", "it was made without")
        errors = data["observable_error"].sel(observable=error)

    ax = single(ax)
    ax.set(xscale="log", yscale="log")
    names = [str(label).removesuffix(", fixed") for label in data["solver"].values]
    places = {name: place for place, name in enumerate(dict.fromkeys(names), 1)}
    precisions = [str(p) for p in data["precision"].values]
    for precision in sorted(precisions):  # float32 first: its curves are named
        pale = precision != min(precisions)
        for label, name in zip(data["solver"].values, names, strict=True):
            at = {"solver": label, "precision": precision}
            paid, left = data[cost].sel(at).values, errors.sel(at).values
            known = np.isfinite(paid) & (left > 0)
            order = np.argsort(paid[known])
            style = _style(places[name], len(places), str(data["kind"].sel(solver=label).item()))
            style |= {"alpha": 0.35, "zorder": 1.5} if pale else {"label": str(label)}
            ax.plot(paid[known][order], left[known][order], **style)
    ax.grid(axis="x", color="0.9", linewidth=0.7)
    low, high = ax.get_xlim()
    if high < 1000 * low:  # with few powers of ten in sight, numbers between them help
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
    what = "weights" if error == "weights" else BY_NAME[error].label
    ax.set(xlabel=_COSTS[cost], ylabel=f"relative error, {what}")
    handles = named(ax)
    if len(precisions) > 1:
        handles = [*handles, Line2D([], [], color=INK, alpha=0.35, label="pale: float64")]
    legend_beside(ax, handles)
    return ax


def _style(place: int, places: int, kind: str) -> dict[str, Any]:
    colour, fixed = layer_colour(place, places), kind == "fixed"
    return {
        "color": colour,
        "linestyle": (0, (3.5, 2)) if fixed else "-",
        "linewidth": 1.2 if fixed else 1.6,
        "marker": _MARKERS[(place - 1) % len(_MARKERS)],
        "markersize": 4.5,
        "markerfacecolor": "white" if fixed else colour,
    }
