"""The paper's scalar mathematics: entropy and its gradient, Lagrangian, Tensor Net.

Every function here is elementwise: it maps the knowledge z of one neuron for one sample to one
number, keeps shape and dtype, and may be differentiated to any order. Sums over samples and
neurons belong to :mod:`skajax.observables`.

Source: B. Mahi, "Structured Knowledge Accumulation: The Principle of Entropic Least Action in
Forward-Only Neural Learning", arXiv:2504.03214 (2025).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from skajax._checks import require
from skajax._types import AnyArray, Array, RealLike, Sign

__all__ = [
    "BITS",
    "Changes",
    "changes",
    "decision",
    "decision_derivative",
    "entropy",
    "entropy_gradient",
    "growth_rate",
    "hidden_growth",
    "lagrangian",
    "tensor_net_potential",
    "tensor_net_rate",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_LN2 = math.log(2.0)
BITS = 1 / _LN2
"""Bits in a nat, 1/ln 2. A factor, because dividing an array costs several times as much."""


def _differentiable(*slopes: Callable[..., Any]) -> Callable[[_Function], _Function]:
    """An elementwise function whose derivatives are given, by each argument: ``slope(value, *arguments)``.

    Jitted, so that it is traced once for each shape, however many programs have it.
    """

    def decorate(function: _Function) -> _Function:
        known = jax.custom_jvp(function)
        known.defjvps(*map(_rule, slopes))
        return jax.jit(known)  # pyright: ignore[reportReturnType]

    return decorate


def _rule(slope: Callable[..., Any]) -> Callable[..., Any]:
    return lambda dot, value, *z: jax.tree.map(lambda each: each * dot, slope(value, *z))


@_differentiable(lambda D, z: decision_derivative(z))
def decision(z: RealLike) -> AnyArray:
    """Decision probability D = σ(z) = 1 / (1 + e^-z) (above eq. 13).

    >>> float(ska.entropy.decision(0.0))
    0.5
    """
    _, _, e = _tail(z)
    return jnp.where(jnp.asarray(z) < 0, e, 1) / (1 + e)


# D'' = D' (1 - 2 D).
@_differentiable(lambda slope, z: -(slope * jnp.tanh(z / 2)))
def decision_derivative(z: RealLike) -> AnyArray:
    """Slope of the decision, D' = dD/dz = σ(z) (1 - σ(z)) (eq. 13).

    Written e / (1 + e)² with e = e^-|z|: the difference 1 - σ(z) has no correct digit left in float32
    from z ≈ 16 on, where the flow of a well-trained layer lives.

    >>> float(ska.entropy.decision_derivative(0.0))
    0.25
    """
    return _slope(_tail(z)[2])


@_differentiable(lambda h, z: entropy_gradient(z))
def entropy(z: RealLike) -> AnyArray:
    """Entropy h(z) = 1 - (1/ln 2) ∫₀ᶻ u dσ(u) = (softplus(z) - z σ(z)) / ln 2, in bits (eq. 9, 30).

    The paper's entropy is a change, H = -(1/ln 2) ∫ z dD. With D = σ(z) it is the change of Shannon's
    binary entropy -D log₂ D - (1 - D) log₂(1 - D), and this function is that entropy: h(0) = 1,
    h(-z) = h(z), h → 0 for large |z|. It is evaluated from |z|, where nothing cancels, and its derivative
    is :func:`entropy_gradient`, exactly.

    >>> float(ska.entropy.entropy(0.0))  # a fair coin: one bit
    1.0
    """
    a, root, e = _tail(z)
    # Far out, (1 + a) e is h to rounding, and a normal number where e is none.
    far = ((1 + a) * root * BITS) * root
    near = BITS * (_log1p(e) + a * (e / (1 + e)))
    return jnp.where(e < float(jnp.finfo(e.dtype).eps) / 4, far, near)


# h'' = -(D' + z D'') / ln 2 = -D' / ln 2 - h' (2 D - 1).
@_differentiable(lambda pull, z: -(BITS * decision_derivative(z) + pull * jnp.tanh(z / 2)))
def entropy_gradient(z: RealLike) -> AnyArray:
    """Gradient of the entropy with respect to knowledge, ∇_z H = -(1/ln 2) z D' (eq. 31).

    >>> print(f"{ska.entropy.entropy_gradient(1.0):.4f}")
    -0.2837
    """
    a, root, e = _tail(z)
    return (jnp.clip(z, -a, a) * root) * (-BITS * root / ((1 + e) * (1 + e)))


def growth_rate(kernel: RealLike) -> Any:
    """λ = K / (4 ln 2), while |z| is small: ∇_z H = -z / (4 ln 2) there, and ż = K z / (4 ln 2) (eq. 3, 31).

    ``kernel`` is an eigenvalue K of J Jᵀ / B, J = ∂z/∂w, a number or an array; or that number's bound. Of a
    dense layer that reads the same x in each sample it is |x|² + 1, of which the bias makes the 1.

    >>> rates = ska.entropy.growth_rate(np.array([1.0, 10.0]))
    >>> [round(float(rate), 3) for rate in rates]
    [0.361, 3.607]
    """
    return kernel * (BITS / 4)


def hidden_growth(inputs: int) -> float:
    """λ = (n / 4 + 1) / (4 ln 2), of a dense layer that reads n decisions of 1/2, as all are at first.

    >>> print(f"{ska.entropy.hidden_growth(128):.4f}")
    11.9022
    """
    return growth_rate(inputs / 4 + 1)


def _tail(z: RealLike) -> tuple[Array, Array, Array]:
    """|z|, e^(-|z|/2) and e^-|z|.

    In the tails e = e^-|z| is subnormal, which processors may take for 0, before |z| e is. Multiplied
    by the root twice, |z| comes to its smallest normal numbers. An infinite z counts as the largest
    number, so that products with 0 are 0.
    """
    z = jnp.asarray(z)
    a = jnp.minimum(jnp.abs(z), float(jnp.finfo(z.dtype).max))
    # At most 1 it is anyway; but of the square of an exponential XLA would make a second one.
    root = jnp.minimum(jnp.exp(-a / 2), 1)
    return a, root, root * root


def _log1p(e: Array) -> Array:
    """ln(1 + e), for e from 0 to 1: with what rounding took off 1 + e. Half as dear as ``jnp.log1p``."""
    one = 1 + e
    return jnp.log(one) + ((1 - one) + e) / one


def _slope(e: Array) -> Array:
    """D' by e^-|z|."""
    return e / ((1 + e) * (1 + e))


