"""Where within a step a stop rule begins to hold.

A rule looks at instants in order. Of an adaptive run's long steps their ends alone would not do: a
peak, or two crossings, may lie between them. So a step is sampled at eight instants on the solver's
interpolant, as landmarks are; the maxima that a rule remembers are read where they are; and where it
holds, the polynomials through the samples foretell since when, and a few readings there mend and prove
it. Readings cost about an evaluation of the flow each. Therefore a step is first judged by the reading
at its own end and the last three before it: where the cubic through them, and the quadratic through the
last three, leave no doubt that nothing happens within, it is not sampled.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from skajax._nodes import COEFFICIENTS, DERIVATIVES, GRID, INTERVALS, SLOPES
from skajax._types import Array, Bool, Int, Scalar
from skajax.observables import Observables
from skajax.stop import Rule, Seen, Span, Verdict

PAST = 3
"""Readings that are remembered."""


class Past(NamedTuple):
    """The last readings, the newest last: of ends of steps, and of the middles of sampled ones."""

    t: Array
    values: Observables
    known: Int[Array, ""]
    """How many there have been."""


def first_past(t: Scalar, seen: Observables) -> Past:
    """With a run's first reading."""
    values = jax.tree.map(lambda s: jnp.zeros((PAST, *s.shape), s.dtype), seen)
    return _remember(Past(jnp.zeros(PAST, t.dtype), values, jnp.zeros((), int)), t, seen)


def _remember(past: Past, t: Scalar, seen: Observables) -> Past:
    push = lambda rows, new: jnp.concatenate([rows[1:], new[None]])
    return Past(push(past.t, t), jax.tree.map(push, past.values, seen), past.known + 1)


