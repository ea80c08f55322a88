"""Number formats as pure functions: what hardware holds of a number, simulated in wider floating point.

A format maps numbers to those that it holds, ``format(x)``. One that draws, by stochastic rounding or noise,
takes a key: ``format(x, key)``. Results have the dtype of x. They are exact where x is a number of float32
or float64 and the format holds no more bits than x's dtype has.

Nearest rounding goes to the nearest number of the format, ties to the even one. Stochastic rounding goes
down or up to a neighbour, up with a probability of how far x lies above the lower one: its mean is x.
"""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from skajax._checks import as_key, as_number, require
from skajax._types import AnyArray, Array, Bool, Float, Key, RealLike, Weights
from skajax.layers._fields import whole

__all__ = [
    "BFLOAT16",
    "FLOAT16",
    "Clipped",
    "Fixed",
    "Floating",
    "Format",
    "Noise",
    "stalling_step",
]


def _way(stochastic: bool) -> str:
    return ", stochastic" if stochastic else ""


def _check_stochastic(value: Any) -> None:
    require(isinstance(value, bool), "stochastic", "be True or False", f"it was {value!r}")


def _check_real(format: Any, name: str, least: float) -> None:
    value = getattr(format, name)
    if not isinstance(value, float):
        return  # an array of a run's own precision
    require(
        math.isfinite(value) and value >= least,
        name,
        "be positive and finite" if least else "be finite, and at least 0",
        f"it was {value!r}",
    )


