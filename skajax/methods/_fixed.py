"""Methods whose steps are known beforehand: every step is recorded.

With known values a run is cut into chunks of one compiled length, each of which makes a traced
number of steps: another step size, and with it another number of steps, compiles nothing; records
leave the device as they are made; a run that overflows, or that a stop rule ends, ends there; and
between chunks it can be written to disk. Inside jit, vmap and grad, where nothing may depend on
values, it is one ``lax.scan``.
"""

import abc
import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from skajax._checks import is_traced, is_whole, require, require_positive
from skajax._numbers import as_arrays
from skajax._progress import COMPILING, Progress
from skajax._types import (
    Array,
    Bool,
    Count,
    Float,
    Int,
    PerLayer,
    Scalar,
    ScalarLike,
    Tensors,
    Weights,
)
from skajax.methods._checkpoint import Checkpoint
from skajax.methods._method import (
    AbstractMethod,
    Evolution,
    Request,
    Resume,
    Stats,
    blanked,
    end_state,
    finite_layers,
    first_failure,
    written,
)
from skajax.methods._outcome import Code, Outcome
from skajax.observables import Observable, Observables, needs_start, observe
from skajax.stop import Rule, Seen, Verdict, check_ahead, replay, same_rule
from skajax.system import Changes, Instant, System, square

CHUNK = 128
"""Steps of one compiled chunk: many against the cost of a call, few against a user's patience."""


class Record(NamedTuple):
    """One instant of a run."""

    t: Scalar
    observables: Observables
    squares: PerLayer
    """Of each layer, the sum of its squared weights."""

    @property
    def finite(self) -> Bool[Array, "*times layers"]:
        """Which layers were finite."""
        return finite_layers(self.observables, self.squares)


class Now(NamedTuple):
    """Where a run stands, before its next step."""

    k: Int[Array, ""]
    """How many steps have been made."""
    t: Scalar
    weights: Weights
    """In the coordinates that are simulated: the row space's, if there is one."""
    before: Tensors | None
    """The knowledge at the run's start, if an observable compares with it."""
    memory: Any
    """What the method carries from step to step."""


class Step(NamedTuple):
    """What a method's ``step`` returns: the weights after it, and by which rates it is observed."""

    weights: Weights
    """After the step."""
    velocity: Weights | None = None
    """Ẇ at the step's start, of which the recorded ż, Ḋ and their like are made; None: the flow."""
    flow: Weights | None = None
    """The flow at the step's start, if ``velocity`` is another: so that it is not computed again."""
    memory: Any = ()
    """For the next step."""
    t: Scalar | None = None
    """The time after the step; None: (k + 1) dt."""
    changes: Changes | None = None
    """Differences over the last step, of a method that has no rates."""


