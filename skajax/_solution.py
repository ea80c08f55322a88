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
from skajax._types import Array, Float, Int, PerLayer, Scalar, Tensors, Weights
from skajax.methods import Path, Resume
from skajax.methods._adaptive import Adaptive
from skajax.methods._method import end_state, written
from skajax.observables import PAPER, Observable, Observables, merged, needs_start, unread
from skajax.system import Instant, State, System

KEPT = 2**28
"""Bytes of interpolants that are kept."""

TIMES = 8
"""At which one call reads, at most."""
READINGS = 8
"""Whose samples are kept."""

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
        self._samples: dict[Any, tuple[Reading, Any]] = {}
        # An interpolant has some eight arrays like the weights.
        self._kept = max(4, KEPT * len(self.t) // (8 * tree_bytes(self.weights)))

    @cached_property
    def before(self) -> Tensors | None:
        """The knowledge at the run's start, from where the Tensor Net counts."""
        return _start(self.system, self._weights(0)) if needs_start(self.observables) else None

    @cached_property
    def _interpolant(self) -> Callable[[Scalar, Scalar, Weights], Any]:
        return self.method.interpolant(self.system)

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

    def read(
        self, reading: Reading, t: float | np.ndarray
    ) -> tuple[Float[np.ndarray, "*times layers"], Float[np.ndarray, "*times layers"]]:
        """A reading at one time, or at some; and its slope: its derivative along the interpolant."""
        times = np.atleast_1d(np.asarray(t, self.t.dtype))
        steps = self._step(times)
        parts = [np.flatnonzero(steps == k) for k in np.unique(steps)]
        found = [self._read(reading, int(steps[part[0]]), times[part]) for part in parts]
        order = np.argsort(np.concatenate(parts))
        values, slopes = (np.concatenate(each)[order] for each in zip(*found, strict=True))
        return (values, slopes) if np.ndim(t) else (values[0], slopes[0])

    def sample(self, reading: Reading, per_step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times, readings and slopes, evenly spaced within each step, whose ends are among them.

        Those of the last few readings are kept.
        """
        # A function may hold arrays, and have no hash: it is known by which it is.
        key = reading if isinstance(reading, str) else id(reading), per_step
        if key not in self._samples:
            while len(self._samples) >= READINGS:
                self._samples.pop(next(iter(self._samples)))
            self._samples[key] = reading, self._sample(reading, per_step)
        return self._samples[key][1]

    def _sample(self, reading: Reading, per_step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        t, found = [], []
        for k in range(len(self.t) - 1):
            times = np.linspace(self.t[k], self.t[k + 1], per_step + 1, dtype=self.t.dtype)
            # A step's end is the next one's start.
            t.append(times if k == len(self.t) - 2 else times[:-1])
            found.append(self._read(reading, k, t[-1]))
        values, slopes = zip(*found, strict=True)
        return np.concatenate(t).astype(float), np.concatenate(values), np.concatenate(slopes)

    def _read(self, reading: Reading, k: int, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Readings and slopes at times within step k."""
        found = []
        with working(self.double):
            for first in range(0, len(times), TIMES):
                some = np.clip(times[first : first + TIMES], self.t[k], self.t[k + 1])
                padded = np.pad(some, (0, TIMES - len(some)), "edge")
                rows = _read(
                    self.system, self._curve(k), self.before, jnp.asarray(padded),
                    jnp.asarray(len(some)), reading, self.observables,
                )  # fmt: skip
                found.append([np.asarray(each, float)[: len(some)] for each in rows])
        values, slopes = zip(*found, strict=True)
        return np.concatenate(values), np.concatenate(slopes)

    def _step(self, t: Any) -> Any:
        """In which step it is."""
        return np.clip(np.searchsorted(self.t, t, "right") - 1, 0, len(self.t) - 2)

    def _at(self, t: float) -> tuple[Any, Scalar]:
        k = int(self._step(t))
        time = np.clip(np.asarray(t, self.t.dtype), self.t[k], self.t[k + 1])
        return self._curve(k), jnp.asarray(time)

    def _curve(self, k: int) -> Any:
        if k not in self._curves:
            while len(self._curves) >= self._kept:
                self._curves.pop(next(iter(self._curves)))
            step = jnp.asarray(self.t[k]), jnp.asarray(self.t[k + 1])
            self._curves[k] = self._interpolant(*step, self._weights(k))
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
    t: Float[Array, " times"],
    count: Int[Array, ""],
    reading: Reading,
    observables: tuple[Observable, ...],
) -> tuple[Float[Array, "times layers"], Float[Array, "times layers"]]:
    """Of the first ``count`` times: for another number of them nothing is compiled."""

    def at(t: Scalar) -> PerLayer:
        seen = unread(observables, Instant(system, t, curve.evaluate(t), before=before))
        return seen[reading] if isinstance(reading, str) else reading(seen)

    def read(k: Int[Array, ""], rows: Any) -> Any:
        here = jax.jvp(at, (t[k],), (jnp.ones_like(t[k]),))
        return written(rows, k, here)

    shape = jax.eval_shape(at, t[0])
    empty = jnp.zeros((len(t), *shape.shape), shape.dtype)
    return jax.lax.fori_loop(0, count, read, (empty, empty))
