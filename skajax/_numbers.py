"""The numbers of a configuration, as arrays: what may change without compiling anything anew."""

from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import is_traced, require

_Tree = TypeVar("_Tree")


def as_arrays(tree: _Tree, dtype: jnp.dtype) -> _Tree:
    """A method or rule with its numbers as arrays of this dtype: a new value then compiles nothing."""
    return jax.tree.map_with_path(partial(_as_array, dtype), tree)


def _as_array(dtype: jnp.dtype, path: tuple[Any, ...], leaf: Any) -> Any:
    if not is_number(leaf):
        return leaf
    if not is_traced(leaf):
        name = jax.tree_util.keystr(path[-1:], simple=True)
        size, limits = np.abs(np.asarray(leaf)), jnp.finfo(dtype)
        fits = np.all((size == 0) | ((size >= limits.tiny) & (size <= limits.max)))
        require(bool(fits), name, f"be representable in {dtype}", f"it was {leaf!r}")
    return jnp.asarray(leaf, dtype)


def is_number(leaf: object) -> bool:
    """Whether a leaf of a method is one of its numbers: floating-point, traced or not."""
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        return jnp.issubdtype(leaf.dtype, jnp.floating)
    return isinstance(leaf, float)
