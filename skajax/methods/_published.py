"""The discrete rule of the published experiments, step for step."""

from functools import partial
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from skajax._checks import require, require_positive
from skajax._numbers import as_float
from skajax._types import Array, Inputs, Int, PerLayer, Scalar, ScalarLike, Tensors, Weights
from skajax.entropy import BITS, decision_derivative, entropy_gradient
from skajax.methods._fixed import FixedStep, Record, whole_steps
from skajax.network import Network
from skajax.observables import Net, dissipation, observe


class _Carry(NamedTuple):
    k: Int[Array, ""]
    t: Scalar
    weights: Weights
    Z: Tensors  # of the previous pass
    D: Tensors
    net: Net  # accumulated up to the previous pass
    lost: PerLayer  # dissipated in the previous update


class Published(FixedStep):
    """The published rule: K forward passes k = 0..K-1, of which pass 0 only forwards.

    At each pass k ≥ 1, with ΔD = D_k - D_{k-1} and ΔZ = Z_k - Z_{k-1},

        g = -(1/ln 2) (z_k D'_k + ΔD),    W ← W - dt xᵀ g / B,    b ← b - dt mean(g),

    where x is X for the first layer and D_{k-1} of the layer below, that of the *previous* pass,
    for the others. Pass k is recorded before its update, at t = (k - 1) dt, with the backward
    differences ż = ΔZ / dt and Ḋ = ΔD / dt (eq. 7) and the Tensor Net as the sum of eq. 8. The
    dissipation is backward too, B ‖xᵀ g / B‖² (with the bias) of the update that led to pass k, and the
    transport is what else the entropy's rate is made of: in the first layer an error of order dt. So
    pass 1 has no flow, there are K - 1 records, and the run ends K - 1 updates after its start.
    ``simulate`` takes t1 = K dt, or steps = K; the paper's T = 0.5 is t1.

    Differs from :class:`Euler` in two terms of order dt: the ΔD in g, and the input that lags one
    pass behind. Both vanish with dt, so its limit is the same ODE, with order 1.
    """

    dt: ScalarLike = eqx.field(converter=as_float)

    records_end: ClassVar[bool] = False
    rotates: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Published."""
        return "Published"

    def __check_init__(self) -> None:
        """Refuse a step that is no step."""
        require_positive("dt", self.dt, "a time step")

    def count_steps(self, t1: ScalarLike | None, steps: int | None) -> int:
        """K - 1 updates, K = t1 / dt."""
        K = whole_steps(t1, steps, self.dt)
        require(
            K >= 2,
            "t1" if steps is None else "steps",
            "give at least 2 passes, because the first only forwards",
            f"it gave {K}",
        )
        return K - 1

    def start(self, network: Network, weights: Weights, x: Inputs) -> _Carry:
        """Pass 0: forward only."""
        Z, D = network.forward(weights, x)
        zero = jnp.zeros(len(Z), x.dtype)
        t = jnp.zeros((), x.dtype)
        return _Carry(jnp.asarray(0), t, weights, Z, D, Net(zero, zero), zero)

    def step(self, network: Network, carry: _Carry, x: Inputs) -> tuple[_Carry, Record]:
        """Pass k + 1, for k updates done: forward, record, update."""
        dt = self.dt
        Z, D = network.forward(carry.weights, x)
        # Nothing has moved between pass 0 and pass 1, whatever the rounding of the two.
        first = carry.k == 0
        change = lambda new, old: jnp.where(first, 0, new - old)
        delta_Z, delta_D = jax.tree.map(change, (Z, D), (carry.Z, carry.D))
        slope_delta_Z = jax.tree.map(lambda z, dz: decision_derivative(z) * dz, Z, delta_Z)

        # Sums per step first: dividing them by dt costs less than dividing every ΔZ and ΔD.
        per_step = observe(
            carry.weights, Z, D, delta_Z, delta_D, slope_delta_Z, carry.lost, carry.net
        )
        observables = per_step.per_time(dt)
        net = Net(
            carry.net.published + per_step.tensor_net_rate,
            carry.net.equation + per_step.tensor_net_rate_equation,
        )
        observables = eqx.tree_at(
            lambda o: (o.tensor_net, o.tensor_net_equation), observables, tuple(net)
        )

        weights, gradients = [], []
        inputs = (x, *carry.D[:-1])
        for layer, w, x_l, z, dD in zip(
            network.layers, carry.weights, inputs, Z, delta_D, strict=True
        ):
            g = entropy_gradient(z) - BITS * dD
            _, pullback = jax.vjp(partial(layer.knowledge, x=x_l), w)
            (gradient,) = pullback(g * (1 / x.shape[0]))
            gradients.append(gradient)
            weights.append(jax.tree.map(lambda p, q: p - dt * q, w, gradient))

        k = carry.k + 1
        lost = dt * dissipation(tuple(gradients), tuple(gradients), x.shape[0])
        after = _Carry(k, k.astype(x.dtype) * dt, tuple(weights), Z, D, net, lost)
        return after, Record(carry.t, observables)