class Method(AbstractMethod):
    """A method made of steps that are known beforehand, each recorded at its start; write your own.

    A subclass has ``dt`` among its fields, and one function: ``step(system, now)`` makes one step from
    ``now.weights`` at ``now.t``, and returns a :class:`Step`. ``system.flow(t, weights)`` is dW/dt. It
    may also have

    - ``init(system, weights)``: the ``memory`` that the first step finds;
    - ``count_steps(t1, steps)``: how many steps that makes, where it has no dt;
    - ``rotates = True``: it moves weights alike in any orthonormal coordinates, so that few
      samples are simulated in their row space;
    - ``records_end = False``: the state after the last step is not recorded.

    ``simulate`` takes t1, a whole number of steps dt, or ``steps``.

    >>> class Midpoint(ska.Method):
    ...     dt: float
    ...     def step(self, system, now):
    ...         move = lambda dt, flow: jax.tree.map(lambda w, v: w + dt * v, now.weights, flow)
    ...         half = move(self.dt / 2, system.flow(now.t, now.weights))
    ...         velocity = system.flow(now.t + self.dt / 2, half)
    ...         return ska.Step(move(self.dt, velocity), velocity)
    ...
    >>> run = ska.simulate(network, weights, x, Midpoint(0.1), t1=0.5)
    >>> str(run.outcome)
    'completed: reached t = 0.5'
    """

    records_end: ClassVar[bool] = True
    rotates: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The class's."""
        return type(self).__name__

    def count_steps(self, t1: ScalarLike | None, steps: int | None) -> int:
        """K = t1 / dt; raises ValueError where t1 or steps does not fit."""
        return whole_steps(t1, steps, self.dt)  # pyright: ignore[reportAttributeAccessIssue]

    def init(self, system: System, weights: Weights) -> Any:
        """What the first step finds in ``now.memory``."""
        return ()

    def accepts(self, system: System) -> None:
        """Raise ValueError where the system is none for this method."""

    @abc.abstractmethod
    def step(self, system: System, now: Now) -> Step:
        """Take one step."""

    def check(self, request: Request) -> int:
        """The number of steps; raises ValueError where what is asked for does not fit."""
        name = type(self).__name__
        require(
            request.save_at is None, "save_at", f"be left out with {name}", "it records every step"
        )
        require(not request.dense, "dense", f"be False with {name}", "it records every step")
        return self.count_steps(request.t1, request.steps)

    def evolve(self, system: System, weights: Weights, request: Request) -> Evolution:
        """Take every step, and record every step."""
        self.accepts(system)
        count = self.check(request)
        method = as_arrays(self, system.dtype)
        look = look_of(request, system)
        now = _start(method, system, weights, look)
        if is_traced(method, system, now):
            require(request.checkpoint is None, "checkpoint", "be None inside jit", "it was a path")
            return _scan(method, system, now, count, look)
        return _march(method, system, now, count, 0, request)

    def proceed(self, run: Evolution, request: Request) -> Evolution:
        """Take the steps that are missing, with the numbers that the run was made with."""
        assert run.resume is not None
        method, system, taken = self, run.resume.system, int(run.resume.carry.k)
        count = method.check(request._replace(dense=False))
        require(
            count > taken,
            "t1" if request.steps is None else "steps",
            f"lie beyond the run's end, t = {float(run.final.t):.8g}, after {taken} steps",
            f"it gave {count} steps",
        )
        if not same_rule(request.until, run.resume.rule):
            check_ahead(request.until, run.t, run.records)
        after = _march(method, system, run.resume.carry, count, taken, request, run)
        k = run.resume.records
        resume = after.resume
        if resume is not None:
            resume = Resume(
                method, system, resume.carry, records=k + resume.records, accepted=0,
                saves="steps", rule=resume.rule, watch=resume.watch,
            )  # fmt: skip
        return after._replace(
            t=_join(run.t, k, after.t),
            records=jax.tree.map(lambda a, b: _join(a, k, b), run.records, after.records),
            resume=resume,
        )


def whole_steps(t1: ScalarLike | None, steps: int | None, dt: ScalarLike) -> int:
    """The number K of steps dt that make up t1, or ``steps`` itself; exactly one must be given."""
    require(
        (t1 is None) != (steps is None),
        "t1",
        "be given, or else steps, but not both",
        f"they were t1={t1!r} and steps={steps!r}",
    )
    if steps is not None:
        return checked_steps(steps)
    require(
        not is_traced(t1, dt),
        "t1",
        "be replaced by steps where t1 or dt is traced (jit, vmap, grad)",
        "the number of records, t1 / dt, is a shape and must be known",
    )
    require_positive("t1", t1, "an end time")
    end, step = float(t1), float(dt)  # pyright: ignore[reportArgumentType]
    ratio = end / step
    K = max(round(ratio), 1)
    require(
        abs(ratio - K) <= min(1e-6 * K, 1e-2),
        "t1",
        "be a whole number of steps dt, because no step is cut short",
        f"t1 / dt = {end:.8g} / {step:.8g} = {ratio:.8g}; near it are t1 = "
        + " and ".join(f"{n * step:.8g}" for n in (math.floor(ratio), math.ceil(ratio)) if n),
    )
    return K


def checked_steps(steps: int | None) -> int:
    """The number of steps, if it is one."""
    require(is_whole(steps), "steps", "be a whole number of steps, at least 1", f"it was {steps!r}")
    return int(steps)  # pyright: ignore[reportArgumentType]


