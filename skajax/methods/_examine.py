"""Where within a step a stop rule begins to hold.

A rule looks at instants in order. Of an adaptive run's long steps their ends alone would not do: a
peak, or two crossings, may lie between them. A reading within a step, on the solver's interpolant, costs
about an evaluation of the flow; so what lies between two neighbouring readings is judged first by the
polynomial through those nearest to them, the last steps' among them, and by how much the polynomial
changed when its last readings were added:

- where it leaves no doubt that nothing happens in between, nothing is read there;
- a maximum that a rule remembers is read where the polynomial has it, unless the polynomial is exact;
- where the polynomial has the rule begin to hold, a reading is made, until one that holds lies there;
- else the middle is read, down to an eighth of the step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from skajax._nodes import INTERVALS
from skajax._types import Array, Bool, Int, Scalar
from skajax.observables import Observables
from skajax.stop import Idle, Rule, Seen, Span, Verdict

PAST = 3
"""Readings that are remembered from step to step."""
READINGS = 28
"""At most so many within a step; the last half of them bisect."""
ORDER = 6
"""Readings that a polynomial goes through, ..."""
KNOWN = 3
"""... and at least so many where it is trusted."""
POINTS = 17
"""At which a polynomial is looked at between two readings."""
EXACT = 1e-7
"""Relative error of a maximum that needs no reading."""


class Past(NamedTuple):
    """The last readings, the newest last."""

    t: Array
    values: Observables
    known: Int[Array, ""]
    """How many there have been."""


def first_past(t: Scalar, seen: Observables) -> Past:
    """With a run's first reading."""
    values = jax.tree.map(lambda s: jnp.zeros((PAST, *s.shape), s.dtype).at[-1].set(s), seen)
    return Past(jnp.zeros(PAST, t.dtype).at[-1].set(t), values, jnp.ones((), int))


class _Standing(NamedTuple):
    """What is read of a step, in order of time, and how far the rule has looked at it."""

    t: Array
    rows: Array
    """Each reading as one row of numbers."""
    first: Int[Array, ""]
    """The first that is one, ..."""
    filled: Int[Array, ""]
    """... and how many places are filled, with those before it."""
    k: Int[Array, ""]
    """What lies between readings k and k + 1 is being looked at, ..."""
    left: Scalar
    """... from here on, ..."""
    done: Bool[Array, " signals"]
    """... and these maxima in it have been."""
    memory: Any
    verdict: Verdict
    aim: Scalar
    """Where the next reading is to be made, ..."""
    wanted: Bool[Array, ""]
    """... if one is."""
    anew: Bool[Array, ""]
    """The step's start was read again, and the rule has not looked at it yet."""


