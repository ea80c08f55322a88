"""A worked example of differentiating a run: initial scales for which all layers' flows peak at once.

A layer's flow peaks when its knowledge saturates, and the smaller its initial weights, the later that
is: by 1 / λ for each factor e, where λ is the rate at which its knowledge grows while it is small. The
peaks' times are smooth functions of the logarithms of the scales, for as long as each flow has one
hump, and Newton's method on them needs only their derivatives: those of an adaptive solve's records.
But a layer moves with those below it, too: ẋ W may raise a second hump, and the peak jumps from one
to the other, over times that no scale reaches.
"""

from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx

from skajax._checks import as_array, is_traced, is_whole, require, require_positive
from skajax._simulate import simulate
from skajax._types import (
    Array,
    Bool,
    Count,
    Inputs,
    Int,
    LayerSeries,
    PerLayer,
    Scalar,
    ScalarLike,
    TimeSeries,
    Weights,
)
from skajax.methods import Adaptive
from skajax.network import Network, check_inputs, check_weights
from skajax.trajectory import Trajectory

__all__ = ["PeakTimes", "Synchronisation", "peak_times", "synchronise"]

SYNCHRONISED, NO_PEAK, APART = range(3)

_REACH = 2
"""Records on each side of a peak's that the quartic goes through."""


class PeakTimes(NamedTuple):
    """When each layer's flow peaks, and whether that is inside the run."""

    t: PerLayer
    inside: Bool[Array, " layers"]


def peak_times(run: Trajectory) -> PeakTimes:
    """When ‖Φ^(l)‖ is largest: d‖Φ‖/dt = 0 on the quartic through five evenly spaced records.

    The peaks of :func:`skajax.landmarks.peaks`, but differentiable, and inside jit and vmap: of one run
    with at least five evenly spaced records. The error is of fourth order in their spacing. A layer
    whose largest flow is at one of the two first or last records has ``inside`` False; its time is
    that record's, and has no derivative.
    """
    require(
        run.flow_norm.ndim == 2 and len(run.flow_norm) > 2 * _REACH,
        "run",
        f"be one run of at least {2 * _REACH + 1} records",
        f"its flow_norm has the shape {run.flow_norm.shape}",
    )
    last = len(run.flow_norm) - 1
    best = jnp.argmax(run.flow_norm, axis=0)
    inside = (best >= _REACH) & (best <= last - _REACH) & jnp.isfinite(run.flow_norm).all(axis=0)
    middle = jnp.where(inside, best, _REACH)
    around = middle[None, :] + jnp.arange(-_REACH, _REACH + 1)[:, None]
    a, b, c, d, e = jnp.take_along_axis(run.flow_norm, around, axis=0)

    # Central differences are the quartic's derivatives, in units of the spacing.
    first = (a - 8 * b + 8 * d - e) / 12
    second = (-a + 16 * b - 30 * c + 16 * d - e) / 12
    third = (-a + 2 * b - 2 * d + e) / 2
    fourth = a - 4 * b + 6 * c - 4 * d + e
    inside &= second < 0
    second = jnp.where(inside, second, -1)
    offset = -first / second  # the parabola's vertex, whence Newton's method
    for _ in range(2):
        slope = first + offset * (second + offset * (third / 2 + offset * fourth / 6))
        offset -= slope / (second + offset * (third + offset * fourth / 2))
    spacing = (run.t[-1] - run.t[0]) / last
    return PeakTimes(jnp.where(inside, run.t[middle] + offset * spacing, run.t[best]), inside)