@eqx.filter_jit
def _start(method: Method, system: System, weights: Weights, look: "Look") -> Now:
    return begin(method, system, weights, look)


def begin(method: Method, system: System, weights: Weights, look: "Look") -> Now:
    """Where a run starts."""
    zero = jnp.zeros((), system.dtype)
    before = system.trace(zero, weights).Z if needs_start(look.watched) else None
    memory = method.init(system, weights)
    # Counters must not be weakly typed, or the loop would be compiled again for its own results.
    return Now(jnp.zeros((), int), zero, weights, before, memory)


def _join(a: Array, n: int, b: Array) -> Array:
    """The first n of a, and b: in NumPy, for which another n is nothing to compile."""
    return jax.device_put(np.concatenate([np.asarray(a)[:n], np.asarray(b)]))


class _Watch(NamedTuple):
    """What a stop rule has seen."""

    memory: Any
    error: Scalar
    """Σ ‖W_{k+1} - 2 W_k + W_{k-1}‖ / 2 ‖W_k‖: of each step, Euler's local error."""
    update: Weights
    """W_k - W_{k-1}, ..."""
    known: Bool[Array, ""]
    """... once a step has been made."""


class Look(eqx.Module):
    """What is made of each instant: what is recorded, and what a stop rule says."""

    observe: tuple[Observable, ...] = eqx.field(static=True)
    watched: tuple[Observable, ...] = eqx.field(static=True)
    rule: Rule | None

    def blind(self) -> "Look":
        """The same without the rule."""
        return Look(self.observe, self.observe, None)

    def begin(self, system: System, now: Now) -> _Watch | None:
        """What a rule has seen before the first record: nothing."""
        if self.rule is None:
            return None
        layers = len(system.network.rows)
        nothing = jax.tree.map(jnp.zeros_like, now.weights)
        zero = jnp.zeros((), system.dtype)
        return _Watch(self.rule.start(layers, system.dtype), zero, nothing, jnp.asarray(False))


def look_of(request: Request, system: System) -> Look:
    """What a request asks of each instant."""
    return Look(request.observe, request.watched, as_arrays(request.until, system.dtype))


def no_verdict() -> Verdict:
    """Of no rule."""
    return Verdict(jnp.zeros((), bool), jnp.zeros((), int), jnp.full((), -1))


def take(
    method: Method, system: System, look: Look, now: Now, watch: _Watch | None
) -> tuple[Now, _Watch | None, Record, Verdict]:
    """Record an instant, look at it, and take one step from it."""
    step = method.step(system, now)
    k = now.k + 1
    t = k.astype(now.t.dtype) * method.dt if step.t is None else step.t  # pyright: ignore
    after = Now(k, t, step.weights, now.before, step.memory)
    instant = Instant(
        system, now.t, now.weights, velocity=step.velocity, flow=step.flow, before=now.before,
        changes=step.changes,
    )  # fmt: skip
    squares = system.squares(now.weights)
    seen = observe(look.watched, instant)
    record = Record(now.t, _recorded(look.observe, seen), squares)
    if look.rule is None or watch is None:
        return after, None, record, no_verdict()
    memory, verdict = look.rule.look(watch.memory, Seen(now.t, seen, watch.error))
    update = jax.tree.map(jnp.subtract, after.weights, now.weights)
    change = jax.tree.map(jnp.subtract, update, watch.update)
    size = squares.sum()
    counts = watch.known & (size > 0)
    error = jnp.sqrt(square(change) / jnp.where(size > 0, size, 1)) / 2
    spent = watch.error + jnp.where(counts, error, 0)
    verdict = Verdict(verdict.holds, jnp.asarray(verdict.layer), jnp.asarray(verdict.rule))
    return after, _Watch(memory, spent, update, jnp.asarray(True)), record, verdict


def _recorded(observe: tuple[Observable, ...], seen: Observables) -> Observables:
    return Observables({each.name: seen[each.name] for each in observe})