def lagrangian(z: RealLike, zdot: RealLike) -> AnyArray:
    """Lagrangian L = -z Ḋ = -z σ(z) (1 - σ(z)) ż (eq. 11, 14), per unit of time.

    The entropy's rate of change is L / ln 2 bits (eq. 12).

    >>> print(f"{ska.entropy.lagrangian(1.0, 2.0):.4f}")
    -0.3932
    """
    return _LN2 * (entropy_gradient(z) * zdot)


def tensor_net_rate(z: RealLike, zdot: RealLike, sign: Sign = "published") -> AnyArray:
    """Rate of the Tensor Net, dNet/dt = (D ∓ ∇_z H) ż (eq. 8, 26-28).

    ``sign="equation"`` is the paper's equation, D - ∇_z H with ∇_z H = -(1/ln 2) z D'.
    ``sign="published"`` is what the paper's figures 5 and 6 show, D + ∇_z H: their gradient has
    the opposite sign, and only with it do the reported zero crossings exist.

    >>> print(f"{ska.entropy.tensor_net_rate(1.0, 2.0, 'equation'):.4f}")
    2.0294
    """
    return (decision(z) + orientation(sign) * entropy_gradient(z)) * zdot


def tensor_net_potential(z: RealLike, sign: Sign = "published") -> AnyArray:
    """The function whose change is the Tensor Net: softplus(z) - ln 2 ± (h(z) - 1) (eq. 26).

    Net = ∫ (D ∓ ∇_z H) dz has a closed form, because ∫ D dz = softplus(z) and ∫ ∇_z H dz = h(z):
    it depends on the end points alone. Zero at z = 0; plus is ``sign="published"``, minus is
    ``sign="equation"``.

    >>> print(f"{ska.entropy.tensor_net_potential(1.0, 'equation'):.4f}")
    0.7802
    """
    # softplus(z) = ln 2 h(z) + z σ(z) by the definition of h: one logarithm serves both.
    return decision(z) * z + (_LN2 + orientation(sign)) * (entropy(z) - 1)


