"""Any Optax optimiser, read as a time integrator whose steps are its learning rates."""

from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from skajax._checks import require
from skajax._types import Array, Scalar, ScalarLike, Weights
from skajax.methods._fixed import Method, Now, Step, checked_steps
from skajax.system import System


class Descent(Method):
    """Descent on an energy, by default each layer's own entropy, by an Optax optimiser: W_{k+1} = W_k + u_k.

    Time is the sum of the learning rates, t_k = η_0 + ... + η_{k-1}: a schedule is a non-uniform
    time step, and ``Descent(optax.sgd(dt))`` is ``Euler(dt)``. η_k is the optimiser's hyperparameter
    ``learning_rate`` if it was made by ``optax.inject_hyperparams``; otherwise it is measured, as
    the optimiser's first response to a unit gradient with its schedules set to step k. That is
    the learning rate itself for SGD, with momentum too, Adam, AdamW, Lion. Where it is not (Nesterov
    momentum, NAdam, AdaBelief, RMSProp, Adagrad, MultiSteps, Momo, noise, clipping below 1), make the
    optimiser by ``optax.inject_hyperparams``.

    Where weights have different learning rates (``optax.multi_transform``, ``optax.masked``), η_k is the
    largest, or the largest of those injected: time is that of the weights that learn fastest, and the
    others move at dW/dt = -r ∇H with r = their rate / η_k, as :class:`skajax.Paced` layers do. The
    measurement keeps the weights' structure and ranks, but not their sizes: labels must not depend on these.

    Optimisers that ask for them are given ``value``, ``grad`` and ``value_fn``. The value is the energy
    whose gradient is minus the flow: the sum over layers of the layer's entropy, averaged over the
    samples, as a function of all weights with each layer's *input held fixed* at what it is at step k. A
    line search's step multiplies η_k; with ``optax.polyak_sgd``, η_k is Polyak's step, for f_min = 0. Across
    steps the inputs have moved, so that an optimiser's memory (L-BFGS's curvature, the best value so far)
    is of slightly different functions. ``stats.evaluations`` counts one a step, not those of a line
    search, through which there is no derivative in reverse.

    Records ``steps`` + 1 instants, the end included. Rates (entropy_rate, flow_norm, ...) are those
    of the motion that the optimiser makes, Ẇ = u_k / η_k, or of the flow where η_k is 0. So is the
    dissipation -⟨∇_W H, Ẇ⟩, which is negative where the optimiser climbs.

    >>> import optax
    >>> run = ska.simulate(network, weights, x, ska.Descent(optax.sgd(0.05, momentum=0.9)), steps=20)
    >>> bool(run.entropy[-1, 0] < run.entropy[0, 0])
    True
    """

    optimiser: optax.GradientTransformation = eqx.field(static=True)

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

    def init(self, system: System, weights: Weights) -> Any:
        """The optimiser's fresh state."""
        return self._fresh(weights)

    def step(self, system: System, now: Now) -> Step:
        """W ← W + u, where u is the optimiser's answer to the energy's gradient."""
        rates = system.flow(now.t, now.weights)
        gradient = jax.tree.map(jnp.negative, rates)
        energy = system.potential(now.t, now.weights) if system.descends else None
        value = jnp.zeros((), system.dtype) if energy is None else energy(now.weights)
        update, state = self._answer(gradient, now.memory, now.weights, value, energy)
        # Optax mixes integer step counts with floats, which strict promotion would refuse.
        weights: Any
        with jax.numpy_dtype_promotion("standard"):
            weights = optax.apply_updates(now.weights, update)
            eta = self._learning_rate(now, state, value, gradient)
        moves = eta != 0
        velocity = jax.tree.map(
            lambda u, v: jnp.where(moves, u / jnp.where(moves, eta, 1), v), update, rates
        )
        return Step(weights, velocity, rates, memory=state, t=now.t + eta)

    def _fresh(self, weights: Any) -> Any:
        """The optimiser's first state."""
        try:
            with jax.numpy_dtype_promotion("standard"):
                return self.optimiser.init(weights)
        except (TypeError, ValueError) as error:
            raise _unfit(error) from error

    def _answer(
        self,
        gradient: Any,
        state: Any,
        weights: Any,
        value: Scalar,
        value_fn: Callable[..., Any] | None,
    ) -> tuple[Any, Any]:
        """Its update, and its next state, by whatever of the arguments it asks for.

        A flow that is no gradient has no value: an optimiser that asks for one is refused.
        """
        given: dict[str, Any] = {"grad": gradient}
        if value_fn is not None:
            given |= {"value": value, "value_fn": value_fn}
        answer = optax.with_extra_args_support(self.optimiser).update
        try:
            with jax.numpy_dtype_promotion("standard"):
                return answer(gradient, state, weights, **given)
        except (TypeError, ValueError) as error:
            raise _unfit(error, value_fn is not None) from error

    def _learning_rate(self, now: Now, state: Any, value: Scalar, gradient: Any) -> Scalar:
        """η_k, where ``state`` is the optimiser's after step k: it holds what the step used."""
        dtype = now.t.dtype
        searched = _searched(state, dtype)
        injected = [
            jnp.asarray(node.hyperparams["learning_rate"], dtype)
            for node in _nodes(state, _INJECTED)
            if "learning_rate" in node.hyperparams
        ]
        if injected:
            return jnp.stack(injected).max() * searched
        # Polyak's step is the value over the squared gradient, which of a unit gradient is 1.
        square = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradient))
        value = value / jnp.where(square > 0, square, 1)

        # Weights of the same structure and ranks, each of one number: measuring costs next to nothing.
        origin = jax.tree.map(lambda w: jnp.zeros((1,) * max(w.ndim, 1), w.dtype), now.weights)
        leaves, structure = jax.tree.flatten(origin)
        fresh = self._fresh(origin)
        require(
            jax.tree.structure(fresh) == jax.tree.structure(state),
            "optimiser",
            "label or mask weights by their structure or rank",
            "it did so by their sizes, from which no learning rate can be told",
        )
        fresh = jax.tree.map(
            _set, fresh, now.memory, state, is_leaf=lambda node: isinstance(node, _SET)
        )

        def respond(unit: Array) -> tuple[Array, Scalar]:
            """What each weight answers to this gradient; and the line searches' steps in that."""
            ones = structure.unflatten(
                [u.reshape(w.shape).astype(w.dtype) for u, w in zip(unit, leaves, strict=True)]
            )

            def bowl(weights: Any) -> Scalar:
                """A function of that gradient at 0, in which a line search finds a step at once."""
                pairs = zip(jax.tree.leaves(ones), jax.tree.leaves(weights), strict=True)
                return value + sum(jnp.sum(u * w + w * w / 2) for u, w in pairs)

            answer, after = self._answer(ones, fresh, origin, value, bowl)
            answers = [jnp.sum(leaf).astype(dtype) for leaf in jax.tree.leaves(answer)]
            return jnp.stack(answers), _searched(after, dtype)

        # One weight at a time: a gradient of norm 1, that norms of all gradients leave as it is.
        answers, steps = jax.vmap(respond)(jnp.eye(len(leaves), dtype=dtype))
        own = -jnp.diagonal(answers)
        found = steps > 0
        return jnp.max(jnp.where(found, own / jnp.where(found, steps, 1), 0)) * searched