class Synchronisation(eqx.Module):
    """What :func:`synchronise` found: the scales, the peaks' times before and after, and whether it is so.

    Under ``jax.vmap`` every array has the mapped axes in front.
    """

    factors: LayerSeries
    """What each layer's W was multiplied by: ``Dense(scale=s)`` becomes ``Dense(scale=factor * s)``."""
    weights: Weights
    """The initial weights so scaled."""
    at: TimeSeries
    """The time at which the flows were to peak."""
    before: LayerSeries
    """When each layer's flow peaks, from the weights that were given."""
    after: LayerSeries
    """When it peaks from the scaled ones."""
    tried: Count
    """Scales that were tried, of all layers; each costs a run and its derivative along one scale."""
    code: Count
    layer: Count
    """The layer (1..L) that has no peak, or is farthest from the time; 0 where all is well."""

    @property
    def succeeded(self) -> Bool[Array, "*lanes"]:
        """Whether every peak is where it was to be."""
        return jnp.asarray(self.code == SYNCHRONISED)

    @property
    def spread_before(self) -> TimeSeries:
        """The time from the first layer's peak to the last's, from the weights that were given."""
        return jnp.ptp(self.before, axis=-1)

    @property
    def spread(self) -> TimeSeries:
        """The same from the scaled weights."""
        return jnp.ptp(self.after, axis=-1)

    def __str__(self) -> str:
        """What happened, and what to try; of one result, and outside of jit and vmap."""
        if is_traced(self.code) or jnp.ndim(self.code):
            return f"Synchronisation(code={self.code})"
        layer, at = int(self.layer), f"t = {float(self.at):.6g}"
        if self.code == SYNCHRONISED:
            return (
                f"synchronised: all flows peak at {at}, within {float(self.spread):.2g} of each other"
                f" (before: {float(self.spread_before):.2g})"
            )
        if self.code == NO_PEAK:
            return (
                f"not tried: layer {layer}'s flow has no peak inside the run, from the weights given."
                " Try a larger t1 where it still rises at the end, smaller weights where it only falls"
            )
        return (
            f"not synchronised: the nearest found has layer {layer}'s peak at"
            f" t = {float(self.after[layer - 1]):.6g} instead of {at}."
            " Perhaps no scale of its makes it: the peak may jump over that time. Try another time, other"
            " weights, or more records and max_steps"
        )


def synchronise(
    network: Network,
    weights: Weights,
    x: Inputs,
    t1: ScalarLike,
    *,
    at: ScalarLike | None = None,
    records: int = 101,
    rtol: ScalarLike = 1e-5,
    tolerance: ScalarLike = 1e-3,
    max_steps: int = 32,
) -> Synchronisation:
    """The initial scale of each layer for which all layers' flows peak at the same time.

        minimise Σ_l (t_l(s) - at)² over s,    t_l(s) = argmax_t ‖Φ^(l)(t)‖ from W^(l)(0) = e^{s_l} W₀^(l),

    along the flow dW/dt = -∇H (eq. 2, 32) up to t1. Layer by layer from the first, because no layer feels
    those above it: each is one scale and one residual, by the method of Levenberg and Marquardt. The
    derivative ∂t_l/∂s_l is that of :func:`peak_times` through an adaptive solve, by Diffrax's forward mode.

    Main arguments: a network, the initial weights whose W is scaled (biases stay), one batch of inputs,
    and a time t1 by which every flow has peaked, from the start on.

    - ``at``: where the flows are to peak; the mean of the peaks' times to begin with, unless given.
    - ``records``: the peaks are found among so many, evenly spaced in [0, t1]: ten or more in a hump.
    - ``rtol``: the solver's relative tolerance; the absolute one is a hundredth of it.
    - ``tolerance``: how far a peak may be from ``at``, relative to it.
    - ``max_steps``: how many scales may be tried for each layer.

    Returns a :class:`Synchronisation`. That a layer has no peak, or cannot be made to peak at ``at``, is
    no error: the result says so, in words as ``str(result)``. Works inside jit (network, records and
    max_steps static) and vmap.

    Raises ValueError for arguments that do not fit: their names, what they must be, what they were.

    >>> found = ska.study.synchronise(network, weights, x, t1=9.0)  # doctest: +SKIP
    >>> run = ska.simulate(network, found.weights, x, ska.Adaptive(), t1=9.0)  # doctest: +SKIP
    """
    require(isinstance(network, Network), "network", "be a Network", f"it was {network!r}")
    x = as_array("x", x)
    check_inputs(x)
    weights = jax.tree.map(lambda leaf: as_array("weights", leaf), weights)
    check_weights(network, weights, x)
    require_positive("t1", t1, "an end time")
    if at is not None:
        require_positive("at", at, "a time")
        require(
            is_traced(at, t1) or bool(at < t1), "at", f"lie inside (0, t1 = {t1})", f"it was {at!r}"
        )
    _require_count("records", records, 2 * _REACH + 1)
    _require_count("max_steps", max_steps, 1)
    require_positive("rtol", rtol, "a relative tolerance")
    require_positive("tolerance", tolerance, "a relative tolerance")

    t1, rtol, tolerance = (jnp.asarray(number, x.dtype) for number in (t1, rtol, tolerance))
    problem = _Problem(network, weights, x, t1, rtol, records)
    zero = jnp.zeros(len(network.layers), x.dtype)
    before, inside = _peaks(problem, zero)
    goal = before.mean() if at is None else jnp.asarray(at, x.dtype)
    logs, tried = _tune(problem, zero, goal, tolerance, inside.all(), max_steps)
    after, _ = _peaks(problem, logs)

    distance = jnp.abs(after - goal)
    near = (distance <= tolerance * goal).all()
    code = jnp.select([~inside.all(), near], [NO_PEAK, SYNCHRONISED], APART)
    worst = jnp.where(inside.all(), jnp.argmax(distance), jnp.argmin(inside)) + 1
    return Synchronisation(
        factors=jnp.exp(logs),
        weights=_scaled(weights, logs),
        at=goal,
        before=before,
        after=after,
        tried=tried,
        code=code,
        layer=jnp.where(code == SYNCHRONISED, 0, worst),
    )


