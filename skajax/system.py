"""What evolves: a network that descends an energy on its inputs, dW/dt = -r ∇E."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from skajax._checks import is_traced, require
from skajax._types import Array, Bool, Inputs, PerLayer, Scalar, ScalarLike, Tensors, Weights
from skajax.decisions import SIGMOID
from skajax.energies import AbstractEnergy, Entropy, Sum
from skajax.entropy import BITS, growth_rate
from skajax.flows import Flow
from skajax.inputs import Batch, shape_of
from skajax.layers._layer import decision_of, rate_of
from skajax.network import Network, Trace, expected_knowledge, inner, matrices
from skajax.reduction import RowSpace

__all__ = ["Changes", "Instant", "State", "System", "flow", "growth_bound", "state", "tangents"]


class State(NamedTuple):
    """A network at one instant: time, weights, and per layer knowledge Z and decisions D.

    >>> state = ska.state(network, weights, x)
    >>> state.Z[0].shape, state.D[1].shape
    ((20, 8), (20, 10))
    """

    t: Scalar
    weights: Weights
    Z: Tensors
    D: Tensors

    def __repr__(self) -> str:
        """Arrays by their shapes."""
        known = np.ndim(self.t) == 0 and not is_traced(self.t)
        t = f"{float(self.t):.6g}" if known else eqx.tree_pformat(self.t)
        rest = (
            f"{name}={eqx.tree_pformat(part)}"
            for name, part in zip(self._fields[1:], self[1:], strict=True)
        )
        return f"State(t={t}, {', '.join(rest)})"


class System(eqx.Module):
    """A network, the energy that its weights descend, and its inputs; perhaps in the inputs' row space.

        dW^(l)/dt = -r_l ∇_{W^(l)} E(W, x(t))

    Flows among the terms of ``energy`` (:class:`skajax.Flow`) stand for as many -∇E. With a ``space``
    the inputs, and the first layer's weights, are coordinates in it. What is observed of weights is of
    the whole ones (:meth:`whole`).

    >>> system = ska.System(network, ska.Batch(x))
    >>> velocity = system.flow(0.0, weights)  # dW/dt, like the weights
    """

    network: Network
    inputs: Any
    energy: AbstractEnergy = eqx.field(default_factory=Entropy)
    space: RowSpace | None = None

    @property
    def dtype(self) -> Any:
        """Of times, weights and records."""
        x = shape_of(self.inputs).x if self.inputs.moves() else self.inputs.x
        return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)

    def flow(self, t: ScalarLike, weights: Weights, decided: Tensors | None = None) -> Weights:
        """dW/dt = -r ∇E, per unit of time, in the structure of the weights.

        With ``decided``, layers read those decisions of the layers below, instead of what these decide now:
        of local energies.
        """
        # The gradient of -E: its sign goes to the knowledge's side, which has fewer numbers.
        descent = self.gradient(-1.0 * self.energy, weights, self.inputs.at(t), decided)
        rates = self.network.rates(self.dtype)
        return tuple(
            each if rate is None else jax.tree.map(lambda g, r=rate: r * g, each)
            for each, rate in zip(descent, rates, strict=True)
        )

    def gradient(
        self,
        energy: AbstractEnergy,
        weights: Weights,
        batch: Batch,
        decided: Tensors | None = None,
    ) -> Weights:
        """∇E: of local terms each layer's own, of global ones through all layers, of flows minus those."""
        parts = [
            part
            for part in (
                self._local(energy, weights, batch, decided),
                self._global(energy, weights, batch),
                *self._flows(energy, weights, batch),
            )
            if part
        ]
        return jax.tree.map(lambda *g: sum(g[1:], start=g[0]), *parts)

    @property
    def descends(self) -> bool:
        """Whether the flow is that of energies alone, so that there is a :meth:`potential`."""
        return all(part.local is not None for _, part in self.energy.terms)

    def potential(self, t: ScalarLike, weights: Weights) -> Callable[[Weights], Scalar]:
        """Σ E of other weights, whose gradient at these is minus the flow, where all rates are 1.

        For local terms each layer's input is held at what these weights make of x. A
        :class:`skajax.Flow` has none: see :attr:`descends`.
        """
        batch = self.inputs.at(t)
        given = self.network.trace(weights, batch.x).inputs
        local, spread = (_only(self.energy, local=each) for each in (True, False))

        def energy(trial: Weights) -> Scalar:
            total = jnp.zeros((), self.dtype)
            if local is not None:
                here = self.network.given(trial, given)
                total = total + jnp.sum(local(trial, here, batch))
            if spread is not None:
                here = self.network.trace(trial, batch.x)
                total = total + jnp.sum(spread(trial, here, batch))
            return total

        return energy

    def trace(self, t: ScalarLike, weights: Weights) -> Trace:
        """What every layer reads, knows and decides at time t."""
        return self.network.trace(weights, self.inputs.at(t).x)

    def state(self, t: Scalar, weights: Weights) -> State:
        """The state, with the whole weights."""
        trace = self.trace(t, weights)
        return State(jnp.asarray(t, self.dtype), self.whole(weights), trace.Z, trace.D)

    def whole(self, weights: Weights) -> Weights:
        """The whole weights, of those in the row space."""
        return weights if self.space is None else self.space.lift(weights)

    def squares(self, weights: Weights) -> PerLayer:
        """Of each layer, the sum of all its whole weights' squares, biases included."""
        sums = [square(w) for w in weights]
        if self.space is not None:
            sums[0] = sums[0] + jnp.sum(jnp.square(self.space.outside))
        return self.network.per_layer(sums)

    def norms(self, weights: Weights) -> PerLayer:
        """Of each layer ‖W‖, without biases."""
        found = root_sums([list(matrices(weights[place])) for place in self.network.rows])
        return found if self.space is None else self.space.weight_norm(found)

    def _local(
        self, energy: Any, weights: Weights, batch: Batch, decided: Tensors | None
    ) -> Weights | None:
        """The gradient of the local terms: each layer's of its own, with its inputs held fixed."""
        energy = _only(energy, local=True)
        if energy is None:
            return None
        trace = self.network.trace(weights, batch.x, decided)

        def total(Z: Tensors, weights: Weights) -> Scalar:
            here = self.network.knowing(trace.inputs, Z)
            return jnp.sum(energy(weights, here, batch))

        if not energy.reads_weights:
            by_Z = jax.grad(total)(trace.Z, weights)
            return self.network.pull(weights, trace.inputs, by_Z)
        by_Z, by_weights = jax.grad(total, (0, 1))(trace.Z, weights)
        pulled = self.network.pull(weights, trace.inputs, by_Z)
        return jax.tree.map(jnp.add, pulled, by_weights)

    def _global(self, energy: Any, weights: Weights, batch: Batch) -> Weights | None:
        """The gradient of the global terms, through all layers."""
        energy = _only(energy, local=False)
        if energy is None:
            return None

        def total(weights: Weights) -> Scalar:
            return jnp.sum(energy(weights, self.network.trace(weights, batch.x), batch))

        return jax.grad(total)(weights)

    def _flows(self, energy: AbstractEnergy, weights: Weights, batch: Batch) -> Iterator[Weights]:
        """Minus each of the given flows, times its factor."""
        for factor, part in energy.terms:
            if isinstance(part, Flow):
                velocity = part.velocity(weights, self.network.trace(weights, batch.x), batch)
                yield jax.tree.map(lambda v, f=factor: -f * v, velocity)