def examine(
    rule: Rule,
    memory: Any,
    read: Callable[[Scalar], Observables],
    past: Past,
    t1: Scalar,
    end: Observables,
    errors: tuple[Scalar, Scalar],
    since: Scalar,
) -> tuple[Any, Past, Verdict, Scalar]:
    """Of the step from the last of ``past`` to t1: memory and past at its end, the verdict, and since when.

    ``read`` gives what the rule needs at any time of the step, ``end`` is that at t1; ``errors`` are
    the error budgets at the step's start and end. Verdicts up to ``since`` do not count.
    """
    t0 = past.t[-1]
    sampled = ~_idle(rule, memory, past, t1, end, errors[1])
    t = t0 + (t1 - t0) * jnp.asarray((GRID + 1) / 2, t0.dtype)
    t = t.at[-1].set(t1)
    nodes = jax.tree.map(
        lambda first, last: jnp.zeros((INTERVALS + 1, *last.shape), last.dtype)
        .at[0].set(first[-1]).at[-1].set(last),
        past.values, end,
    )  # fmt: skip

    def sample(loop: Any) -> Any:
        j, nodes = loop
        return j + 1, jax.tree.map(lambda rows, new: rows.at[j].set(new), nodes, read(t[j]))

    first = jnp.where(sampled, 1, INTERVALS)
    _, nodes = lax.while_loop(lambda loop: loop[0] < INTERVALS, sample, (first, nodes))
    at = lambda j: jax.tree.map(lambda rows: rows[j], nodes)
    said = lambda memory, time, seen, error: _said(rule, memory, time, seen, error, since)

    each = [rule.peaks(at(j)) for j in range(INTERVALS + 1)]
    signals = jnp.stack([jnp.concatenate([*row, jnp.zeros(1, t.dtype)]) for row in each])
    slopes = jnp.asarray(SLOPES, signals.dtype) @ signals
    tops = (slopes[:-1] > 0) & (slopes[1:] <= 0) & sampled

    def unfinished(loop: Any) -> Bool[Array, ""]:
        j, _, _, _, _, verdict = loop
        return (j <= INTERVALS) & ~verdict.holds

    def go_on(loop: Any) -> Any:
        """The next maximum before node j is remembered, or else the node is looked at."""
        j, done, before, memory, left, _ = loop
        waiting = tops[j - 1] & ~done
        which = jnp.argmax(waiting)
        top = jnp.where(waiting.any(), _top(signals[:, which], j, t), t[j])
        seen = lax.cond(waiting.any(), read, lambda _: at(j), top)
        error = jnp.where(waiting.any() | (j < INTERVALS), *errors)
        after, verdict = said(memory, top, seen, error)
        verdict = verdict._replace(holds=verdict.holds & ~waiting.any())
        done = jnp.where(waiting.any(), done.at[which].set(True), False)
        left = jnp.where(waiting.any(), jnp.maximum(left, top), left)
        stay = verdict.holds
        memory, before = _pick(stay, (memory, memory), (after, memory))
        left = jnp.where(waiting.any() | stay, left, t[j])
        return jnp.where(waiting.any() | stay, j, j + 1), done, before, memory, left, verdict

    # A step that is not sampled has one subinterval, itself.
    loop = (first, jnp.zeros(tops.shape[1:], bool), memory, memory, t0, _never())
    j, _, _, memory, left, verdict = lax.while_loop(unfinished, go_on, loop)

    # A step that is not sampled may end where the rule holds, and then it holds there first.
    right = jnp.where(verdict.holds, t[jnp.minimum(j, INTERVALS)], t1)
    left = jnp.maximum(left, jnp.minimum(since, right))
    left = jnp.where(verdict.holds & sampled, left, right)
    width = 1e-8 * jnp.abs(t1) + 4 * jnp.finfo(t1.dtype).eps * jnp.abs(t1)

    def model(time: Scalar, off: Observables) -> Observables:
        """What the polynomials through the nodes make of a reading, moved by what they were off by."""
        weights = _powers(2 * (time - t[0]) / (t[-1] - t[0]) - 1) @ jnp.asarray(
            COEFFICIENTS, t.dtype
        )
        return jax.tree.map(lambda rows, o: jnp.tensordot(weights, rows, 1) + o, nodes, off)

    def foretold(left: Scalar, right: Scalar, off: Observables) -> Scalar:
        """Since when the rule holds by the model: bisection, without a reading."""

        def halve(_: Any, ends: Any) -> Any:
            left, right = ends
            middle = left + (right - left) / 2
            holds = said(memory, middle, model(middle, off), errors[0])[1].holds
            return jnp.where(holds, left, middle), jnp.where(holds, middle, right)

        return lax.fori_loop(0, 40, halve, (left, right))[1]

    def close(loop: Any) -> Any:
        """Read just beyond where it is foretold, then just before; after eight readings, in the middle."""
        n, left, right, verdict, off = loop
        guess = foretold(left, right, off)
        aim = jnp.where(right - guess > width / 2, guess + width / 2, guess - width / 2)
        aim = jnp.where(n < 8, aim, left + (right - left) / 2)
        aim = jnp.clip(aim, left + width / 4, right - width / 4)
        seen = read(aim)
        off = jax.tree.map(lambda a, o, b: o + a - b, seen, off, model(aim, off))
        _, now = said(memory, aim, seen, errors[0])
        ends = _pick(now.holds, (left, aim, now), (aim, right, verdict))
        return n + 1, *ends, off

    apart = lambda loop: loop[2] - loop[1] > width
    off = jax.tree.map(jnp.zeros_like, end)
    _, _, right, verdict, _ = lax.while_loop(apart, close, (0, left, right, verdict, off))
    middle = _remember(past, t[INTERVALS // 2], at(INTERVALS // 2))
    past = _remember(_pick(sampled, middle, past), t1, end)
    return memory, past, verdict, right


def _powers(x: Scalar) -> Array:
    """1, x, x², ..."""
    return jnp.cumprod(jnp.full(INTERVALS + 1, x).at[0].set(1))


def _said(
    rule: Rule, memory: Any, t: Scalar, seen: Observables, error: Scalar, since: Scalar
) -> tuple[Any, Verdict]:
    memory, verdict = rule.look(memory, Seen(t, seen, error))
    holds = verdict.holds & (t > since)
    return memory, Verdict(holds, *(jnp.asarray(n, int) for n in (verdict.layer, verdict.rule)))


def _never() -> Verdict:
    return Verdict(jnp.zeros((), bool), jnp.zeros((), int), jnp.zeros((), int))


def _pick(condition: Any, a: Any, b: Any) -> Any:
    return jax.tree.map(lambda u, v: jnp.where(condition, u, v), a, b)


def _top(signal: Array, j: Int[Array, ""], t: Array) -> Scalar:
    """Where, before node j, the polynomial through all nodes has a maximum: bisection on its slope."""
    slope = jnp.asarray(DERIVATIVES, signal.dtype) @ signal
    grid = jnp.asarray(GRID, signal.dtype)

    def halve(_: Any, ends: Any) -> Any:
        left, right = ends
        middle = (left + right) / 2
        rising = jnp.polyval(slope[::-1], middle) > 0
        return jnp.where(rising, middle, left), jnp.where(rising, right, middle)

    left, right = lax.fori_loop(0, 40, halve, (grid[j - 1], grid[j]))
    return t[0] + (t[-1] - t[0]) * ((left + right) / 2 + 1) / 2


def _idle(
    rule: Rule, memory: Any, past: Past, t1: Scalar, end: Observables, error: Scalar
) -> Bool[Array, ""]:
    """Whether nothing that matters to the rule can happen within the step, before its end."""
    if not all(each.per_layer for each in rule.needs()):
        return jnp.zeros((), bool)
    times = jnp.append(past.t, t1)
    unit = times[-1] - times[-2]
    x = (times - times[-2]) / jnp.where(unit > 0, unit, 1)  # the step is [0, 1]
    grid = jnp.linspace(0, 1, 2 * INTERVALS + 1, dtype=t1.dtype)[:, None]
    known = past.known >= PAST

    def bounds(rows: Array, last: Array) -> tuple[Array, ...]:
        y = jnp.concatenate([rows, last[None]])[:, None, :]
        gap = lambda a, b: jnp.where(known, x[b] - x[a], 1)
        one = [(y[n + 1] - y[n]) / gap(n, n + 1) for n in range(3)]
        two = [(one[n + 1] - one[n]) / gap(n, n + 2) for n in range(2)]
        three = (two[1] - two[0]) / gap(0, 3)
        # Newton's form from the newest: y3, y2, y1 and for the cubic y0.
        line = y[3] + one[2] * (grid - x[3])
        bent = two[1] * (grid - x[3]) * (grid - x[2])
        rest = three * (grid - x[3]) * (grid - x[2]) * (grid - x[1])
        value = line + bent + rest
        off = 2 * jnp.abs(rest).max(axis=0) + 0.1 * jnp.abs(bent).max(axis=0)
        slope = one[2] + two[1] * (2 * grid - x[3] - x[2])
        pairs = [(3, 2), (3, 1), (2, 1)]
        bend = three * sum((grid - x[a]) * (grid - x[b]) for a, b in pairs)
        unsure = 2 * jnp.abs(bend) + 0.1 * jnp.abs(two[1])
        rising = (slope + bend > unsure).all(axis=0)
        falling = (slope + bend < -unsure).all(axis=0)
        return value.min(axis=0) - off, value.max(axis=0) + off, rising, falling

    found = {name: bounds(past.values[name], end[name]) for name in end}
    parts = [Observables({name: each[n] for name, each in found.items()}) for n in range(4)]
    start = jax.tree.map(lambda rows: rows[-1], past.values)
    low, high, rising, falling = parts
    idle = rule.idle(memory, Span(start, low, high, rising, falling, error))
    return known & jnp.asarray(idle.memory) & jnp.asarray(idle.verdict)
