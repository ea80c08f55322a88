"""The one wording in which skajax refuses bad input; numbers and arrays of all libraries, made its own."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from skajax._modes import double_precision


def require(condition: bool, argument: str, must: str, but: str | Callable[[], str]) -> None:
    """Raise ``ValueError("Argument <argument> must <must>, but <but>.")`` unless the condition holds.

    ``but`` may be a function that says it: describing a solver takes longer than a small run.
    """
    if not condition:
        but = but if isinstance(but, str) else but()
        raise ValueError(f"Argument {argument} must {must}, but {but}.")


def is_traced(*trees: object) -> bool:
    """Whether an array in here is abstract, its value unknown, as inside of jit, vmap and grad."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def require_finite(argument: str, value: Any, where: str = "") -> None:
    """Refuse an array that holds NaN or infinity, with the place of the first; a traced one passes."""
    if is_traced(value):
        return  # Values are unknown under jit and vmap; the run's outcome reports them instead.
    # On the host: inside jit even an operation on known values would be traced.
    value = np.asarray(value)
    bad = int(value.size - np.isfinite(value).sum())
    if bad:
        first = np.unravel_index(np.argmin(np.isfinite(value)), value.shape)
        at = f", the first at [{', '.join(map(str, first))}]" if value.ndim else ""
        raise ValueError(
            f"Argument {argument} must be finite, but it held {bad} NaN or infinite"
            f" {'value' if bad == 1 else 'values'}{where}{at}."
        )


def as_number(value: Any) -> Any:
    """A real number of Python's, NumPy's, JAX's or another library's as a float of Python's.

    A traced integer becomes a traced float. What is no real number (complex, bool, text, an array
    with axes) is returned as it is, for the check that knows the argument's name.
    """
    if isinstance(value, Tracer):
        whole = jnp.issubdtype(value.dtype, jnp.integer)
        return value.astype(jnp.result_type(float)) if whole else value
    number = _scalar(value, jnp.floating, jnp.integer)
    try:
        return value if number is None else float(number)
    except OverflowError:  # an integer beyond all floats
        return math.inf if value > 0 else -math.inf


def as_whole(value: Any) -> Any:
    """A whole number of Python's, NumPy's or JAX's as an int of Python's; anything else as it is."""
    number = _scalar(value, jnp.integer)
    return value if number is None else int(number)


def as_seeds(seeds: Iterable[Any] | None, default: tuple[int, ...]) -> tuple[Any, ...]:
    """The seeds of a study, or its own where none are given; refused unless whole, and each there once."""
    if seeds is None:
        return default
    chosen = tuple(seeds)
    require(
        len(chosen) >= 1
        and len({*chosen}) == len(chosen)
        and all(is_whole(seed, 0) for seed in chosen),
        "seeds",
        "be at least one whole number, each once",
        f"it was {seeds!r}",
    )
    return chosen


def is_whole(value: Any, least: int = 1) -> bool:
    """Whether it is a whole number, of any library, and at least so much; True is none."""
    number = _scalar(value, jnp.integer)
    return number is not None and int(number) >= least


def as_array(argument: str, value: Any) -> jax.Array:
    """The value as an array of JAX's that nobody can write to, if it is one of real numbers.

    An array of JAX's is taken as it is. All else is copied: on a CPU, JAX would share the memory
    of a NumPy array, and with it what is written there later.
    """
    must = "be an array of numbers, floating-point or whole"
    if isinstance(value, jax.Array):
        array: Any = value
    else:
        value = unmasked(argument, value)
        try:
            array = np.array(value, order="C")
        except Exception as error:  # whatever another library's conversion raises
            raise ValueError(
                f"Argument {argument} must {must}, but it was {type(value).__name__} ({error})."
            ) from error
    require(
        _is(array.dtype, jnp.floating, jnp.integer, jnp.bool),
        argument,
        must,
        f"it was {type(value).__name__} of dtype {array.dtype}",
    )
    if not isinstance(array, jax.Array):
        # The machine's byte order, and no more digits than JAX has: in memory of its own.
        dtype = np.float64 if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
        return jax.device_put(array.astype(dtype, copy=False))  # compiles nothing
    require(
        array.dtype.itemsize < 8 or double_precision(),
        argument,
        "have single precision, as JAX has now",
        f"its dtype was {array.dtype} (go on within jax.enable_x64(True), or take"
        f" {argument}.astype('float32'))",
    )
    return array


def unmasked(argument: str, value: Any) -> Any:
    """The value, whose mask, if it has one, hides nothing."""
    if not isinstance(value, np.ma.MaskedArray):
        return value
    require(
        not np.ma.is_masked(value),
        argument,
        "be an array without masked values",
        f"some were masked (choose what stands for them: {argument}.filled(0))",
    )
    return np.ma.getdata(value)


def as_key(argument: str, key: Any) -> jax.Array:
    """A key of JAX's; of an old-style one of two integers, the typed one that it stands for."""
    if isinstance(key, jax.Array | np.ndarray):
        if _is(key.dtype, jax.dtypes.prng_key) and key.ndim == 0:
            return jnp.asarray(key)
        if key.dtype == np.uint32 and key.ndim == 1:
            try:
                return jax.random.wrap_key_data(jnp.asarray(key))
            except (TypeError, ValueError):
                pass  # as many integers as no key has
    shape = f" of shape {np.shape(key)}" if isinstance(key, jax.Array | np.ndarray) else ""
    raise ValueError(
        f"Argument {argument} must be one key, such as jax.random.key(seed), but it was"
        + (f" {type(key).__name__}{shape}." if shape else f" {key!r}.")
    )


def require_positive(argument: str, value: object, what: str) -> Any:
    """The number, by :func:`as_number`; refused unless positive and finite, its value traced or not."""
    number = as_number(value)
    if isinstance(number, Tracer):
        fits = _is(number.dtype, jnp.floating) and number.shape == ()
    else:
        fits = isinstance(number, float) and 0 < number < math.inf
    require(fits, argument, f"be {what}, positive and finite", lambda: f"it was {value!r}")
    return number


def _scalar(value: Any, *kinds: Any) -> Any:
    """A known number without axes, of one of these kinds and any library; None for all else."""
    if isinstance(value, bool | str | bytes | Tracer) or value is None:
        return None
    if isinstance(value, int) and jnp.integer in kinds:
        return value
    if not isinstance(value, float) and not hasattr(value, "__array__"):
        return None
    try:
        array = np.asarray(value)
    except Exception:  # whatever another library's conversion raises
        return None
    if array.ndim or not _is(array.dtype, *kinds) or np.ma.is_masked(value):
        return None
    return array[()]


def _is(dtype: Any, *kinds: Any) -> bool:
    """Whether a dtype is of one of these kinds; a duration, an integer to NumPy, is of none."""
    return getattr(dtype, "kind", "") != "m" and any(jnp.issubdtype(dtype, kind) for kind in kinds)