class Instant:
    """All that can be observed of a system at one time; what nobody asks for is not computed.

    ``weights`` move at ``velocity``: by default at the flow. ``before`` is the knowledge at the run's
    start, from where the Tensor Net counts. A method whose rates are differences over a step, as the
    published rule's are, gives them as ``changes``.

    >>> instant = ska.Instant(ska.System(network, ska.Batch(x)), 0.0, weights)
    >>> [Zdot.shape for Zdot in instant.Zdot]
    [(20, 8), (20, 10)]
    """

    def __init__(
        self,
        system: System,
        t: ScalarLike,
        weights: Weights,
        *,
        velocity: Weights | None = None,
        flow: Weights | None = None,
        before: Tensors | None = None,
        changes: "Changes | None" = None,
    ) -> None:
        """See the class."""
        self.system, self.t, self.coordinates, self.before = system, t, weights, before
        self.changes = changes
        if flow is not None:
            self.flow = flow
        if velocity is not None:
            self.velocity = velocity

    @property
    def network(self) -> Network:
        """The network, as it runs."""
        return self.system.network

    @cached_property
    def batch(self) -> Batch:
        """The inputs, and targets if there are any, at this time; in the row space, their coordinates."""
        return self.system.inputs.at(self.t)

    @property
    def samples(self) -> int:
        """B."""
        return self.batch.x.shape[0]

    @cached_property
    def weights(self) -> Weights:
        """The whole weights."""
        return self.system.whole(self.coordinates)

    @cached_property
    def flow(self) -> Weights:
        """-r ∇E, in the coordinates that are simulated."""
        return self.system.flow(self.t, self.coordinates)

    @cached_property
    def velocity(self) -> Weights:
        """Ẇ, in the coordinates that are simulated."""
        return self.flow

    @property
    def Z(self) -> Tensors:
        """Knowledge."""
        return self._moving[0].Z

    @property
    def D(self) -> Tensors:
        """Decisions."""
        return self._moving[0].D

    @property
    def Zdot(self) -> Tensors:
        """Knowledge flow Φ = ż (eq. 6), per unit of time."""
        return self._rated(self._moving[1].Zdot)

    @property
    def Ddot(self) -> Tensors:
        """Ḋ, per unit of time."""
        return self._rated(self._moving[1].Ddot)

    # Sums over all samples and neurons, a number a layer, that several observables share.

    @property
    def entropies(self) -> PerLayer:
        """H, bits."""
        return self._moving[0].entropies

    @cached_property
    def weight_norm(self) -> PerLayer:
        """‖W‖_F of the whole weights."""
        return self.system.norms(self.coordinates)

    @cached_property
    def Z_norm(self) -> PerLayer:
        """‖Z‖_F."""
        return norms(self.Z)

    @cached_property
    def Zdot_norm(self) -> PerLayer:
        """‖ż‖_F, per unit of time."""
        return self._per_time(norms(self._moving[1].Zdot))

    @cached_property
    def D_Zdot(self) -> PerLayer:
        """Σ D ż, per unit of time."""
        return self._per_time(dots(self.D, self._moving[1].Zdot))

    @cached_property
    def Z_Ddot(self) -> PerLayer:
        """Σ z Ḋ, per unit of time."""
        return self._per_time(dots(self.Z, self._moving[1].Ddot))

    @cached_property
    def Z_slope_Zdot(self) -> PerLayer:
        """Σ z D' ż, per unit of time: along a flow Σ z Ḋ, of differences over a step not."""
        if self.changes is None:
            return self.Z_Ddot
        by_entropy = self.changes.trace.entropy_gradients
        return self._per_time(dots(by_entropy, self.changes.Zdot) * (-1 / BITS))

    def net(self, sign: int) -> PerLayer:
        """The Tensor Net since the run's start, Δφ ± ΔH, in the published sign +1 or the equation's -1."""
        if self.changes is not None:
            return self.changes.net[sign]
        potential, entropy = self._potentials
        return potential + sign * entropy

    @cached_property
    def _potentials(self) -> tuple[PerLayer, PerLayer]:
        """Changes of φ, nats, and of H, bits, since the run's start."""
        if self.before is None:
            none = jnp.zeros(len(self.Z), self.system.dtype)
            return none, none
        rows = zip(self.network.decisions, self.before, self.Z, strict=True)
        parts = [decision.changes(z0, z) for decision, z0, z in rows]
        sums = [(jnp.sum(each.potential), jnp.sum(each.entropy)) for each in parts]
        potential, entropy = map(jnp.stack, zip(*sums, strict=True))
        return potential, entropy

    @cached_property
    def alignment(self) -> PerLayer:
        """cos(z, Ḋ); 0 where z or Ḋ is 0."""
        Ddot = self._moving[1].Ddot
        lengths = self.Z_norm * norms(Ddot)
        aligned = lengths > 0
        return jnp.where(aligned, dots(self.Z, Ddot) / jnp.where(aligned, lengths, 1), 0)

    # The balance of the energy that drives, dE/dt = transport - dissipation.

    @cached_property
    def energy(self) -> PerLayer:
        """B E: summed over samples, as all sums here are; under a :class:`skajax.Flow` of what it watches."""
        return self.samples * self._watched(self.coordinates, self._moving[0], self.batch)

    @cached_property
    def dissipation(self) -> PerLayer:
        """-⟨∇_W (B E), Ẇ⟩ = B ⟨flow / r, Ẇ⟩: what the layer's own weights take off."""
        if self.changes is not None:
            return self.changes.dissipation
        if not self.system.descends:
            gradient = self.system.gradient(self._watched, self.coordinates, self.batch)
            own = [-inner(g, v) for g, v in zip(gradient, self.velocity, strict=True)]
            return self.samples * self.network.per_layer(own)
        return self.samples * self.network.inner(self.flow, self.velocity)

    @cached_property
    def transport(self) -> PerLayer:
        """What else moves the layer's B E: its inputs (local terms), other layers (global), the batch."""
        if self.changes is not None:
            return self.changes.transport(self)
        trace, motion = self._moving
        system, w = self.system, self.coordinates
        parts = []
        local, spread = (_only(self._watched, local=each) for each in (True, False))
        moves = any(part is not None for part in motion.carried) or self._batch_dot is not None
        if local is not None and moves:

            def by_inputs(inputs: Any, Z: Tensors, batch: Batch) -> PerLayer:
                here = self.network.knowing(inputs, Z)
                return local(w, here, batch)

            rate = _along(
                by_inputs,
                (trace.inputs, trace.Z, self.batch),
                (motion.given, motion.carried, self._batch_dot),
            )
            if rate is not None:  # an energy of weights alone rests with its inputs
                parts.append(rate)
        if spread is not None:
            by_all = lambda w, batch: spread(w, self.network.trace(w, batch.x), batch)
            change = _along(by_all, (w, self.batch), (self.velocity, self._batch_dot))
            gradient = jax.grad(lambda w: jnp.sum(by_all(w, self.batch)))(w)
            own = [inner(g, v) for g, v in zip(gradient, self.velocity, strict=True)]
            parts.append(change - self.network.per_layer(own))
        if not parts:
            return jnp.zeros(len(trace.Z), system.dtype)
        return self.samples * sum(parts[1:], start=parts[0])

    @property
    def _watched(self) -> AbstractEnergy:
        """The energy whose balance this is."""
        watched = self.system.energy.watched
        require(
            watched is not None,
            "observe",
            "leave out energy, dissipation and transport where a Flow watches no energy"
            " (Flow(function, energy=...) would say which)",
            "it asked for one of them",
        )
        assert watched is not None
        return watched

    @cached_property
    def _batch_dot(self) -> Any:
        """The batch's rate of change; None where it rests."""
        if not self.system.inputs.moves():
            return None
        t = jnp.asarray(self.t)
        return eqx.filter_jvp(self.system.inputs.at, (t,), (jnp.ones_like(t),))[1]

    @cached_property
    def _moving(self) -> tuple[Trace, Any]:
        """The trace, and its rates; of a method that has differences instead, those, per step."""
        if self.changes is not None:
            return self.changes.trace, self.changes
        xdot = None if self._batch_dot is None else self._batch_dot.x
        return self.network.motion(self.coordinates, self.velocity, self.batch.x, xdot)

    def _per_time(self, sums: PerLayer) -> PerLayer:
        # Sums over a step first: dividing them costs less than dividing every difference.
        return sums if self.changes is None else sums / self.changes.dt

    def _rated(self, tensors: Tensors) -> Tensors:
        dt = None if self.changes is None else self.changes.dt
        return tensors if dt is None else jax.tree.map(lambda a: a / dt, tensors)


