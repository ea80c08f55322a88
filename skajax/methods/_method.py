"""What every method is: a way to carry weights through time, and what it hands back."""

import abc
import dataclasses
import os
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._modes import double_precision
from skajax._summary import Summarised, Summary, counted
from skajax._types import (
    Array,
    Bool,
    Count,
    Float,
    Int,
    LayerSeries,
    SaveTimes,
    Scalar,
    ScalarLike,
    TimeSeries,
    Weights,
)
from skajax.methods._outcome import Outcome
from skajax.observables import PAPER, Observable, Observables, merged
from skajax.stop import Rule
from skajax.system import State, System, is_finite


@eqx.filter_jit
def end_state(system: System, weights: Weights, t: Scalar) -> State:
    """The state of the whole weights, compiled."""
    return system.state(t, weights)


class Request(NamedTuple):
    """What a run is asked for, beside its start."""

    t1: ScalarLike | None = None
    steps: int | None = None
    save_at: SaveTimes | str | None = None
    dense: bool = False
    until: Rule | None = None
    checkpoint: str | os.PathLike[str] | None = None
    observe: tuple[Observable, ...] = PAPER

    @property
    def rules(self) -> tuple[str, ...]:
        """What the stop rules are called, by which an outcome tells of them."""
        return () if self.until is None else self.until.names()

    @property
    def watched(self) -> tuple[Observable, ...]:
        """What is to be recorded, and what else the stop rule looks at."""
        return self.observe if self.until is None else merged(self.observe, self.until.needs())


class Stats(Summarised, eqx.Module):
    """What a run cost.

    ``evaluations`` of the flow (forward passes, under the published rule) that were spent on
    advancing, not those that only measure; None where the solver does not tell (implicit ones).
    ``steps`` tried in all, and how many of them the step-size controller ``rejected``. ``rank`` is the
    number of input directions that were simulated, where those are fewer than the inputs (see
    ``simulate``'s reduction); otherwise None.

    >>> int(ska.simulate(network, weights, x, ska.Euler(0.05), t1=1.0).stats.steps)
    20
    """

    evaluations: Count | None
    steps: Count
    rejected: Count
    rank: Count | None = None

    def summary(self) -> Summary:
        """One sentence; of a batch, from the least to the most."""
        steps, rejected = np.asarray(self.steps), np.asarray(self.rejected)
        told = [counted(steps, "step")]
        if rejected.any():
            told.append(counted(rejected, "rejection"))
        if self.evaluations is not None:
            told.append(counted(np.asarray(self.evaluations), "evaluation") + " of the flow")
        if self.rank is not None:
            told.append(f"{counted(np.asarray(self.rank), 'direction')} of the inputs simulated")
        return Summary(("; ".join(told),))


class Path(eqx.Module):
    """The accepted steps of an adaptive run.

    >>> len(run.path.t) == len(run.path.rejected) + 1
    True
    """

    t: TimeSeries
    """Where each ended, from the start: (steps + 1,); their differences are the step sizes."""
    rejected: Int[Array, " steps"]
    """How many larger ones were tried before each."""
    weights: Any = None
    """Of a dense run, the weights at each t: (steps + 1, ...), in the coordinates that are simulated."""


class Resume(eqx.Module):
    """What it takes to go on, as if the run had never stopped.

    >>> longer = ska.extend(run, t1=7.0)  # from the solver's own state, step size included
    """

    system: System
    carry: Any
    """After the last whole step; None where the run failed."""
    records: int = eqx.field(static=True)
    """How many records, and ..."""
    accepted: int = eqx.field(static=True)
    """... accepted steps there were by then: what came after it is made again."""
    saves: str = eqx.field(static=True)
    """What was recorded: "steps", "end", or "times", ..."""
    spacing: float = eqx.field(static=True)
    """... and of times, how far apart the last of them were to be."""
    double: bool = eqx.field(static=True)
    """Whether JAX held float64 then: counters have its integers, whatever the precision of x."""
    rule: Rule | None
    """The stop rule, and ..."""
    watch: Any
    """... what it had seen by then."""
    # A method holds functions too, which have no place among a run's arrays.
    _arrays: Any
    _rest: Any = eqx.field(static=True)

    def __init__(
        self,
        method: "AbstractMethod",
        system: System,
        carry: Any,
        *,
        records: int,
        accepted: int,
        saves: str,
        spacing: float = 0.0,
        rule: Rule | None = None,
        watch: Any = None,
    ) -> None:
        """Take the method apart."""
        self.spacing, self.rule, self.watch = spacing, rule, watch
        self.system, self.carry, self.double = system, carry, double_precision()
        self.records, self.accepted, self.saves = records, accepted, saves
        self._arrays, self._rest = eqx.partition(
            method, lambda leaf: isinstance(leaf, jax.Array | np.ndarray)
        )

    @property
    def method(self) -> "AbstractMethod":
        """Whole again."""
        return eqx.combine(self._arrays, self._rest)


