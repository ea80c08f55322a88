"""Any Optax optimiser, read as a time integrator whose steps are its learning rates."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from skajax._checks import require
from skajax._types import Array, Inputs, Int, Scalar, ScalarLike, Weights
from skajax.flow import flow
from skajax.methods._fixed import FixedStep, Record, checked_steps
from skajax.network import Network
from skajax.observables import Net, net_potential, observe_along


class _Carry(NamedTuple):
    k: Int[Array, ""]
    t: Scalar
    weights: Weights
    origin: Net
    optimiser: Any


class Descent(FixedStep):
    """Descent on each layer's own entropy by an Optax optimiser: W_{k+1} = W_k + u_k.

    Time is the sum of the learning rates, t_k = η_0 + ... + η_{k-1}: a schedule is a non-uniform
    time step, and ``Descent(optax.sgd(dt))`` is ``Euler(dt)``. η_k is the optimiser's hyperparameter
    ``learning_rate`` if it was made by ``optax.inject_hyperparams``; otherwise it is measured, as
    the optimiser's first response to a unit gradient with its schedules set to step k. That is
    the learning rate itself for SGD, with momentum too, Adam, AdamW, Lion. Where it is not (Nesterov
    momentum, NAdam, AdaBelief, RMSProp, Adagrad, MultiSteps, noise, clipping below 1), make the
    optimiser by ``optax.inject_hyperparams``.

    Records ``steps`` + 1 instants, the end included. Rates (entropy_rate, flow_norm, ...) are those
    of the motion that the optimiser makes, Ẇ = u_k / η_k, or of the flow where η_k is 0. So is the
    dissipation -⟨∇_W H, Ẇ⟩, which is negative where the optimiser climbs.
    """

    optimiser: optax.GradientTransformation = eqx.field(static=True)

    records_end: ClassVar[bool] = True
    rotates: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Descent."""
        return "Descent"

    def __check_init__(self) -> None:
        """Refuse what is no optimiser."""
        require(
            isinstance(self.optimiser, optax.GradientTransformation),
            "optimiser",
            "be an Optax optimiser, such as optax.sgd(0.01)",
            f"it was {self.optimiser!r}",
        )

    def count_steps(self, t1: ScalarLike | None, steps: int | None) -> int:
        """The optimiser's learning rates set the time; the user sets the steps."""
        require(t1 is None, "t1", "be left out with Descent", "its learning rates make up the time")
        return checked_steps(steps)

    def start(self, network: Network, weights: Weights, x: Inputs) -> _Carry:
        """Weights at t = 0, and the optimiser's fresh state."""
        origin = net_potential(*network.forward(weights, x))
        with jax.numpy_dtype_promotion("standard"):
            state = self.optimiser.init(weights)
        return _Carry(jnp.asarray(0), jnp.zeros((), x.dtype), weights, origin, state)

    def step(self, network: Network, carry: _Carry, x: Inputs) -> tuple[_Carry, Record]:
        """W ← W + u, where u is the optimiser's answer to the entropy's gradient."""
        rates = flow(network, carry.weights, x)
        # Optax mixes integer step counts with floats, which strict promotion would refuse.
        weights: Any
        with jax.numpy_dtype_promotion("standard"):
            gradient = jax.tree.map(jnp.negative, rates)
            update, state = self.optimiser.update(gradient, carry.optimiser, carry.weights)
            weights = optax.apply_updates(carry.weights, update)
            eta = self._learning_rate(carry.k, state, x.dtype)
        moves = eta != 0
        velocity = jax.tree.map(
            lambda u, v: jnp.where(moves, u / jnp.where(moves, eta, 1), v), update, rates
        )
        seen = observe_along(network, carry.weights, velocity, x, carry.origin, flow=rates)
        record = Record(carry.t, seen)
        return _Carry(carry.k + 1, carry.t + eta, weights, carry.origin, state), record

    def _learning_rate(self, k: Int[Array, ""], state: Any, dtype: jnp.dtype) -> Scalar:
        """η_k, where ``state`` is the optimiser's after step k: it holds what the step used."""
        injected = [
            node.hyperparams["learning_rate"]
            for node in jax.tree.leaves(state, is_leaf=_is_injected)
            if _is_injected(node) and "learning_rate" in node.hyperparams
        ]
        if injected:
            return jnp.asarray(injected[0], dtype)
        probe = jnp.zeros((1, 1), dtype)  # of rank 2, which factored optimisers ask for
        fresh = jax.tree.map(
            lambda node: (
                node._replace(count=k.astype(node.count.dtype)) if _is_schedule(node) else node
            ),
            self.optimiser.init(probe),
            is_leaf=_is_schedule,
        )
        response, _ = self.optimiser.update(jnp.ones_like(probe), fresh, probe)
        return -jnp.asarray(response)[0, 0]


def _is_injected(node: object) -> bool:
    return isinstance(node, optax.InjectHyperparamsState | optax.InjectStatefulHyperparamsState)


def _is_schedule(node: object) -> bool:
    return isinstance(node, optax.ScaleByScheduleState)
