"""The explicit Euler method: the honest discretisation of the flow."""

from typing import ClassVar

import equinox as eqx
import jax

from skajax._checks import as_number, require_positive
from skajax._types import ScalarLike
from skajax.methods._fixed import Method, Now, Step
from skajax.system import System


class Euler(Method):
    """Explicit Euler: W_{k+1} = W_k + dt · flow(W_k), t_k = k dt, k = 0..K (eq. 1).

    Converges to the ODE with order 1 as dt → 0. Records K + 1 instants, with the exact tangents
    ż and Ḋ, the end included. ``simulate`` takes t1 = K dt, or steps = K.

    >>> run = ska.simulate(network, weights, x, ska.Euler(dt=0.05), t1=1.0)
    >>> run.entropy.shape  # 20 steps, and the end; two layers
    (21, 2)
    """

    dt: ScalarLike = eqx.field(converter=as_number)

    rotates: ClassVar[bool] = True

    def __check_init__(self) -> None:
        """Refuse a step that is no step."""
        require_positive("dt", self.dt, "a time step")

    def step(self, system: System, now: Now) -> Step:
        """W ← W + dt · flow(W)."""
        velocity = system.flow(now.t, now.weights)
        weights = jax.tree.map(lambda w, v: w + self.dt * v, now.weights, velocity)
        return Step(weights, velocity, velocity)