class Evolution(NamedTuple):
    """What a method returns: records at times t, the state it ended in, its cost and outcome."""

    t: TimeSeries
    records: Observables
    final: State
    stats: Stats
    outcome: Outcome
    path: Path | None = None
    resume: Resume | None = None

    def explained(self, method: "AbstractMethod", request: Request) -> "Evolution":
        """The same with an outcome that can say by which rules it ended, and what its end means."""
        named = dataclasses.replace(self.outcome, rules=request.rules, note=method.note)
        return self._replace(outcome=named)


class AbstractMethod(eqx.Module):
    """How weights move through time: by steps known beforehand, or by adaptive ones.

    >>> isinstance(ska.Adaptive(), ska.methods.AbstractMethod)
    True
    """

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What the method is called on plots and in files."""

    rotates: ClassVar[bool]
    """Whether it moves weights alike in any coordinates, so that a row space will do."""
    note: ClassVar[str] = ""
    """What the outcome of a completed run adds to the time that was reached."""

    @abc.abstractmethod
    def evolve(self, system: System, weights: Weights, request: Request) -> Evolution:
        """Carry the weights from t = 0 to t1, or through so many steps, and record on the way."""

    @abc.abstractmethod
    def proceed(self, run: Evolution, request: Request) -> Evolution:
        """Go on from where a run ended."""


WATCHED = ("entropy", "entropy_rate", "knowledge_norm", "flow_norm", "weight_norm")
"""Observables of the paper that are all finite for as long as all are."""


def finite_layers(records: Observables, squares: LayerSeries) -> Bool[Array, "*times layers"]:
    """Which layers were finite, and their norms representable, when they were observed.

    ``squares`` are the sums of each layer's squared weights, which tell where little else is observed.
    """
    fields = [squares, *(records[name] for name in WATCHED if name in records)]
    return jnp.isfinite(jnp.stack(fields)).all(axis=0)


def first_failure(finite: Bool[Array, "times layers"]) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Of records over time: how many come before the first that is not finite, and its layer.

    Layers count from 1; with every record finite, their number and 0.
    """
    bad = ~finite.all(axis=-1)
    good = jnp.where(bad.any(), jnp.argmax(bad), bad.size)
    layer = jnp.where(bad.any(), jnp.argmin(finite[jnp.argmax(bad)]) + 1, 0)
    return good, layer


def finite_flow(system: System, t: Scalar, weights: Weights) -> Bool[Array, " layers"]:
    """Of which layers the flow is finite."""
    bad = [1 - is_finite(rate).astype(system.dtype) for rate in system.flow(t, weights)]
    return system.network.per_layer(bad) == 0


def written(buffers: Any, k: Int[Array, ""], rows: Any) -> Any:
    """Buffers with their k-th rows written; a k beyond the last row counts as the last."""
    write = lambda buffer, row: jax.lax.dynamic_update_index_in_dim(buffer, row, k, 0)
    return jax.tree.map(write, buffers, rows)


def blanked(
    good: Bool[Array, " records"], t: Float[Array, " records"], records: Observables
) -> tuple[Float[Array, " records"], Observables]:
    """Times and records with NaN where they are not good; whole numbers 0."""

    def blank(a: Array) -> Array:
        nothing = jnp.nan if jnp.issubdtype(a.dtype, jnp.inexact) else 0
        there = good.reshape(-1, *[1] * (a.ndim - 1))
        return jnp.where(there, a, jnp.asarray(nothing, a.dtype))

    return blank(t), jax.tree.map(blank, records)