def examine(
    rule: Rule,
    memory: Any,
    read: Callable[[Scalar], Observables],
    past: Past,
    t1: Scalar,
    end: Observables,
    errors: tuple[Scalar, Scalar],
    since: Scalar,
    jumped: Bool[Array, ""],
) -> tuple[Any, Past, Verdict, Scalar]:
    """Of the step from the last of ``past`` to t1: memory and past at its end, the verdict, and since when.

    ``read`` gives what the rule needs at any time of the step, ``end`` is that at t1; ``errors`` are
    the error budgets at the step's start and end. Verdicts up to ``since`` do not count. Where the
    inputs have ``jumped``, what was read before does not: the step's start is read again.
    """
    t0 = past.t[-1]
    flat = lambda t, seen: ravel_pytree((t, seen))[0]  # with the time, it is never empty
    last_row = flat(t1, end)
    unravel = lambda row: ravel_pytree((t1, end))[1](row)[1]
    per_layer = all(each.per_layer for each in rule.needs())
    width = 1e-7 * jnp.abs(t1) + 4 * jnp.finfo(t1.dtype).eps * jnp.abs(t1)
    place = lambda t: (t - t0) / (t1 - t0)

    def look(memory: Any, t: Scalar, row: Array, error: Scalar) -> tuple[Any, Verdict]:
        memory, verdict = rule.look(memory, Seen(t, unravel(row), error))
        holds = verdict.holds & (t > since)
        return memory, Verdict(holds, *(jnp.asarray(n, int) for n in (verdict.layer, verdict.rule)))

    def signals(row: Array) -> Array:
        """What has maxima that count; and a constant, so that there is something."""
        return jnp.concatenate([*rule.peaks(unravel(row)), jnp.zeros(1, t1.dtype)])

    def settle(s: _Standing) -> _Standing:
        """The rule looks at the next instant that is sure, or a reading is asked for."""
        a, left, b = s.t[s.k], s.left, s.t[s.k + 1]
        n = jnp.arange(len(s.t))
        # An interpolant has kinks where steps meet: readings of this one alone, as soon as they are enough.
        own = s.filled - (PAST - 1) >= ORDER - 1
        first = jnp.where(own, PAST - 1, s.first)
        curve = _through(place(s.t), s.rows, (n >= first) & (n < s.filled), s.k)
        grid = left + (b - left) * jnp.linspace(0, 1, POINTS, dtype=t1.dtype)
        along = lambda x: jax.jvp(
            lambda x: (curve.value(x), curve.doubts(x)), (x,), (jnp.ones_like(x),)
        )
        (values, doubts), rates = jax.vmap(along)(place(grid))
        error = jnp.where(s.k + 2 == s.filled, errors[1], errors[0])
        trusted = curve.known >= KNOWN
        idle = Idle(jnp.zeros((), bool), jnp.zeros((), bool))
        if per_layer:
            idle = rule.idle(s.memory, _span(values, doubts, rates, error, unravel))
            idle = Idle(*(trusted & each for each in idle))

        # The first maximum ahead, if one counts.
        slope = lambda x: jax.jvp(lambda x: signals(curve.value(x)), (x,), (jnp.ones_like(x),))[1]
        slopes = jax.vmap(slope)(place(grid))
        cells = (slopes[:-1] > 0) & (slopes[1:] <= 0) & ~s.done[None] & ~idle.memory & ~s.anew
        cell = jnp.argmax(cells.any(axis=1))
        here, one = cells[cell], jnp.ones_like(cells[cell], t1.dtype)
        top = here.any()
        falling = lambda t: jnp.diagonal(jax.vmap(slope)(place(t))) <= 0
        tops = _since(falling, grid[cell] * one, grid[cell + 1] * one, 1e-6 * (b - a), top)
        tops = jnp.where(here, tops, jnp.inf)
        which = jnp.argmin(tops)
        to = jnp.where(top, tops[which], jnp.where(s.anew, a, b))
        row = jnp.where(top, curve.value(place(to)), s.rows[jnp.where(s.anew, s.k, s.k + 1)])
        wrong = row + _size(curve.doubts(place(to)))
        wrong, right = (each[which] for each in jax.vmap(signals)(jnp.stack([wrong, row])))
        exact = EXACT + 16 * jnp.finfo(t1.dtype).eps
        exact = (jnp.abs(wrong - right) <= exact * jnp.abs(right)) & (cells[:, which].sum() == 1)

        # Since when the rule holds, by the polynomial, up to there.
        looks = jax.vmap(look, (None, 0, 0, 0))(
            s.memory, jnp.append(grid, to), jnp.concatenate([values, row[None]]),
            jnp.full(POINTS + 1, errors[0]).at[-1].set(jnp.where(top | s.anew, errors[0], error)),
        )  # fmt: skip
        after, verdict = jax.tree.map(lambda each: each[-1], looks)
        # Where a rule holds from a maximum on, its place counts, not its height alone: that takes
        # readings close to it on both sides, and one there.
        beyond = to + 2 * width
        _, then = look(after, beyond, curve.value(place(beyond)), errors[0])
        before = jnp.where((to - a <= width) & (a > t0), s.t[s.k - 1], a)
        behind = jnp.where((b - to <= width) & (b < t1), s.t[s.k + 2], b)
        low, high = to - before > (t1 - t0) / 32, behind - to > (t1 - t0) / 32
        beside = top & then.holds & (low | high)
        near = jnp.minimum(to - a, b - to) <= width
        sure = jnp.where(then.holds, near & own & ~beside, near | exact)

        inside = (grid > left) & (grid < to)
        held = looks[1].holds[:-1] & inside & ~idle.verdict
        holds = held.any() | (verdict.holds & ~s.anew)
        earliest = jnp.argmax(held)
        early = jnp.where(held.any(), grid[earliest - 1], jnp.where(inside, grid, left).max())
        late = jnp.where(held.any(), grid[earliest], to)
        holding = lambda t: look(s.memory, t, curve.value(place(t)), errors[0])[1].holds
        begins = _since(holding, early, late, width / 8, holds & ~idle.verdict)
        found = verdict.holds & ~top & ~s.anew & ((b - begins <= width) | idle.verdict)

        # What it takes to be sure: a reading where the maximum is, just beyond where the rule begins to
        # hold, or, where neither is in sight and neither can be excluded, in the middle.
        made = s.filled - PAST - 1
        coarse = b - left > 1.01 * (t1 - t0) / INTERVALS
        blind = ~(idle.memory & idle.verdict) & coarse & ~s.anew
        wanted = jnp.where(holds, ~found & (b - left > width), jnp.where(top, ~sure, blind))
        aim = jnp.where(holds, begins + width / 2, jnp.where(top, to, (left + b) / 2))
        rough = (_size(doubts).max(axis=0) > 0.01 * jnp.abs(values).max(axis=0)).any()
        margin = jnp.where(coarse & (rough | ~trusted), (b - left) / 4, width / 4)
        aim = jnp.clip(aim, left + margin, b - margin)
        aim = jnp.where(2 * made < READINGS, aim, (left + b) / 2)
        aside = to + jnp.where(low, -1, 1) * (t1 - t0) / 64
        aim = jnp.where(beside & ~holds, jnp.clip(aside, t0 + width, t1 - width), aim)
        wanted &= made < READINGS
        found |= (made >= READINGS) & verdict.holds & ~top & ~s.anew

        kept = wanted | verdict.holds  # where it holds, memory stays as it was before
        done = jnp.where(top, s.done | (jnp.arange(len(here)) == which), s.done & s.anew)
        ahead = s._replace(
            k=jnp.where(top | s.anew | found, s.k, s.k + 1), left=to, done=done,
            verdict=_pick(found, verdict, s.verdict), anew=jnp.zeros((), bool),
        )  # fmt: skip
        memory = _pick(kept, s.memory, after)
        return _pick(wanted, s, ahead)._replace(memory=memory, aim=aim, wanted=wanted)

    def reread(s: _Standing) -> _Standing:
        """One more reading, in its place; of the step's start, instead of what was there."""
        row, n = flat(s.aim, read(s.aim)), jnp.arange(len(s.t))
        again, after = s.aim <= t0, (s.t < s.aim).sum()

        def put(old: Array, new: Array) -> Array:
            where = lambda which, a, b: jnp.where(which.reshape(-1, *[1] * (old.ndim - 1)), a, b)
            return where(n < after, old, where(n == after, new[None], jnp.roll(old, 1, axis=0)))

        renewed = s._replace(rows=s.rows.at[s.k].set(row), first=s.k)
        more = s._replace(
            t=put(s.t, s.aim), rows=put(s.rows, row), filled=s.filled + 1,
            k=s.k + (s.aim < s.t[s.k]).astype(int),
        )  # fmt: skip
        return _pick(again, renewed, more)._replace(wanted=jnp.zeros((), bool), anew=again)

    unfinished = lambda s: ~s.verdict.holds & (s.k + 1 < s.filled)
    unsettled = lambda s: unfinished(s) & ~s.wanted

    def turn(s: _Standing) -> _Standing:
        s = lax.while_loop(unsettled, settle, s)
        return lax.while_loop(lambda s: s.wanted, reread, s)

    room = jnp.zeros((READINGS, *last_row.shape), last_row.dtype)
    zero, no = jnp.zeros((), int), jnp.zeros((), bool)
    s = _Standing(
        jnp.concatenate([past.t, t1[None], jnp.full(READINGS, jnp.inf, t1.dtype)]),
        jnp.concatenate([jax.vmap(flat)(past.t, past.values), last_row[None], room]),
        PAST - past.known, zero + PAST + 1, zero + PAST - 1, t0,
        jnp.zeros(jax.eval_shape(signals, last_row).shape, bool), memory,
        Verdict(no, zero, zero), t0, jnp.asarray(jumped), no,
    )  # fmt: skip
    s = lax.while_loop(unfinished, turn, s)
    tail = lambda rows: lax.dynamic_slice_in_dim(rows, s.filled - PAST, PAST)
    known = jnp.minimum(PAST, s.filled - s.first)
    past = Past(tail(s.t), jax.vmap(unravel)(tail(s.rows)), known)
    return s.memory, past, s.verdict, jnp.where(s.verdict.holds, s.left, t1)


