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

import math
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax.numpy as jnp

from skajax._types import Array, Float, PerLayer, Scalar, TimeSeries
from skajax.entropy import BITS, decision, decision_derivative, entropy

RTOL, ATOL = 1e-3, 1e-6
MAX_STEPS = 4096


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


class Curves(NamedTuple):
    """Of each layer of the whole network, over time: each (times, layers)."""

    knowledge_norm: Float[Array, "*times layers"]
    flow_norm: Float[Array, "*times layers"]
    entropy: Float[Array, "*times layers"]
    entropy_rate: Float[Array, "*times layers"]


class _Pass(NamedTuple):
    velocity: Any
    inputs: tuple[Array, ...]
    Z: tuple[Array, ...]


def _forward(thin: Thin, weights: Any) -> _Pass:
    """Every layer's input and knowledge, and dW/dt = (r / B') D̃ᵀ z D' / ln 2."""
    x, samples = thin.x, thin.x.shape[0]
    velocity, inputs, Z = [], [], []
    for number, (W, b) in enumerate(weights):
        z = jnp.matmul(x, W, precision="highest")
        z = z + (thin.offset if number == 0 else b[None, :])
        push = decision_derivative(z) * z * (thin.pace[number] * BITS / samples)
        bdot = jnp.zeros_like(b) if number == 0 else push.sum(axis=0)
        velocity.append((jnp.matmul(x.T, push, precision="highest"), bdot))
        inputs.append(x)
        Z.append(z)
        if number + 1 < len(weights):
            x = thin.gains[number + 1] * decision(z)
    return _Pass(tuple(velocity), tuple(inputs), tuple(Z))


def observe(thin: Thin, weights: Any) -> Curves:
    """The sums of each layer at one instant."""
    velocity, inputs, Z = _forward(thin, weights)
    rows, xdot = [], None
    for number, ((W, _), (Wdot, bdot), x, z) in enumerate(
        zip(weights, velocity, inputs, Z, strict=True)
    ):
        zdot = jnp.matmul(x, Wdot, precision="highest") + bdot[None, :]
        if xdot is not None:
            zdot = zdot + jnp.matmul(xdot, W, precision="highest")
        Ddot = decision_derivative(z) * zdot
        if number + 1 < len(weights):
            xdot = thin.gains[number + 1] * Ddot
        squares = [jnp.sum(z**2), jnp.sum(zdot**2)]
        rows.append([*squares, jnp.sum(entropy(z)), -BITS * jnp.sum(z * Ddot)])
    sums = jnp.stack([jnp.stack(row) for row in rows], axis=1)
    return Curves(
        thin.norms * _root(sums[0]),
        thin.norms * _root(sums[1]),
        thin.norms**2 * sums[2],
        thin.norms**2 * sums[3],
    )


def growth_rates(thin: Thin, rate: Scalar, below: PerLayer) -> PerLayer:
    """Each layer's leading rate at the start: λ_1, and (n_{l-1}/4 + 1) / (4 ln 2) above it."""
    hidden = (below[1:] / 4 + 1) / (4 * math.log(2.0))
    return thin.pace * jnp.concatenate([rate[None], hidden])


def solve(thin: Thin, rates: PerLayer, times: TimeSeries, rtol: float = RTOL) -> Curves:
    """The curves at increasing times, the first of them 0, along dW/dt = -∇H."""
    found: Any = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, thin: _forward(thin, y).velocity),
        diffrax.Tsit5(),
        t0=times[0],
        t1=times[-1],
        dt0=8 * rtol**0.2 / jnp.max(rates) / 8,
        y0=thin.weights,
        args=thin,
        saveat=diffrax.SaveAt(ts=times, fn=lambda t, y, thin: observe(thin, y)),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=ATOL, pcoeff=0.3, icoeff=0.4),
        max_steps=MAX_STEPS,
        throw=False,
    )
    return found.ys


def _root(squares: Array) -> Array:
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)
