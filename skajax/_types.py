"""Array types, by the names that the docstrings use: one file, so that a shape is spelt once.

``samples`` is the batch B, ``inputs`` and ``outputs`` are n_{l-1} and n_l, ``layers`` is L. A
leading ``*times`` stands for no axis at all (one instant) or for a trajectory's time axis, and for
the axes that ``jax.vmap`` has put before it.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray, PyTree

__all__ = [
    "AnyArray",
    "Array",
    "ArrayLike",
    "Bool",
    "Count",
    "Float",
    "Inputs",
    "Int",
    "Key",
    "Knowledge",
    "LayerSeries",
    "OutputSeries",
    "PerLayer",
    "PyTree",
    "RealLike",
    "SaveTimes",
    "Scalar",
    "ScalarLike",
    "Sign",
    "Tensors",
    "TimeSeries",
    "Weights",
]

AnyArray: TypeAlias = Float[Array, "*any"]
RealLike: TypeAlias = float | Float[Array | np.ndarray, "*any"]
Scalar: TypeAlias = Float[Array, ""]
ScalarLike: TypeAlias = float | int | Float[Array, ""]
Count: TypeAlias = int | Int[Array, "*times"]

Key: TypeAlias = PRNGKeyArray
Inputs: TypeAlias = Float[Array | np.ndarray, "samples inputs"]
Knowledge: TypeAlias = Float[Array, "samples outputs"]
Weights: TypeAlias = tuple[PyTree[Float[Array, "..."]], ...]
Tensors: TypeAlias = tuple[Float[Array, "*times samples _"], ...]

PerLayer: TypeAlias = Float[Array, " layers"]
SaveTimes: TypeAlias = Float[ArrayLike, " saves"] | Sequence[float | int]
TimeSeries: TypeAlias = Float[Array, "*times"]
LayerSeries: TypeAlias = Float[Array, "*times layers"]
OutputSeries: TypeAlias = Float[Array, "*times outputs"]

Sign: TypeAlias = Literal["published", "equation"]