class Changes(NamedTuple):
    """Differences over one step, instead of rates of change."""

    trace: Trace
    Zdot: Tensors
    """ΔZ."""
    Ddot: Tensors
    """ΔD."""
    dt: ScalarLike
    dissipation: PerLayer
    """Per unit of time, of the update that led here."""
    net: Any
    """The Tensor Net, added up over the steps, by sign."""

    def transport(self, instant: Instant) -> PerLayer:
        """What else the entropy's rate is made of."""
        return -BITS * instant.Z_Ddot + self.dissipation


def state(network: Network, weights: Weights, x: Inputs, t: ScalarLike = 0.0) -> State:
    """The state at time t: Z and D are functions of the weights and the inputs.

    >>> ska.state(network, weights, x).D[-1].shape
    (20, 10)
    """
    Z, D = network.forward(weights, x)
    return State(jnp.asarray(t, Z[0].dtype), weights, Z, D)


def flow(
    network: Network, weights: Weights, x: Any, energy: AbstractEnergy | None = None
) -> Weights:
    """The flow dW^(l)/dt = -r_l ∇_W E^(l), db^(l)/dt = -r_l ∇_b E^(l), of every layer (eq. 1-4, 32).

    By default E^(l) is the layer's entropy, summed over its neurons and *averaged* over the samples, as
    in the published experiments; for a dense layer this is eq. 3-4 with a 1/B,

        dW/dt = -(1/B) xᵀ ∇_z H,    db/dt = -mean(∇_z H).

    Forward-only: each layer descends its own entropy and takes its input as given. That is the gradient
    of the summed entropies with ``stop_gradient`` between layers. ``energy`` may be any other
    (:mod:`skajax.energies`), and ``x`` a ``Batch(x, y)`` with its targets. Has the structure of
    ``weights``; per unit of time.

    >>> velocity = ska.flow(network, weights, x)
    >>> velocity[0].W.shape == weights[0].W.shape
    True
    """
    batch = x if isinstance(x, Batch) else Batch(x)
    return System(network, batch, Entropy() if energy is None else energy).flow(0.0, weights)


