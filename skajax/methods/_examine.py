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
from skajax.methods._curve import ORDER, Curve, size_of, through
from skajax.observables import Observables
from skajax.stop import Idle, Rule, Seen, Span, Verdict

PAST = 3
"""Readings that are remembered from step to step."""
READINGS = 28
"""At most so many within a step; the last half of them bisect."""
KNOWN = 3
"""A polynomial through so many readings is trusted."""
POINTS = 17
"""At which a polynomial is looked at between two readings."""
EXACT = 1e-8
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

    @property
    def made(self) -> Int[Array, ""]:
        """How many readings have been made within the step."""
        return self.filled - PAST - 1


class _Stretch(NamedTuple):
    """Between two neighbouring readings, from where the rule has looked to the second of them."""

    a: Scalar
    """The first reading's time, ..."""
    b: Scalar
    """... and the second's."""
    curve: Curve
    own: Bool[Array, ""]
    """The polynomial goes through readings of this step alone."""
    trusted: Bool[Array, ""]
    """It goes through enough of them."""
    grid: Array
    """Instants ahead, ..."""
    values: Array
    """... what it says of them, ..."""
    rough: Bool[Array, ""]
    """... whether that may be wrong by more than a hundredth, ..."""
    idle: Idle
    """... and whether the rule need not look there."""
    error: Scalar
    """The error budget at the second reading."""


class _Top(NamedTuple):
    """The first maximum ahead that a rule remembers, by the polynomial; else the stretch's end."""

    there: Bool[Array, ""]
    t: Scalar
    row: Array
    which: Int[Array, ""]
    """Whose maximum it is, among the signals."""
    exact: Bool[Array, ""]
    """The polynomial has its height so well that no reading is needed."""


class _Turn(NamedTuple):
    """What a rule that holds from a maximum on asks of the readings around it."""

    beside: Bool[Array, ""]
    """One more beside it is needed, ..."""
    low: Bool[Array, ""]
    """... before it, rather than behind."""
    sure: Bool[Array, ""]
    """The maximum is known well enough."""


class _Onset(NamedTuple):
    """Where the rule begins to hold, by the polynomial."""

    holds: Bool[Array, ""]
    t: Scalar
    found: Bool[Array, ""]
    """That is where the stretch's end is."""


