"""Methods whose steps are known beforehand: every step is recorded.

With known values a run is cut into chunks of one compiled length, each of which makes a traced
number of steps: another step size, and with it another number of steps, compiles nothing; records
leave the device as they are made; and a run that overflows ends there. Inside jit, vmap and grad,
where nothing may depend on values, it is one ``lax.scan``.
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

from skajax._checks import is_traced, require, require_positive
from skajax._types import Inputs, Int, SaveTimes, Scalar, ScalarLike, Weights
from skajax.flow import State, state
from skajax.methods._method import (
    COMPLETED,
    DIVERGED,
    Evolution,
    Method,
    Outcome,
    Stats,
    as_arrays,
    finite_layers,
    first_failure,
)
from skajax.network import Network
from skajax.observables import Observables

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
        """Take every step, and record every step."""
        name = type(self).__name__
        require(save_at is None, "save_at", f"be left out with {name}", "it records every step")
        count = self.count_steps(t1, steps)
        method = as_arrays(self, x.dtype)
        carry = _start(method, network, weights, x)
        march = _scan if is_traced(method, carry) else _march
        carry, records, taken, layer = march(method, network, carry, x, count)
        final = _state(network, carry.weights, x, carry.t)
        diverged = layer > 0
        until = final.t
        if is_traced(records):  # a scan cannot stop: its end lies beyond the overflow
            until = jnp.where(diverged, records.t[jnp.maximum(taken - 1, 0)], final.t)
        return Evolution(
            records.t,
            records.observables,
            final,
            Stats(evaluations=taken, steps=taken, rejected=0 * taken),
            Outcome(jnp.where(diverged, DIVERGED, COMPLETED), until, taken, layer),
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
    whole = isinstance(steps, int | np.integer) and not isinstance(steps, bool) and steps >= 1
    require(whole, "steps", "be a whole number of steps, at least 1", f"it was {steps!r}")
    return int(steps)  # pyright: ignore[reportArgumentType]


@eqx.filter_jit
def _start(method: FixedStep, network: Network, weights: Weights, x: Inputs) -> Any:
    return method.start(network, weights, x)


@eqx.filter_jit
def _state(network: Network, weights: Weights, x: Inputs, t: Scalar) -> State:
    return state(network, weights, x, t)


@eqx.filter_jit
def _scan(
    method: FixedStep, network: Network, carry: Any, x: Inputs, count: int
) -> tuple[Any, Record, Int[jax.Array, ""], Int[jax.Array, ""]]:
    """All steps as one differentiable, vmappable loop; observables after an overflow are NaN."""
    carry, records = lax.scan(lambda c, _: method.step(network, c, x), carry, length=count)
    _, last = method.step(network, carry, x)
    records = jax.tree.map(lambda r, e: jnp.concatenate([r, e[None]]), records, last)
    good, layer = first_failure(records.observables)
    kept = count + 1 if method.records_end else count

    def mask(r: jax.Array) -> jax.Array:
        return jnp.where(
            (jnp.arange(kept) < good).reshape(-1, *[1] * (r.ndim - 1)), r[:kept], jnp.nan
        )

    records = Record(records.t[:kept], jax.tree.map(mask, records.observables))
    return carry, records, jnp.minimum(good, count), layer


def _march(
    method: FixedStep, network: Network, carry: Any, x: Inputs, count: int
) -> tuple[Any, Record, Int[jax.Array, ""], Int[jax.Array, ""]]:
    """All steps in chunks; where one meets what is not finite, back to the last good record."""
    parts, taken, layer = [], 0, 0
    before = (carry, 0)  # a carry, and how many steps lead from it to the last good record
    sizes = [min(CHUNK, count - k) for k in range(0, count, CHUNK)]
    with tqdm(total=count, desc=method.name, disable=None, delay=1, leave=False) as bar:
        for size in [*sizes, 1]:  # the last one only looks at the end
            after, buffer, good = _chunk(method, network, carry, x, jnp.asarray(size))
            good = int(good)
            if taken < count or method.records_end:
                parts.append(jax.tree.map(lambda b, n=good: np.asarray(b)[:n], buffer))
            if good < size:
                finite = finite_layers(jax.tree.map(lambda b, n=good: b[n], buffer.observables))
                layer = int(jnp.argmin(finite)) + 1
                start, steps = (carry, good - 1) if good else before
                carry, _, _ = _chunk(method, network, start, x, jnp.asarray(steps))
                taken += good
                break
            if taken < count:
                before, carry, taken = (carry, size - 1), after, taken + size
                bar.update(size)
    records = jax.tree.map(lambda *leaves: jax.device_put(np.concatenate(leaves)), *parts)
    return carry, records, jnp.asarray(taken), jnp.asarray(layer)


@eqx.filter_jit
def _chunk(
    method: FixedStep, network: Network, carry: Any, x: Inputs, count: Int[jax.Array, ""]
) -> tuple[Any, Record, Int[jax.Array, ""]]:
    """At most ``count`` <= CHUNK steps; ends at the first record that is not finite."""
    shapes = jax.eval_shape(lambda c: method.step(network, c, x)[1], carry)
    buffer = jax.tree.map(lambda s: jnp.zeros((CHUNK, *s.shape), s.dtype), shapes)

    def unfinished(loop: Any) -> Any:
        k, finite, _, _ = loop
        return finite & (k < count)

    def take(loop: Any) -> Any:
        k, _, carry, buffer = loop
        carry, record = method.step(network, carry, x)
        buffer = jax.tree.map(lambda b, r: b.at[k].set(r), buffer, record)
        finite = finite_layers(record.observables).all()
        return k + finite.astype(k.dtype), finite, carry, buffer

    loop = (jnp.zeros_like(count), jnp.asarray(True), carry, buffer)
    good, _, carry, buffer = lax.while_loop(unfinished, take, loop)
    return carry, buffer, good