class Changes(NamedTuple):
    """How much a neuron's potentials change between two of its knowledges, elementwise."""

    softplus: Array
    """softplus(z) - softplus(z0), nats: ∫ D dz."""
    entropy: Array
    """h(z) - h(z0), bits: ∫ ∇_z H dz."""

    def tensor_net(self, sign: Sign = "published") -> Array:
        """The Tensor Net from z0 to z: their sum for "published", their difference for "equation"."""
        return self.softplus + orientation(sign) * self.entropy


@_differentiable(
    lambda _, z0, z: Changes(-decision(z0), -entropy_gradient(z0)),
    lambda _, z0, z: Changes(decision(z), entropy_gradient(z)),
)
def changes(z0: RealLike, z: RealLike) -> Changes:
    """Changes of softplus and of h from z0 to z, of which both signs of the Tensor Net are made (eq. 26).

        softplus(z) - softplus(z0) = ∫ D dz,    h(z) - h(z0) = -(1/ln 2) ∫ z D' dz.

    A small change keeps its digits, which a difference of two potentials loses: where |z - z0| < δ, both
    are the corrected trapezoidal rule, d (f + f0) / 2 - d² (f' - f0') / 12 with d = z - z0, whose error is
    d⁵ / 720 times the fourth derivative of f. With δ = (4000 ε)^(1/5), where rounding and that error are
    alike, either is right to 2e-6 in float32 and 3e-13 in float64, relative to |d| times the largest f on
    the way (in the tails 1 + |z| / 8 times that); and exactly 0 where z = z0. Derivatives are exact: those
    of the potentials.

    ``z0`` and ``z``: knowledge of the same shape and dtype. Costs an entropy and a decision at each.

    >>> softplus, entropy = ska.entropy.changes(jnp.zeros(()), jnp.ones(()))
    >>> print(f"{softplus:.4f} {entropy:.4f}")
    0.6201 -0.1601
    """
    z0, z = jnp.asarray(z0), jnp.asarray(z)
    d = z - z0
    near = jnp.abs(d) < (4000 * float(jnp.finfo(z.dtype).eps)) ** 0.2
    (D0, slope0, pull0, bend0), (D, slope, pull, bend) = _integrands(z0), _integrands(z)
    h0, h = entropy(z0), entropy(z)
    rule = lambda f0, f, fdot0, fdot: d * ((f0 + f) / 2 - d / 12 * (fdot - fdot0))
    # softplus(z) = z D + ln 2 h: one logarithm serves both.
    far = (_times(z, D) + _LN2 * h) - (_times(z0, D0) + _LN2 * h0)
    return Changes(
        jnp.where(near, rule(D0, D, slope0, slope), far),
        jnp.where(near, -BITS * rule(pull0, pull, bend0, bend), h - h0),
    )


def _integrands(z: Array) -> tuple[Array, Array, Array, Array]:
    """D and D', z D' and its derivative D' + z D''."""
    a, _, e = _tail(z)
    D, slope = decision(z), _slope(e)
    pull = jnp.clip(z, -a, a) * slope
    return D, slope, pull, slope + pull * (1 - 2 * D)


def _times(z: Array, D: Array) -> Array:
    """z D, which is 0 where z is infinite and D 0."""
    return jnp.where(D > 0, z, 0) * D


def orientation(sign: Sign) -> int:
    orientations = {"published": 1, "equation": -1}
    require(sign in orientations, "sign", "be 'published' or 'equation'", f"it was {sign!r}")
    return orientations[sign]
