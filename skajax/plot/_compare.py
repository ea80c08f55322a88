"""Runs against runs: step sizes on one time axis, errors against the step, ensembles of seeds."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from skajax._checks import require
from skajax._types import ArrayLike, Float
from skajax.plot._axes import (
    TIME,
    AxesArray,
    AxesLike,
    label,
    layer_key,
    legend_below,
    legend_beside,
    name_panels,
    named,
    panels,
    single,
    zero_line,
)
from skajax.plot._read import SIGNED, batch, check_observable, one_run, series, step_size, times
from skajax.plot._style import GREY, STEPS, layer_colour, layer_line
from skajax.trajectory import Trajectory

Numbers: TypeAlias = Sequence[float] | Float[ArrayLike, " _"]
"""A list of numbers, or an array of one axis."""


def comparison(
    runs: Mapping[str, Trajectory],
    observable: str = "entropy_rate",
    *,
    reference: Trajectory | None = None,
    axes: AxesLike | None = None,
) -> AxesArray:
    """An observable against time, one panel a layer and one curve a run: figures 1 and 2.

    Figure 1 is the entropy rate, bits per time (the paper shows it times Δt, per step, which puts
    runs with other steps on other scales); figure 2 is ``observable="alignment"``. ``runs`` maps
    labels, such as "η = 0.01, K = 50", to runs. Colours go by step size, the finest the darkest;
    ``reference``, the solution of the ODE, is dashed in black.

    Returns the axes, one a layer. Raises ValueError for no runs, for runs with different numbers
    of layers, and for what is no observable of a layer.
    """
    check_observable(observable)
    require(len(runs) > 0, "runs", "hold at least one run", "it was empty")
    drawn = {name: one_run(run, f"runs[{name!r}]") for name, run in runs.items()}
    everyone = list(drawn.values())
    if reference is not None:
        reference = one_run(reference, "reference")
        everyone.append(reference)
    counts = sorted({run.entropy.shape[-1] for run in everyone})
    require(len(counts) == 1, "runs", "have equally many layers", f"they had {counts}")

    colours = _colours_by_step(drawn)
    own = axes is None
    axes = panels(axes, counts[0])
    for column, ax in enumerate(axes):
        if observable in SIGNED:
            zero_line(ax)
        for name, run in drawn.items():
            t, values = times(run), series(run, observable)[:, column]
            dot = "o" if len(t) == 1 else ""
            ax.plot(t, values, label=name, color=colours[name], linewidth=1.4, marker=dot)
        if reference is not None:
            t, values = times(reference), series(reference, observable)[:, column]
            style = {"color": "black", "linewidth": 1.3, "linestyle": (0, (3.5, 2)), "zorder": 4}
            ax.plot(t, values, label="ODE limit", **style)
        ax.margins(x=0.02)
    name_panels(axes, TIME, label(observable, narrow=True), outer=own)
    legend_below(axes, own=own)
    return axes


def _colours_by_step(runs: Mapping[str, Trajectory]) -> dict[str, tuple[float, ...]]:
    # By rank, because the published steps crowd together on every simple scale.
    def step(name: str) -> float:
        t = times(runs[name])
        return step_size(runs[name]) or (t[-1] - t[0]) / len(t)

    ranked = sorted(runs, key=step)
    return {name: STEPS(rank / max(len(ranked) - 1, 1)) for rank, name in enumerate(ranked)}


def ensemble(runs: Trajectory, observable: str = "flow_norm", *, ax: Axes | None = None) -> Axes:
    """What many runs have in common: each layer's median over the runs, and two quantile bands.

    Bands from 25 to 75 % and, fainter, from 5 to 95 % of the runs, at each time, of an observable
    in its own unit. ``runs`` is a batch with one axis in front, such as a ``jax.vmap`` over seeds.
    A run that failed counts up to its failure, and the legend says how many there were.
    """
    check_observable(observable)
    t, values = batch(runs, observable)
    lanes, records, layers = values.shape
    ax = single(ax)
    if observable in SIGNED:
        zero_line(ax)
    for layer, lines in enumerate(_quantiles(values).transpose(2, 0, 1), 1):
        outer_low, low, median, high, outer_high = lines
        band = {"color": layer_colour(layer, layers), "linewidth": 0, "zorder": 2}
        ax.fill_between(t, outer_low, outer_high, alpha=0.16, **band)
        ax.fill_between(t, low, high, alpha=0.28, **band)
        style = layer_line(layer, layers, records)
        ax.plot(t, median, label=f"layer {layer}", zorder=3, **style)
    ax.margins(x=0.02)
    ax.set(xlabel=TIME, ylabel=label(observable))
    failed = int((~np.asarray(runs.outcome.completed)).sum())
    runs_in_all = f"{lanes} runs, {failed} failed" if failed else f"{lanes} runs"
    bands = [
        Patch(color=GREY, alpha=0.8, linewidth=0, label=f"25–75 % of\n{runs_in_all}"),
        Patch(color=GREY, alpha=0.4, linewidth=0, label="5–95 %"),
    ]
    layer_key(ax, layers, also=bands)
    return ax


def _quantiles(
    values: Float[np.ndarray, "lanes times layers"],
) -> Float[np.ndarray, "5 times layers"]:
    finite = np.isfinite(values)
    known = finite.any(axis=0)
    found = np.full((5, *known.shape), np.nan)
    some = np.where(finite, values, np.nan)[:, known]
    found[:, known] = np.nanquantile(some, (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
    return found


def convergence(dts: Numbers, errors: Mapping[str, Numbers], *, ax: Axes | None = None) -> Axes:
    """Errors against the time step Δt, both on logarithmic scales, with a line of first order.

    ``errors`` maps labels, such as "layer 1", to relative distances from the ODE's solution, one
    for each of ``dts``; NaN where a run failed. Curves parallel to the dashed line, error ∝ Δt,
    converge with order 1.
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
            curve.shape == steps.shape and bool((np.isnan(curve) | (curve > 0)).all()),
            f"errors[{name!r}]",
            f"hold a positive error, or NaN, for each of the {len(steps)} steps",
            f"it was {curve}",
        )
    ax = single(ax, size=(5.4, 3.9))
    ax.set(xscale="log", yscale="log")
    order = np.argsort(steps)
    for place, (name, curve) in enumerate(curves.items(), 1):
        style = layer_line(place, len(curves))
        style |= {"marker": "osD^vPXh"[(place - 1) % 8], "markersize": 4.5}
        ax.plot(steps[order], curve[order], label=name, **style)
    ratios = np.concatenate([curve / steps for curve in curves.values()])
    ratios = ratios[np.isfinite(ratios)]
    if ratios.size:
        ends = np.array([steps.min(), steps.max()])
        guide = 1.6 * ratios.max() * ends  # clear of the curves, above them
        style = {"color": GREY, "linewidth": 1.2, "linestyle": (0, (3.5, 2)), "zorder": 1}
        ax.plot(ends, guide, label=r"first order, $\propto \Delta t$", **style)
    ax.grid(axis="x", color="0.9", linewidth=0.7)
    ax.set(xlabel=r"time step $\Delta t$", ylabel="relative error")
    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        if high < 1000 * low:  # with few powers of ten in sight, numbers between them help
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    legend_beside(ax, named(ax))
    return ax
