"""A layer that learns at a rate of its own."""

import math
from typing import Any

import equinox as eqx
import jax

from skajax._checks import as_number, require
from skajax._types import Inputs, Key, Knowledge
from skajax.decisions import Decision
from skajax.layers._layer import Layer, decision_of, inputs_of, joins_samples, running


class Paced(eqx.Module):
    """Any layer in a time of its own: dW/dt = -r ∇_W E (eq. 2, with a rate r).

    ``layer`` is what learns, and ``rate`` its r > 0: weights, knowledge and decisions are the layer's own.
    A method's step of dt is one of r dt for this layer.

    >>> slow = ska.Paced(ska.Dense(8), rate=0.5)
    >>> network = ska.Network((slow, ska.Dense(4)))  # the first layer learns half as fast
    """

    layer: Layer
    rate: float = eqx.field(default=1.0, static=True)

    def __post_init__(self) -> None:
        require(
            isinstance(self.layer, Layer),
            "layer",
            "be a layer (with init and knowledge)",
            f"it was {self.layer!r}",
        )
        object.__setattr__(self, "rate", as_number(self.rate))
        require(
            isinstance(self.rate, float) and 0 < self.rate < math.inf,
            "rate",
            "be a positive, finite number",
            f"it was {self.rate!r}",
        )

    @property
    def rows(self) -> int | None:
        """The layer's, if it can be simulated in the row space of its inputs."""
        return getattr(self.layer, "rows", None)

    @property
    def reads(self) -> str | None:
        """The layer's: "integers", or None for floating-point inputs."""
        return getattr(self.layer, "reads", None)

    def check(self, x: Inputs) -> None:
        """The layer's check of known inputs, if it has one."""
        own = getattr(self.layer, "check", None)
        if own is not None:
            own(x)

    def init(self, key: Key, x: Inputs | jax.ShapeDtypeStruct) -> Any:
        """The layer's."""
        return self.layer.init(key, x)

    def inputs(self, weights: Any, below: Any) -> Any:
        """The layer's."""
        return inputs_of(self.layer, weights, below)

    def knowledge(self, weights: Any, x: Any) -> Knowledge:
        """The layer's."""
        return self.layer.knowledge(weights, x)

    @property
    def decision(self) -> Decision:
        """The layer's."""
        return decision_of(self.layer)

    def decide(self, z: Knowledge) -> Knowledge:
        """The layer's."""
        return self.decision.decide(z)

    def joins_samples(self, z: Any) -> bool:
        """The layer's."""
        return joins_samples(self.layer, z)

    def running(self) -> "Paced":
        """The same of a layer without what only ``init`` reads."""
        return Paced(running(self.layer), self.rate)
