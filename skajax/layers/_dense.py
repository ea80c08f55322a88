"""The dense layer, z = x W + b."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from skajax._checks import require
from skajax._types import Array, Float, Inputs, Key, Knowledge


class DenseWeights(NamedTuple):
    """Weights of a dense layer: ``W`` (inputs, outputs) and ``b`` (outputs,)."""

    W: Float[Array, "inputs outputs"]
    b: Float[Array, " outputs"]


@dataclasses.dataclass(frozen=True)
class Dense:
    """Knowledge z = x W + b (section 1.1), for ``width`` neurons.

    Initially W ~ N(0, scale²), independently, and b = ``bias``. ``precision`` is that of the
    matrix products, in the words of ``jax.lax.Precision``: "highest" is full float32 everywhere,
    where accelerators would otherwise shorten the factors.
    """

    width: int
    scale: float = 0.01
    bias: float = 0.0
    precision: str = "highest"

    def __post_init__(self) -> None:
        require(
            isinstance(self.width, int) and not isinstance(self.width, bool) and self.width >= 1,
            "width",
            "be a whole number of neurons, at least 1",
            f"it was {self.width!r}",
        )
        require(
            _is_real(self.scale) and self.scale >= 0,
            "scale",
            "be a finite standard deviation, at least 0",
            f"it was {self.scale!r}",
        )
        require(_is_real(self.bias), "bias", "be a finite number", f"it was {self.bias!r}")
        require(
            self.precision in ("default", "high", "highest"),
            "precision",
            "be 'default', 'high' or 'highest'",
            f"it was {self.precision!r}",
        )

    def init(self, key: Key, x: Inputs | jax.ShapeDtypeStruct) -> DenseWeights:
        """Initial weights for inputs of x's width and dtype; x's values are not read."""
        W = self.scale * jax.random.normal(key, (x.shape[-1], self.width), x.dtype)
        return DenseWeights(W, jnp.full((self.width,), self.bias, x.dtype))

    def knowledge(self, weights: DenseWeights, x: Inputs) -> Knowledge:
        """Knowledge z = x W + b, of shape (samples, outputs)."""
        return jnp.matmul(x, weights.W, precision=self.precision) + weights.b[None, :]

    def running(self) -> "Dense":
        """The layer without its initial values: layers that compute the same are the same."""
        return Dense(self.width, precision=self.precision)


def _is_real(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