class _Step(NamedTuple):
    """One step that a rule looks at, and how to read it."""

    rule: Rule
    read: Callable[[Scalar], Observables]
    t0: Scalar
    t1: Scalar
    errors: tuple[Scalar, Scalar]
    since: Scalar
    unravel: Callable[[Array], Observables]
    per_layer: bool
    """All that the rule needs has one number a layer: only then can it say where it is idle."""

    @property
    def width(self) -> Scalar:
        """To which the time of an event is found."""
        return 1e-7 * jnp.abs(self.t1) + 4 * jnp.finfo(self.t1.dtype).eps * jnp.abs(self.t1)

    def place(self, t: Array) -> Array:
        """Times in units of the step."""
        return (t - self.t0) / (self.t1 - self.t0)

    def look(self, memory: Any, t: Scalar, row: Array, error: Scalar) -> tuple[Any, Verdict]:
        """The rule's own look at a reading; what was before ``since`` does not count."""
        memory, verdict = self.rule.look(memory, Seen(t, self.unravel(row), error))
        holds = verdict.holds & (t > self.since)
        return memory, Verdict(holds, *(jnp.asarray(n, int) for n in (verdict.layer, verdict.rule)))

    def signals(self, row: Array) -> Array:
        """What has maxima that count; and a constant, so that there is something."""
        return jnp.concatenate([*self.rule.peaks(self.unravel(row)), jnp.zeros(1, self.t1.dtype)])

    def slope(self, curve: Curve, t: Scalar) -> Array:
        """Of each signal, along a polynomial."""
        along = lambda x: self.signals(curve.value(x))
        x = self.place(t)
        return jax.jvp(along, (x,), (jnp.ones_like(x),))[1]

    def stretch(self, s: _Standing) -> _Stretch:
        """What the nearest readings tell of what lies ahead, up to the next one."""
        a, b = s.t[s.k], s.t[s.k + 1]
        n = jnp.arange(len(s.t))
        # An interpolant has kinks where steps meet: readings of this one alone, as soon as they are enough.
        own = s.filled - (PAST - 1) >= ORDER - 1
        first = jnp.where(own, PAST - 1, s.first)
        curve = through(self.place(s.t), s.rows, (n >= first) & (n < s.filled), s.k)
        grid = s.left + (b - s.left) * jnp.linspace(0, 1, POINTS, dtype=self.t1.dtype)
        along = lambda x: jax.jvp(
            lambda x: (curve.value(x), curve.doubts(x)), (x,), (jnp.ones_like(x),)
        )
        (values, doubts), rates = jax.vmap(along)(self.place(grid))
        error = jnp.where(s.k + 2 == s.filled, self.errors[1], self.errors[0])
        trusted = curve.known >= KNOWN
        idle = Idle(jnp.zeros((), bool), jnp.zeros((), bool))
        if self.per_layer:
            idle = self.rule.idle(s.memory, _span(values, doubts, rates, error, self.unravel))
            idle = Idle(*(trusted & each for each in idle))
        rough = (size_of(doubts).max(axis=0) > 0.01 * jnp.abs(values).max(axis=0)).any()
        return _Stretch(a, b, curve, own, trusted, grid, values, rough, idle, error)

    def top(self, s: _Standing, ahead: _Stretch) -> _Top:
        """The first maximum ahead, if one counts."""
        a, b, curve, grid = ahead.a, ahead.b, ahead.curve, ahead.grid
        slopes = jax.vmap(lambda t: self.slope(curve, t))(grid)
        cells = (slopes[:-1] > 0) & (slopes[1:] <= 0) & ~s.done[None] & ~ahead.idle.memory & ~s.anew
        cell = jnp.argmax(cells.any(axis=1))
        here, one = cells[cell], jnp.ones_like(cells[cell], self.t1.dtype)
        there = here.any()
        falling = lambda t: jnp.diagonal(jax.vmap(lambda t: self.slope(curve, t))(t)) <= 0
        tops = _since(falling, grid[cell] * one, grid[cell + 1] * one, 1e-6 * (b - a), there)
        tops = jnp.where(here, tops, jnp.inf)
        which = jnp.argmin(tops)
        to = jnp.where(there, tops[which], jnp.where(s.anew, a, b))
        at = self.place(to)
        row = jnp.where(there, curve.value(at), s.rows[jnp.where(s.anew, s.k, s.k + 1)])
        wrong = row + size_of(curve.doubts(at))
        wrong, right = (each[which] for each in jax.vmap(self.signals)(jnp.stack([wrong, row])))
        exact = EXACT + 16 * jnp.finfo(self.t1.dtype).eps
        exact = (jnp.abs(wrong - right) <= exact * jnp.abs(right)) & (cells[:, which].sum() == 1)
        return _Top(there, to, row, which, exact)

    def turn(self, s: _Standing, ahead: _Stretch, top: _Top, after: Any) -> _Turn:
        """Where a rule holds from a maximum on, its place counts, not its height alone.

        That takes readings close to it on both sides, and one there.
        """
        a, b, to, width = ahead.a, ahead.b, top.t, self.width
        beyond = to + 2 * width
        _, then = self.look(after, beyond, ahead.curve.value(self.place(beyond)), self.errors[0])
        before = jnp.where((to - a <= width) & (a > self.t0), s.t[s.k - 1], a)
        behind = jnp.where((b - to <= width) & (b < self.t1), s.t[s.k + 2], b)
        far = (self.t1 - self.t0) / 32
        low, high = to - before > far, behind - to > far
        beside = top.there & then.holds & (low | high)
        near = jnp.minimum(to - a, b - to) <= width
        sure = jnp.where(then.holds, near & ahead.own & ~beside, near | top.exact)
        return _Turn(beside, low, sure)

    def onset(self, s: _Standing, ahead: _Stretch, top: _Top) -> tuple[_Onset, Any, Verdict]:
        """Since when the rule holds, up to the maximum; and what it remembers and says there."""
        grid, idle = ahead.grid, ahead.idle
        inner = top.there | s.anew
        memories, verdicts = jax.vmap(self.look, (None, 0, 0, 0))(
            s.memory, jnp.append(grid, top.t), jnp.concatenate([ahead.values, top.row[None]]),
            jnp.full(POINTS + 1, self.errors[0]).at[-1].set(
                jnp.where(inner, self.errors[0], ahead.error)
            ),
        )  # fmt: skip
        after, verdict = jax.tree.map(lambda each: each[-1], (memories, verdicts))
        inside = (grid > s.left) & (grid < top.t)
        held = verdicts.holds[:-1] & inside & ~idle.verdict
        holds = held.any() | (verdict.holds & ~s.anew)
        earliest = jnp.argmax(held)
        early = jnp.where(held.any(), grid[earliest - 1], jnp.where(inside, grid, s.left).max())
        late = jnp.where(held.any(), grid[earliest], top.t)
        value = lambda t: ahead.curve.value(self.place(t))
        holding = lambda t: self.look(s.memory, t, value(t), self.errors[0])[1].holds
        begins = _since(holding, early, late, self.width / 8, holds & ~idle.verdict)
        found = verdict.holds & ~inner & ((ahead.b - begins <= self.width) | idle.verdict)
        return _Onset(holds, begins, found), after, verdict

    def next_reading(
        self, s: _Standing, ahead: _Stretch, top: _Top, turn: _Turn, onset: _Onset
    ) -> tuple[Bool[Array, ""], Scalar]:
        """Whether one more reading is needed to be sure, and where.

        Where the maximum is, just beyond where the rule begins to hold, or, where neither is in sight
        and neither can be excluded, in the middle.
        """
        b, left, width, whole = ahead.b, s.left, self.width, self.t1 - self.t0
        middle = (left + b) / 2
        coarse = b - left > 1.01 * whole / INTERVALS
        blind = ~(ahead.idle.memory & ahead.idle.verdict) & coarse & ~s.anew
        by_top = jnp.where(top.there, ~turn.sure, blind)
        wanted = jnp.where(onset.holds, ~onset.found & (b - left > width), by_top)
        aim = jnp.where(onset.holds, onset.t + width / 2, jnp.where(top.there, top.t, middle))
        margin = jnp.where(coarse & (ahead.rough | ~ahead.trusted), (b - left) / 4, width / 4)
        aim = jnp.clip(aim, left + margin, b - margin)
        aim = jnp.where(2 * s.made < READINGS, aim, middle)
        aside = jnp.clip(
            top.t + jnp.where(turn.low, -1, 1) * whole / 64, self.t0 + width, self.t1 - width
        )
        return wanted & (s.made < READINGS), jnp.where(turn.beside & ~onset.holds, aside, aim)

    def settle(self, s: _Standing) -> _Standing:
        """The rule looks at the next instant that is sure, or a reading is asked for."""
        ahead = self.stretch(s)
        top = self.top(s, ahead)
        onset, after, verdict = self.onset(s, ahead, top)
        turn = self.turn(s, ahead, top, after)
        wanted, aim = self.next_reading(s, ahead, top, turn, onset)

        inner = top.there | s.anew
        at_start = s.anew & verdict.holds
        found = onset.found | at_start | ((s.made >= READINGS) & verdict.holds & ~inner)
        this = jnp.arange(len(s.done)) == top.which
        looked = s._replace(
            k=jnp.where(inner | found, s.k, s.k + 1),
            left=top.t,
            done=jnp.where(top.there, s.done | this, s.done & s.anew),
            verdict=_pick(found, verdict, s.verdict),
            anew=jnp.zeros((), bool),
        )
        # Where it holds, memory stays as it was before.
        memory = _pick(wanted | verdict.holds, s.memory, after)
        return _pick(wanted, s, looked)._replace(memory=memory, aim=aim, wanted=wanted)

    def reread(self, s: _Standing) -> _Standing:
        """One more reading, in its place; of the step's start, instead of what was there."""
        row, n = _flat(s.aim, self.read(s.aim)), jnp.arange(len(s.t))
        again, after = s.aim <= self.t0, (s.t < s.aim).sum()

        def put(old: Array, new: Array) -> Array:
            where = lambda which, a, b: jnp.where(which.reshape(-1, *[1] * (old.ndim - 1)), a, b)
            return where(n < after, old, where(n == after, new[None], jnp.roll(old, 1, axis=0)))

        renewed = s._replace(rows=s.rows.at[s.k].set(row), first=s.k)
        more = s._replace(
            t=put(s.t, s.aim), rows=put(s.rows, row), filled=s.filled + 1,
            k=s.k + (s.aim < s.t[s.k]).astype(int),
        )  # fmt: skip
        return _pick(again, renewed, more)._replace(wanted=jnp.zeros((), bool), anew=again)


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
    unravel = lambda row: ravel_pytree((t1, end))[1](row)[1]
    per_layer = all(each.per_layer for each in rule.needs())
    step = _Step(rule, read, past.t[-1], t1, errors, since, unravel, per_layer)

    unfinished = lambda s: ~s.verdict.holds & (s.k + 1 < s.filled)

    def go(s: _Standing) -> _Standing:
        s = lax.while_loop(lambda s: unfinished(s) & ~s.wanted, step.settle, s)
        return lax.while_loop(lambda s: s.wanted, step.reread, s)

    last_row = _flat(t1, end)
    room = jnp.zeros((READINGS, *last_row.shape), last_row.dtype)
    zero, no = jnp.zeros((), int), jnp.zeros((), bool)
    s = _Standing(
        jnp.concatenate([past.t, t1[None], jnp.full(READINGS, jnp.inf, t1.dtype)]),
        jnp.concatenate([jax.vmap(_flat)(past.t, past.values), last_row[None], room]),
        PAST - past.known, zero + PAST + 1, zero + PAST - 1, step.t0,
        jnp.zeros(jax.eval_shape(step.signals, last_row).shape, bool), memory,
        Verdict(no, zero, zero), step.t0, jnp.asarray(jumped), no,
    )  # fmt: skip
    s = lax.while_loop(unfinished, go, s)
    tail = lambda rows: lax.dynamic_slice_in_dim(rows, s.filled - PAST, PAST)
    known = jnp.minimum(PAST, s.filled - s.first)
    past = Past(tail(s.t), jax.vmap(unravel)(tail(s.rows)), known)
    return s.memory, past, s.verdict, jnp.where(s.verdict.holds, s.left, t1)


def _flat(t: Scalar, seen: Observables) -> Array:
    """A reading as one row; with its time, it is never empty."""
    return ravel_pytree((t, seen))[0]


def _span(
    values: Array,
    doubts: tuple[Array, Array],
    rates: tuple[Array, tuple[Array, Array]],
    error: Scalar,
    unravel: Callable[[Array], Observables],
) -> Span:
    """What is known of the values between two instants."""
    size, (rate, unsure) = size_of(doubts), (rates[0], 3 * size_of(rates[1]))
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
