"""Decision functions: D is the gradient of a potential, and the entropy follows from it.

    D = ∇φ(z),    H = (φ(z) - z·D) / ln 2 bits

The paper's entropy is a change, H = -(1/ln 2) ∫ z dD (eq. 9), and integration by parts gives it: ∫ z dD is
the change of z·D - φ(z), whatever the path of z. So for every decision function of this kind

    ∇_z H = -(1/ln 2) D'(z) z,    Net = Δφ ± ΔH,

where D' = ∇∇φ is one number for each neuron that decides alone, and a symmetric matrix for each group of
neurons that decide together. The constant of H is that of φ:

    sigmoid   φ = ln(1 + e^z)      H: Shannon's, of a choice of yes (probability D) or no
    softmax   φ = ln Σ e^z         H: Shannon's, of a choice of one neuron of the last axis (probabilities D)
    tanh      φ = ln(e^z + e^-z)   H: Shannon's, of a choice of +1 or -1, whose mean is D
    relu      φ = relu(z)² / 2     H = -φ / ln 2: 0 at z = 0, negative beyond; no Shannon entropy
    identity  φ = z² / 2           H = -φ / ln 2: the same

The first three φ are the logarithm of a sum over choices, and D is the mean choice: that is why their H is
Shannon's, positive, and at most 1 bit a neuron (log₂ n bits for the n neurons of a softmax). Descent on the
other two has no lower bound: they are for energies other than the entropy.

What the paper derives for the sigmoid holds for the others as far as it needs no more than D = ∇φ: the
flow, the Lagrangian -z·Ḋ, both signs of the Net and their closed forms. It stops where it needs the sigmoid's
own D': the |z| at which a neuron's flow is largest is where z tanh(z/2) = 1 for the sigmoid, half of that for
tanh, and another for other decisions; so is the |z| near it at which a balanced layer's Net crosses zero.
In a softmax the neurons' decisions add up to 1, so they are not independent. Adding the same c to all of
them changes neither D nor H, but φ(z + c) = φ(z) + c, so the Net changes by c.
"""

import abc
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from skajax import entropy as ent
from skajax._checks import require
from skajax._types import Array, Knowledge

__all__ = [
    "DECISIONS",
    "IDENTITY",
    "RELU",
    "SIGMOID",
    "SOFTMAX",
    "TANH",
    "Change",
    "Decision",
    "Own",
]


class Change(NamedTuple):
    """How much the potentials of decisions change between two knowledges; sums are those of the layer."""

    potential: Array
    """φ(z) - φ(z0) = ∫ D·dz, nats."""
    entropy: Array
    """H(z) - H(z0) = ∫ ∇_z H·dz, bits."""


class Decision(eqx.Module):
    """What a layer decides on its knowledge: D = ∇φ(z), and what follows from φ.

    ``potential``, ``entropy`` and ``changes`` give one number for each group of neurons that decide
    together: where neurons decide alone, as all but a softmax's do, in the shape of z.

    >>> [round(float(d), 3) for d in ska.decisions.TANH.decide(jnp.array([-1.0, 0.0, 1.0]))]
    [-0.762, 0.0, 0.762]
    """

    name: eqx.AbstractVar[str]
    """By which layers know it."""

    @abc.abstractmethod
    def decide(self, z: Knowledge) -> Knowledge:
        """D = ∇φ(z), in the shape of z."""

    @abc.abstractmethod
    def potential(self, z: Knowledge) -> Array:
        """φ(z), nats."""

    def entropy(self, z: Knowledge) -> Array:
        """H = (φ(z) - z·D) / ln 2, bits (eq. 9, 30)."""
        return _entropy(self, z)

    def entropy_gradient(self, z: Knowledge) -> Knowledge:
        """∇_z H = -(1/ln 2) D'(z) z, in the shape of z (eq. 31)."""
        _, pull = jax.jvp(self.decide, (z,), (z,))
        return -ent.BITS * pull

    def changes(self, z0: Knowledge, z: Knowledge) -> Change:
        """Δφ and ΔH from z0 to z, of which both signs of the Tensor Net are made (eq. 26).

        Small changes keep their digits: see :func:`skajax.entropy.changes`.
        """
        return _changes(self, z0, z)

    def distance(self, d: Knowledge) -> Array:
        """The size of a change d of z: |d|, or 2 |d| of tanh, which turns twice as fast as the sigmoid.

        Of softmax the largest d of the group less the smallest. One number for each neuron or group.
        """
        return jnp.abs(d)

    @property
    def known(self) -> bool:
        """Whether there is a potential."""
        return True

    def __call__(self, z: Knowledge) -> Knowledge:
        """D, in the shape of z."""
        return self.decide(z)


