"""A stage that subtracts a mean and divides by a standard deviation."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import as_array, is_traced, require
from skajax._types import AnyArray, Array, Float, Inputs, Key
from skajax.layers._fields import real


class NormaliseWeights(NamedTuple):
    """Weights of a normalisation that learns: ``gain`` and ``shift``, one of each for every feature."""

    gain: Float[Array, " features"]
    shift: Float[Array, " features"]


class Normalise(eqx.Module):
    """y = (x - m) / s, perhaps gain · y + shift, over the features: x's last axis, (samples, ..., features).

    - ``Normalise(eps=1e-5)``: layer normalisation. m is the mean over the features of each sample, at
      each position, and s = √(variance + eps).
    - ``Normalise(mean=m, deviation=s)``: fixed statistics, arrays (features,) or of the shape of one
      sample, s > 0. They never move. ``Normalise.of(x)`` takes them from data.
    - ``learned=True``: with a gain and a shift for each feature, at first 1 and 0. They are a stage's
      weights: without knowledge, and so without entropy, they move under global energies alone.

    Source: J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer Normalization", arXiv:1607.06450 (2016).

    >>> x = 3 + jax.random.normal(jax.random.key(0), (50, 4))
    >>> layers = (ska.layers.Normalise.of(x), ska.Dense(3), ska.layers.Normalise(), ska.Dense(2))
    >>> network = ska.Network(layers)
    >>> run = ska.simulate(network, network.init(jax.random.key(1), x), x, ska.Euler(0.1), steps=5)
    """

    mean: AnyArray | None = eqx.field(default=None, converter=lambda m: _statistic("mean", m))
    deviation: AnyArray | None = eqx.field(
        default=None, converter=lambda s: _statistic("deviation", s)
    )
    eps: float = eqx.field(static=True, default=1e-5)
    learned: bool = eqx.field(static=True, default=False, kw_only=True)

    def __check_init__(self) -> None:
        """Refuse what are no statistics."""
        real(self, "eps", "variance", least=0)
        require(self.eps > 0, "eps", "be positive", "it was 0")
        m, s = self.mean, self.deviation
        require(
            (m is None) == (s is None) and (m is None or s is None or m.shape == s.shape),
            "deviation",
            "be given with mean, of one shape",
            f"they were {None if s is None else s.shape} and {None if m is None else m.shape}",
        )
        if s is not None and not is_traced(s):
            least = float(np.min(np.asarray(s)))
            require(least > 0, "deviation", "be positive in all features", f"one was {least:g}")

    @classmethod
    def of(cls, x: Inputs, *, learned: bool = False) -> "Normalise":
        """Fixed statistics of each feature, from data x: over all axes but the last.

        A feature that is the same everywhere has the deviation 1: it becomes 0.
        """
        x = as_array("x", x)
        values = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
        s = values.std(axis=0)
        s = np.where(s > 1e-7 * np.abs(values).max(axis=0), s, 1)
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
        return cls(values.mean(axis=0).astype(dtype), s.astype(dtype), learned=learned)

    def init(self, key: Key, x: Inputs | jax.ShapeDtypeStruct) -> Any:
        """Gain 1 and shift 0, if it learns. Raises ValueError where the statistics do not fit x's shape."""
        shape = None if self.mean is None else self.mean.shape
        require(
            len(x.shape) >= 2 and shape in (None, x.shape[-1:], x.shape[1:]),
            "x",
            f"have the shape (samples, ...) of the statistics, {shape}"
            if shape
            else "be of shape (samples, ..., features)",
            f"its shape was {x.shape}",
        )
        if not self.learned:
            return ()
        features = x.shape[-1:]
        return NormaliseWeights(jnp.ones(features, x.dtype), jnp.zeros(features, x.dtype))

    def apply(self, weights: Any, x: Inputs) -> Array:
        """x in units of its deviation from its mean, of x's shape."""
        x = jnp.asarray(x)
        as_x = lambda a: a.astype(x.dtype).reshape((1,) * (x.ndim - a.ndim) + a.shape)
        if self.mean is None or self.deviation is None:
            y = x - x.mean(-1, keepdims=True)
            y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps)
        else:
            y = (x - as_x(self.mean)) / as_x(self.deviation)
        return as_x(weights.gain) * y + as_x(weights.shift) if self.learned else y


def _statistic(name: str, value: Any) -> Any:
    """An array of finite numbers, with at least one axis; or None."""
    if value is None or not hasattr(value, "__len__"):
        require(
            value is None, name, "be an array, one number for each feature", f"it was {value!r}"
        )
        return None
    array = as_array(name, value)
    if not is_traced(array):
        finite = bool(np.isfinite(np.asarray(array)).all())
        require(finite, name, "be finite", "it held NaN or infinite values")
    return array
