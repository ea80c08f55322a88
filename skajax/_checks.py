"""The one wording in which skajax refuses bad input."""

import math

import jax
import numpy as np


def require(condition: bool, argument: str, must: str, but: str) -> None:
    """Raise ``ValueError("Argument <argument> must <must>, but <but>.")`` unless the condition holds."""
    if not condition:
        raise ValueError(f"Argument {argument} must {must}, but {but}.")


def require_positive(argument: str, value: object, what: str) -> None:
    """Refuse a number that is known and not positive and finite; one under tracing is not known."""
    if isinstance(value, jax.core.Tracer):
        return
    number = isinstance(value, float | int | np.number | np.ndarray | jax.Array)
    require(
        number and not isinstance(value, bool) and np.ndim(value) == 0 and 0 < float(value) < math.inf,
        argument,
        f"be {what}, positive and finite",
        f"it was {value!r}",
    )