class _Sigmoid(Decision):
    """D = 1 / (1 + e^-z): the paper's (eq. 13)."""

    name: str = eqx.field(static=True, default="sigmoid")

    def decide(self, z: Knowledge) -> Knowledge:
        return ent.decision(z)

    def potential(self, z: Knowledge) -> Array:
        return jax.nn.softplus(z)

    def entropy(self, z: Knowledge) -> Array:
        return ent.entropy(z)

    def entropy_gradient(self, z: Knowledge) -> Knowledge:
        return ent.entropy_gradient(z)

    def changes(self, z0: Knowledge, z: Knowledge) -> Change:
        return Change(*ent.changes(z0, z))


class _Tanh(Decision):
    """D = tanh z = 2 σ(2z) - 1, so that H(z) = h(2z), of the sigmoid's h."""

    name: str = eqx.field(static=True, default="tanh")

    def decide(self, z: Knowledge) -> Knowledge:
        return _tanh(z)

    def potential(self, z: Knowledge) -> Array:
        return jnp.abs(z) + jnp.log1p(jnp.exp(-2 * jnp.abs(z)))

    def entropy(self, z: Knowledge) -> Array:
        return ent.entropy(2 * z)

    def entropy_gradient(self, z: Knowledge) -> Knowledge:
        return 2 * ent.entropy_gradient(2 * z)

    def distance(self, d: Knowledge) -> Array:
        return 2 * jnp.abs(d)


class _Linear(Decision):
    """D = max(z, 0) of "relu", or z of "identity": φ = D² / 2 and z·D = 2 φ."""

    name: str = eqx.field(static=True)

    def decide(self, z: Knowledge) -> Knowledge:
        return jax.nn.relu(z) if self.name == "relu" else z

    def potential(self, z: Knowledge) -> Array:
        return jnp.square(self.decide(z)) / 2

    def entropy(self, z: Knowledge) -> Array:
        return -ent.BITS * self.potential(z)

    def changes(self, z0: Knowledge, z: Knowledge) -> Change:
        D0, D = self.decide(z0), self.decide(z)
        change = (D - D0) * ((D + D0) / 2)
        return Change(change, -ent.BITS * change)


class _Softmax(Decision):
    """D = e^z / Σ e^z over the last axis, and H = -Σ D log₂ D: one number for each vector."""

    name: str = eqx.field(static=True, default="softmax")

    def decide(self, z: Knowledge) -> Knowledge:
        return _softmax(z)

    def potential(self, z: Knowledge) -> Array:
        return jax.nn.logsumexp(_finite(z), axis=-1)

    def entropy(self, z: Knowledge) -> Array:
        return _categorical(z)

    def entropy_gradient(self, z: Knowledge) -> Knowledge:
        z = _finite(z)
        top = _top(z)
        return -ent.BITS * _weighed(_softmax(z), _finite(_from_top(z, top)))

    def distance(self, d: Knowledge) -> Array:
        # What all neurons of a group gain alike turns nothing.
        return jnp.max(d, axis=-1) - jnp.min(d, axis=-1)