class Format(eqx.Module):
    """What hardware holds of a number; write your own by :meth:`apply`.

    >>> isinstance(ska.formats.Fixed(8, 6), ska.formats.Format)
    True
    """

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What it is called in tables and figures."""

    @property
    def draws(self) -> bool:
        """Whether it needs a key."""
        return False

    @abc.abstractmethod
    def apply(self, x: AnyArray, key: Key | None) -> AnyArray:
        """The numbers that stand for x, elementwise, in its shape and dtype."""

    def __call__(self, x: RealLike, key: Key | None = None) -> AnyArray:
        """The numbers that stand for x; raises ValueError where a key is missing."""
        x = jnp.asarray(x)
        require(
            key is not None or not self.draws,
            "key",
            f"be a key of JAX's for {self.name}",
            "it was None",
        )
        return self.apply(x, None if key is None else as_key("key", key))


class _Grid(Format):
    """Numbers that lie as far apart as ``ulp(x)`` around x, and end somewhere."""

    @abc.abstractmethod
    def ulp(self, x: AnyArray) -> AnyArray:
        """How far apart the numbers around x are: a unit in the last place, a power of two."""

    @abc.abstractmethod
    def end(self, x: AnyArray) -> AnyArray:
        """What stands for numbers beyond the largest; others as they are."""

    def apply(self, x: AnyArray, key: Key | None) -> AnyArray:
        """n ulp, n the nearest whole number to x / ulp, or a neighbour of x / ulp by chance."""
        ulp = self.ulp(x)
        q = x / ulp  # exact: ulp is a power of two
        if self.draws:
            assert key is not None
            low = jnp.floor(q)
            up = jax.random.uniform(key, q.shape, q.dtype) < q - low
            n = low + up.astype(q.dtype)
        else:
            n = jnp.round(q)  # ties to even
        return self.end(n * ulp)

    def gap(self, x: AnyArray, up: Bool[Array, "*any"]) -> AnyArray:
        """From a number of the format to the next one above or below; infinite beyond the last."""
        ulp = self.ulp(x)
        # Below a power of two the numbers of a floating-point format are closer.
        inwards = self.ulp(jnp.where(up, x + ulp / 4, x - ulp / 4))
        step = jnp.minimum(ulp, inwards)
        there = self.end(jnp.where(up, x + step, x - step))
        apart = jnp.abs(there - x)
        return jnp.where(apart > 0, apart, jnp.inf)


class Fixed(_Grid):
    """Fixed point: whole numbers n of ``bits`` bits in two's complement, times 2^-``fraction``.

        x → 2^-f n,    n = round(2^f x) within [-2^(b-1), 2^(b-1) - 1]

    Beyond its range it saturates: the largest number stands for all larger ones.

    - ``bits``: b, from 2 to 24, the sign's included: float32 has all integers up to 2^24.
    - ``fraction``: f, how many of them lie behind the binary point, from -60 to 60; a unit in the last place
      is 2^-f.
    - ``stochastic``: whether it rounds by chance.

    Raises ValueError for numbers of bits that are none of these.

    >>> half = ska.formats.Fixed(4, 1)  # -4, -3.5, ..., 3.5
    >>> print(half(jnp.array([0.3, 0.75, 9.0])))
    [0.5 1.  3.5]
    """

    bits: int = eqx.field(static=True)
    fraction: int = eqx.field(static=True)
    stochastic: bool = eqx.field(static=True, default=False)

    def __post_init__(self) -> None:
        whole(self, "bits", "bits", 2)
        require(
            self.bits <= 24,
            "bits",
            "be at most 24, which float32 holds exactly",
            f"it was {self.bits}",
        )
        whole(self, "fraction", "bits behind the binary point", -60)
        require(self.fraction <= 60, "fraction", "be at most 60", f"it was {self.fraction}")
        _check_stochastic(self.stochastic)

    @property
    def name(self) -> str:
        """Such as "fixed 8.6": 8 bits, 6 of them behind the point."""
        return f"fixed {self.bits}.{self.fraction}{_way(self.stochastic)}"

    @property
    def draws(self) -> bool:
        """Whether it rounds by chance."""
        return self.stochastic

    @property
    def unit(self) -> float:
        """2^-f."""
        return 2.0**-self.fraction

    def ulp(self, x: AnyArray) -> AnyArray:
        """2^-f, everywhere."""
        return jnp.full_like(x, self.unit)

    def end(self, x: AnyArray) -> AnyArray:
        """Saturated."""
        most = 2 ** (self.bits - 1)
        return jnp.clip(x, -most * self.unit, (most - 1) * self.unit)


class Floating(_Grid):
    """Binary floating point with ``exponent`` bits of exponent and ``mantissa`` bits behind the leading one.

        x → 2^(e-m) round(2^(m-e) x),    2^e ≤ |x| < 2^(e+1)

    Overflow is infinite. Numbers below the smallest normal one, 2^(2 - 2^(E-1)), lie as far apart as those
    above it (subnormal numbers), but at least 2^-126: float32, in which they are simulated, has none below.

    - ``exponent``: E, from 2 to 8 bits. ``mantissa``: m, from 1 to 22 bits.
    - ``stochastic``: whether it rounds by chance.

    :data:`BFLOAT16` is ``Floating(8, 7)``, and :data:`FLOAT16` ``Floating(5, 10)``. Raises ValueError for
    numbers of bits that are none of these.

    >>> print(ska.formats.FLOAT16(jnp.array([0.1, 1e-6, 1e6])))
    [9.9975586e-02 1.0132790e-06           inf]
    """

    exponent: int = eqx.field(static=True)
    mantissa: int = eqx.field(static=True)
    stochastic: bool = eqx.field(static=True, default=False)

    def __post_init__(self) -> None:
        whole(self, "exponent", "bits", 2)
        require(
            self.exponent <= 8,
            "exponent",
            "be at most 8, as float32 has",
            f"it was {self.exponent}",
        )
        whole(self, "mantissa", "bits", 1)
        require(self.mantissa <= 22, "mantissa", "be at most 22", f"it was {self.mantissa}")
        _check_stochastic(self.stochastic)

    @property
    def name(self) -> str:
        """Such as "bfloat16", or "float 4.3": 4 bits of exponent, 3 of mantissa."""
        known = {(8, 7): "bfloat16", (5, 10): "float16"}
        bits = (self.exponent, self.mantissa)
        return known.get(bits, f"float {bits[0]}.{bits[1]}") + _way(self.stochastic)

    @property
    def draws(self) -> bool:
        """Whether it rounds by chance."""
        return self.stochastic

    @property
    def largest(self) -> float:
        """(2 - 2^-m) 2^(2^(E-1) - 1)."""
        return (2 - 2.0**-self.mantissa) * 2.0 ** (2 ** (self.exponent - 1) - 1)

    def ulp(self, x: AnyArray) -> AnyArray:
        """2^(e - m), with e that of x, or of the smallest normal number."""
        _, e = jnp.frexp(x)  # |x| = 0.5 ... 1 times 2^e
        smallest = 2 - 2 ** (self.exponent - 1)
        place = jnp.maximum(jnp.maximum(e - 1, smallest) - self.mantissa, -126)
        place = jnp.where(jnp.isfinite(x), place, 0)
        return jnp.ldexp(jnp.ones_like(x), place)

    def end(self, x: AnyArray) -> AnyArray:
        """Infinite."""
        return jnp.where(jnp.abs(x) > self.largest, jnp.sign(x) * jnp.inf, x)


BFLOAT16 = Floating(8, 7)
"""Of 16 bits, as many of the exponent as float32 has."""

FLOAT16 = Floating(5, 10)
"""IEEE 754's binary16."""


