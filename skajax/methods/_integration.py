"""An integration whose values are known, chunk after chunk.

Between chunks everything is at hand: the steps and the weights at each, as many as there are and no more;
what a stop rule says; a checkpoint; and the state from which to go on. The last step before an end is cut
short for it, but what is carried on is what was there before: a run that goes on makes the very steps
that it would have made without the end.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import require
from skajax._memory import host_bytes, tree_bytes
from skajax._progress import COMPILING, Progress
from skajax._types import Array, Bool, Scalar, Weights
from skajax.methods._checkpoint import Checkpoint
from skajax.methods._integrate import (
    Carry,
    Integrator,
    Leg,
    Pieces,
    advance,
    begin,
    evaluations_of,
    row_shapes,
)
from skajax.methods._method import finite_flow
from skajax.methods._outcome import Code
from skajax.stop import Verdict


class Integration:
    """One integration, chunk after chunk, and what it has recorded so far."""

    def __init__(
        self,
        integrator: Integrator,
        weights: Weights | None,
        *,
        dt0: Any,
        t1: np.floating,
        ts: np.ndarray,
        name: str,
        checkpoint: Any = None,
        identity: Any = None,
        carry: Carry | None = None,
        since: float = 0.0,
    ) -> None:
        """From weights at t = 0, or from what was carried, with records at ts, or at every step.

        A rule is not asked about what was before ``since``.
        """
        self.integrator, self.t1, self.ts, self.name = integrator, t1, ts, name
        self.parts: list[Pieces] = []
        self.status, self.layer = Code.RUNNING, 0
        self.stop, self.stop_t = Verdict(jnp.asarray(False), 0, -1), jnp.asarray(t1)
        self.saved = 0
        if carry is None:
            assert weights is not None
            carry, first, stop = begin(integrator, weights, jnp.asarray(t1), dt0)
            if stop is not None and stop.holds:
                self.status, self.stop, self.stop_t = Code.STOPPED, stop, carry.t
            held = integrator.saves == "steps" or self.status == Code.STOPPED
            self.parts.append(_cut(first, slice(0, int(held)), slice(0, 1)))
        self.carry = carry
        self.file = Checkpoint(checkpoint, identity)
        self.since = since
        restored = self.file.read(carry, lambda: row_shapes(integrator, carry))
        if restored is not None:
            self.carry, pieces = restored
            reached = float(self.carry.t)
            require(
                bool(reached <= t1),
                "checkpoint",
                f"be from before t1 = {t1:.8g}",
                f"it was {reached:.8g}",
            )
            self.parts = [pieces]
            self.saved = len(pieces.t) if integrator.saves == "times" else 0
        self.evaluations = evaluations_of(self.carry.controller)
        self.budget = host_bytes() if integrator.dense else None

    def run(self) -> tuple[Carry, int, int]:
        """To the end; and what to go on from: a carry, and the records and steps made by then."""
        self._advance(cut=False)
        if self.status in (Code.RUNNING, Code.STOPPED):
            self.file.write(self.carry, self.parts, last=True)
        resume = self.carry, *self._counts()
        self._advance(cut=True)
        if self.status == Code.STOPPED and float(self.stop_t) > float(self.carry.t):
            self._end_inside()
        elif self.status == Code.RUNNING:
            self.status = Code.COMPLETED
        elif self.status != Code.STOPPED:
            # Where the flow is not finite no step can be made, whatever the reason given.
            finite = np.asarray(_finite_flow(self.integrator, self.carry.t, self.carry.weights))
            if not finite.all():
                self.status, self.layer = Code.DIVERGED, int(np.argmin(finite)) + 1
        return resume

    @property
    def pieces(self) -> Pieces:
        """All that was recorded."""
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *self.parts)

    def _counts(self) -> tuple[int, int]:
        return sum(len(p.t) for p in self.parts), sum(len(p.steps) for p in self.parts)

    def _advance(self, *, cut: bool) -> None:
        """Whole steps for as long as they end before t1; with ``cut``, the last one cut to end there."""
        t1 = self.t1
        floor = t1 - 100 * np.spacing(t1)  # nearer to the end is the end, as in Diffrax
        ts = jnp.asarray(_padded(self.ts))
        with Progress(
            self.name, float(t1), done=float(self.carry.t), count="t = {n:.4g} of {total:.4g}",
            begins=COMPILING,
        ) as bar:  # fmt: skip
            while self.status == Code.RUNNING and self._ahead(t1 if cut else floor, cut):
                end = t1 if cut else floor
                leg = advance(
                    self.integrator,
                    self.carry,
                    ts,
                    jnp.asarray(self.saved),
                    jnp.asarray(end),
                    jnp.asarray(cut),
                    jnp.asarray(self.since, self.carry.t.dtype),
                )
                self._gather(leg)
                bar.update(float(self.carry.t) - bar.done)
                if not cut:
                    self.file.write(self.carry, self.parts)

    def _ahead(self, end: Any, cut: bool) -> bool:
        """Whether there are steps to make; in NumPy, for which nothing is compiled."""
        t, t_next = np.asarray(self.carry.t), np.asarray(self.carry.t_next)
        return bool(t < end if cut else t_next <= end)

    def _gather(self, leg: Leg) -> None:
        count, saved = int(leg.made), int(leg.saved)
        records = slice(0, count)
        if self.integrator.saves == "times":
            records = slice(self.saved, saved)
        self.parts.append(_cut(leg.buffers, records, slice(0, count)))
        self.carry, self.saved, self.status = leg.carry, saved, int(leg.status)
        self.evaluations, self.stop, self.stop_t = leg.evaluations, leg.stop, leg.stop_t
        self.layer = int(leg.layer) if self.status == Code.DIVERGED else 0
        if self.budget is not None and self.status == Code.RUNNING:
            kept = sum(tree_bytes(part.weights) for part in self.parts)
            # All are copied once more, when they become one array.
            if 2 * (kept + tree_bytes(leg.buffers.weights)) > self.budget:
                self.status = Code.OUT_OF_MEMORY

    def _end_inside(self) -> None:
        """End where the rule began to hold, by a step cut to end there."""
        spent = self.evaluations
        self.t1 = np.asarray(self.stop_t)[()]
        if self.integrator.saves == "times":
            ahead = self.ts[self.saved :]
            self.ts, self.saved = np.append(ahead[ahead < self.t1], self.t1), 0
        before, self.since = self.carry, np.inf  # by the same program; the rule is asked no more
        self.status, stop = Code.RUNNING, self.stop
        self._advance(cut=True)
        if spent is not None:
            self.evaluations = spent + self.evaluations - evaluations_of(before.controller)
        self.status, self.stop = Code.STOPPED if self.status == Code.RUNNING else self.status, stop


def _cut(pieces: Pieces, records: slice, steps: slice) -> Pieces:
    # Copies: a view of a few rows would keep the whole buffer.
    cut = lambda tree, rows: jax.tree.map(lambda a: np.array(np.asarray(a)[rows]), tree)
    return Pieces(
        *cut((pieces.t, pieces.records), records),
        *cut((pieces.steps, pieces.tried, pieces.weights), steps),
    )


def _padded(ts: np.ndarray) -> np.ndarray:
    """With infinite times, to a length that many lists of times share: one program for them all."""
    rows = 128 * (len(ts) // 128 + 1)
    return np.append(ts, np.full(rows - len(ts), np.inf, ts.dtype))


@eqx.filter_jit
def _finite_flow(integrator: Integrator, t: Scalar, weights: Weights) -> Bool[Array, " layers"]:
    return finite_flow(integrator.system, t, weights)
