"""The paper's scalar mathematics: entropy and its gradient, Lagrangian, Tensor Net.

Every function here is elementwise: it maps the knowledge z of one neuron for one sample to one
number, keeps shape and dtype, and may be differentiated to any order. Sums over samples and
neurons belong to :mod:`skajax.observables`.

Source: B. Mahi, "Structured Knowledge Accumulation: The Principle of Entropic Least Action in
Forward-Only Neural Learning", arXiv:2504.03214 (2025).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from skajax._checks import require
from skajax._types import AnyArray, Array, RealLike, Sign

_LN2 = math.log(2.0)
BITS = 1 / _LN2
"""Bits in a nat, 1/ln 2. A factor, because dividing an array costs several times as much."""


@jax.custom_jvp
def decision(z: RealLike) -> AnyArray:
    """Decision probability D = σ(z) = 1 / (1 + e^-z) (above eq. 13)."""
    return jax.nn.sigmoid(z)


@decision.defjvp
def _decision_jvp(primals: tuple[RealLike], tangents: tuple[RealLike]) -> tuple[AnyArray, AnyArray]:
    (z,), (zdot,) = primals, tangents
    return decision(z), decision_derivative(z) * zdot


@jax.custom_jvp
def decision_derivative(z: RealLike) -> AnyArray:
    """Slope of the decision, D' = dD/dz = σ(z) (1 - σ(z)) (eq. 13).

    Written e / (1 + e)² with e = e^-|z|: the difference 1 - σ(z) has no correct digit left in float32
    from z ≈ 16 on, where the flow of a well-trained layer lives.
    """
    _, root, e = _tail(z)
    return root * (root / ((1 + e) * (1 + e)))


@decision_derivative.defjvp
def _decision_derivative_jvp(
    primals: tuple[RealLike], tangents: tuple[RealLike]
) -> tuple[AnyArray, AnyArray]:
    # D'' = D' (1 - 2 D).
    (z,), (zdot,) = primals, tangents
    slope = decision_derivative(z)
    return slope, -(slope * jnp.tanh(z / 2)) * zdot


@jax.custom_jvp
def entropy(z: RealLike) -> AnyArray:
    """Entropy h(z) = 1 - (1/ln 2) ∫₀ᶻ u dσ(u) = (softplus(z) - z σ(z)) / ln 2, in bits (eq. 9, 30).

    The paper's entropy is a change, H = -(1/ln 2) ∫ z dD. With D = σ(z) it is the change of Shannon's
    binary entropy -D log₂ D - (1 - D) log₂(1 - D), and this function is that entropy: h(0) = 1,
    h(-z) = h(z), h → 0 for large |z|. It is evaluated from |z|, where nothing cancels, and its derivative
    is :func:`entropy_gradient`, exactly.
    """
    a, root, e = _tail(z)
    # Far out, (1 + a) e is h to rounding, and a normal number where e is none.
    far = ((1 + a) * root * BITS) * root
    near = BITS * (jnp.log1p(e) + a * (e / (1 + e)))
    return jnp.where(e < float(jnp.finfo(e.dtype).eps) / 4, far, near)


@entropy.defjvp
def _entropy_jvp(primals: tuple[RealLike], tangents: tuple[RealLike]) -> tuple[AnyArray, AnyArray]:
    (z,), (zdot,) = primals, tangents
    return entropy(z), entropy_gradient(z) * zdot


@jax.custom_jvp
def entropy_gradient(z: RealLike) -> AnyArray:
    """Gradient of the entropy with respect to knowledge, ∇_z H = -(1/ln 2) z D' (eq. 31)."""
    a, root, e = _tail(z)
    return (jnp.clip(z, -a, a) * root) * (-BITS * root / ((1 + e) * (1 + e)))


@entropy_gradient.defjvp
def _entropy_gradient_jvp(
    primals: tuple[RealLike], tangents: tuple[RealLike]
) -> tuple[AnyArray, AnyArray]:
    # h'' = -(D' + z D'') / ln 2 = -D' / ln 2 - h' (2 D - 1).
    (z,), (zdot,) = primals, tangents
    gradient = entropy_gradient(z)
    return gradient, -(BITS * decision_derivative(z) + gradient * jnp.tanh(z / 2)) * zdot


def _tail(z: RealLike) -> tuple[Array, Array, Array]:
    """|z|, e^(-|z|/2) and e^-|z|.

    In the tails e = e^-|z| is subnormal, which processors may take for 0, before |z| e is. Multiplied
    by the root twice, |z| comes to its smallest normal numbers. An infinite z counts as the largest
    number, so that products with 0 are 0.
    """
    z = jnp.asarray(z)
    a = jnp.minimum(jnp.abs(z), float(jnp.finfo(z.dtype).max))
    root = jnp.exp(-a / 2)
    return a, root, root * root


def lagrangian(z: RealLike, zdot: RealLike) -> AnyArray:
    """Lagrangian L = -z Ḋ = -z σ(z) (1 - σ(z)) ż (eq. 11, 14), per unit of time.

    The entropy's rate of change is L / ln 2 bits (eq. 12).
    """
    return _LN2 * (entropy_gradient(z) * zdot)


def tensor_net_rate(z: RealLike, zdot: RealLike, sign: Sign = "published") -> AnyArray:
    """Rate of the Tensor Net, dNet/dt = (D ∓ ∇_z H) ż (eq. 8, 26-28).

    ``sign="equation"`` is the paper's equation, D - ∇_z H with ∇_z H = -(1/ln 2) z D'.
    ``sign="published"`` is what the paper's figures 5 and 6 show, D + ∇_z H: their gradient has
    the opposite sign, and only with it do the reported zero crossings exist.
    """
    return (decision(z) + _orientation(sign) * entropy_gradient(z)) * zdot