class _Curve(NamedTuple):
    """The polynomial through a few readings, in Newton's form."""

    x: Array
    terms: Array
    """Divided differences: (ORDER, numbers of a reading)."""
    known: Int[Array, ""]
    """Through how many it goes."""

    def value(self, x: Scalar) -> Array:
        """At one place."""
        return self._weights(x) @ self.terms

    def doubts(self, x: Scalar) -> tuple[Array, Array]:
        """What the last reading, and the one before it, have added to the value."""
        weights = self._weights(x)
        last, before = (jnp.maximum(self.known - n, 0) for n in (1, 2))
        return weights[last] * self.terms[last], weights[before] * self.terms[before]

    def _weights(self, x: Scalar) -> Array:
        return jnp.cumprod(jnp.append(jnp.ones_like(x), x - self.x[:-1]))


def _through(x: Array, rows: Array, valid: Bool[Array, " readings"], k: Int[Array, ""]) -> _Curve:
    """Through readings k and k + 1, and those nearest to them that are not too close to each other."""
    gap = jnp.finfo(x.dtype).eps ** (1 / 3)  # closer, and their differences are rounding
    chosen, known, near = [k, k + 1], jnp.asarray(2), jnp.abs(x - (x[k] + x[k + 1]) / 2)
    for _ in range(ORDER - 2):
        gaps = jnp.stack([jnp.abs(x - x[n]) for n in chosen]).min(axis=0)
        far = jnp.where(valid & (gaps >= gap), near, jnp.inf)
        chosen.append(jnp.argmin(far))
        known += jnp.isfinite(far[chosen[-1]]).astype(int)
    nodes, table = x[jnp.stack(chosen)], rows[jnp.stack(chosen)]
    terms = [table[0]]
    for n in range(1, ORDER):
        apart = nodes[n:] - nodes[:-n]
        table = (table[1:] - table[:-1]) / jnp.where(apart == 0, 1, apart)[:, None]
        terms.append(jnp.where(n < known, table[0], 0))
    return _Curve(nodes, jnp.stack(terms), known)


