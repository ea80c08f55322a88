"""What layers have in common: checks of their fields, in one wording."""

import math
from typing import Any

from skajax._checks import as_number, as_whole, is_whole, require
from skajax.decisions import DECISIONS

PRECISIONS = ("default", "high", "highest")
"""Of matrix products, in the words of ``jax.lax.Precision``."""


def whole(layer: Any, name: str, what: str, least: int = 1) -> None:
    """Make the field an int of Python's; refuse it unless it is whole and at least so much."""
    value = as_whole(getattr(layer, name))
    # What is hashed, compared and written to files: Python's own numbers, whatever was given.
    object.__setattr__(layer, name, value)
    require(
        is_whole(value, least),
        name,
        f"be a whole number of {what}, at least {least}",
        f"it was {value!r}",
    )


def real(layer: Any, name: str, what: str = "number", least: float | int = -math.inf) -> None:
    """Make the field a float of Python's; refuse it unless it is finite and at least so much."""
    value = as_number(getattr(layer, name))
    object.__setattr__(layer, name, value)
    require(
        isinstance(value, float) and math.isfinite(value) and value >= least,
        name,
        f"be a finite {what}" + (f", at least {least:g}" if least > -math.inf else ""),
        f"it was {value!r}",
    )


def choice(layer: Any, name: str, options: Any) -> None:
    """Refuse a field that is none of the options."""
    value = getattr(layer, name)
    names = [repr(option) for option in options]
    require(
        isinstance(value, str) and value in options,
        name,
        f"be {', '.join(names[:-1])} or {names[-1]}",
        f"it was {value!r}",
    )


def usual(layer: Any) -> None:
    """The fields that layers of matrix products have: ``scale``, ``bias``, ``precision``, ``decision``."""
    real(layer, "scale", "standard deviation", least=0)
    real(layer, "bias")
    choice(layer, "precision", PRECISIONS)
    choice(layer, "decision", DECISIONS)
