"""Layers, an energy, observables and a method as a user would write them, by public names alone."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

import skajax as ska


@dataclasses.dataclass(frozen=True)
class Convolution:
    """z = x * kernel + bias on images (samples, height, width, channels); weights in a dict."""

    channels: int
    size: int = 3

    def init(self, key, x):
        shape = (self.size, self.size, x.shape[-1], self.channels)
        return {
            "kernel": 0.3 * jax.random.normal(key, shape, x.dtype),
            "bias": jnp.zeros(self.channels, x.dtype),
        }

    def knowledge(self, weights, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        z = jax.lax.conv_general_dilated(
            x, weights["kernel"], (1, 1), "VALID", dimension_numbers=numbers
        )
        return z + weights["bias"].reshape(1, 1, 1, -1)


@dataclasses.dataclass(frozen=True)
class Flatten:
    """A stage: (samples, ...) to (samples, numbers)."""

    def init(self, key, x):
        return ()

    def apply(self, weights, x):
        return x.reshape(x.shape[0], -1)


@dataclasses.dataclass(frozen=True)
class Reshape:
    """A stage: (samples, ...) to (samples, *shape)."""

    shape: tuple[int, ...]

    def init(self, key, x):
        return ()

    def apply(self, weights, x):
        return x.reshape(x.shape[0], *self.shape)


class GateWeights(NamedTuple):
    W: jax.Array
    V: jax.Array
    gate: jax.Array


@dataclasses.dataclass(frozen=True)
class Recurrent:
    """z_t = g x_t W + (1 - g) D_{t-1} V, g = σ(gate), on sequences (samples, times, inputs).

    Its knowledge takes as given what it reads at each time: the input, and its own decision before.
    """

    width: int

    def init(self, key, x):
        W, V = jax.random.split(key)
        return GateWeights(
            0.3 * jax.random.normal(W, (x.shape[-1], self.width), x.dtype),
            0.3 * jax.random.normal(V, (self.width, self.width), x.dtype),
            jnp.zeros(self.width, x.dtype),
        )

    def inputs(self, weights, below):
        def tick(before, x):
            D = jax.nn.sigmoid(self.knowledge(weights, (x, before)))
            return D, before

        start = jnp.full((below.shape[0], self.width), 0.5, below.dtype)
        _, before = jax.lax.scan(tick, start, jnp.moveaxis(below, 1, 0))
        return below, jnp.moveaxis(before, 0, 1)

    def knowledge(self, weights, x):
        now, before = x
        g = jax.nn.sigmoid(weights.gate).reshape(*[1] * (now.ndim - 1), -1)
        return g * (now @ weights.W) + (1 - g) * (before @ weights.V)


class Attention(eqx.Module):
    """z = (q kᵀ / T) v, attention without a softmax on (samples, T, inputs); an equinox module."""

    width: int = eqx.field(static=True)

    def init(self, key, x):
        return 0.5 * jax.random.normal(key, (3, x.shape[-1], self.width), x.dtype)

    def knowledge(self, weights, x):
        q, k, v = (x @ w for w in weights)
        return q @ jnp.swapaxes(k, 1, 2) @ v / x.shape[1]


def contrast(weights, trace, batch):
    """An energy: of each layer, how far its decisions are from 0 and 1, mean over the samples."""
    return jnp.stack([jnp.sum(D * (1 - D)) / D.shape[0] for D in trace.D])


CONTRAST = ska.Energy(contrast, local=True, reads_weights=False)

SPARSITY = ska.Observable(
    "sparsity",
    lambda i: jnp.stack([jnp.mean((D < 0.5).astype(D.dtype)) for D in i.D]),
    label="share of decisions below one half",
)
QUANTILES = ska.Observable(
    "quantiles",
    lambda i: jnp.stack([jnp.quantile(z, jnp.asarray([0.1, 0.5, 0.9], z.dtype)) for z in i.Z]),
    label="quantiles of knowledge",
    dims=("layer", "quantile"),
)


class Heun(ska.Method):
    """Heun's method: the mean of the flow at a step's start and at Euler's end of it."""

    dt: float

    def step(self, system, now):
        first = system.flow(now.t, now.weights)
        guess = jax.tree.map(lambda w, a: w + self.dt * a, now.weights, first)
        second = system.flow(now.t + self.dt, guess)
        mean = lambda w, a, b: w + self.dt / 2 * (a + b)
        return ska.Step(jax.tree.map(mean, now.weights, first, second), first)


def images(dtype=jnp.float32):
    """A network with a convolution, and images for it."""
    x = jax.random.uniform(jax.random.key(1), (6, 5, 5, 2), dtype)
    network = ska.Network((Convolution(3), Flatten(), ska.Dense(4, scale=0.5)))
    return network, network.init(jax.random.key(0), x), x


def sequences(dtype=jnp.float32):
    """A network with a recurrence and an attention, and sequences for it."""
    x = jax.random.uniform(jax.random.key(2), (5, 4, 3), dtype)
    network = ska.Network((Recurrent(4), Attention(3), Flatten(), ska.Dense(2, scale=0.5)))
    return network, network.init(jax.random.key(0), x), x


def everything(dtype=jnp.float32):
    """A network of all these layers, and sequences for it."""
    x = jax.random.uniform(jax.random.key(2), (5, 4, 3), dtype)
    network = ska.Network(
        (
            Recurrent(4), Reshape((4, 4, 1)), Convolution(2), Reshape((2, 4)), Attention(3), Flatten(),
            ska.Dense(2, scale=0.5),
        )
    )  # fmt: skip
    return network, network.init(jax.random.key(0), x), x


PROBLEMS = {"images": images, "sequences": sequences}
