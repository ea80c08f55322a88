"""A thinned network: some of the samples, some of the neurons, and it learns at the same times.

Three facts make it so.

- Given its input, a layer's neurons move independently of each other, and initially they are equal
  in distribution. A few of them stand for all.
- A layer knows its input x through the kernel x xᵀ + 1 alone. With m of the n neurons below it,
  D̃ = √(n/m) D has the kernel of all of them, on average; and initial weights W̃ ~ N(0, σ²) on D̃ give
  knowledge the covariance σ² D Dᵀ that it has on D, for ever.
- The batch enters through means over samples, and growth through a few leading modes of x xᵀ + 1.

So the thinned network *is* a network, whose layers read √(n/m) D: its flow is the flow, with every
kernel an estimate of the whole one. With m = n, all samples and all modes it is the network itself.
"""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from skajax._types import Array, Float, PerLayer, Scalar, TimeSeries
from skajax.entropy import BITS
from skajax.methods._ode import solve_ode

RTOL, ATOL = 1e-3, 1e-6


class Thin(eqx.Module):
    """A thinned network at t = 0."""

    x: Float[Array, "kept modes"]
    """Samples in the coordinates of the modes, the bias's constant input among them."""
    offset: Float[Array, "kept outputs"]
    """What the modes left out contribute to the first layer's knowledge: it hardly moves."""
    weights: tuple[tuple[Array, Array], ...]
    """(W̃, b) a layer; the first layer's b is zero, and stays so: its bias is within W̃."""
    gains: PerLayer
    """√(n/m) of each layer's input; the first is 1."""
    pace: PerLayer
    """r_l in dW^(l)/dt = -r_l ∇H."""
    norms: PerLayer
    """‖Z‖ of the network over that of the thinned one, √(B n / (B' m))."""
    rates: PerLayer
    """Each layer's leading growth rate at the start: r λ_1, and r (n_{l-1}/4 + 1) / (4 ln 2) above it."""


class Curves(NamedTuple):
    """Of each layer of the whole network, over time: each (times, layers)."""

    knowledge_norm: Float[Array, "*times layers"]
    flow_norm: Float[Array, "*times layers"]
    entropy: Float[Array, "*times layers"]
    entropy_rate: Float[Array, "*times layers"]
    decided_rate: Float[Array, "*times layers"]
    """Σ D ż: with the entropy rate added or taken away, the Tensor Net's rate in either sign."""


class _Layer(NamedTuple):
    x: Array
    z: Array
    D: Array
    exponential: Array
    slope: Array
    Wdot: Array
    bdot: Array


def forward(thin: Thin, weights: Any) -> list[_Layer]:
    """Every layer's input and knowledge, and dW/dt = (r / B') D̃ᵀ z D' / ln 2."""
    x, samples, layers = thin.x, thin.x.shape[0], []
    for number, (W, b) in enumerate(weights):
        z = jnp.matmul(x, W, precision="highest")
        z = z + (thin.offset if number == 0 else b[None, :])
        # One exponential serves D, D' and, where it is wanted, the entropy.
        exponential = jnp.exp(-jnp.abs(z))
        larger = 1 / (1 + exponential)
        D = jnp.where(z > 0, larger, exponential * larger)
        slope = exponential * larger**2
        push = slope * z * (thin.pace[number] * BITS / samples)
        bdot = jnp.zeros_like(b) if number == 0 else push.sum(axis=0)
        Wdot = jnp.matmul(x.T, push, precision="highest")
        layers.append(_Layer(x, z, D, exponential, slope, Wdot, bdot))
        if number + 1 < len(weights):
            x = thin.gains[number + 1] * D
    return layers


def _velocity(thin: Thin, weights: Any) -> Any:
    return tuple((layer.Wdot, layer.bdot) for layer in forward(thin, weights))


def observe(thin: Thin, weights: Any) -> Curves:
    """The sums of each layer at one instant."""
    rows, xdot = [], None
    for number, ((W, _), layer) in enumerate(zip(weights, forward(thin, weights), strict=True)):
        zdot = jnp.matmul(layer.x, layer.Wdot, precision="highest") + layer.bdot[None, :]
        if xdot is not None:
            zdot = zdot + jnp.matmul(xdot, W, precision="highest")
        Ddot = layer.slope * zdot
        if number + 1 < len(weights):
            xdot = thin.gains[number + 1] * Ddot
        e = layer.exponential
        # softplus(z) - z D, from |z|.
        entropy = jnp.log1p(e) + jnp.abs(layer.z) * (e / (1 + e))
        sums = (layer.z**2, zdot**2, BITS * entropy, -BITS * (layer.z * Ddot), layer.D * zdot)
        rows.append([jnp.sum(a) for a in sums])
    sums = jnp.stack([jnp.stack(row) for row in rows], axis=1)
    return Curves(
        thin.norms * _root(sums[0]),
        thin.norms * _root(sums[1]),
        thin.norms**2 * sums[2],
        thin.norms**2 * sums[3],
        thin.norms**2 * sums[4],
    )


@partial(jax.jit, inline=True)  # traced once for all who ask within a program
def solve(thin: Thin, times: TimeSeries) -> Curves:
    """The curves at increasing times, the first of them 0, along dW/dt = -∇H."""
    states = solve_ode(
        lambda y: _velocity(thin, y),
        thin.weights,
        times,
        rate=thin.rates.max(),
        rtol=RTOL,
        atol=ATOL,
    )
    # All instants at once: there are many, and each is small.
    return jax.vmap(lambda y: observe(thin, y))(states)


def end_of_euler(thin: Thin, t: Scalar, h: Scalar) -> tuple[Array, ...]:
    """Every layer's Z at time t, along the equation that Euler's method of step h follows to second order.

    dW/dt = F - (h/2) F'F, F the flow: its solution's derivative in h, at 0, is the constant of
    Euler's error.
    """

    def modified(y: Any) -> Any:
        rate, bend = jax.jvp(lambda y: _velocity(thin, y), (y,), (_velocity(thin, y),))
        return jax.tree.map(lambda f, g: f - h / 2 * g, rate, bend)

    states = solve_ode(
        modified, thin.weights, jnp.stack([jnp.zeros_like(t), t]),
        rate=thin.rates.max(), rtol=RTOL / 10, atol=ATOL,
    )  # fmt: skip
    last = jax.tree.map(lambda w: w[-1], states)
    return tuple(layer.z for layer in forward(thin, last))


def _root(squares: Array) -> Array:
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)
