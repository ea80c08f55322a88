"""The flow by Diffrax's solvers: what is asked of them, and what it comes to."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
import numpy as np

from skajax._checks import as_array, as_number, is_traced, is_whole, require, require_positive
from skajax._memory import available_bytes, host_bytes, in_words, tree_bytes
from skajax._messages import tell_once
from skajax._numbers import as_arrays
from skajax._types import SaveTimes, Scalar, ScalarLike, TimeSeries, Weights
from skajax.methods._counting import Count
from skajax.methods._fixed import Look, look_of
from skajax.methods._integrate import (
    CHUNK,
    Integrator,
    step_curve,
    stepping,
    watch_from,
)
from skajax.methods._integration import Integration
from skajax.methods._method import (
    WATCHED,
    AbstractMethod,
    Evolution,
    Path,
    Request,
    Resume,
    Stats,
    blanked,
    end_state,
    finite_flow,
    finite_layers,
)
from skajax.methods._ode import pi_controller
from skajax.methods._outcome import Code, Outcome
from skajax.methods._solvers import check_solver
from skajax.methods._stopping import stopping
from skajax.observables import Observable, Observables, needs_start, observe
from skajax.stop import check_ahead, replay, same_rule
from skajax.system import Instant, System, growth_bound

SAVES = 101
"""Instants recorded, evenly spaced with both ends, where the caller names none."""


class Adaptive(AbstractMethod):
    """The flow dW/dt = -∇H, integrated by any Diffrax solver with adaptive steps (eq. 2, 32).

    Each step's local error is kept below atol + rtol |W|, in the root mean square over all weights;
    give ``rtol`` and ``atol`` (default 1e-4 and 1e-6) to Diffrax's PI controller, or a whole
    ``controller``, such as ``diffrax.PIDController(rtol, atol)`` or ``diffrax.ConstantStepSize()`` with
    a ``dt0``. ``dt0`` is the first step's size; None takes that of the linear regime, 8 rtol^(1/p) / λ,
    for a solver of order p and λ, a bound on all growth rates: of dense sigmoid layers
    (max(mean ‖x‖², n_l / 4) + 1) / (4 ln 2), else by eight differences of the flow.
    ``max_steps`` bounds the steps, rejected ones included. ``adjoint`` is how Diffrax differentiates
    the solve: ``diffrax.RecursiveCheckpointAdjoint()`` unless given, or ``BacksolveAdjoint()``, both in
    reverse (``jax.grad``); ``ForwardMode()``, forward (``jax.jvp``); ``DirectAdjoint()``, both.

    ``simulate`` takes t1, and save times in [0, t1]: records there are evaluated on the solver's
    interpolant, with the exact tangents ż and Ḋ. Without save times: 101, evenly spaced. Between steps
    an interpolant may have a lower order than the steps have: that of Dopri8 is off by some 16 times the
    tolerance at rtol=1e-12; records at the solver's own steps (``save_at="steps"``) are not.

    >>> run = ska.simulate(network, weights, x, ska.Adaptive(rtol=1e-4), t1=6.0)
    >>> str(run.outcome)
    'completed: reached t = 6'
    """

    solver: diffrax.AbstractSolver[Any]
    controller: diffrax.AbstractStepSizeController[Any, Any]
    dt0: ScalarLike | None
    max_steps: int = eqx.field(static=True)
    adjoint: diffrax.AbstractAdjoint

    rotates: ClassVar[bool] = True

    def __init__(
        self,
        solver: diffrax.AbstractSolver[Any] | None = None,
        *,
        rtol: ScalarLike | None = None,
        atol: ScalarLike | None = None,
        controller: diffrax.AbstractStepSizeController[Any, Any] | None = None,
        dt0: ScalarLike | None = None,
        max_steps: int = 4096,
        adjoint: diffrax.AbstractAdjoint | None = None,
    ) -> None:
        """See the class; every argument is checked here."""
        self.solver = diffrax.Tsit5() if solver is None else _owned("solver", solver)
        if controller is None:
            rtol, atol = 1e-4 if rtol is None else rtol, 1e-6 if atol is None else atol
            rtol = require_positive("rtol", rtol, "a relative tolerance")
            atol = require_positive("atol", atol, "an absolute tolerance")
            controller = pi_controller(rtol, atol)
        else:
            require(
                rtol is None and atol is None,
                "controller",
                "be given without rtol and atol, which it holds itself",
                f"they were rtol={rtol!r} and atol={atol!r}",
            )
        check_solver(self.solver, controller)
        self.controller = controller = _owned("controller", controller)
        tolerances = [getattr(controller, name, 1.0) for name in ("rtol", "atol")]
        if not is_traced(tolerances):
            require(
                all(isinstance(number, float) for number in tolerances)
                and min(tolerances) >= 0
                and max(tolerances) > 0,
                "controller",
                "have tolerances that are not negative, and not both 0",
                f"they were rtol={tolerances[0]!r} and atol={tolerances[1]!r}",
            )
        if dt0 is not None:
            dt0 = require_positive("dt0", dt0, "a first step size")
        elif isinstance(controller, diffrax.ConstantStepSize):
            require(False, "dt0", "be given with constant steps", "it was None")
        self.dt0 = dt0
        require(
            is_whole(max_steps),
            "max_steps",
            "be a whole number, at least 1",
            f"it was {max_steps!r}",
        )
        self.max_steps = int(max_steps)
        self.adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
        require(
            isinstance(self.adjoint, diffrax.AbstractAdjoint)
            and not isinstance(self.adjoint, diffrax.ImplicitAdjoint),
            "adjoint",
            "be one of Diffrax's adjoints through time, such as diffrax.RecursiveCheckpointAdjoint()"
            " (ImplicitAdjoint is for steady states)",
            lambda: f"it was {adjoint!r}",
        )

    @property
    def name(self) -> str:
        """The method, its solver and controller."""
        return f"Adaptive({type(self.solver).__name__}, {type(self.controller).__name__})"

    def check(self, request: Request, dtype: Any) -> Scalar:
        """The end time; raises ValueError where what is asked for does not fit."""
        t1, steps = request.t1, request.steps
        require(steps is None, "steps", "be left out with Adaptive", "the controller chooses them")
        require(t1 is not None, "t1", "be given with Adaptive", "it was None")
        require_positive("t1", t1, "an end time")
        return end_time(t1, dtype)

    def evolve(self, system: System, weights: Weights, request: Request) -> Evolution:
        """Integrate to t1, observing at the save times."""
        t1 = self.check(request, system.dtype)
        method = as_arrays(self, system.dtype)
        self._check_memory(weights)
        if is_traced(method, system, weights, t1, request.save_at):
            for name, value, unset in (
                ("checkpoint", request.checkpoint, None),
                ("dense", request.dense, False),
            ):
                require(
                    value == unset, name, f"be {unset} with Adaptive inside jit", f"it was {value}"
                )
            ts = save_times(request.save_at, t1)
            look = look_of(request, system)
            return integrate_inside(method, system, weights, t1, ts, look)
        self._check_dense(request.dense, weights)
        return self._integrate(system, weights, request, t1, None)

    def proceed(self, run: Evolution, request: Request) -> Evolution:
        """Integrate on, with the steps of a run that had never stopped."""
        assert run.resume is not None and run.path is not None
        t1, end = self.check(request, run.t.dtype), float(run.final.t)
        require(float(t1) > end, "t1", f"lie beyond the run's end, {end:.8g}", f"it was {t1}")
        steps_to = isinstance(self.controller, diffrax.StepTo)
        require(not steps_to, "run", "have steps left", "StepTo has made all that it was given")
        if not isinstance(request.save_at, str):
            first = float(np.asarray(save_times(request.save_at, t1))[0])
            beyond = f"lie beyond the run's end, {end:.8g}"
            require(first > end, "save_at", beyond, f"it began with {first:.8g}")
        return self._integrate(run.resume.system, None, request, t1, run)

    def first_step(self, system: System, weights: Weights | None, t1: Scalar) -> Scalar | None:
        """``dt0``; unless given, the linear regime's time, shortened for the tolerance.

        Without weights, about that.
        """
        if isinstance(self.controller, diffrax.StepTo):
            return None  # it has the first step, as all others
        if self.dt0 is not None:
            return jnp.asarray(self.dt0, t1.dtype)
        rate = growth_bound(system, weights)
        order = self.solver.order(diffrax.ODETerm(lambda t, y, args: y)) or 1
        rtol = jnp.asarray(getattr(self.controller, "rtol", 1e-4), t1.dtype)
        return 8 * rtol ** (1 / order) / rate

    def interpolant(self, system: System) -> Callable[[Scalar, Scalar, Weights], Any]:
        """What gives the interpolant of a step: from its start's and end's times, and its first weights."""
        method = as_arrays(self, system.dtype)
        blind = Look((), (), None)
        integrator = Integrator(system, method.solver, method.controller, self.max_steps, blind)
        return partial(step_curve, integrator)

    def _integrate(
        self,
        system: System,
        weights: Weights | None,
        request: Request,
        t1: Scalar,
        run: Evolution | None,
    ) -> Evolution:
        method = as_arrays(self, system.dtype)
        saves = "steps" if _is(request.save_at, "steps") else "times"
        integrator = Integrator(
            system, method.solver, method.controller, self.max_steps, look_of(request, system),
            saves=saves, dense=request.dense,
        )  # fmt: skip
        end: Any = np.asarray(t1)[()]
        ts = np.asarray(t1[None] if saves == "steps" else save_times(request.save_at, t1))
        spacing = _spacing(ts) if saves == "times" else 0.0
        carry, before, since = None, None, 0.0
        if run is not None:
            assert run.resume is not None
            before = run.resume
            spacing = before.spacing or spacing
            watch = None
            if same_rule(request.until, before.rule):
                watch = before.watch
            elif request.until is not None:
                check_ahead(request.until, run.t, run.records)
                memory = replay(integrator.rule, run.t, run.records, before.records)
                since = float(run.final.t)
                watch = watch_from(integrator, before.carry, memory)
            if saves == "times" and before.saves == "times":
                # What was recorded in the step that will be made again is recorded again.
                ts = np.append(np.asarray(run.t)[before.records :], ts)
            carry = before.carry._replace(watch=watch)
        saved = request.checkpoint is not None
        identity = _identity(integrator, weights, carry, request, ts) if saved else None
        integration = Integration(
            integrator, weights, dt0=_first_step(method, system, weights, t1), t1=end, ts=ts, name=self.name,
            checkpoint=request.checkpoint, identity=identity,
            carry=carry, since=since,
        )  # fmt: skip
        resume, records, accepted = integration.run()
        evolution = _evolution(integration, self, request, resume, records, accepted, spacing, run)
        if int(evolution.outcome.code) == Code.DIVERGED and weights is not None:
            # The weights may be finite still where what is observed of them is not.
            last = evolution.t[-1] if len(evolution.t) else jnp.zeros_like(t1)
            if last < evolution.final.t:
                outcome = eqx.tree_at(lambda o: o.t, evolution.outcome, last)
                final = end_state(system, weights, last)
                if last > 0:
                    again = Request(last, save_at="end", observe=())
                    final = self._integrate(system, weights, again, last, None).final
                evolution = evolution._replace(final=final, outcome=outcome)
        return evolution

    def _check_memory(self, weights: Weights) -> None:
        """Refuse an implicit solver whose Jacobian cannot be held."""
        if not isinstance(self.solver, diffrax.AbstractImplicitSolver):
            return
        linear = getattr(self.solver.root_finder, "linear_solver", None)
        size, there = sum(leaf.size for leaf in jax.tree.leaves(weights)), available_bytes()
        # The Jacobian and its factors.
        needed = 2 * size**2 * jax.tree.leaves(weights)[0].dtype.itemsize
        require(
            there is None or needed <= there or not isinstance(linear, lineax.AutoLinearSolver),
            "solver",
            "be explicit for a network of this size, or have a root finder whose linear solver needs"
            " no Jacobian (diffrax.VeryChord(..., linear_solver=lineax.GMRES(rtol, atol)))",
            f"the Jacobian of {type(self.solver).__name__} for {size} weights and its factors take"
            f" {in_words(needed)}, and there are {in_words(there or 0)}",
        )

    def _check_dense(self, dense: bool, weights: Weights) -> None:
        """Say what a dense run keeps; refuse what cannot be kept."""
        if not dense:
            return
        one_step = isinstance(self.solver, diffrax.AbstractRungeKutta | diffrax.Euler)
        require(
            one_step,
            "dense",
            "be False, or the solver one whose steps need nothing from before (Runge-Kutta)",
            f"it was {type(self.solver).__name__}",
        )
        each, there = tree_bytes(weights), host_bytes()
        least = 2 * CHUNK * each
        tell_once(f"skajax: dense=True keeps the weights of every step, {in_words(each)} each")
        require(
            there is None or least <= there,
            "dense",
            "be False, or the network smaller, or the precision float32",
            f"the weights of {CHUNK} steps take {in_words(least)}, of {in_words(there or 0)}",
        )


def _owned(argument: str, tree: Any) -> Any:
    """A solver or controller with numbers of Python's, and arrays that the caller cannot write to."""

    def convert(leaf: Any) -> Any:
        if isinstance(leaf, diffrax.PIDController):
            return jax.tree.map(as_number, leaf)
        if isinstance(leaf, np.ndarray) and leaf.ndim:
            return as_array(argument, leaf)
        return leaf if isinstance(leaf, int) else as_number(leaf)  # a count, or a switch

    return jax.tree.map(convert, tree, is_leaf=lambda leaf: isinstance(leaf, diffrax.PIDController))


