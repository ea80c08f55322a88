"""The paper's scalar mathematics: entropy and its gradient, Lagrangian, Tensor Net.

Every function here is elementwise: it maps the knowledge z of one neuron for one sample to one
number, keeps shape and dtype, and may be differentiated to any order. Sums over samples and
neurons belong to :mod:`skajax.observables`.

Source: B. Mahi, "Structured Knowledge Accumulation: The Principle of Entropic Least Action in
Forward-Only Neural Learning", arXiv:2504.03214 (2025).
"""

import math

import jax
import jax.numpy as jnp

from skajax._checks import require
from skajax._types import AnyArray, RealLike, Sign

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


def decision_derivative(z: RealLike) -> AnyArray:
    """Slope of the decision, D' = dD/dz = σ(z) (1 - σ(z)) (eq. 13).

    Written σ(z) σ(-z): the difference 1 - σ(z) has no correct digit left in float32 from z ≈ 16 on,
    where the flow of a well-trained layer lives.
    """
    return jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)


@jax.custom_jvp
def entropy(z: RealLike) -> AnyArray:
    """Entropy h(z) = 1 - (1/ln 2) ∫₀ᶻ u dσ(u) = (softplus(z) - z σ(z)) / ln 2, in bits (eq. 9, 30).

    The paper's entropy is a change, H = -(1/ln 2) ∫ z dD. With D = σ(z) it is the change of Shannon's
    binary entropy -D log₂ D - (1 - D) log₂(1 - D), and this function is that entropy: h(0) = 1,
    h(-z) = h(z), h → 0 for large |z|. It is evaluated from |z|, where nothing cancels, and its derivative
    is :func:`entropy_gradient`, exactly.
    """
    a = jnp.abs(z)
    e = jnp.exp(-a)
    # Where e underflows, so does a e; at infinity their product would be NaN.
    return BITS * (jnp.log1p(e) + jnp.where(e > 0, a * (e / (1 + e)), 0))


@entropy.defjvp
def _entropy_jvp(primals: tuple[RealLike], tangents: tuple[RealLike]) -> tuple[AnyArray, AnyArray]:
    (z,), (zdot,) = primals, tangents
    return entropy(z), entropy_gradient(z) * zdot


def entropy_gradient(z: RealLike) -> AnyArray:
    """Gradient of the entropy with respect to knowledge, ∇_z H = -(1/ln 2) z D' (eq. 31)."""
    return -BITS * (decision_derivative(z) * z)


def lagrangian(z: RealLike, zdot: RealLike) -> AnyArray:
    """Lagrangian L = -z Ḋ = -z σ(z) (1 - σ(z)) ż (eq. 11, 14), per unit of time.

    The entropy's rate of change is L / ln 2 bits (eq. 12).
    """
    return -decision_derivative(z) * z * zdot


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


def _orientation(sign: Sign) -> int:
    orientations = {"published": 1, "equation": -1}
    require(sign in orientations, "sign", "be 'published' or 'equation'", f"it was {sign!r}")
    return orientations[sign]