def _evolution(
    t: Float[Array, " records"],
    records: Observables,
    final: Any,
    taken: Count,
    failed: Count,
    stop: Verdict,
    until: Scalar,
    resume: Resume | None,
) -> Evolution:
    diverged, layer = jnp.asarray(failed > 0), jnp.where(failed > 0, failed, stop.layer)
    code = jnp.where(diverged, Code.DIVERGED, jnp.where(stop.holds, Code.STOPPED, Code.COMPLETED))
    which = jnp.where(stop.holds & ~diverged, stop.rule, -1)
    taken = jnp.asarray(taken)
    return Evolution(
        t,
        records,
        final,
        Stats(evaluations=taken, steps=taken, rejected=0 * taken),
        Outcome(code, until, taken, layer, which),
        resume=resume,
    )


@eqx.filter_jit
def _scan(method: Method, system: System, now: Now, count: int, look: Look) -> Evolution:
    """All steps as one differentiable, vmappable loop; observables after an overflow are NaN.

    The same where a stop rule has ended the run: its weights stay as they were there.
    """

    def step(loop: Any, _: None) -> tuple[Any, tuple[Record, Verdict]]:
        now, watch, stopped = loop
        after, watch, record, verdict = take(method, system, look, now, watch)
        if look.rule is not None:
            verdict = verdict._replace(holds=verdict.holds | stopped)
            after = jax.tree.map(lambda a, b: jnp.where(verdict.holds, a, b), now, after)
        return (after, watch, verdict.holds), (record, verdict)

    loop = (now, look.begin(system, now), jnp.asarray(False))
    loop, (records, verdicts) = lax.scan(step, loop, length=count)
    _, (last, verdict) = step(loop, None)
    now = loop[0]
    join = lambda r, e: jnp.concatenate([r, jnp.asarray(e)[None]])
    records, verdicts = jax.tree.map(join, (records, verdicts), (last, verdict))
    good, layer = first_failure(records.finite)
    kept = count + 1 if method.records_end else count
    # The first record where the rule held is the last.
    held = verdicts.holds & (jnp.arange(count + 1) < jnp.minimum(good, kept))
    at = jnp.argmax(held)
    stop = Verdict(held.any(), verdicts.layer[at], verdicts.rule[at])
    until = jnp.where(stop.holds, at + 1, good)
    layer = jnp.where(stop.holds, 0, layer)

    taken = jnp.where(stop.holds, at, jnp.minimum(good, count))
    # A scan cannot end early: its end lies beyond an overflow.
    end = jnp.where(layer > 0, records.t[jnp.maximum(taken - 1, 0)], now.t)
    t = records.t[:kept]
    observables = jax.tree.map(lambda r: r[:kept], records.observables)
    _, observables = blanked(jnp.arange(kept) < until, t, observables)
    final = system.state(now.t, now.weights)
    return _evolution(t, observables, final, taken, layer, stop, end, None)


