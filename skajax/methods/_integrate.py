"""Steps of Diffrax's solvers and controllers, made by hand: a compiled loop that begins and ends anywhere.

``diffrax.diffeqsolve`` owns its loop, and what it hands back is the end. Here a loop makes so many steps at
the most, records, asks a stop rule about each, and hands back where it stands.
"""

from typing import Any, Literal, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from skajax._types import Array, Bool, Int, PerLayer, Scalar, Tensors, TimeSeries, Weights
from skajax.methods._counting import Count, counted
from skajax.methods._examine import Past, examine, first_past
from skajax.methods._fixed import Look
from skajax.methods._lifted import Jumping, Lifted
from skajax.methods._method import written
from skajax.methods._outcome import Code
from skajax.methods._solvers import FROM_CONTROLLER, Controller, Solver
from skajax.observables import Observable, Observables, needs_start, observe
from skajax.stop import Rule, Seen, Verdict
from skajax.system import Instant, System, square

CHUNK = 32
"""Accepted steps of one compiled chunk."""

Saves = Literal["times", "steps"]


class Integrator(eqx.Module):
    """What steps: a system, and Diffrax's solver and controller for it."""

    system: System
    solver: Solver
    controller: Controller
    max_steps: Array
    look: Look
    saves: Saves = eqx.field(static=True)
    dense: bool = eqx.field(static=True)

    def __init__(
        self,
        system: System,
        solver: Solver,
        controller: Controller,
        max_steps: int,
        look: Look,
        *,
        saves: Saves = "times",
        dense: bool = False,
    ) -> None:
        """See :func:`stepping`."""
        self.system, self.look, self.saves, self.dense = system, look, saves, dense
        self.solver, controller = stepping(system, solver, controller)
        self.controller = controller.wrap(1)
        self.max_steps = jnp.asarray(max_steps)

    @property
    def order(self) -> Any:
        """Of the solver's error estimate."""
        return self.solver.error_order(self.term)

    @property
    def term(self) -> diffrax.ODETerm[Any]:
        """The flow, as Diffrax asks for it."""
        return diffrax.ODETerm(lambda t, weights, system: system.flow(t, weights))

    @property
    def rule(self) -> Rule | None:
        """The stop rule."""
        return self.look.rule

    def without_rule(self) -> "Integrator":
        """The same, that nothing but its end will end."""
        return eqx.tree_at(lambda i: i.look, self, self.look.blind())

    def observe(self, t: Scalar, weights: Weights, before: Tensors | None) -> Observables:
        """What is recorded at one instant."""
        return _observed(self.look.observe, self.system, t, weights, before)

    def read(self, t: Scalar, weights: Weights, before: Tensors | None) -> Observables:
        """What the rule needs at one instant."""
        assert self.rule is not None
        return observe(self.rule.needs(), Instant(self.system, t, weights, before=before))


@eqx.filter_jit
def _observed(
    observables: tuple[Observable, ...],
    system: System,
    t: Scalar,
    weights: Weights,
    before: Tensors | None,
) -> Observables:
    # Jitted, so that it is traced once: for the shapes, at the start and in the loop.
    return observe(observables, Instant(system, t, weights, before=before))


class Carry(NamedTuple):
    """Where an integration stands: behind an accepted step, about to try the next one."""

    t: Scalar
    t_next: Scalar
    weights: Weights
    solver: Any
    controller: Any
    jumped: Bool[Array, ""]
    before: Tensors | None
    """The knowledge at the run's start, if an observable compares with it."""
    accepted: Int[Array, ""]
    tried: Int[Array, ""]
    error: Scalar
    watch: tuple[Any, Past] | None
    """What the rule remembers, and its last readings."""


class Pieces(NamedTuple):
    """What was recorded, in order."""

    t: TimeSeries
    records: Observables
    steps: TimeSeries
    """Where each accepted step ended, ..."""
    tried: Int[Array, " steps"]
    """... after how many that were tried, ..."""
    weights: Any
    """... and, if it is to be dense, with what weights."""


class Leg(NamedTuple):
    """What one chunk hands back."""

    carry: Carry
    status: Int[Array, ""]
    layer: Int[Array, ""]
    """Whose weights overflowed, if it came to that."""
    evaluations: Any
    stop: Verdict
    stop_t: Scalar
    """Since when the rule holds, if it does; the step in which that is is not carried."""
    made: Int[Array, ""]
    saved: Int[Array, ""]
    buffers: Pieces


