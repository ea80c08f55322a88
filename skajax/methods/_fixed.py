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
from tqdm.auto import tqdm

from skajax._checks import is_traced, is_whole, require, require_positive
from skajax._numbers import as_arrays
from skajax._types import Array, Bool, Count, Inputs, Int, Scalar, ScalarLike, Weights
from skajax.methods._checkpoint import Checkpoint
from skajax.methods._method import (
    COMPLETED,
    DIVERGED,
    STOPPED,
    Evolution,
    Method,
    Outcome,
    Problem,
    Request,
    Resume,
    Stats,
    end_state,
    finite_layers,
    first_failure,
    square,
)
from skajax.network import Network
from skajax.observables import Observables
from skajax.stop import Instant, Rule, Verdict, check_ahead, replay, same_rule

CHUNK = 128
"""Steps of one compiled chunk: many against the cost of a call, few against a user's patience."""


class Record(NamedTuple):
    """One instant of a run."""

    t: Scalar
    observables: Observables


class FixedStep(Method):
    """A method made of steps, each of which needs only what the one before it carried over."""

    records_end: ClassVar[bool]
    """Whether the state after the last step is recorded too; it is looked at in any case."""

    @abc.abstractmethod
    def count_steps(self, t1: ScalarLike | None, steps: int | None) -> int:
        """How many times ``step`` is taken; raises ValueError where t1 or steps does not fit."""

    @abc.abstractmethod
    def start(self, network: Network, weights: Weights, x: Inputs) -> Any:
        """What the first step carries: a pytree with at least ``weights`` and their time ``t``."""

    @abc.abstractmethod
    def step(self, network: Network, carry: Any, x: Inputs) -> tuple[Any, Record]:
        """Record the carried instant, and take one step from it."""

    def check(self, request: Request) -> int:
        """The number of steps; raises ValueError where what is asked for does not fit."""
        name = type(self).__name__
        require(
            request.save_at is None, "save_at", f"be left out with {name}", "it records every step"
        )
        require(not request.dense, "dense", f"be False with {name}", "it records every step")
        return self.count_steps(request.t1, request.steps)

    def evolve(self, problem: Problem, weights: Weights, request: Request) -> Evolution:
        """Take every step, and record every step."""
        count = self.check(request)
        method = as_arrays(self, problem.x.dtype)
        carry = _start(method, problem, weights)
        if is_traced(method, problem, carry):
            require(request.checkpoint is None, "checkpoint", "be None inside jit", "it was a path")
            names = () if request.until is None else request.until.names()
            rule = as_arrays(request.until, problem.x.dtype)
            return _scan(method, problem, carry, count, rule, names)
        return _march(method, problem, carry, count, 0, request)

    def proceed(self, run: Evolution, request: Request) -> Evolution:
        """Take the steps that are missing, with the numbers that the run was made with."""
        assert run.resume is not None
        method, problem, taken = self, run.resume.problem, int(run.resume.carry.k)
        count = method.check(request._replace(dense=False))
        require(
            count > taken,
            "t1" if request.steps is None else "steps",
            f"lie beyond the run's end, t = {float(run.final.t):.8g}, after {taken} steps",
            f"it gave {count} steps",
        )
        if not same_rule(request.until, run.resume.rule):
            check_ahead(request.until, run.t, run.records)
        carry = run.resume.carry
        after = _march(method, problem, carry, count, taken, request, run)
        k = run.resume.records
        resume = after.resume
        if resume is not None:
            resume = Resume(
                method, problem, resume.carry, records=k + resume.records, accepted=0,
                saves="steps", rule=resume.rule, watch=resume.watch,
            )  # fmt: skip
        return after._replace(
            t=_join(run.t[:k], after.t),
            records=jax.tree.map(lambda a, b: _join(a[:k], b), run.records, after.records),
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
def _start(method: FixedStep, problem: Problem, weights: Weights) -> Any:
    return method.start(problem.network, weights, problem.x)


def _join(a: Array, b: Array) -> Array:
    return jax.device_put(np.concatenate([np.asarray(a), np.asarray(b)]))


class _Watch(NamedTuple):
    """What a stop rule has seen."""

    memory: Any
    error: Scalar
    """Σ ‖W_{k+1} - 2 W_k + W_{k-1}‖ / 2 ‖W_k‖: of each step, Euler's local error."""
    update: Weights
    """W_k - W_{k-1}, ..."""
    known: Bool[Array, ""]
    """... once a step has been made."""


def watch_of(rule: Rule | None, problem: Problem, carry: Any) -> _Watch | None:
    """What a rule has seen before the first record: nothing."""
    if rule is None:
        return None
    layers = len(problem.network.layers)
    nothing = jax.tree.map(jnp.zeros_like, carry.weights)
    zero = jnp.zeros((), problem.x.dtype)
    return _Watch(rule.start(layers, problem.x.dtype), zero, nothing, jnp.asarray(False))


def take(
    method: FixedStep, problem: Problem, rule: Rule | None, carry: Any, watch: _Watch | None
) -> tuple[Any, _Watch | None, Record, Verdict]:
    """Record an instant, look at it, and take one step from it."""
    after, record = method.step(problem.network, carry, problem.x)
    record = record._replace(observables=problem.lifted(record.observables))
    nothing = Verdict(jnp.asarray(False), jnp.asarray(0), jnp.asarray(-1))
    if rule is None or watch is None:
        return after, None, record, nothing
    memory, verdict = rule.look(watch.memory, Instant(record.t, record.observables, watch.error))
    update = jax.tree.map(jnp.subtract, after.weights, carry.weights)
    change = jax.tree.map(jnp.subtract, update, watch.update)
    size = problem.squares(carry.weights).sum()
    counts = watch.known & (size > 0)
    error = jnp.sqrt(square(change) / jnp.where(size > 0, size, 1)) / 2
    spent = watch.error + jnp.where(counts, error, 0)
    return after, _Watch(memory, spent, update, jnp.asarray(True)), record, verdict


def _evolution(
    records: Record,
    final: Any,
    taken: Count,
    failed: Count,
    stop: Verdict,
    rules: tuple[str, ...],
    until: Scalar,
    resume: Resume | None,
) -> Evolution:
    diverged, layer = jnp.asarray(failed > 0), jnp.where(failed > 0, failed, stop.layer)
    code = jnp.where(diverged, DIVERGED, jnp.where(stop.holds, STOPPED, COMPLETED))
    which = jnp.where(stop.holds & ~diverged, stop.rule, -1)
    taken = jnp.asarray(taken)
    return Evolution(
        records.t,
        records.observables,
        final,
        Stats(evaluations=taken, steps=taken, rejected=0 * taken),
        Outcome(code, until, taken, layer, which, rules),
        resume=resume,
    )


@eqx.filter_jit
def _scan(
    method: FixedStep,
    problem: Problem,
    carry: Any,
    count: int,
    rule: Rule | None,
    names: tuple[str, ...],
) -> Evolution:
    """All steps as one differentiable, vmappable loop; observables after an overflow are NaN.

    The same where a stop rule has ended the run: its weights stay as they were there.
    """

    def step(loop: Any, _: None) -> tuple[Any, tuple[Record, Verdict]]:
        carry, watch, stopped = loop
        after, watch, record, verdict = take(method, problem, rule, carry, watch)
        if rule is not None:
            verdict = verdict._replace(holds=verdict.holds | stopped)
            after = jax.tree.map(lambda a, b: jnp.where(verdict.holds, a, b), carry, after)
        return (after, watch, verdict.holds), (record, verdict)

    loop = (carry, watch_of(rule, problem, carry), jnp.asarray(False))
    loop, (records, verdicts) = lax.scan(step, loop, length=count)
    _, (last, verdict) = step(loop, None)
    carry = loop[0]
    join = lambda r, e: jnp.concatenate([r, jnp.asarray(e)[None]])
    records, verdicts = jax.tree.map(join, (records, verdicts), (last, verdict))
    good, layer = first_failure(records.observables)
    kept = count + 1 if method.records_end else count
    # The first record where the rule held is the last.
    held = verdicts.holds & (jnp.arange(count + 1) < jnp.minimum(good, kept))
    at = jnp.argmax(held)
    stop = Verdict(held.any(), verdicts.layer[at], verdicts.rule[at])
    until = jnp.where(stop.holds, at + 1, good)
    layer = jnp.where(stop.holds, 0, layer)

    def mask(r: jax.Array) -> jax.Array:
        return jnp.where(
            (jnp.arange(kept) < until).reshape(-1, *[1] * (r.ndim - 1)), r[:kept], jnp.nan
        )

    taken = jnp.where(stop.holds, at, jnp.minimum(good, count))
    # A scan cannot end early: its end lies beyond an overflow.
    end = jnp.where(layer > 0, records.t[jnp.maximum(taken - 1, 0)], carry.t)
    records = Record(records.t[:kept], jax.tree.map(mask, records.observables))
    final = problem.state(carry.weights, carry.t)
    return _evolution(records, final, taken, layer, stop, names, end, None)


def _march(
    method: FixedStep,
    problem: Problem,
    carry: Any,
    count: int,
    taken: int,
    request: Request,
    run: Evolution | None = None,
) -> Evolution:
    """All steps in chunks; where one meets what is not finite, back to the last good record."""
    rule = as_arrays(request.until, problem.x.dtype)
    watch = watch_of(rule, problem, carry)
    if watch is not None and run is not None and run.resume is not None:
        if same_rule(request.until, run.resume.rule):
            watch = run.resume.watch
        else:
            watch = watch._replace(memory=replay(rule, run.t, run.records, run.resume.records))
    stop, layer = Verdict(jnp.asarray(False), 0, -1), 0
    parts: list[Record] = []
    saved = Checkpoint(request.checkpoint, *_identity(method, problem, carry, rule, request))
    restored = saved.read((carry, watch), lambda: record_shape(method, problem, carry))
    if restored is not None:
        (carry, watch), recorded = restored
        parts, taken = [recorded], int(carry.k)
        require(
            taken <= count, "checkpoint", f"be of at most {count} steps", f"it was after {taken}"
        )
    before = (carry, watch, 0)  # and how many steps lead from there to the last good record
    left = count - taken
    sizes = [min(CHUNK, left - k) for k in range(0, left, CHUNK)]
    with tqdm(
        total=count, initial=taken, desc=method.name, disable=None, delay=1, leave=False
    ) as bar:
        for size in [*sizes, 1]:  # the last one only looks at the end
            looks = taken == count
            last = looks and not method.records_end
            chunk = _chunk(
                method, problem, None if last else rule, carry, None if last else watch, size
            )
            good = int(chunk.good)
            if not last:
                parts.append(jax.tree.map(lambda b, n=good: np.asarray(b)[:n], chunk.records))
            if good and chunk.stop.holds:
                stop, carry, watch = chunk.stop, chunk.carry, chunk.watch
                taken += good - 1
                break
            if good < size:
                bad = jax.tree.map(lambda b, n=good: b[n], chunk.records.observables)
                layer = int(jnp.argmin(finite_layers(bad))) + 1
                start, seen, steps = (carry, watch, good - 1) if good else before
                carry = _chunk(method, problem, rule, start, seen, steps).carry
                taken += good
                break
            if not looks:
                before, taken = (carry, watch, size - 1), taken + size
                carry, watch = chunk.carry, chunk.watch
                bar.update(size)
                saved.write((carry, watch), parts, last=taken == count)
    records = jax.device_put(jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts))
    final = end_state(problem, carry.weights, carry.t)
    # The end is recorded before it is known to be the end: going on, it is recorded again.
    ends = len(records.t) - (1 if method.records_end and not layer else 0)
    kept = ends if not stop.holds else len(records.t) - 1
    resume = None
    if not layer:
        resume = Resume(
            method, problem, carry, records=kept, accepted=0, saves="steps",
            rule=request.until, watch=watch,
        )  # fmt: skip
    names = () if request.until is None else request.until.names()
    return _evolution(records, final, taken, jnp.asarray(layer), stop, names, final.t, resume)


