"""Numbers as the reports write them."""

import numpy as np

from skajax._types import Float
from skajax.study.errors import Numbers

__all__ = ["band", "number", "per_layer", "percent", "spread"]


def spread(values: Numbers) -> Float[np.ndarray, "3"]:
    """Median and 5 % and 95 % quantiles over the seeds: (5 %, 50 %, 95 %)."""
    return np.quantile(np.asarray(values, float), [0.05, 0.5, 0.95])


def band(values: Numbers, digits: int = 3) -> str:
    """The median with the 5-95 % range over the seeds, as "28.3 (26.9 to 30.1)"."""
    low, middle, high = (number(v, digits) for v in spread(values))
    return f"{middle} ({low} to {high})"


def number(value: float | np.floating, digits: int = 3) -> str:
    """A number in so many significant digits, with an exponent only where it is far from 1."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return np.format_float_positional(
            value, precision=digits, unique=False, fractional=False, trim="-"
        )
    return f"{value:.{max(digits - 2, 0)}e}"


def percent(value: float | np.floating, digits: int = 2) -> str:
    """A fraction as a percentage."""
    return f"{number(100 * value, digits)} %"


def per_layer(texts: list[str]) -> str:
    """One text a layer, numbered."""
    return "; ".join(f"layer {layer}: {text}" for layer, text in enumerate(texts, start=1))
