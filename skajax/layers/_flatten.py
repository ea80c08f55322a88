"""A stage that puts all numbers of a sample into one row."""

import dataclasses

import jax
import jax.numpy as jnp

from skajax._types import Array, Inputs, Key


@dataclasses.dataclass(frozen=True)
class Flatten:
    """x (samples, ...) as (samples, numbers): between layers with space or time, and dense ones.

    A stage: it has no weights, no knowledge and no row in the results. The last axis runs fastest, as
    in ``x.reshape(len(x), -1)``.

    >>> x = jax.random.uniform(jax.random.key(0), (5, 4, 4, 2))
    >>> network = ska.Network((ska.layers.Flatten(), ska.Dense(3)))
    >>> weights = network.init(jax.random.key(1), x)  # of the dense layer W has the shape (32, 3)
    """

    def init(self, key: Key, x: Inputs | jax.ShapeDtypeStruct) -> tuple[()]:
        """It has no weights."""
        return ()

    def apply(self, weights: object, x: Inputs) -> Array:
        """The numbers of each sample, (samples, numbers)."""
        return jnp.asarray(x).reshape(x.shape[0], -1)
