"""Array types, by the names that the docstrings use: one file, so that a shape is spelt once.

``samples`` is the batch B, ``inputs`` and ``outputs`` are n_{l-1} and n_l, ``layers`` is L: the
layers that have knowledge. Knowledge has whatever axes its layer gives it behind the samples. A
leading ``*times`` stands for no axis at all (one instant) or for a trajectory's time axis, and for
the axes that ``jax.vmap`` has put before it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Num, PRNGKeyArray

if TYPE_CHECKING:
    from typing_extensions import TypeAliasType

    # To a type checker a tree is anything: what its leaves are is checked while running.
    PyTree = TypeAliasType("PyTree", Any, type_params=(TypeVar("Leaf"),))
else:
    from jaxtyping import PyTree

__all__ = [
    "AnyArray",
    "Array",
    "ArrayLike",
    "Bool",
    "Count",
    "Edges",
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
Inputs: TypeAlias = Num[Array | np.ndarray, "samples *axes"]
Knowledge: TypeAlias = Float[Array, "samples *outputs"]
Edges: TypeAlias = (
    Int[Array | np.ndarray, "edges 2"]
    | Int[Array | np.ndarray, "2 edges"]
    | Sequence[Sequence[int]]
)
Weights: TypeAlias = tuple[PyTree[Float[Array | np.ndarray, "..."]], ...]
Tensors: TypeAlias = tuple[Float[Array, "..."], ...]

PerLayer: TypeAlias = Float[Array, " layers"]
SaveTimes: TypeAlias = Float[ArrayLike, " saves"] | Sequence[float | int]
TimeSeries: TypeAlias = Float[Array, "*times"]
LayerSeries: TypeAlias = Float[Array, "*times layers"]
OutputSeries: TypeAlias = Float[Array, "*times outputs"]

Sign: TypeAlias = Literal["published", "equation"]
