"""Errors against the time step: how fast runs come to the continuous limit."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from skajax._checks import require
from skajax._types import ArrayLike, Float
from skajax.observables import BY_NAME
from skajax.plot._axes import legend_beside, named, single
from skajax.plot._ensemble import Curves, band_key, draw
from skajax.plot._style import GREY, INK, layer_line

if TYPE_CHECKING:
    import xarray

Numbers: TypeAlias = Sequence[float] | Float[ArrayLike, "..."]
"""A list of numbers, or an array."""


def convergence(dts: Numbers, errors: Mapping[str, Numbers], *, ax: Axes | None = None) -> Axes:
    """Errors against the time step Δt, both on logarithmic scales, with a line of first order.

    ``errors`` maps labels, such as "layer 1", to relative distances from the ODE's solution, one
    for each of ``dts``, or of many runs, (runs, dts), drawn as their median and quantile bands; NaN
    where a run failed. Curves parallel to the dashed line, error ∝ Δt, converge with order 1.

    >>> ax = ska.plot.convergence([0.1, 0.05, 0.025], {"layer 1": [0.2, 0.1, 0.05]})
    """
    steps = np.asarray(dts, float)
    require(
        steps.ndim == 1 and len(steps) > 0 and bool((np.isfinite(steps) & (steps > 0)).all()),
        "dts",
        "hold time steps, positive and finite",
        f"it was {steps}",
    )
    require(len(errors) > 0, "errors", "hold at least one curve", "it was empty")
    curves = {name: np.asarray(error, float) for name, error in errors.items()}
    for name, curve in curves.items():
        require(
            curve.shape[-1:] == steps.shape
            and curve.ndim <= 2
            and bool((np.isnan(curve) | (curve > 0)).all()),
            f"errors[{name!r}]",
            f"hold a positive error, or NaN, for each of the {len(steps)} steps",
            f"it was {curve}",
        )
    many = {name: np.atleast_2d(curve) for name, curve in curves.items()}
    ax = single(ax, size=(5.4, 3.9))
    ax.set(xscale="log", yscale="log")
    order = np.argsort(steps)
    for place, (name, curve) in enumerate(many.items(), 1):
        style = layer_line(place, len(curves))
        style |= {"marker": "osD^vPXh"[(place - 1) % 8], "markersize": 4.5}
        draw(ax, steps[order], curve[:, order], label=name, **style)
    ratios = np.concatenate([np.ravel(curve / steps) for curve in many.values()])
    ratios = ratios[np.isfinite(ratios)]
    if ratios.size:
        ends = np.array([steps.min(), steps.max()])
        guide = 1.6 * ratios.max() * ends  # clear of the curves, above them
        name = r"first order, $\propto \Delta t$"
        dashes = (0, (3.5, 2))
        ax.plot(ends, guide, color=GREY, linewidth=1.2, linestyle=dashes, zorder=1, label=name)
    ax.grid(axis="x", color="0.9", linewidth=0.7)
    ax.set(xlabel=r"time step $\Delta t$", ylabel="relative error")
    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        if high < 1000 * low:  # with few powers of ten in sight, numbers between them help
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    drawn = [Curves(steps, curve[..., None], 0, None) for curve in many.values()]
    legend_beside(ax, [*named(ax), *band_key(*drawn)])
    return ax


def invariance(
    data: "xarray.Dataset",
    observable: str = "entropy_rate",
    *,
    norm: str = "l2",
    ax: Axes | None = None,
) -> Axes:
    """The error of an observable against the step, one curve a layer; a line for the accuracy asked for.

    ``data`` is what ``skajax.study.invariance`` returns, with one rule chosen: ``data.sel(rule="Euler")``.
    Over several seeds the median, and bands from 25 to 75 % and 5 to 95 % of them. Returns the axes.
    Raises ValueError for more than one rule, and unknown names.

    >>> found = ska.study.invariance(network, weights, x, pairs=[(0.05, 5), (0.025, 10)])  # doctest: +SKIP
    >>> ax = ska.plot.invariance(found.sel(rule="Euler"))  # doctest: +SKIP
    """
    require(
        {"error", "dt", "K", "accuracy"} <= set(data.variables),
        "data",
        "be what skajax.study.invariance returns",
        f"it holds {sorted(map(str, data.variables))}",
    )
    rules = data["rule"].values.ravel().tolist()
    require(len(rules) == 1, "data", "have one rule (data.sel(rule=...))", f"it has {rules}")
    for name, value in (("observable", observable), ("norm", norm)):
        there = data[name].values.tolist()
        require(value in there, name, f"be one of {there}", f"it was {value!r}")
    case = data.squeeze("rule") if "rule" in data.dims else data
    errors = case["error"].sel(observable=observable, norm=norm).transpose("layer", "seed", "pair")
    curves = {
        f"layer {layer}": np.where(values > 0, values, np.nan)
        for layer, values in zip(data["layer"].values, errors.values, strict=True)
        if np.isfinite(values).any()
    }
    require(len(curves) > 0, "data", f"have an error of {observable}", "all runs failed")
    ax = convergence(data["dt"].values, curves, ax=ax)
    accuracy = data["accuracy"].item()
    ax.axhline(accuracy, color=INK, linewidth=0.9, linestyle=":", zorder=1)
    text = ax.text(1, accuracy, f"{100 * accuracy:g} %", color=INK, fontsize="small")
    text.set(transform=ax.get_yaxis_transform(), ha="right", va="bottom")
    ax.set(title=str(rules[0]), ylabel=f"relative error, {BY_NAME[observable].label}")
    return ax