def tangents(
    network: Network, weights: Weights, velocity: Weights, x: Inputs
) -> tuple[Tensors, Tensors]:
    """Knowledge flow Φ = dZ/dt (eq. 6) and dD/dt, per layer, when the weights move at ``velocity``.

    The exact forward tangents ż^(l) = x Ẇ + ẋ W + ḃ and Ḋ = D' ż, where ẋ is the Ḋ of the layer
    below: what the paper's (Z_k - Z_{k-1}) / Δt tends to (eq. 7). Each entry (samples, ...).

    >>> Zdot, Ddot = ska.tangents(network, weights, ska.flow(network, weights, x), x)
    >>> Zdot[0].shape
    (20, 8)
    """
    _, motion = network.motion(weights, velocity, x)
    return motion.Zdot, motion.Ddot


def growth_bound(system: System, weights: Weights | None = None) -> Scalar:
    """A bound on the rates at which weights, and with them knowledge, can grow from the start on.

    Of dense sigmoid layers one upon another, while z is small, under their own entropy

        λ = (max(mean ‖x‖², n_l / 4) + 1) / (4 ln 2),

    where x are the network's inputs (whole numbers, which name something, count 1 each), and n_l the numbers
    that a hidden layer decides on for one sample. Of all else, from M = ∂(dW/dt)/∂W at the given weights,

        λ = (‖M^k g‖ / θ)^(1/k),    k = 8, θ = 1/100,    g ~ N(0, 1):

    by k differences of the flow, whatever the layers, decisions, rates and energy are. An eigenvalue
    of M is larger in less than one of a hundred draws of g: |u·g| < θ has at most the probability 0.8 θ,
    where u is its left eigenvector. Usually λ is two to three times the largest. Without weights, the first
    formula.

    Source: J. D. Dixon, "Estimating extremal eigenvalues and condition numbers of matrices", SIAM J. Numer.
    Anal. 20 (1983).

    >>> print(f"{ska.system.growth_bound(ska.System(network, ska.Batch(x))):.1f}")
    29.5
    """
    zero = jnp.zeros((), system.dtype)
    batch = system.inputs.at(zero)
    network = system.network
    Z = expected_knowledge(network, batch.x.shape, batch.x.dtype)
    hidden = max((z.size / z.shape[0] / 4 for z in Z[:-1]), default=0.0)
    size = jnp.asarray(batch.x.size / batch.x.shape[0], system.dtype)
    if jnp.issubdtype(batch.x.dtype, jnp.floating):
        size = jnp.sum(jnp.square(batch.x)) / batch.x.shape[0]
    usual = growth_rate(jnp.maximum(size, hidden) + 1)
    dense = all(
        getattr(layer, "rows", None) is not None
        and decision_of(layer) is SIGMOID
        and rate_of(layer) == 1
        for layer in network.layers
    )
    if weights is None or (dense and isinstance(system.energy, Entropy) and system.energy.local):
        return usual
    still = lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_array(leaf) else leaf
    found = _fastest(*jax.tree.map(still, (system, weights)))
    return jnp.where(jnp.isfinite(found) & (found > 0), found, usual)