class Own(Decision):
    """That of a layer outside of this package, which has ``decide(z)``, or ``potential(z)``, or both.

    ``potential`` gives φ, of the shape of z where neurons decide alone, else with one number for each group
    that decides together: then z's axes behind those of φ are the group. Without ``decide``, D is
    its gradient by autodiff. Without ``potential`` nobody knows the entropy: whatever asks for it raises
    ValueError.

    >>> class Cubic(ska.Dense):
    ...     def potential(self, z):
    ...         return z**4 / 4
    ...
    >>> network = ska.Network((Cubic(3),))  # D = z³
    >>> trace = network.trace(network.init(jax.random.key(0), x), x)
    >>> bool(jnp.allclose(trace.D[0], trace.Z[0] ** 3))
    True
    """

    name: str = eqx.field(static=True)
    """The layer's class."""
    arrays: Any
    rest: Any = eqx.field(static=True)
    decides: bool = eqx.field(static=True)

    def __init__(self, layer: Any, *, decides: bool = True) -> None:
        """Of the layer, whose arrays are traced; ``decides``: whether by its own ``decide``."""
        self.arrays, self.rest = eqx.partition(layer, eqx.is_array)
        self.name, self.decides = type(layer).__name__, decides

    @property
    def layer(self) -> Any:
        """The layer."""
        return eqx.combine(self.arrays, self.rest)

    @property
    def known(self) -> bool:
        """Whether there is a potential."""
        return hasattr(self.layer, "potential")

    def decide(self, z: Knowledge) -> Knowledge:
        """The layer's own; else the gradient of its potential."""
        if self.decides:
            return self.layer.decide(z)
        return jax.grad(lambda z: jnp.sum(self.potential(z)))(z)

    def potential(self, z: Knowledge) -> Array:
        """The layer's own."""
        require(
            self.known,
            "network",
            "have layers whose entropy is known where entropy, Tensor Net or their flow is asked for: with"
            " potential(z), of which D is the gradient",
            f"{self.name} had decide(z) alone",
        )
        phi = self.layer.potential(z)
        require(
            phi.shape == z.shape[: phi.ndim] and phi.ndim >= 1,
            "network",
            f"have layers whose potential(z) has z's shape, or its first axes ({self.name})",
            f"it was {phi.shape} for z of {z.shape}",
        )
        return phi

    def entropy_gradient(self, z: Knowledge) -> Knowledge:
        """As it follows from the decisions, of layers with a potential."""
        jax.eval_shape(self.potential, z)
        return super().entropy_gradient(z)


SIGMOID, SOFTMAX, TANH = _Sigmoid(), _Softmax(), _Tanh()
RELU, IDENTITY = _Linear("relu"), _Linear("identity")

DECISIONS: Mapping[str, Decision] = {
    each.name: each for each in (SIGMOID, SOFTMAX, TANH, RELU, IDENTITY)
}
"""Decisions by name."""


# What follows from any potential.


def _together(values: Array, phi: Array) -> Array:
    """Sums over the neurons that decide together."""
    return jnp.sum(values, axis=tuple(range(phi.ndim, values.ndim)))


def _entropy_as_written(decision: Decision, z: Knowledge) -> Array:
    phi = decision.potential(z)
    return ent.BITS * (phi - _together(z * decision.decide(z), phi))


def _changes_as_written(decision: Decision, z0: Knowledge, z: Knowledge) -> Change:
    """Differences of potentials, or the corrected trapezoidal rule where these have lost their digits.

    Both changes are ∫ F·dz, F = D and F = ∇_z H; where z moves by a small d, the integral is d·(F + F0) / 2 -
    d·(F' - F0') d / 12. Taken only where the two agree to the differences' rounding: a potential may have
    a corner, across which the rule is wrong.
    """
    phi0, phi = decision.potential(z0), decision.potential(z)
    H0, H = decision.entropy(z0), decision.entropy(z)
    eps, d = float(jnp.finfo(z.dtype).eps), z - z0
    size = decision.distance(d)
    size = jnp.max(size, axis=tuple(range(phi.ndim, size.ndim)))
    near = size < (4000 * eps) ** 0.2
    short = jnp.where(near.reshape(near.shape + (1,) * (z.ndim - near.ndim)), d, 0)

    def rule(field: Any) -> Array:
        ends = [jax.jvp(field, (point,), (short,)) for point in (z0, z)]
        (F0, bend0), (F, bend) = ends
        return _together(short * ((F0 + F) / 2 - (bend - bend0) / 12), phi)

    def change(field: Any, before: Array, after: Array, scale: Array) -> Array:
        quick, plain = rule(field), after - before
        agree = jnp.abs(quick - plain) <= 64 * eps * (1 + scale)
        return jnp.where(near & agree, quick, plain)

    scale = jnp.abs(phi0) + jnp.abs(phi)
    return Change(
        change(decision.decide, phi0, phi, scale),
        change(decision.entropy_gradient, H0, H, scale + jnp.abs(H0) + jnp.abs(H)),
    )


