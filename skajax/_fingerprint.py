"""What tells one configuration from another: a digest of arrays, numbers, modules and functions."""

import dataclasses
import functools
import hashlib
import re
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def fingerprint(*values: Any) -> str:
    """The SHA-256 of all that the values are made of, the same in every process.

    Arrays by dtype, shape and bytes; PRNG keys by their data; modules, other dataclasses and
    containers entry by entry; functions by their code, defaults and what they have closed over, as
    Optax's have their learning rates (globals by name alone); all else by its text.
    """
    digest = hashlib.sha256()
    _feed(digest, values, ())
    return digest.hexdigest()


def key_data(leaf: Any) -> Any:
    """A PRNG key's numbers; anything else as it is."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def without_addresses(text: str) -> str:
    """A text without the places in memory that objects have in one process."""
    return re.sub(r" at 0x[0-9a-f]+|0x[0-9a-f]+", "", text)


def _feed(digest: Any, value: Any, above: tuple[int, ...]) -> None:
    """Add a value, and all within it; ``above`` are those that it is within."""
    if id(value) in above:
        digest.update(b"(above)")
        return
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        array = np.asarray(key_data(value))
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
        return
    kind, parts = _parts(value)
    digest.update(f"{kind}[{len(parts)}:".encode())
    for part in parts:
        if isinstance(part, bytes):
            digest.update(part)
        elif isinstance(part, str):
            digest.update(f"{len(part)}'{part}".encode())
        else:
            _feed(digest, part, (*above, id(value)))
    digest.update(b"]")


def _parts(value: Any) -> tuple[str, list[Any]]:
    """What kind of thing it is, and what it is made of, in an order that is always the same."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, str | bytes | bool | int | float | complex | None):
        return kind, [value if isinstance(value, bytes) else repr(value)]
    if isinstance(value, dict):
        return kind, [part for entry in value.items() for part in entry]
    if isinstance(value, set | frozenset):
        return kind, sorted(fingerprint(entry) for entry in value)
    if isinstance(value, tuple | list | range):
        return kind, list(value)
    if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
        return kind, [f"{getattr(value, '__module__', '')}.{value.__name__}"]
    if isinstance(value, types.CodeType):
        return kind, [value.co_code, value.co_consts, value.co_names, value.co_varnames]
    if isinstance(value, types.CellType):
        return kind, list(_contents(value))
    if isinstance(value, types.FunctionType):
        closed = value.__closure__ or ()
        return kind, [value.__code__, value.__defaults__, value.__kwdefaults__, closed]
    if isinstance(value, types.MethodType):
        return kind, [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return kind, [value.func, value.args, value.keywords]
    if callable(value) and (within := getattr(value, "__wrapped__", None)) is not None:  # by jit
        return kind, [within]
    if dataclasses.is_dataclass(value):
        fields = (field.name for field in dataclasses.fields(value))
        return kind, [part for name in fields for part in (name, getattr(value, name))]
    leaves, structure = jax.tree.flatten(value)
    if not jax.tree_util.treedef_is_leaf(structure):
        return kind, [without_addresses(str(structure)), *leaves]
    if type(value).__repr__ is object.__repr__ and not kind.startswith("jax"):
        return kind, [
            part for entry in sorted(getattr(value, "__dict__", {}).items()) for part in entry
        ]
    return kind, [without_addresses(repr(value))]


def _contents(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # a name that has no value yet
        return ()
