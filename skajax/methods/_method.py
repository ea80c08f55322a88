"""What every method is: a way to carry weights through time, and what it hands back."""

import abc
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import is_traced, require
from skajax._types import (
    Array,
    Bool,
    Count,
    Inputs,
    Int,
    SaveTimes,
    ScalarLike,
    TimeSeries,
    Weights,
)
from skajax.flow import State
from skajax.network import Network
from skajax.observables import Observables

COMPLETED, DIVERGED, MAX_STEPS, STEP_TOO_SMALL, SOLVER_FAILED = range(5)


class Stats(eqx.Module):
    """What a run cost.

    ``evaluations`` of the flow (forward passes, under the published rule) that were spent on
    advancing, not those that only measure; None where the solver does not tell (implicit ones).
    ``steps`` tried in all, and how many of them the step-size controller ``rejected``.
    """

    evaluations: Count | None
    steps: Count
    rejected: Count


class Outcome(eqx.Module):
    """Why a run ended: a code, and the time, step and layer (1..L; 0: none) where it did."""

    code: Count
    t: TimeSeries
    step: Count
    layer: Count

    @property
    def completed(self) -> Bool[Array, "*lanes"]:
        """Whether the run reached its end."""
        return jnp.asarray(self.code == COMPLETED)

    def __str__(self) -> str:
        """What happened, where, and what to try; of one run, and outside of jit and vmap."""
        if is_traced(self.code) or jnp.ndim(self.code):
            return f"Outcome(code={self.code})"
        time = f"t = {float(self.t):.6g}"
        what = f"layer {int(self.layer)}" if int(self.layer) else "the flow"
        return {
            COMPLETED: f"completed: reached {time}",
            DIVERGED: f"diverged: {what} overflowed after step {int(self.step)}, {time}; what is"
            " returned is from before. Try a smaller dt, smaller weights or inputs, or float64",
            MAX_STEPS: f"stopped at {time}: max_steps = {int(self.step)} steps were used up."
            " Try a larger max_steps, looser rtol and atol, or a solver for stiff problems",
            STEP_TOO_SMALL: f"stopped at {time}, step {int(self.step)}: the step size fell below"
            " the controller's minimum. Try looser rtol and atol, or float64",
            SOLVER_FAILED: f"stopped at {time}, step {int(self.step)}: the solver failed, as an"
            " implicit step's nonlinear solve may. Try a smaller dt0, or an explicit solver",
        }[int(self.code)]


class Evolution(NamedTuple):
    """What a method returns: records at times t, the state it ended in, its cost and outcome."""

    t: TimeSeries
    records: Observables
    final: State
    stats: Stats
    outcome: Outcome


_AnyMethod = TypeVar("_AnyMethod", bound="Method")


class Method(eqx.Module):
    """How weights move through time: Euler, Published, Descent or Adaptive."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What the method is called on plots and in files."""

    @abc.abstractmethod
    def evolve(
        self,
        network: Network,
        weights: Weights,
        x: Inputs,
        *,
        t1: ScalarLike | None,
        steps: int | None,
        save_at: SaveTimes | None,
    ) -> Evolution:
        """Carry the weights from t = 0 to t1, or through so many steps, and record on the way."""


def as_arrays(method: _AnyMethod, dtype: jnp.dtype) -> _AnyMethod:
    """The method with its numbers as arrays of this dtype: a new value then compiles nothing."""

    def as_array(path: tuple[Any, ...], leaf: Any) -> Any:
        if not is_number(leaf):
            return leaf
        if not is_traced(leaf):
            name = jax.tree_util.keystr(path, simple=True)
            size, limits = np.abs(np.asarray(leaf)), jnp.finfo(dtype)
            fits = np.all((size == 0) | ((size >= limits.tiny) & (size <= limits.max)))
            require(bool(fits), name, f"be representable in {dtype}", f"it was {leaf!r}")
        return jnp.asarray(leaf, dtype)

    return jax.tree.map_with_path(as_array, method)


def is_number(leaf: object) -> bool:
    """Whether a leaf of a method is one of its numbers: floating-point, traced or not."""
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        return jnp.issubdtype(leaf.dtype, jnp.floating)
    return isinstance(leaf, float)


def as_float(value: Any) -> Any:
    """A whole number as the float it stands for; anything else as it is."""
    return float(value) if type(value) is int else value


def finite_layers(records: Observables) -> Bool[Array, "*times layers"]:
    """Which layers were finite, and their norms representable, when they were observed."""
    fields = (records.entropy, records.entropy_rate, records.knowledge_norm, records.flow_norm)
    return jnp.isfinite(jnp.stack([*fields, records.weight_norm])).all(axis=0)


def first_failure(records: Observables) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Of records over time: how many come before the first that is not finite, and its layer.

    Layers count from 1; with every record finite, their number and 0.
    """
    finite = finite_layers(records)
    bad = ~finite.all(axis=-1)
    good = jnp.where(bad.any(), jnp.argmax(bad), bad.size)
    layer = jnp.where(bad.any(), jnp.argmin(finite[jnp.argmax(bad)]) + 1, 0)
    return good, layer