def _by_layer(function: Any, decision: Decision, rate: Any) -> Any:
    """How a result moves with the arrays of the layer itself; None where it has none that move."""
    if not jax.tree.leaves(rate):
        return None
    return eqx.filter_jvp(function, (decision,), (rate,))[1]


@eqx.filter_custom_jvp
def _entropy(decision: Decision, z: Knowledge) -> Array:
    return _entropy_as_written(decision, z)


@_entropy.def_jvp
def _entropy_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (decision, z), (decision_dot, zdot) = primals, tangents
    H = _entropy(decision, z)
    rate = jnp.zeros_like(H)
    if zdot is not None:
        rate = _together(decision.entropy_gradient(z) * zdot, H)
    moved = _by_layer(lambda own: _entropy_as_written(own, z), decision, decision_dot)
    return H, rate if moved is None else rate + moved


@eqx.filter_custom_jvp
def _changes(decision: Decision, z0: Knowledge, z: Knowledge) -> Change:
    return _changes_as_written(decision, z0, z)


@_changes.def_jvp
def _changes_jvp(primals: Any, tangents: Any) -> tuple[Change, Change]:
    (decision, z0, z), (decision_dot, z0dot, zdot) = primals, tangents
    found = _changes(decision, z0, z)
    rate = jax.tree.map(jnp.zeros_like, found)
    for point, dot, sense in ((z0, z0dot, -1), (z, zdot, 1)):
        if dot is None:
            continue
        D, pull = decision.decide(point), decision.entropy_gradient(point)
        parts = Change(*(sense * _together(F * dot, found.potential) for F in (D, pull)))
        rate = jax.tree.map(jnp.add, rate, parts)
    moved = _by_layer(lambda own: _changes_as_written(own, z0, z), decision, decision_dot)
    return found, rate if moved is None else jax.tree.map(jnp.add, rate, moved)


# Tanh.


@jax.custom_jvp
def _tanh(z: Knowledge) -> Knowledge:
    return jnp.tanh(z)


@_tanh.defjvp
def _tanh_jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Array, Array]:
    # 1 - tanh² has no digit left where |z| is large.
    (z,), (zdot,) = primals, tangents
    return _tanh(z), 4 * ent.decision_derivative(2 * z) * zdot


# Softmax. All is counted from the largest z of each vector: then D' times a vector, and the entropy, are sums
# in which nothing cancels.


def _finite(z: Array) -> Array:
    """An infinite z counts as the largest number."""
    largest = float(jnp.finfo(z.dtype).max)
    return jnp.clip(z, -largest, largest)


def _top(z: Array) -> Array:
    """Which neuron of each vector has the largest z; the first, of equals."""
    index = jnp.argmax(z, axis=-1, keepdims=True)
    return jax.lax.broadcasted_iota(index.dtype, z.shape, z.ndim - 1) == index


def _from_top(v: Array, top: Array) -> Array:
    """v - v_top."""
    return v - jnp.sum(jnp.where(top, v, 0), axis=-1, keepdims=True)


@jax.custom_jvp
def _softmax(z: Knowledge) -> Knowledge:
    z = _finite(z)
    e = jnp.exp(_from_top(z, _top(z)))
    return e / jnp.sum(e, axis=-1, keepdims=True)


@_softmax.defjvp
def _softmax_jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Array, Array]:
    (z,), (zdot,) = primals, tangents
    D = _softmax(z)
    return D, _weighed(D, _from_top(zdot, _top(z)))


def _weighed(D: Array, v: Array) -> Array:
    """D' v = D (v - Σ D v)."""
    return D * (v - jnp.sum(D * v, axis=-1, keepdims=True))


@jax.custom_jvp
def _categorical(z: Knowledge) -> Array:
    """-Σ D log₂ D = (ln(1 + Σ e^u) - Σ D u) / ln 2, with u = z - z_top ≤ 0; the first sum without the top."""
    z = _finite(z)
    top = _top(z)
    u = _finite(_from_top(z, top))
    others = jnp.sum(jnp.where(top, 0, jnp.exp(u)), axis=-1)
    return ent.BITS * (jnp.log1p(others) - jnp.sum(_softmax(z) * u, axis=-1))


@_categorical.defjvp
def _categorical_jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Array, Array]:
    (z,), (zdot,) = primals, tangents
    return _categorical(z), jnp.sum(SOFTMAX.entropy_gradient(z) * zdot, axis=-1)