@eqx.filter_jit
def begin(
    integrator: Integrator, weights: Weights, t1: Scalar, dt0: Any
) -> tuple[Carry, Pieces, Verdict | None]:
    """What is carried into the first step, the record of the start, and what the rule says there."""
    system, solver, term = integrator.system, integrator.solver, integrator.term
    look = integrator.look
    t0 = jnp.zeros_like(t1)
    before = system.trace(t0, weights).Z if needs_start(look.watched) else None
    # Steps must not know of the end, so that it can be put off.
    end = t1 if dt0 is None else jnp.full_like(t1, jnp.inf)
    t_next, controller = integrator.controller.init(
        term, t0, end, weights, dt0, system, solver.func, integrator.order
    )
    if integrator.rule is None and integrator.saves != "steps":  # then nobody looks
        shapes = jax.eval_shape(lambda: integrator.observe(t0, weights, before))
        records = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    else:
        records = integrator.observe(t0, weights, before)
    watch = verdict = None
    if integrator.rule is not None:
        memory = integrator.rule.start(len(system.network.rows), t1.dtype)
        seen = integrator.read(t0, weights, before)
        memory, verdict = integrator.rule.look(memory, Seen(t0, seen, jnp.zeros_like(t0)))
        watch = memory, first_past(t0, seen)
    zero = jnp.zeros((), int)  # not weakly typed: the loop's own results must not compile it again
    carry = Carry(
        t0, jnp.asarray(t_next, t1.dtype), weights,
        solver.init(term, t0, t_next, weights, system), controller, jnp.zeros((), bool), before,
        zero, zero, jnp.zeros_like(t1), watch,
    )  # fmt: skip
    one = lambda tree: jax.tree.map(lambda a: a[None], tree)
    kept = one(weights) if integrator.dense else None
    first = Pieces(t0[None], one(records), t0[None], jnp.zeros(1, int), kept)
    return jax.tree.map(_strong, carry), first, verdict


@eqx.filter_jit
def watch_from(integrator: Integrator, carry: Carry, memory: Any) -> tuple[Any, Past]:
    """What a rule has seen that goes on from here, with what it remembers."""
    seen = integrator.read(carry.t, carry.weights, carry.before)
    return memory, first_past(carry.t, seen)


def _strong(leaf: Any) -> Any:
    return lax.convert_element_type(leaf, leaf.dtype) if eqx.is_array(leaf) else jnp.asarray(leaf)


class _Tried(NamedTuple):
    """What one step came to, kept or not."""

    t_next: Scalar
    """Where it ends."""
    weights: Weights
    """There."""
    error: Any
    """Of the weights, as the solver estimates it; None if it does not."""
    curve: diffrax.AbstractLocalInterpolation
    """The weights within it."""
    solver: Any
    """The solver's state behind it."""
    t: Scalar
    """Where the next one begins, ..."""
    proposed: Scalar
    """... and ends."""
    jumped: Bool[Array, ""]
    controller: Any
    """The controller's state behind it."""
    kept: Bool[Array, ""]
    """Whether it was accepted, and is finite."""
    sizes: PerLayer
    """Of each layer, the sum of its squared weights."""
    status: Int[Array, ""]


def _try(integrator: Integrator, c: Carry, end: Scalar, cut: Bool[Array, ""]) -> _Tried:
    """The next step, made and judged by the controller."""
    system, solver, term = integrator.system, integrator.solver, integrator.term
    near = 100 * jnp.finfo(end.dtype).eps * jnp.abs(end)
    t_next = jnp.where(cut & (c.t_next > end - near), end, c.t_next)
    weights, error, dense, solver_state, solved = solver.step(
        term, c.t, t_next, c.weights, system, c.solver, c.jumped
    )
    # A step that left the numbers' range has no error to speak of: it is infinitely large.
    error = jax.tree.map(lambda e: jnp.where(jnp.isnan(e), jnp.inf, e), error)
    accepted, t, proposed, jumped, controller, controlled = integrator.controller.adapt_step_size(
        c.t, t_next, c.weights, weights, system, error, integrator.order, c.controller
    )
    sizes = system.squares(weights)
    finite = jnp.isfinite(sizes).all()  # the weights, and their norms
    kept = jnp.asarray(accepted) & finite
    status = jnp.select(
        [
            accepted & ~finite,
            accepted & (solved != diffrax.RESULTS.successful),
            (controlled != diffrax.RESULTS.successful) | ((proposed <= t) & (t < end)),
            (c.tried + 1 >= integrator.max_steps) & ~(cut & kept & (t >= end)),
        ],
        [Code.DIVERGED, Code.SOLVER_FAILED, Code.STEP_TOO_SMALL, Code.MAX_STEPS],
        Code.RUNNING,
    )
    curve = solver.interpolation_cls(t0=c.t, t1=t_next, **dense)
    return _Tried(
        t_next, weights, error, curve, solver_state, jnp.asarray(t), jnp.asarray(proposed),
        jnp.asarray(jumped), controller, kept, sizes, status,
    )  # fmt: skip


