"""The one wording in which skajax refuses bad input, and what it can know of a value."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer


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


def is_whole(value: Any, least: int = 1) -> bool:
    """Whether it is a whole number, of Python's or NumPy's, and at least so much; True is none."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and int(value) >= least


def as_array(argument: str, value: Any) -> jax.Array:
    """The value as an array of JAX's, if it is one of numbers."""
    if isinstance(value, jax.Array):
        return value
    try:
        return jax.device_put(np.asarray(value))  # compiles nothing, whatever the shape
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Argument {argument} must be an array of numbers, but it was"
            f" {type(value).__name__} ({error})."
        ) from error


def require_positive(argument: str, value: object, what: str) -> None:
    """Refuse a number that is not positive and finite; one that is traced passes unseen."""
    if is_traced(value):
        return
    scalar = isinstance(value, float | int | np.number | np.ndarray | jax.Array)
    require(
        scalar
        and not isinstance(value, bool)
        and np.ndim(value) == 0
        and 0 < float(value) < math.inf,
        argument,
        f"be {what}, positive and finite",
        f"it was {value!r}",
    )
