"""A layer that learns at a rate of its own, dW/dt = -r ∇H."""

import dataclasses
import math

import jax

from skajax._checks import require
from skajax._types import Inputs, Key, Knowledge
from skajax.layers._dense import Dense, DenseWeights


@dataclasses.dataclass(frozen=True)
class Paced:
    """A dense layer in a time of its own: with W = √r V and b = √r c, dW/dt = -r ∇_W H (eq. 2).

    Its weights are V and c, and its knowledge is z = √r (x V + c). They follow dV/dt = -∇_V H as
    any weights do, and ∇_V H = √r ∇_W H: so it runs under every method, and z does exactly what that
    of a dense layer does whose learning rate is r times the others'. ``weight_norm`` is ‖V‖ = ‖W‖ / √r.
    """

    layer: Dense
    rate: float = 1.0

    def __post_init__(self) -> None:
        require(
            isinstance(self.layer, Dense), "layer", "be a dense layer", f"it was {self.layer!r}"
        )
        require(
            isinstance(self.rate, float | int)
            and not isinstance(self.rate, bool)
            and 0 < self.rate < math.inf,
            "rate",
            "be a positive, finite number",
            f"it was {self.rate!r}",
        )

    @property
    def width(self) -> int:
        """Its neurons."""
        return self.layer.width

    def init(self, key: Key, x: Inputs | jax.ShapeDtypeStruct) -> DenseWeights:
        """V and c such that W and b are what the dense layer begins with."""
        return self.paced(self.layer.init(key, x))

    def knowledge(self, weights: DenseWeights, x: Inputs) -> Knowledge:
        """Knowledge z = √r (x V + c), of shape (samples, outputs)."""
        return math.sqrt(self.rate) * self.layer.knowledge(weights, x)

    def paced(self, weights: DenseWeights) -> DenseWeights:
        """V and c from W and b."""
        return jax.tree.map(lambda w: w / math.sqrt(self.rate), weights)

    def plain(self, weights: DenseWeights) -> DenseWeights:
        """W and b from V and c."""
        return jax.tree.map(lambda v: v * math.sqrt(self.rate), weights)