class _Problem(NamedTuple):
    network: Network
    weights: Weights
    x: Array
    t1: Scalar
    rtol: Scalar
    records: int


def _scaled(weights: Weights, logs: PerLayer) -> Weights:
    scale = lambda entry, s: eqx.tree_at(lambda w: w.W, entry, jnp.exp(s) * entry.W)
    return tuple(scale(entry, s) for entry, s in zip(weights, logs, strict=True))


@eqx.filter_jit
def _peaks(problem: _Problem, logs: PerLayer) -> PeakTimes:
    network, weights, x, t1, rtol, records = problem
    method = Adaptive(rtol=rtol, atol=rtol / 100, adjoint=diffrax.ForwardMode())
    times = jnp.linspace(0, t1, records, dtype=t1.dtype)
    start, seen = _scaled(weights, logs), ("flow_norm",)
    return peak_times(simulate(network, start, x, method, t1, save_at=times, observe=seen))


@eqx.filter_jit
def _tune(
    problem: _Problem,
    start: PerLayer,
    goal: Scalar,
    tolerance: Scalar,
    possible: Bool[Array, ""],
    max_steps: int,
) -> tuple[PerLayer, Int[Array, ""]]:
    """The logarithms of the scales, and how many were tried; the start's where it is not possible."""

    def tune(logs: PerLayer, layer: Int[Array, ""]) -> tuple[PerLayer, Int[Array, ""]]:
        def residual(log: Scalar, _: Any) -> Scalar:
            # In units of the tolerance, beside which the damping that the solver begins with is small.
            return (_peaks(problem, logs.at[layer].set(log)).t[layer] - goal) / (tolerance * goal)

        solver = optx.LevenbergMarquardt(rtol=1e-3, atol=0.1)  # changes of a tenth of the tolerance
        found = optx.least_squares(residual, solver, logs[layer], max_steps=max_steps, throw=False)
        return logs.at[layer].set(found.value), jnp.asarray(found.stats["num_steps"])

    def solve() -> tuple[PerLayer, Int[Array, ""]]:
        logs, tried = jax.lax.scan(tune, start, jnp.arange(len(start)))
        return logs, tried.sum()

    return jax.lax.cond(possible, solve, lambda: (start, jnp.asarray(0)))


def _require_count(name: str, value: object, least: int) -> None:
    require(
        is_whole(value, least), name, f"be a whole number, at least {least}", f"it was {value!r}"
    )