def _march(
    method: Method,
    system: System,
    now: Now,
    count: int,
    taken: int,
    request: Request,
    run: Evolution | None = None,
) -> Evolution:
    """All steps in chunks; where one meets what is not finite, back to the last good record."""
    look = look_of(request, system)
    watch = look.begin(system, now)
    if watch is not None and run is not None and run.resume is not None:
        if same_rule(request.until, run.resume.rule):
            watch = run.resume.watch
        else:
            watch = watch._replace(memory=replay(look.rule, run.t, run.records, run.resume.records))
    stop, layer = Verdict(jnp.asarray(False), 0, -1), 0
    parts: list[Record] = []
    saved = Checkpoint(request.checkpoint, *_identity(method, system, now, look, request))
    restored = saved.read((now, watch), lambda: record_shape(method, system, look, now))
    if restored is not None:
        (now, watch), recorded = restored
        parts, taken = [recorded], int(now.k)
        require(
            taken <= count, "checkpoint", f"be of at most {count} steps", f"it was after {taken}"
        )
    before = (now, watch, 0)  # and how many steps lead from there to the last good record
    left = count - taken
    sizes = [min(CHUNK, left - k) for k in range(0, left, CHUNK)]
    with Progress(
        method.name, count, done=taken, count="{n} of {total} steps", begins=COMPILING
    ) as bar:
        for size in [*sizes, 1]:  # the last one only looks at the end
            looks = taken == count
            last = looks and not method.records_end
            chunk = _steps(method, system, look, now, watch, jnp.asarray(size))
            good = int(chunk.good)
            if not last:
                parts.append(jax.tree.map(lambda b, n=good: np.asarray(b)[:n], chunk.records))
            if good and chunk.stop.holds and not last:  # the end is no record of such a method
                stop, now, watch = chunk.stop, chunk.now, chunk.watch
                taken += good - 1
                break
            if good < size:
                bad = jax.tree.map(lambda b, n=good: b[n], chunk.records)
                layer = int(jnp.argmin(bad.finite)) + 1
                start, seen, steps = (now, watch, good - 1) if good else before
                now = _steps(method, system, look, start, seen, jnp.asarray(steps)).now
                taken += good
                break
            if not looks:
                before, taken = (now, watch, size - 1), taken + size
                now, watch = chunk.now, chunk.watch
                bar.update(size)
                saved.write((now, watch), parts, last=taken == count)
    records = jax.device_put(jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts))
    final = end_state(system, now.weights, now.t)
    # The end is recorded before it is known to be the end: going on, it is recorded again.
    ends = len(records.t) - (1 if method.records_end and not layer else 0)
    kept = ends if not stop.holds else len(records.t) - 1
    resume = None
    if not layer:
        resume = Resume(
            method, system, now, records=kept, accepted=0, saves="steps",
            rule=request.until, watch=watch,
        )  # fmt: skip
    return _evolution(
        records.t, records.observables, final, taken, jnp.asarray(layer), stop, final.t, resume,
    )  # fmt: skip


def record_shape(method: Method, system: System, look: Look, now: Now) -> Any:
    """What one record will be: shapes and dtypes."""
    blind = look.blind()
    return jax.eval_shape(lambda n: take(method, system, blind, n, None)[2], now)


def _identity(
    method: Method, system: System, now: Now, look: Look, request: Request
) -> tuple[Any, ...]:
    """What a run's course depends on. An optimiser is functions: told apart by what they compute."""
    if request.checkpoint is None:
        return ()
    step = jax.make_jaxpr(lambda n: take(method, system, look.blind(), n, None)[::2])(now)
    return (
        str(step.jaxpr),
        step.consts,
        now,
        None if look.rule is None else (request.rules, look.rule),
    )


class _Chunk(NamedTuple):
    now: Now
    watch: _Watch | None
    records: Record
    good: Int[Array, ""]
    stop: Verdict


@eqx.filter_jit
def _steps(
    method: Method,
    system: System,
    look: Look,
    now: Now,
    watch: _Watch | None,
    count: Int[Array, ""],
) -> _Chunk:
    """At most ``count`` <= CHUNK steps; ends at the first record that is not finite.

    Or at the first where the rule holds: that one is recorded, and no step is taken from it.
    """
    one = record_shape(method, system, look, now)
    buffer = jax.tree.map(lambda s: jnp.zeros((CHUNK, *s.shape), s.dtype), one)

    def unfinished(loop: tuple[_Chunk, Bool[Array, ""]]) -> Bool[Array, ""]:
        chunk, finite = loop
        return finite & ~chunk.stop.holds & (chunk.good < count)

    def advance(loop: tuple[_Chunk, Bool[Array, ""]]) -> tuple[_Chunk, Bool[Array, ""]]:
        (now, watch, buffer, k, _), _ = loop
        after, seen, record, verdict = take(method, system, look, now, watch)
        finite = record.finite.all()
        buffer = written(buffer, k, record)
        verdict = verdict._replace(holds=verdict.holds & finite)
        if look.rule is not None:
            stay = lambda a, b: jnp.where(verdict.holds, a, b)
            after, seen = jax.tree.map(stay, (now, watch), (after, seen))
        return _Chunk(after, seen, buffer, k + finite.astype(k.dtype), verdict), finite

    chunk = _Chunk(now, watch, buffer, jnp.zeros_like(count), no_verdict())
    chunk, _ = lax.while_loop(unfinished, advance, (chunk, jnp.asarray(True)))
    return chunk