TURNS, SHARE = 8, 0.01
"""k and θ."""


def _fastest(system: System, weights: Weights) -> Scalar:
    """(‖M^k g‖ / θ)^(1/k), with M v by differences: a layer need not have forward derivatives."""
    flat, unravel = ravel_pytree(weights)
    flow = lambda w: ravel_pytree(system.flow(jnp.zeros((), system.dtype), unravel(w)))[0]
    here = flow(flat)
    near = float(jnp.finfo(flat.dtype).eps) ** 0.5 * (1 + jnp.linalg.norm(flat))

    def turn(_: Any, state: tuple[Array, Scalar]) -> tuple[Array, Scalar]:
        v, log = state
        length = jnp.linalg.norm(v)
        v = v / jnp.where(length > 0, length, 1)
        return (flow(flat + near * v) - here) / near, log + jnp.log(length)

    drawn = jax.random.normal(jax.random.key(0), flat.shape, flat.dtype)
    v, log = jax.lax.fori_loop(0, TURNS, turn, (drawn, jnp.zeros((), flat.dtype)))
    return jnp.exp((log + jnp.log(jnp.linalg.norm(v)) - jnp.log(SHARE)) / TURNS)


def square(tree: Any) -> Scalar:
    """The sum of the squares of all numbers in a tree; of none, 0."""
    return inner(tree, tree)


