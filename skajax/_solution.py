"""A dense run as a function of time: the solver's own interpolant, wherever one asks."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._memory import tree_bytes
from skajax._modes import working
from skajax._types import Array, Float, PerLayer, Scalar, Tensors, Weights
from skajax.methods import Path, Resume
from skajax.methods._adaptive import Adaptive
from skajax.methods._method import end_state
from skajax.observables import PAPER, Observable, Observables, merged, needs_start, unread
from skajax.system import Instant, State, System

KEPT = 2**28
"""Bytes of interpolants that are kept."""

Reading: TypeAlias = str | Callable[[Observables], Array]
"""What is read of a layer: an observable's name, or a function of all of them."""


class Solution:
    """Weights at every accepted step, and what it takes to make each step again.

    An interpolant holds as many arrays as a step has stages. One is made anew when it is asked for,
    by the step that the run made there, and as many are kept as KEPT has room for, at least four.
    """

    def __init__(
        self, path: Path, resume: Resume, observables: tuple[Observable, ...] = PAPER
    ) -> None:
        """The steps, the system they are of, and what a reading may name beside the paper's observables."""
        assert isinstance(resume.method, Adaptive)
        self.observables = merged(PAPER, observables)
        self.system, self.method, self.weights = resume.system, resume.method, path.weights
        self.t, self.double = np.asarray(path.t), resume.double
        self._curves: dict[int, Any] = {}
        # An interpolant has some eight arrays like the weights.
        self._kept = max(4, KEPT * len(self.t) // (8 * tree_bytes(self.weights)))

    @cached_property
    def before(self) -> Tensors | None:
        """The knowledge at the run's start, from where the Tensor Net counts."""
        return _start(self.system, self._weights(0)) if needs_start(self.observables) else None

    def state(self, t: float) -> State:
        """The state at one time of the run."""
        with working(self.double):
            if len(self.t) == 1:
                return end_state(self.system, self._weights(0), jnp.asarray(t, self.t.dtype))
            curve, time = self._at(t)
            return _state_on(self.system, curve, time)

    def see(self, function: Callable[[Instant], Any], t: float) -> Any:
        """What a function gives of the :class:`skajax.Instant` at one time; compiled once a function."""
        with working(self.double):
            if len(self.t) == 1:
                weights, time = self._weights(0), jnp.asarray(t, self.t.dtype)
            else:
                curve, time = self._at(t)
                weights = _weights_on(curve, time)
            return _see(self.system, weights, time, function)

    def read(self, reading: Reading, t: float) -> tuple[np.ndarray, np.ndarray]:
        """A reading at one time, and its slope there: its derivative along the interpolant."""
        with working(self.double):
            curve, time = self._at(t)
            value, slope = _read(self.system, curve, self.before, time, reading, self.observables)
        return np.asarray(value, float), np.asarray(slope, float)

    def sample(self, reading: Reading, per_step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times, readings and slopes, evenly spaced within each step, whose ends are among them."""
        t, values, slopes = [], [], []
        for k in range(len(self.t) - 1):
            times = np.linspace(self.t[k], self.t[k + 1], per_step + 1, dtype=self.t.dtype)
            last = k == len(self.t) - 2
            with working(self.double):
                value, slope = _sample(
                    self.system, self._curve(k), self.before, jnp.asarray(times), reading,
                    self.observables,
                )  # fmt: skip
            for kept, piece in ((t, times), (values, value), (slopes, slope)):
                kept.append(np.asarray(piece, float)[: None if last else -1])
        return np.concatenate(t), np.concatenate(values), np.concatenate(slopes)

    def _at(self, t: float) -> tuple[Any, Scalar]:
        k = int(np.clip(np.searchsorted(self.t, t, "right") - 1, 0, len(self.t) - 2))
        time = np.clip(np.asarray(t, self.t.dtype), self.t[k], self.t[k + 1])
        return self._curve(k), jnp.asarray(time)

    def _curve(self, k: int) -> Any:
        if k not in self._curves:
            while len(self._curves) >= self._kept:
                self._curves.pop(next(iter(self._curves)))
            step = jnp.asarray(self.t[k]), jnp.asarray(self.t[k + 1])
            self._curves[k] = self.method.curve(self.system, *step, self._weights(k))
        return self._curves[k]

    def _weights(self, k: int) -> Weights:
        return jax.tree.map(lambda w: jnp.asarray(w[k]), self.weights)


@eqx.filter_jit
def _start(system: System, weights: Weights) -> Tensors:
    return system.trace(jnp.zeros((), system.dtype), weights).Z


@eqx.filter_jit
def _state_on(system: System, curve: Any, t: Scalar) -> State:
    return system.state(t, curve.evaluate(t))


@eqx.filter_jit
def _weights_on(curve: Any, t: Scalar) -> Weights:
    return curve.evaluate(t)


@eqx.filter_jit
def _see(system: System, weights: Weights, t: Scalar, function: Callable[[Instant], Any]) -> Any:
    return function(Instant(system, t, weights))


@eqx.filter_jit
def _read(
    system: System,
    curve: Any,
    before: Tensors | None,
    t: Scalar,
    reading: Reading,
    observables: tuple[Observable, ...],
) -> tuple[PerLayer, PerLayer]:
    def at(t: Scalar) -> PerLayer:
        seen = unread(observables, Instant(system, t, curve.evaluate(t), before=before))
        return seen[reading] if isinstance(reading, str) else reading(seen)

    return jax.jvp(at, (t,), (jnp.ones_like(t),))


@eqx.filter_jit
def _sample(
    system: System,
    curve: Any,
    before: Tensors | None,
    t: Float[Array, " times"],
    reading: Reading,
    observables: tuple[Observable, ...],
) -> tuple[Float[Array, "times layers"], Float[Array, "times layers"]]:
    return jax.lax.map(lambda time: _read(system, curve, before, time, reading, observables), t)
