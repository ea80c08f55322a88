"""The numbers of a configuration, as arrays: what may change without compiling anything anew."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import is_traced, require

_Tree = TypeVar("_Tree")


def as_arrays(tree: _Tree, dtype: jnp.dtype) -> _Tree:
    """A method or rule with its numbers as arrays of this dtype: a new value then compiles nothing."""

    leaves, structure = jax.tree.flatten_with_path(tree)
    numbers = {
        n: _number(path, leaf, dtype) for n, (path, leaf) in enumerate(leaves) if is_number(leaf)
    }
    known = {n: value for n, value in numbers.items() if isinstance(value, np.ndarray)}
    # All at once: each call costs as much as a step of a small run.
    numbers |= jax.device_put(known)
    return structure.unflatten([numbers.get(n, leaf) for n, (_, leaf) in enumerate(leaves)])


def _number(path: tuple[Any, ...], leaf: Any, dtype: jnp.dtype) -> jax.Array | np.ndarray:
    if not is_traced(leaf):
        name = jax.tree_util.keystr(path, simple=True)
        size, limits = np.abs(np.asarray(leaf)), jnp.finfo(dtype)
        fits = np.all((size == 0) | ((size >= limits.tiny) & (size <= limits.max)))
        require(bool(fits), name, f"be representable in {dtype}", f"it was {leaf!r}")
    return jnp.asarray(leaf, dtype) if isinstance(leaf, jax.Array) else np.asarray(leaf, dtype)


def is_number(leaf: object) -> bool:
    """Whether a leaf of a method is one of its numbers: floating-point, traced or not."""
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        return jnp.issubdtype(leaf.dtype, jnp.floating)
    return isinstance(leaf, float)


def as_float(value: Any) -> Any:
    """A whole number as the float it stands for; anything else as it is."""
    return float(value) if type(value) is int else value