def is_finite(tree: Any) -> Bool[Array, ""]:
    """Whether all numbers in a tree are."""
    leaves = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return jnp.stack(leaves).all() if leaves else jnp.asarray(True)


def dots(a: Tensors, b: Tensors) -> PerLayer:
    """Of each layer Σ a b."""
    return jnp.stack([jnp.sum(u * v) for u, v in zip(a, b, strict=True)])


def norms(tensors: Tensors) -> PerLayer:
    """Of each layer the Frobenius norm."""
    return root_sums([[t] for t in tensors])


def root_sums(groups: Any) -> PerLayer:
    """Of each group of arrays, the root of the sum of all squares.

    Differentiable at zero, where it has a corner: gradients there are 0, not NaN.
    """
    squared = jnp.stack([square(group) for group in groups])
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)


def _only(energy: AbstractEnergy, *, local: bool) -> AbstractEnergy | None:
    """The local terms of an energy, or the global ones, as one energy; None if there are none."""
    if {part.local for _, part in energy.terms} == {local}:
        return energy
    parts = tuple(part for part in energy.terms if part[1].local == local)
    return Sum(parts) if parts else None


def _along(function: Any, primals: Any, tangents: Any) -> Any:
    """The rate of a function whose arguments move; None: that one, or that part of it, rests."""
    moving = _resting(tuple(primals), tuple(tangents))
    return eqx.filter_jvp(function, tuple(primals), moving)[1]


def _resting(primal: Any, tangent: Any) -> Any:
    """A tangent in its primal's structure, with None for whatever rests."""
    if tangent is None:
        return jax.tree.map(lambda _: None, primal)
    if type(primal) is tuple:
        return tuple(_resting(p, t) for p, t in zip(primal, tangent, strict=True))
    return tangent