def _examined(
    integrator: Integrator, c: Carry, tried: _Tried, spent: Scalar, since: Scalar
) -> tuple[tuple[Any, Past], Verdict, Scalar]:
    """What the rule remembers behind a step, what it says, and since when that holds."""
    assert c.watch is not None and integrator.rule is not None
    rule, t_next = integrator.rule, tried.t_next
    memory, past = c.watch
    # A step from a jump begins on it, a few roundings after the end of the one before.
    past = past._replace(t=past.t.at[-1].set(c.t))
    read = lambda time: integrator.read(time, tried.curve.evaluate(time), c.before)

    def examined(w: Weights) -> Any:
        seen = integrator.read(t_next, w, c.before)
        return examine(rule, memory, read, past, t_next, seen, (c.error, spent), since, c.jumped)

    unexamined = lambda _: (memory, past, _no_verdict(), t_next)
    asked = tried.kept & jnp.isfinite(since)
    memory, past, stop, stop_t = lax.cond(asked, examined, unexamined, tried.weights)
    return (memory, past), stop, stop_t


def _recorded(
    integrator: Integrator, c: Carry, tried: _Tried, keep: Bool[Array, ""], leg: Leg, ts: TimeSeries
) -> tuple[Int[Array, ""], Array, Observables]:
    """How many records there are, and the buffers of times and records, behind a step."""
    times, records = leg.buffers.t, leg.buffers.records
    if integrator.saves == "steps":
        here = jax.tree.map(lambda b: jnp.zeros_like(b[0]), records)
        observed = lambda w: integrator.observe(tried.t, w, c.before)
        here = lax.cond(keep, observed, lambda w: here, tried.weights)
        return leg.saved, *written((times, records), leg.made, (tried.t, here))

    def due(loop: Any) -> Bool[Array, ""]:
        return keep & (ts[loop[0]] <= tried.t)

    def save(loop: Any) -> Any:
        n, times, records = loop
        # Inputs may jump between the step's end and the next one's start.
        at = tried.curve.evaluate(jnp.minimum(ts[n], tried.t_next))
        here = integrator.observe(ts[n], at, c.before)
        return n + 1, *written((times, records), n, (ts[n], here))

    return lax.while_loop(due, save, (leg.saved, times, records))


@eqx.filter_jit
def advance(
    integrator: Integrator,
    carry: Carry,
    ts: TimeSeries,
    saved: Int[Array, ""],
    end: Scalar,
    cut: Bool[Array, ""],
    since: Scalar,
    limit: int | None = CHUNK,
) -> Leg:
    """At most ``limit`` accepted steps, until the next one would end beyond ``end``, or is cut to it.

    Only CHUNK steps are told of; records, where they are saved at times, all. What the rule says up to
    ``since`` does not count; where that is infinite it is not asked.
    """

    def unfinished(leg: Leg) -> Bool[Array, ""]:
        ahead = jnp.where(cut, leg.carry.t < end, leg.carry.t_next <= end)
        within = True if limit is None else leg.made < limit
        return ahead & (leg.status == Code.RUNNING) & within

    def attempt(leg: Leg) -> Leg:
        c, k, buffers = leg.carry, leg.made, leg.buffers
        tried = _try(integrator, c, end, cut)
        keep, status = tried.kept, tried.status
        layer = jnp.argmin(jnp.isfinite(tried.sizes)) + 1
        spent = c.error + jnp.where(keep, _relative(tried.error, jnp.sum(tried.sizes)), 0)
        watch, stop, stop_t = c.watch, leg.stop, leg.stop_t
        if integrator.rule is not None:
            watch, stop, stop_t = _examined(integrator, c, tried, spent, since)
            status = jnp.where(stop.holds, Code.STOPPED, status)
            keep &= ~stop.holds

        pick = lambda condition, new, old: jax.tree.map(
            lambda a, b: jnp.where(condition, a, b), new, old
        )
        new = (tried.t, tried.weights, tried.solver, tried.jumped, spent, watch)
        old = (c.t, c.weights, c.solver, c.jumped, c.error, c.watch)
        t, weights, solver_state, jumped, spent, watch = pick(keep, new, old)
        # Where a rule holds, it is as if the step had not been tried: it will be cut short.
        t_next, controller = pick(
            stop.holds, (c.t_next, c.controller), (tried.proposed, tried.controller)
        )
        attempts = c.tried + (~stop.holds).astype(int)
        after = Carry(
            t, t_next, weights, solver_state, controller, jumped, c.before,
            c.accepted + keep.astype(int), attempts, spent, watch,
        )  # fmt: skip
        saved, times, records = _recorded(integrator, c, tried, keep, leg, ts)
        # A rejected step writes its row too, which the next step overwrites.
        steps, tries = written((buffers.steps, buffers.tried), k, (tried.t, attempts))
        kept = written(buffers.weights, k, tried.weights) if integrator.dense else None
        made = k + keep.astype(int)
        return Leg(
            after, status, layer, evaluations_of(tried.controller), stop, stop_t, made, saved,
            Pieces(times, records, steps, tries, kept),
        )  # fmt: skip

    buffers = _buffers(integrator, carry, len(ts))
    zero = jnp.zeros((), int)
    leg = Leg(
        carry, jnp.full((), Code.RUNNING), zero, evaluations_of(carry.controller), _no_verdict(),
        carry.t, zero, saved, buffers,
    )  # fmt: skip
    return lax.while_loop(unfinished, attempt, leg)


