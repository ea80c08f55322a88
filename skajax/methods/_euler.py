"""The explicit Euler method: the honest discretisation of the flow."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from skajax._checks import require_positive
from skajax._numbers import as_float
from skajax._types import Array, Inputs, Int, Scalar, ScalarLike, Weights
from skajax.flow import flow
from skajax.methods._fixed import FixedStep, Record, whole_steps
from skajax.network import Network
from skajax.observables import Net, net_potential, observe_along


class _Carry(NamedTuple):
    k: Int[Array, ""]
    t: Scalar
    weights: Weights
    origin: Net


class Euler(FixedStep):
    """Explicit Euler: W_{k+1} = W_k + dt · flow(W_k), t_k = k dt, k = 0..K (eq. 1).

    Converges to the ODE with order 1 as dt → 0. Records K + 1 instants, with the exact tangents
    ż and Ḋ, the end included. ``simulate`` takes t1 = K dt, or steps = K.
    """

    dt: ScalarLike = eqx.field(converter=as_float)

    records_end: ClassVar[bool] = True
    rotates: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Euler."""
        return "Euler"

    def __check_init__(self) -> None:
        """Refuse a step that is no step."""
        require_positive("dt", self.dt, "a time step")

    def count_steps(self, t1: ScalarLike | None, steps: int | None) -> int:
        """K = t1 / dt."""
        return whole_steps(t1, steps, self.dt)

    def start(self, network: Network, weights: Weights, x: Inputs) -> _Carry:
        """Weights at t = 0, and where the Tensor Net counts from."""
        origin = net_potential(*network.forward(weights, x))
        return _Carry(jnp.asarray(0), jnp.zeros((), x.dtype), weights, origin)

    def step(self, network: Network, carry: _Carry, x: Inputs) -> tuple[_Carry, Record]:
        """W ← W + dt · flow(W)."""
        velocity = flow(network, carry.weights, x)
        record = Record(carry.t, observe_along(network, carry.weights, velocity, x, carry.origin))
        weights = jax.tree.map(lambda w, v: w + self.dt * v, carry.weights, velocity)
        k = carry.k + 1
        return _Carry(k, k.astype(x.dtype) * self.dt, weights, carry.origin), record
