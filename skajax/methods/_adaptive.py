"""Diffrax's solvers. The only module that knows of Diffrax."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import as_array, is_traced, require, require_positive
from skajax._types import Array, Inputs, SaveTimes, Scalar, ScalarLike, TimeSeries, Weights
from skajax.flow import flow, state
from skajax.methods._counting import Counting, counted
from skajax.methods._method import (
    COMPLETED,
    DIVERGED,
    MAX_STEPS,
    SOLVER_FAILED,
    STEP_TOO_SMALL,
    Evolution,
    Method,
    Outcome,
    Stats,
    as_arrays,
    finite_layers,
)
from skajax.network import Network
from skajax.observables import Observables, net_potential, observe_along

SAVES = 101
"""Instants recorded, evenly spaced with both ends, where the caller names none."""


class Adaptive(Method):
    """The flow dW/dt = -∇H, integrated by any Diffrax solver with adaptive steps (eq. 2, 32).

    Each step's local error is kept below atol + rtol |W|, in the root mean square over all weights;
    give ``rtol`` and ``atol`` (default 1e-4 and 1e-6), or a whole ``controller``, such as
    ``diffrax.PIDController(rtol, atol, pcoeff=0.3, icoeff=0.4)`` or ``diffrax.ConstantStepSize()``
    with a ``dt0``. ``dt0`` is the first step's size; None leaves it to Diffrax.
    ``max_steps`` bounds the steps, rejected ones included. ``adjoint`` is how Diffrax differentiates
    the solve, under ``jax.grad`` and the like: ``diffrax.RecursiveCheckpointAdjoint()`` unless given.

    ``simulate`` takes t1, and save times in [0, t1]: records there are evaluated on the solver's
    interpolant, with the exact tangents ż and Ḋ. Without save times: 101, evenly spaced.
    """

    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController
    dt0: ScalarLike | None
    max_steps: int = eqx.field(static=True)
    adjoint: diffrax.AbstractAdjoint

    def __init__(
        self,
        solver: diffrax.AbstractSolver | None = None,
        *,
        rtol: ScalarLike | None = None,
        atol: ScalarLike | None = None,
        controller: diffrax.AbstractStepSizeController | None = None,
        dt0: ScalarLike | None = None,
        max_steps: int = 4096,
        adjoint: diffrax.AbstractAdjoint | None = None,
    ) -> None:
        """See the class; every argument is checked here."""
        self.solver = diffrax.Tsit5() if solver is None else solver
        require(
            isinstance(self.solver, diffrax.AbstractSolver),
            "solver",
            "be a Diffrax solver, such as diffrax.Tsit5()",
            f"it was {solver!r}",
        )
        if controller is None:
            rtol, atol = 1e-4 if rtol is None else rtol, 1e-6 if atol is None else atol
            require_positive("rtol", rtol, "a relative tolerance")
            require_positive("atol", atol, "an absolute tolerance")
            controller = diffrax.PIDController(rtol=rtol, atol=atol)
        else:
            require(
                rtol is None and atol is None,
                "controller",
                "be given without rtol and atol, which it holds itself",
                f"they were rtol={rtol!r} and atol={atol!r}",
            )
        require(
            isinstance(controller, diffrax.AbstractStepSizeController),
            "controller",
            "be a Diffrax step-size controller, such as diffrax.PIDController(rtol, atol)",
            f"it was {controller!r}",
        )
        adapts = isinstance(controller, diffrax.AbstractAdaptiveStepSizeController)
        require(
            not adapts or isinstance(self.solver, diffrax.AbstractAdaptiveSolver),
            "controller",
            "be diffrax.ConstantStepSize(), with a dt0, for a solver that estimates no error",
            f"it was {type(controller).__name__} for {type(self.solver).__name__}",
        )
        self.controller = controller
        if dt0 is not None:
            require_positive("dt0", dt0, "a first step size")
        elif isinstance(controller, diffrax.ConstantStepSize):
            require(False, "dt0", "be given with constant steps", "it was None")
        self.dt0 = dt0
        require(
            isinstance(max_steps, int) and not isinstance(max_steps, bool) and max_steps >= 1,
            "max_steps",
            "be a whole number, at least 1",
            f"it was {max_steps!r}",
        )
        self.max_steps = max_steps
        self.adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
        require(
            isinstance(self.adjoint, diffrax.AbstractAdjoint),
            "adjoint",
            "be one of Diffrax's adjoints, such as diffrax.RecursiveCheckpointAdjoint()",
            f"it was {adjoint!r}",
        )

    @property
    def name(self) -> str:
        """The method, its solver and controller."""
        return f"Adaptive({type(self.solver).__name__}, {type(self.controller).__name__})"

    def evolve(
        self,
        network: Network,
        weights: Weights,
        x: Inputs,
        *,
        t1: ScalarLike | None,
        steps: int | None,
        save_at: SaveTimes | None,
    ) -> Evolution:
        """Integrate to t1, observing at the save times."""
        require(steps is None, "steps", "be left out with Adaptive", "the controller chooses them")
        require(t1 is not None, "t1", "be given with Adaptive", "it was None")
        require_positive("t1", t1, "an end time")
        t1 = jnp.asarray(t1, x.dtype)
        ts = _save_times(save_at, t1)
        method = as_arrays(self, x.dtype)
        evolution = _solve(method, network, weights, x, t1, ts)
        if is_traced(evolution):
            return evolution
        kept = int(np.isfinite(evolution.t).sum())
        t, records = jax.tree.map(
            lambda a: jax.device_put(np.asarray(a)[:kept]), (evolution.t, evolution.records)
        )
        final, outcome = evolution.final, evolution.outcome
        if outcome.code == DIVERGED:
            # Accepted steps may already have overflowed: go back to the last finite record.
            last = t[-1] if kept else jnp.zeros_like(t1)
            until = _solve(method, network, weights, x, last, jnp.minimum(ts, last))
            final = until.final
            outcome = eqx.tree_at(lambda o: (o.t, o.step), outcome, (last, until.stats.steps))
        return evolution._replace(t=t, records=records, final=final, outcome=outcome)


def _save_times(save_at: SaveTimes | None, t1: Scalar) -> TimeSeries:
    """The times to record at: increasing, within [0, t1]."""
    if save_at is None:
        return jnp.linspace(0, t1, SAVES, dtype=t1.dtype)
    ts = as_array("save_at", save_at).astype(t1.dtype)
    require(
        ts.ndim == 1 and ts.size >= 1,
        "save_at",
        "be a sequence of at least one time",
        f"its shape was {ts.shape}",
    )
    if is_traced(ts, t1):
        return ts
    times, end = np.asarray(ts), float(t1)
    require(bool(np.all(np.diff(times) > 0)), "save_at", "increase", f"it was {_excerpt(times)}")
    require(
        bool(times[0] >= 0 and times[-1] <= end),
        "save_at",
        f"lie within [0, t1] = [0, {end:.8g}]",
        f"it was {_excerpt(times)}",
    )
    return ts


def _excerpt(times: np.ndarray) -> str:
    return np.array2string(times, threshold=6, edgeitems=3)


@eqx.filter_jit
def _solve(
    method: Adaptive, network: Network, weights: Weights, x: Inputs, t1: Scalar, ts: TimeSeries
) -> Evolution:
    def field(t: Any, weights: Weights, x: Inputs) -> Weights:
        return flow(network, weights, x)

    def record(t: Any, weights: Weights, x: Inputs) -> Observables:
        return observe_along(network, weights, flow(network, weights, x), x, origin)

    origin = net_potential(*network.forward(weights, x))
    controller = counted(method.controller, method.solver)
    at_times = diffrax.SubSaveAt(ts=ts, fn=record)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        method.solver,
        t0=jnp.zeros_like(t1),
        t1=t1,
        dt0=method.dt0,
        y0=weights,
        args=x,
        saveat=diffrax.SaveAt(subs=[at_times, diffrax.SubSaveAt(t1=True)], controller_state=True),
        stepsize_controller=controller,
        adjoint=method.adjoint,
        max_steps=method.max_steps,
        throw=False,
    )
    assert solution.ts is not None and solution.ys is not None  # both were asked for
    (t, (t_end,)), (records, end) = solution.ts, solution.ys
    saved = jnp.isfinite(t)  # what a solve that ended early has not saved, Diffrax sets to inf
    layers = finite_layers(records)
    good = jnp.cumprod(saved & layers.all(axis=-1)).astype(bool)
    t, records = jax.tree.map(
        lambda a: jnp.where(good.reshape(-1, *[1] * (a.ndim - 1)), a, jnp.nan), (t, records)
    )
    final = state(network, jax.tree.map(lambda w: w[0], end), x, t_end)

    finite = (layers | ~saved[:, None]).all(axis=0)
    finite &= jnp.stack([_is_finite(rate) for rate in flow(network, final.weights, x)])
    code = jnp.select(
        [
            ~finite.all(),
            solution.result == diffrax.RESULTS.successful,
            solution.result == diffrax.RESULTS.max_steps_reached,
            solution.result == diffrax.RESULTS.dt_min_reached,
        ],
        [DIVERGED, COMPLETED, MAX_STEPS, STEP_TOO_SMALL],
        SOLVER_FAILED,
    )
    count: Any = solution.controller_state
    evaluations = count.evaluations if isinstance(controller, Counting) else None
    layer = jnp.where(finite.all(), 0, jnp.argmin(finite) + 1)
    steps, rejected = solution.stats["num_steps"], solution.stats["num_rejected_steps"]
    return Evolution(
        t,
        records,
        final,
        Stats(evaluations, steps, rejected),
        Outcome(code, jnp.where(finite.all(), t_end, jnp.nanmax(t, initial=0)), steps, layer),
    )


def _is_finite(tree: Weights) -> Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