def tensor_net_potential(z: RealLike, sign: Sign = "published") -> AnyArray:
    """The function whose change is the Tensor Net: softplus(z) - ln 2 ± (h(z) - 1) (eq. 26).

    Net = ∫ (D ∓ ∇_z H) dz has a closed form, because ∫ D dz = softplus(z) and ∫ ∇_z H dz = h(z):
    it depends on the end points alone. Zero at z = 0; plus is ``sign="published"``, minus is
    ``sign="equation"``.
    """
    # softplus(z) = ln 2 h(z) + z σ(z) by the definition of h: one logarithm serves both.
    return decision(z) * z + (_LN2 + _orientation(sign)) * (entropy(z) - 1)


class Changes(NamedTuple):
    """How much a neuron's potentials change between two of its knowledges, elementwise."""

    softplus: Array
    """softplus(z) - softplus(z0), nats: ∫ D dz."""
    entropy: Array
    """h(z) - h(z0), bits: ∫ ∇_z H dz."""

    def tensor_net(self, sign: Sign = "published") -> Array:
        """The Tensor Net from z0 to z: their sum for "published", their difference for "equation"."""
        return self.softplus + _orientation(sign) * self.entropy


@jax.custom_jvp
def changes(z0: RealLike, z: RealLike) -> Changes:
    """Changes of softplus and of h from z0 to z, of which both signs of the Tensor Net are made (eq. 26).

    Computed from z - z0, so that a small change keeps its digits: a difference of two potentials loses
    as many as the potentials are larger than their change. Either is right to a few ε of itself, whatever
    the sizes and signs of z0 and z, but for what is smaller than the smallest normal number times |z|;
    and it is exactly 0 where z = z0. Derivatives are exact: those of the potentials at z and at z0.

    ``z0`` and ``z``: knowledge of the same shape and dtype. Two exponentials an element and no
    logarithm: the cost of about three evaluations of :func:`entropy`.
    """
    z0, z = jnp.asarray(z0), jnp.asarray(z)
    # Both potentials follow from ℓ(a) = log1p(e^-a) and q(a) = σ(-a) at a = |z|, a > 0, where nothing
    # cancels: softplus(z) = max(z, 0) + ℓ and ln 2 h(z) = ℓ + a q. So go from the lesser a to the greater.
    most = float(jnp.finfo(z.dtype).max)
    a0, a = jnp.minimum(jnp.abs(z0), most), jnp.minimum(jnp.abs(z), most)
    inner, outer = jnp.minimum(a0, a), jnp.maximum(a0, a)
    c = outer - inner
    near = c < 1
    short = jnp.where(near, c, 0)
    logarithm, exponential = _LOGARITHM[z.dtype.itemsize > 4], _EXPONENTIAL[z.dtype.itemsize > 4]

    e_inner, fall = jnp.exp(-inner), jnp.exp(-c)
    e_outer = e_inner * fall
    bend = short * _polynomial(exponential, -short)  # (e^-c - 1 + c) / c
    lost = jnp.where(near, c * (bend - 1), fall - 1)  # e^-c - 1
    step = e_inner * lost
    both = 1 / ((1 + e_inner) * (1 + e_outer))
    q_inner, q_outer = e_inner * (1 + e_outer) * both, e_outer * (1 + e_inner) * both
    q_change = step * both
    # ℓ changes by log1p(y), y = q_inner lost; with s = y / (2 + y) that is 2 artanh(s) = 2 s + rest.
    s = step / (2 + e_inner + e_outer)
    rest = s * s * s * _polynomial(logarithm, s * s)
    l_change = 2 * s + rest
    # ℓ + a q changes by inner q_change and by l_change + c q_outer. Of the latter's terms those of first
    # order in c cancel: where c is small, they are left out.
    curved = rest - q_inner * lost * s + c * (q_inner * bend + q_change)
    entropy = inner * q_change + jnp.where(near, curved, l_change + c * q_outer)
    outwards = jnp.where(a0 <= a, 1, -1).astype(z.dtype)
    softplus = (jnp.maximum(z, 0) - jnp.maximum(z0, 0)) + outwards * l_change
    return Changes(softplus, outwards * (BITS * entropy))


@changes.defjvp
def _changes_jvp(
    primals: tuple[RealLike, RealLike], tangents: tuple[RealLike, RealLike]
) -> tuple[Changes, Changes]:
    (z0, z), (z0dot, zdot) = primals, tangents
    return changes(z0, z), Changes(
        decision(z) * zdot - decision(z0) * z0dot,
        entropy_gradient(z) * zdot - entropy_gradient(z0) * z0dot,
    )


# 2 (artanh(s) - s) / s³ over s² ≤ 1/9, and (e^x - 1 - x) / x² over -1 ≤ x ≤ 0: for float32, float64.
_LOGARITHM = tuple([2 / (2 * k + 3) for k in range(terms)] for terms in (7, 15))
_EXPONENTIAL = tuple([1 / math.factorial(k + 2) for k in range(terms)] for terms in (10, 17))


def _polynomial(coefficients: Sequence[float], x: Array) -> Array:
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total


def _orientation(sign: Sign) -> int:
    orientations = {"published": 1, "equation": -1}
    require(sign in orientations, "sign", "be 'published' or 'equation'", f"it was {sign!r}")
    return orientations[sign]