def _no_verdict() -> Verdict:
    return Verdict(jnp.zeros((), bool), jnp.zeros((), int), jnp.zeros((), int))


@eqx.filter_jit
def step_curve(
    integrator: Integrator, t: Scalar, t_next: Scalar, weights: Weights
) -> diffrax.AbstractLocalInterpolation:
    """The solver's interpolant of one step, made again from where it began."""
    solver, term, system = integrator.solver, integrator.term, integrator.system
    state = solver.init(term, t, t_next, weights, system)
    _, _, dense, _, _ = solver.step(term, t, t_next, weights, system, state, False)
    return solver.interpolation_cls(t0=t, t1=t_next, **dense)


def stepping(
    system: System,
    solver: Solver,
    controller: Controller,
) -> tuple[Solver, Controller]:
    """The solver with its tolerances, the controller with what counts and sees the whole weights."""
    adapts = isinstance(controller, diffrax.AbstractAdaptiveStepSizeController)
    seeing = Lifted(controller, system.space) if system.space is not None and adapts else controller
    if system.inputs.next_jump(jnp.zeros((), system.dtype)) is not None:
        seeing = Jumping(seeing, system.inputs)
    return _with_tolerances(solver, controller), counted(seeing, solver)


def _with_tolerances(solver: Solver, controller: Controller) -> Solver:
    """An implicit solver's own equations, solved as accurately as the steps are, unless it says else.

    What ``diffrax.diffeqsolve`` does as well.
    """
    if not isinstance(solver, diffrax.AbstractImplicitSolver):
        return solver
    finder: Any = solver.root_finder
    for name in ("rtol", "atol", "norm"):
        if getattr(finder, name) is FROM_CONTROLLER:
            finder = eqx.tree_at(lambda f, n=name: getattr(f, n), finder, getattr(controller, name))
    return eqx.tree_at(lambda s: s.root_finder, solver, finder)


def _buffers(integrator: Integrator, carry: Carry, saves: int) -> Pieces:
    shapes = row_shapes(integrator, carry)
    records = saves if integrator.saves == "times" else CHUNK
    zeros = lambda rows, tree: jax.tree.map(lambda s: jnp.zeros((rows, *s.shape), s.dtype), tree)
    return Pieces(
        *zeros(records, (shapes.t, shapes.records)),
        *zeros(CHUNK, (shapes.steps, shapes.tried, shapes.weights)),
    )


def row_shapes(integrator: Integrator, carry: Carry) -> Any:
    """One row of each piece."""
    records = jax.eval_shape(lambda: integrator.observe(carry.t, carry.weights, carry.before))
    struct: Any = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype)
    t, tried = struct(carry.t), struct(carry.tried)
    weights = jax.tree.map(struct, carry.weights) if integrator.dense else None
    return Pieces(t, records, t, tried, weights)


def evaluations_of(controller: Any) -> Any:
    return controller.evaluations if isinstance(controller, Count) else None


def _relative(error: Any, size: Scalar) -> Scalar | float:
    """‖error‖ / ‖W‖, where ``size`` is ‖W‖²; 0 for a solver that does not estimate it."""
    if error is None:
        return 0.0
    return jnp.where(size > 0, jnp.sqrt(square(error) / jnp.where(size > 0, size, 1)), 0)