class Noise(Format):
    """Gaussian noise, new in every use: x → x + (``absolute`` + ``relative`` |x|) N(0, 1).

    - ``absolute``: a standard deviation in x's own unit, ``relative``: one as a part of |x|; at least 0.

    Raises ValueError for negative or infinite ones.

    >>> ska.formats.Noise(relative=0.1)(jnp.zeros(3), jax.random.key(0)).tolist()
    [0.0, 0.0, 0.0]
    """

    absolute: Any = eqx.field(default=0.0, converter=as_number)
    relative: Any = eqx.field(default=0.0, converter=as_number)

    def __check_init__(self) -> None:
        _check_real(self, "absolute", 0.0)
        _check_real(self, "relative", 0.0)

    @property
    def name(self) -> str:
        """The noise's size."""
        parts = [f"{self.absolute:g}"] if self.absolute else []
        return "noise " + " + ".join(
            [*parts, f"{100 * self.relative:g} %"] if self.relative else parts
        )

    @property
    def draws(self) -> bool:
        """It does."""
        return True

    def apply(self, x: AnyArray, key: Key | None) -> AnyArray:
        """Each number by itself."""
        assert key is not None
        size = jnp.asarray(self.absolute, x.dtype) + jnp.asarray(self.relative, x.dtype) * jnp.abs(
            x
        )
        return x + size * jax.random.normal(key, x.shape, x.dtype)


class Clipped(Format):
    """A range of its own and nothing else: x → min(max(x, -``limit``), ``limit``).

    - ``limit``: positive.

    Raises ValueError for a limit that is not.

    >>> print(ska.formats.Clipped(1.0)(jnp.array([-3.0, 0.3])))
    [-1.   0.3]
    """

    limit: Any = eqx.field(converter=as_number)

    def __check_init__(self) -> None:
        _check_real(self, "limit", math.ulp(0.0))

    @property
    def name(self) -> str:
        """The range."""
        return f"within ±{self.limit:g}"

    def apply(self, x: AnyArray, key: Key | None) -> AnyArray:
        """Clipped."""
        limit = jnp.asarray(self.limit, x.dtype)
        return jnp.clip(x, -limit, limit)


def stalling_step(
    number: Fixed | Floating, weights: Weights, velocity: Weights
) -> Float[Array, " entries"]:
    """dt* = min gap / (2 |Ẇ|): the step below which nearest rounding keeps every weight where it is.

    A step of Euler's method adds dt Ẇ to a weight. Where that is less than half the gap to the next number
    that the format holds in this direction, W + dt Ẇ is rounded to W: nothing has moved, the flow of the next
    step is the same, and the run stands still for ever. Beyond dt* the first weight moves. In fixed point the
    gap is one unit in the last place, and

        dt* = 2^-f / (2 max|Ẇ|).

    - ``number``: a :class:`Fixed` or :class:`Floating` format, rounding to nearest.
    - ``weights``: numbers of the format, and ``velocity``: Ẇ, in their structure, per unit of time, such as
      ``skajax.flow(network, weights, x)``.

    Returns dt* for each entry of the weights, in the velocity's unit of time; infinite where nothing would
    ever move: at rest, or at the end of the format's range.

    >>> W = (ska.DenseWeights(jnp.zeros((1, 2)), jnp.zeros(2)),)
    >>> V = (ska.DenseWeights(jnp.array([[1.0, -4.0]]), jnp.zeros(2)),)
    >>> print(ska.formats.stalling_step(ska.formats.Fixed(8, 3), W, V))  # 1/8 / (2 · 4)
    [0.015625]
    """
    require(
        isinstance(number, Fixed | Floating),
        "number",
        "be a Fixed or Floating format",
        f"it was {number!r}",
    )

    def least(w: Any, v: Any) -> Any:
        found = [
            jnp.min(number.gap(a, b > 0) / (2 * jnp.abs(b)), initial=jnp.inf)
            for a, b in zip(jax.tree.leaves(w), jax.tree.leaves(v), strict=True)
        ]
        return jnp.stack(found).min()

    return jnp.stack([least(w, v) for w, v in zip(weights, velocity, strict=True)])
