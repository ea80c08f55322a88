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

    width = 1e-8 * jnp.abs(t1) + 4 * jnp.finfo(t1.dtype).eps * jnp.abs(t1)
    time = lambda place: t0 + (t1 - t0) * (place + 1) / 2  # of a place in [-1, 1]

    def highest(which: Int[Array, ""], guess: Scalar, j: Int[Array, ""]) -> tuple[Scalar, Any]:
        """Where, before node j, a signal is largest, and the reading there.

        Newton's method on the polynomial's slope, mended by the slope of what the polynomial is off by.
        """
        curve, slope = (
            jnp.asarray(c, t.dtype) @ signals[:, which] for c in (COEFFICIENTS, DERIVATIVES)
        )
        grid = jnp.asarray(GRID, t.dtype)
        node = grid[jnp.argmin(jnp.abs(grid - guess))]

        def mend(loop: Any) -> Any:
            n, _, aim, known, error, _ = loop
            seen = read(time(aim))
            value = jnp.concatenate([*rule.peaks(seen), jnp.zeros(1, t.dtype)])[which]
            off = value - jnp.polyval(curve[::-1], aim)
            apart = aim - known
            tilt = jnp.where(apart == 0, 0, (off - error) / jnp.where(apart == 0, 1, apart))
            bend = jnp.polyval(jnp.polyder(slope[::-1]), aim)
            rise = jnp.polyval(slope[::-1], aim) + tilt
            move = jnp.where(bend < 0, -rise / jnp.where(bend < 0, bend, 1), 0)
            return n + 1, aim, jnp.clip(aim + move, grid[j - 1], grid[j]), aim, off, seen

        moved = lambda loop: jnp.abs(time(loop[2]) - time(loop[1])) > width
        unsure = lambda loop: (loop[0] == 0) | (moved(loop) & (loop[0] < 6))
        loop = (0, guess, guess, node, jnp.zeros((), t.dtype), at(0))
        _, place, _, _, _, seen = lax.while_loop(unsure, mend, loop)
        return time(place), seen

    def unfinished(loop: Any) -> Bool[Array, ""]:
        j, *_, verdict = loop
        return (j <= INTERVALS) & ~verdict.holds

    def go_on(loop: Any) -> Any:
        """The next maximum before node j is remembered, or else the node is looked at."""
        j, done, memory, left, _, _ = loop
        waiting = tops[j - 1] & ~done
        top = waiting.any()
        places = _tops(signals, j)
        which = jnp.argmin(jnp.where(waiting, places, jnp.inf))
        now, seen = lax.cond(
            top, lambda _: highest(which, places[which], j), lambda _: (t[j], at(j)), None
        )
        error = jnp.where(top | (j < INTERVALS), *errors)
        after, verdict = said(memory, now, seen, error)
        done = jnp.where(top, done.at[which].set(True), False)
        # Where it holds, memory and left stay as they were before.
        memory, left = _pick(verdict.holds, (memory, left), (after, jnp.maximum(left, now)))
        return jnp.where(top | verdict.holds, j, j + 1), done, memory, left, now, verdict

    # A step that is not sampled has one subinterval, itself.
    loop = (first, jnp.zeros(tops.shape[1:], bool), memory, t0, t1, _never())
    _, _, memory, left, right, verdict = lax.while_loop(unfinished, go_on, loop)

    # A step that is not sampled may end where the rule holds, and then it holds there first.
    right = jnp.where(verdict.holds, right, t1)
    left = jnp.maximum(left, jnp.minimum(since, right))
    left = jnp.where(verdict.holds & sampled, left, right)

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


def _tops(signals: Array, j: Int[Array, ""]) -> Array:
    """Where in [-1, 1] the signals' polynomials have a maximum before node j: bisection on their slopes."""
    slopes = jnp.asarray(DERIVATIVES, signals.dtype) @ signals
    grid = jnp.asarray(GRID, signals.dtype)

    def halve(_: Any, ends: Any) -> Any:
        left, right = ends
        middle = (left + right) / 2
        rising = jnp.polyval(slopes[::-1], middle) > 0
        return jnp.where(rising, middle, left), jnp.where(rising, right, middle)

    ends = tuple(jnp.full(signals.shape[1:], grid[k]) for k in (j - 1, j))
    left, right = lax.fori_loop(0, 40, halve, ends)
    return (left + right) / 2


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