@eqx.filter_jit
def _first_step(
    method: Adaptive, system: System, weights: Weights | None, t1: Scalar
) -> Scalar | None:
    # What goes on has its next step already.
    return None if weights is None else method.first_step(system, weights, t1)


def _identity(
    integrator: Integrator, weights: Any, carry: Any, request: Request, ts: np.ndarray
) -> Any:
    """What a run's course depends on: not its end, nor how many steps it may take to get there."""
    patient = eqx.tree_at(lambda i: i.max_steps, integrator, 0)
    saves = request.save_at if isinstance(request.save_at, str) else ts
    return patient, weights, carry, saves


def _spacing(ts: np.ndarray) -> float:
    """How far apart save times were to be, at the end: what going on goes on with."""
    if len(ts) == 1:
        return 0.0
    even = float(ts[-1] - ts[0]) / (len(ts) - 1)
    return even if np.allclose(np.diff(ts), even, rtol=1e-2) else float(ts[-1] - ts[-2])


def end_time(t1: ScalarLike | None, dtype: Any) -> Scalar:
    """t1 in this precision, if it can hold it."""
    return as_arrays({"t1": as_number(t1)}, dtype)["t1"]


def _evolution(
    integration: Integration,
    method: Adaptive,
    request: Request,
    resume: Any,
    recorded: int,
    accepted: int,
    spacing: float,
    run: Evolution | None,
) -> Evolution:
    """What an integration comes to, behind the run that it went on from."""
    carry, system = integration.carry, integration.integrator.system
    pieces, status, layer = integration.pieces, integration.status, integration.layer
    t, records, tried = pieces.t, pieces.records, pieces.tried
    steps, kept, tried_before = pieces.steps, pieces.weights, tried[:1]
    # In NumPy, for which another number of records is nothing to compile.
    watched = [np.asarray(records[name]) for name in WATCHED if name in records]
    finite: Any = np.isfinite(watched).all(axis=0)
    if watched and not finite.all():
        good = int(np.argmin(finite.all(axis=1)))
        status, layer = Code.DIVERGED, int(np.argmin(finite[good])) + 1
        t, records = jax.tree.map(lambda a: a[:good], (t, records))
    rejected = np.diff(tried, prepend=tried_before) - 1
    if run is not None:
        assert run.path is not None and run.resume is not None
        old, k = run.path, run.resume.accepted
        r = run.resume.records
        rejected = np.diff(tried, prepend=np.asarray(run.resume.carry.tried)) - 1
        join = lambda a, n, b: np.concatenate([np.asarray(a)[:n], np.asarray(b)])
        t, records = jax.tree.map(lambda a, b: join(a, r, b), (run.t, run.records), (t, records))
        steps = join(old.t, k, steps)
        rejected = join(old.rejected, k - 1, rejected)
        kept = jax.tree.map(lambda a, b: join(a, k, b), old.weights, kept)
        recorded, accepted = recorded + r, accepted + k
    else:
        rejected = rejected[1:]
    t, records, steps, rejected = jax.device_put((t, records, steps, rejected))
    refused = np.asarray(carry.tried) - np.asarray(carry.accepted)
    failed = status not in (Code.COMPLETED, Code.STOPPED)
    saves = request.save_at if isinstance(request.save_at, str) else "times"
    return Evolution(
        t,
        records,
        end_state(system, carry.weights, carry.t),
        Stats(integration.evaluations, carry.tried, jax.device_put(refused)),
        Outcome(
            jnp.asarray(status), carry.t, carry.tried,
            jnp.asarray(integration.stop.layer if status == Code.STOPPED else layer),
            jnp.asarray(integration.stop.rule if status == Code.STOPPED else -1),
        ),
        Path(steps, rejected, kept),
        Resume(
            method, system, None if failed else resume._replace(watch=None),
            records=recorded, accepted=accepted, saves=saves, spacing=spacing,
            rule=request.until, watch=resume.watch,
        ),
    )  # fmt: skip