def _unfit(error: Exception, descends: bool = True) -> ValueError:
    needs = "their gradient, value=, grad= and value_fn="
    if not descends:
        needs = "the flow (a Flow has no potential, and so no value=)"
    return ValueError(
        f"Argument optimiser must fit the weights, and need nothing but {needs},"
        f" but it raised {type(error).__name__}: {error}."
    )


_INJECTED = (optax.InjectHyperparamsState, optax.InjectStatefulHyperparamsState)
_SEARCH = (optax.ScaleByBacktrackingLinesearchState, optax.ScaleByZoomLinesearchState)
_SET = (optax.ScaleByScheduleState, optax.contrib.ReduceLROnPlateauState)


def _nodes(state: Any, kinds: tuple[type, ...]) -> Iterable[Any]:
    """Parts of an optimiser's state that are of these kinds."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kinds))
    return [node for node in nodes if isinstance(node, kinds)]


def _searched(state: Any, dtype: jnp.dtype) -> Scalar:
    """By how much line searches have multiplied the update."""
    steps = [jnp.asarray(node.learning_rate, dtype) for node in _nodes(state, _SEARCH)]
    return jnp.prod(jnp.stack(steps)) if steps else jnp.ones((), dtype)


def _set(fresh: Any, before: Any, after: Any) -> Any:
    """A fresh state's schedules as they were before a step, and its plateaus as they are after it."""
    if isinstance(fresh, optax.ScaleByScheduleState):
        return fresh._replace(count=before.count)
    if isinstance(fresh, optax.contrib.ReduceLROnPlateauState):
        # It changes its scale when its count comes to a positive number, which here it does not.
        return fresh._replace(scale=after.scale, count=fresh.count - 2)
    return fresh