def record_shape(method: FixedStep, problem: Problem, carry: Any) -> Any:
    """What one record will be: shapes and dtypes."""
    return jax.eval_shape(lambda c: method.step(problem.network, c, problem.x)[1], carry)


def _identity(
    method: FixedStep, problem: Problem, carry: Any, rule: Rule | None, request: Request
) -> tuple[Any, ...]:
    """What a run's course depends on. An optimiser is functions: told apart by what they compute."""
    if request.checkpoint is None:
        return ()
    step = jax.make_jaxpr(lambda c: method.step(problem.network, c, problem.x))(carry)
    return str(step.jaxpr), step.consts, carry, None if rule is None else (rule.names(), rule)


class _Chunk(NamedTuple):
    carry: Any
    watch: _Watch | None
    records: Record
    good: Int[Array, ""]
    stop: Verdict


def _chunk(
    method: FixedStep,
    problem: Problem,
    rule: Rule | None,
    carry: Any,
    watch: _Watch | None,
    count: int,
) -> _Chunk:
    return _steps(method, problem, rule, carry, watch, jnp.asarray(count))


@eqx.filter_jit
def _steps(
    method: FixedStep,
    problem: Problem,
    rule: Rule | None,
    carry: Any,
    watch: _Watch | None,
    count: Int[Array, ""],
) -> _Chunk:
    """At most ``count`` <= CHUNK steps; ends at the first record that is not finite.

    Or at the first where the rule holds: that one is recorded, and no step is taken from it.
    """
    one = record_shape(method, problem, carry)
    buffer = jax.tree.map(lambda s: jnp.zeros((CHUNK, *s.shape), s.dtype), one)
    nothing = Verdict(jnp.asarray(False), jnp.asarray(0), jnp.asarray(-1))

    def unfinished(loop: tuple[_Chunk, Bool[Array, ""]]) -> Bool[Array, ""]:
        chunk, finite = loop
        return finite & ~chunk.stop.holds & (chunk.good < count)

    def advance(loop: tuple[_Chunk, Bool[Array, ""]]) -> tuple[_Chunk, Bool[Array, ""]]:
        (carry, watch, buffer, k, _), _ = loop
        after, seen, record, verdict = take(method, problem, rule, carry, watch)
        finite = finite_layers(record.observables).all()
        buffer = jax.tree.map(lambda b, r: b.at[k].set(r), buffer, record)
        verdict = verdict._replace(holds=verdict.holds & finite)
        if rule is not None:
            stay = lambda a, b: jnp.where(verdict.holds, a, b)
            after, seen = jax.tree.map(stay, (carry, watch), (after, seen))
        return _Chunk(after, seen, buffer, k + finite.astype(k.dtype), verdict), finite

    chunk = _Chunk(carry, watch, buffer, jnp.zeros_like(count), nothing)
    chunk, _ = lax.while_loop(unfinished, advance, (chunk, jnp.asarray(True)))
    return chunk