def _size(doubts: tuple[Array, Array]) -> Array:
    """By how much a polynomial may be wrong: twice its last term, and a tenth of the one before."""
    return 2 * jnp.abs(doubts[0]) + 0.1 * jnp.abs(doubts[1])


def _span(
    values: Array,
    doubts: tuple[Array, Array],
    rates: tuple[Array, tuple[Array, Array]],
    error: Scalar,
    unravel: Callable[[Array], Observables],
) -> Span:
    """What is known of the values between two instants."""
    size, (rate, unsure) = _size(doubts), (rates[0], 3 * _size(rates[1]))
    start, low, high = map(
        unravel, (values[0], (values - size).min(axis=0), (values + size).max(axis=0))
    )
    true = lambda way: jax.tree.map(lambda a: a > 0, unravel(way.all(axis=0).astype(values.dtype)))
    return Span(start, low, high, true(rate > unsure), true(rate < -unsure), error)


def _since(true: Callable[[Any], Any], early: Any, late: Any, width: Scalar, wanted: Any) -> Any:
    """Since when, between two instants, something is true that is at the later: to a width, by bisection."""

    def halve(ends: Any) -> Any:
        early, late = ends
        middle = early + (late - early) / 2
        return jnp.where(true(middle), early, middle), jnp.where(true(middle), middle, late)

    width += 2 * jnp.finfo(late.dtype).eps * jnp.abs(late).max()
    apart = lambda ends: wanted & (jnp.max(ends[1] - ends[0]) > width)
    return lax.while_loop(apart, halve, (early, late))[1]


def _pick(condition: Any, a: Any, b: Any) -> Any:
    return jax.tree.map(lambda u, v: jnp.where(condition, u, v), a, b)