def save_times(save_at: SaveTimes | str | None, t1: Scalar) -> TimeSeries:
    """The times to record at: increasing, within [0, t1]."""
    if save_at is None:
        return jnp.linspace(0, t1, SAVES, dtype=t1.dtype)
    if _is(save_at, "end"):
        return t1[None]
    require(
        not isinstance(save_at, str),
        "save_at",
        "be times, 'steps' (every accepted step; not inside jit) or 'end'",
        f"it was {save_at!r}",
    )
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


def _is(save_at: object, kind: str) -> bool:
    return isinstance(save_at, str) and save_at == kind


def _excerpt(times: np.ndarray) -> str:
    return np.array2string(times, threshold=6, edgeitems=3)


def integrate_inside(
    method: Adaptive, system: System, weights: Weights, t1: Scalar, ts: TimeSeries, look: Look
) -> Evolution:
    """The whole run as one program, for where values are not known."""
    if look.rule is None:
        return solve(method, system, weights, t1, ts, look.observe)
    integrator = Integrator(system, method.solver, method.controller, method.max_steps, look)
    return stopping(integrator, weights, t1, ts, method.first_step(system, weights, t1))


@eqx.filter_jit
def solve(
    method: Adaptive,
    system: System,
    weights: Weights,
    t1: Scalar,
    ts: TimeSeries,
    observables: tuple[Observable, ...],
) -> Evolution:
    """One call of Diffrax's, for where values are not known: inside jit, vmap and grad."""
    before = system.trace(0 * t1, weights).Z if needs_start(observables) else None
    solver, controller = stepping(system, method.solver, method.controller)

    def record(t: Any, weights: Weights, system: System) -> Observables:
        return observe(observables, Instant(system, t, weights, before=before))

    # The adjoint that solves backwards saves nothing but weights; what is observed comes after it.
    after = isinstance(method.adjoint, diffrax.BacksolveAdjoint)
    if after:
        saveat = diffrax.SaveAt(ts=jnp.append(ts, t1))
    else:
        subs = [diffrax.SubSaveAt(ts=ts, fn=record), diffrax.SubSaveAt(t1=True)]
        saveat = diffrax.SaveAt(subs=subs, controller_state=True)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, weights, system: system.flow(t, weights)),
        solver,
        t0=jnp.zeros_like(t1),
        t1=t1,
        dt0=jax.lax.stop_gradient(method.first_step(system, weights, t1)),
        y0=weights,
        args=system,
        saveat=saveat,
        stepsize_controller=controller,
        adjoint=method.adjoint,
        max_steps=method.max_steps,
        throw=False,
    )
    assert solution.ts is not None and solution.ys is not None  # both were asked for
    if after:
        t, t_end = solution.ts[:-1], solution.ts[-1]
        rows, end = (jax.tree.map(lambda w, r=r: w[r], solution.ys) for r in (slice(-1), -1))
        records = jax.lax.map(lambda row: record(row[0], row[1], system), (t, rows))
    else:
        (t, (t_end,)), (records, end) = solution.ts, solution.ys
        end = jax.tree.map(lambda w: w[0], end)
    saved = jnp.isfinite(t)  # what a solve that ended early has not saved, Diffrax sets to inf
    layers = finite_layers(records, jnp.zeros((len(ts), len(system.network.rows)), t.dtype))
    good = jnp.cumprod(saved & layers.all(axis=-1)).astype(bool)
    t, records = blanked(good, t, records)
    final = system.state(t_end, end)

    finite = (layers | ~saved[:, None]).all(axis=0)
    finite &= finite_flow(system, t_end, end)
    code = jnp.select(
        [
            ~finite.all(),
            solution.result == diffrax.RESULTS.successful,
            solution.result == diffrax.RESULTS.max_steps_reached,
            solution.result == diffrax.RESULTS.dt_min_reached,
        ],
        [Code.DIVERGED, Code.COMPLETED, Code.MAX_STEPS, Code.STEP_TOO_SMALL],
        Code.SOLVER_FAILED,
    )
    count: Any = solution.controller_state
    evaluations = count.evaluations if isinstance(count, Count) else None
    layer = jnp.where(finite.all(), 0, jnp.argmin(finite) + 1)
    steps, rejected = solution.stats["num_steps"], solution.stats["num_rejected_steps"]
    return Evolution(
        t,
        records,
        final,
        Stats(evaluations, steps, rejected),
        Outcome(code, jnp.where(finite.all(), t_end, jnp.nanmax(t, initial=0)), steps, layer),
    )
