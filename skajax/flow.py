"""The flow dW/dt = -∇H, and how knowledge and decisions move along it."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from skajax._types import Inputs, Scalar, ScalarLike, Tensors, Weights
from skajax.entropy import decision, entropy_gradient
from skajax.network import Network


class State(NamedTuple):
    """A network at one instant: time, weights, and per layer knowledge Z and decisions D."""

    t: Scalar
    weights: Weights
    Z: Tensors
    D: Tensors


def state(network: Network, weights: Weights, x: Inputs, t: ScalarLike = 0.0) -> State:
    """The state at time t: Z and D are functions of the weights and the inputs."""
    Z, D = network.forward(weights, x)
    return State(jnp.asarray(t, Z[0].dtype), weights, Z, D)


def flow(network: Network, weights: Weights, x: Inputs) -> Weights:
    """The flow dW^(l)/dt = -∇_W H^(l), db^(l)/dt = -∇_b H^(l), of every layer (eq. 1-4, 32).

    H^(l) is here the layer's entropy, summed over its neurons and *averaged* over the samples, as
    in the published experiments; for a dense layer this is eq. 3-4 with a 1/B,

        dW/dt = -(1/B) xᵀ ∇_z H,    db/dt = -mean(∇_z H).

    Forward-only: each layer descends its own entropy and takes its input as given. That is the
    gradient of the summed entropies with ``stop_gradient`` between layers. Has the structure of
    ``weights``; per unit of time.
    """
    samples = x.shape[0]
    rates = []
    for layer, w in zip(network.layers, weights, strict=True):
        z, pullback = jax.vjp(partial(layer.knowledge, x=x), w)
        (rate,) = pullback(entropy_gradient(z) * (-1 / samples))
        rates.append(rate)
        x = decision(z)
    return tuple(rates)


def tangents(
    network: Network, weights: Weights, velocity: Weights, x: Inputs
) -> tuple[Tensors, Tensors]:
    """Knowledge flow Φ = dZ/dt (eq. 6) and dD/dt, per layer, when the weights move at ``velocity``.

    The exact forward tangents ż^(l) = x Ẇ + ẋ W + ḃ and Ḋ = D' ż, where ẋ is the Ḋ of the layer
    below: what the paper's (Z_k - Z_{k-1}) / Δt tends to (eq. 7). Each entry (samples, outputs).
    """
    _, (Zdot, Ddot) = jax.jvp(lambda w: network.forward(w, x), (weights,), (velocity,))
    return Zdot, Ddot
