"""The dense layer, z = x W + b."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from skajax._checks import require
from skajax._types import Array, Float, Inputs, Key, Knowledge
from skajax.layers._fields import DECISIONS, usual, whole
from skajax.layers._product import matrix_product


class DenseWeights(NamedTuple):
    """Weights of a dense layer: ``W`` (inputs, outputs) and ``b`` (outputs,).

    >>> weights[0].W.shape, weights[0].b.shape
    ((784, 8), (8,))
    """

    W: Float[Array, "inputs outputs"]
    b: Float[Array, " outputs"]


@dataclasses.dataclass(frozen=True)
class Dense:
    """Knowledge z = x W + b (section 1.1), for ``width`` neurons.

    Initially W ~ N(0, scale²), independently, and b = ``bias``. ``precision`` is that of the
    matrix products, in the words of ``jax.lax.Precision``: "highest" is full float32 everywhere,
    where accelerators would otherwise shorten the factors. ``decision`` is what D is of z: "sigmoid", as the
    paper derives it; "softmax", a choice of one of the neurons; "tanh"; or "relu" and "identity", for
    other energies than the entropy. Each has its own entropy and Tensor Net (:mod:`skajax.decisions`).

    x has the shape (samples, inputs). With ``pointwise=True`` it may have any axes between, (samples, ...,
    inputs), such as the times of a sequence or the pixels of an image: then one W acts on the last axis at
    every position, z = x W + b of shape (samples, ..., width). Energies sum over the positions. Such a
    layer is not simulated in the row space of its inputs.

    >>> layer = ska.Dense(8, decision="tanh")
    >>> layer.knowledge(layer.init(jax.random.key(0), x), x).shape
    (20, 8)
    """

    width: int
    scale: float = 0.01
    bias: float = 0.0
    precision: str = "highest"
    decision: str = "sigmoid"
    pointwise: bool = False

    def __post_init__(self) -> None:
        whole(self, "width", "neurons")
        usual(self)
        require(
            isinstance(self.pointwise, bool),
            "pointwise",
            "be True or False",
            f"it was {self.pointwise!r}",
        )

    def init(self, key: Key, x: Inputs | jax.ShapeDtypeStruct) -> DenseWeights:
        """Initial weights for inputs of x's width and dtype; x's values are not read."""
        require(
            len(x.shape) == 2 or (self.pointwise and len(x.shape) > 2),
            "x",
            "be of shape (samples, inputs) for a dense layer",
            f"its shape was {x.shape}" + (" (x.reshape(len(x), -1))" if len(x.shape) > 2 else ""),
        )
        shape = (*x.shape[-1:], self.width)
        W = self.scale * jax.random.normal(key, shape, x.dtype)
        return DenseWeights(W, jnp.full((self.width,), self.bias, x.dtype))

    def knowledge(self, weights: DenseWeights, x: Inputs) -> Knowledge:
        """Knowledge z = x W + b, (samples, outputs); of a pointwise layer (samples, ..., outputs)."""
        z = matrix_product(x, weights.W, self.precision)
        return z + weights.b.reshape((1,) * (z.ndim - 1) + weights.b.shape)

    def decide(self, z: Knowledge) -> Knowledge:
        """Decisions D, of the shape of z (of the sigmoid: eq. 13)."""
        return DECISIONS[self.decision](z)

    @property
    def rows(self) -> int | None:
        """How many numbers it makes of each input: its first weights are a matrix W of x W, and act on
        x alone.

        So it can be simulated in the row space of its inputs (:mod:`skajax.reduction`). None of a pointwise
        one.
        """
        return None if self.pointwise else self.width

    def running(self) -> "Dense":
        """The layer without its initial values: layers that compute the same are the same."""
        return dataclasses.replace(self, scale=0.01, bias=0.0)
