"""What a network asks of a layer."""

from typing import Any, Protocol, runtime_checkable

import jax

from skajax._types import Inputs, Key, Knowledge


@runtime_checkable
class Layer(Protocol):
    """A frozen, hashable configuration with two pure functions.

    Weights are any pytree of floating-point arrays with a field ``W``, whose Frobenius norm is
    the layer's ``weight_norm``.
    """

    def init(self, key: Key, x: Inputs | jax.ShapeDtypeStruct) -> Any:
        """Initial weights for inputs of x's shape and dtype; must not read x's values."""
        ...

    def knowledge(self, weights: Any, x: Inputs) -> Knowledge:
        """Knowledge z = Z^(l) of shape (samples, outputs), before the sigmoid."""
        ...
