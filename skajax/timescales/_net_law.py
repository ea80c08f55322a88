"""Where the Tensor Net's rate crosses zero, if all knowledge of a layer has one amplitude."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from skajax._checks import as_array, as_number, is_traced, is_whole, require
from skajax._types import AnyArray, Array, Float, RealLike, ScalarLike, Sign
from skajax.entropy import tensor_net_rate

TURN = 0.8039986668719048
"""The amplitude at which falling knowledge weighs most against rising, in the published sign:
f(-a) / f(a) is largest there, 1.2569."""
FAR = 100.0
"""An amplitude beyond all: e^-100 is 0 beside every share there is."""
HALVINGS = 64


def net_amplitudes(share: RealLike, sign: Sign = "published") -> Float[Array, "*any 2"]:
    """The amplitudes a at which p f(a) = (1 - p) f(-a), of a share p of rising knowledge (after eq. 26-28).

    The Tensor Net's rate is Σ f(z) ż. If the share p of a layer's z is +a and rises, and all others are -a
    and fall at the same speed, it is proportional to p f(a) - (1 - p) f(-a), and vanishes where

        f(-a) / f(a) = p / (1 - p).

    In the published sign f(z) = σ(z) - z D'(z) / ln 2 = σ(z) (1 - z σ(-z) / ln 2). It is positive everywhere,
    because z σ(-z) is 0.2785 at most and ln 2 = 0.6931: no knowledge can change the rate's sign, only the
    balance of what rises and what falls can. f(-a) / f(a) is 1 at a = 0, rises to 1.2569 at a = 0.8040, is 1
    again where sinh a = a / ln 2, a = 1.5366, and falls to 0. So

    - p ≥ 0.5569: no crossing, the rate is positive;
    - 1/2 < p < 0.5569: two, down before a = 0.8040, and up between 0.8040 and 1.5366;
    - 0 < p ≤ 1/2: one, up, at a ≥ 1.5366: for p = 1/2 next to the amplitude at which the flow is
      strongest, z tanh(z/2) = 1, a = 1.5434 (they are not the same);
    - p = 0: none, the rate is negative.

    In the equation's sign g(z) = σ(z) + z D'(z) / ln 2 takes the place of f, and is negative below -0.9589,
    where a σ(a) = ln 2. g(-a) / g(a) falls from 1 to 0 at a = 0.9589 and is negative thereafter. So there is
    one crossing, up, at a ≤ 0.9589, if p < 1/2, and none otherwise. Hence the paper's crossings, near the
    strongest flow, are of the published sign alone.

    ``share``: p, from 0 to 1, of any shape. Returns (..., 2): the amplitudes in the order in which growing
    knowledge meets them, NaN where there are fewer. ‖Z‖ is a √(B n) there. Works inside jit, vmap and
    grad. Raises ValueError for a share that is none, or a sign other than "published" and "equation".

    >>> print(ska.timescales.net_amplitudes(jnp.array([0.4, 0.53, 0.6])).round(2))
    [[2.12  nan]
     [0.29 1.3 ]
     [ nan  nan]]
    """
    p = as_array("share", share)
    p = p.astype(jnp.result_type(float)) if not jnp.issubdtype(p.dtype, jnp.floating) else p
    fits = is_traced(p) or bool(jnp.all((p >= 0) & (p <= 1)))
    require(fits, "share", "be a share, from 0 to 1", lambda: f"it was {share!r}")
    return _in_order(p, sign)


@eqx.filter_jit
def _in_order(p: Array, sign: Sign) -> Array:
    # Between these amplitudes what falls gains on what rises all the way, or loses all the way.
    low, high = (_amplitudes(p, a, b, sign) for a, b in ((0.0, TURN), (TURN, FAR)))
    both = jnp.isnan(low)
    return jnp.stack([jnp.where(both, high, low), jnp.where(both, jnp.nan, high)], axis=-1)


def _amplitudes(p: Array, a: float, b: float, sign: Sign) -> Array:
    """The amplitude between a and b at which the falling and the rising part are equal; NaN if none."""
    weight = lambda z: tensor_net_rate(z, jnp.ones_like(z), sign)
    excess = lambda a, p: (1 - p) * weight(-a) - p * weight(a)
    given = jax.lax.stop_gradient(p)
    bounds = jnp.full_like(p, a), jnp.full_like(p, b)
    ends = [jnp.sign(excess(end, given)) for end in bounds]
    there = ends[0] * ends[1] < 0

    def halve(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        left, right = bounds
        middle = (left + right) / 2
        before = jnp.sign(excess(middle, given)) == ends[0]
        return jnp.where(before, middle, left), jnp.where(before, right, middle)

    root, _ = jax.lax.fori_loop(0, HALVINGS, halve, bounds)
    # A step of Newton's: it moves the root with p, as the implicit function theorem says.
    slope = jax.jvp(lambda a: excess(a, given), (root,), (jnp.ones_like(root),))[1]
    return jnp.where(there, root - excess(root, p) / jnp.where(there, slope, 1), jnp.nan)


class NetLaw(eqx.Module):
    """Of a layer of n neurons, with m = 0..n of them rising: how likely, and where the rate crosses zero."""

    share: Float[Array, " cases"]
    """p, of each m."""
    probability: Float[Array, " cases"]
    """Of each m, binomial."""
    amplitudes: Float[Array, "cases 2"]
    """As of :func:`net_amplitudes`."""

    @property
    def counts(self) -> Float[Array, " 3"]:
        """The probability of 0, 1 and 2 crossings."""
        count = jnp.isfinite(self.amplitudes).sum(axis=1)
        return jnp.stack([jnp.sum(jnp.where(count == k, self.probability, 0)) for k in range(3)])

    @property
    def last(self) -> Float[Array, " cases"]:
        """The amplitude of the last crossing, NaN where there is none."""
        first, second = self.amplitudes[:, 0], self.amplitudes[:, 1]
        return jnp.where(jnp.isnan(second), first, second)


def net_law(
    neurons: int, *, chance: ScalarLike = 0.5, side: ScalarLike = 1.0, sign: Sign = "published"
) -> NetLaw:
    """The one-amplitude law over initialisations: m ~ Binomial(n, q), p = s m/n + (1 - s)(1 - m/n).

    Weights drawn symmetrically about 0 without biases make each neuron rise or fall with the chance q = 1/2,
    independently, so that p spreads by √(1/4n) about 1/2: the wider a layer, the likelier it is that it
    crosses, once or twice, and the nearer to a = 1.5366.

    ``neurons``: n. ``chance``: q, other than 1/2 where there are biases: Φ(b / σ|x|), Φ the normal
    distribution. ``side``: s, the share of the samples on one side of the leading mode; 1 for inputs of one
    sign. With samples on both sides no neuron rises or falls as a whole: p is between 1 - s and s.
    ``sign``: "published" or "equation".

    Works inside jit, vmap and grad of chance and side. Raises ValueError for arguments that do not fit.

    >>> law = ska.timescales.net_law(64)
    >>> print(np.round(np.asarray(law.counts), 3))  # the probability of 0, 1 and 2 crossings
    [0.191 0.55  0.259]
    """
    require(is_whole(neurons), "neurons", "be a whole number, at least 1", f"it was {neurons!r}")
    n = int(neurons)
    q, s = (_chance(name, value) for name, value in (("chance", chance), ("side", side)))
    m = jnp.arange(n + 1, dtype=jnp.result_type(float))
    share = s * m / n + (1 - s) * (1 - m / n)
    probability = jax.scipy.stats.binom.pmf(m, n, q)
    return NetLaw(share, probability, net_amplitudes(share, sign))


def _chance(name: str, value: ScalarLike) -> AnyArray:
    number = as_number(value)
    fits = is_traced(number) or (isinstance(number, float) and 0 <= number <= 1)
    require(fits, name, "be a number from 0 to 1", f"it was {value!r}")
    return jnp.asarray(number, jnp.result_type(float))
