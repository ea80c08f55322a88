"""How far runs are from each other, how fast that falls with the step, and the step for an accuracy.

Plain numbers in float64, on the host: what the studies and the audit have in common.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from skajax._checks import require_positive
from skajax._types import Array, Float

__all__ = ["CurveError", "curve_error", "local_orders", "order", "relative_error", "step_for"]

Numbers: TypeAlias = Sequence[float] | np.ndarray | Array


class CurveError(NamedTuple):
    """Relative distances of curves f from g over the same times; NaN where g is 0 throughout."""

    l2: Float[np.ndarray, " curves"]
    """√(Σ (f - g)² / Σ g²), the sums over times."""
    max: Float[np.ndarray, " curves"]
    """max |f - g| / max |g|, over times."""


def curve_error(f: Any, g: Any) -> CurveError:
    """The distance of each column of f, (times, curves), from that of g: in the mean and at most."""
    f, g = np.asarray(f, float), np.asarray(g, float)
    off = f - g
    if len(f) == 0:
        return CurveError(*np.full((2, f.shape[1]), np.nan))
    squared = np.sqrt(np.sum(off**2, axis=0)), np.sqrt(np.sum(g**2, axis=0))
    largest = np.abs(off).max(axis=0), np.abs(g).max(axis=0)
    return CurveError(_over(*squared), _over(*largest))


def relative_error(weights: Any, reference: Any) -> float:
    """‖W - W_ref‖ / ‖W_ref‖, over all arrays of two pytrees together, in float64."""
    leaves = zip(jax.tree.leaves(weights), jax.tree.leaves(reference), strict=True)
    pairs = [(np.asarray(w, float), np.asarray(r, float)) for w, r in leaves]
    off = sum(np.sum((w - r) ** 2) for w, r in pairs)
    size = sum(np.sum(r**2) for _, r in pairs)
    return math.sqrt(off / size) if size > 0 else math.nan


def order(dts: Numbers, errors: Numbers) -> float:
    """Observed order of convergence: the slope of log error over log dt, by least squares.

    Of the errors that are numbers above 0; NaN of fewer than two.
    """
    dts, errors = _known(dts, errors)
    return float(np.polyfit(np.log(dts), np.log(errors), 1)[0]) if len(dts) > 1 else math.nan


def local_orders(dts: Numbers, errors: Numbers) -> Float[np.ndarray, " steps"]:
    """log(e_{n-1} / e_n) / log(dt_{n-1} / dt_n), from each step to the next; NaN for the first."""
    dts, errors = np.asarray(dts, float), np.asarray(errors, float)
    errors = np.where(errors > 0, errors, np.nan)
    slopes = np.diff(np.log(errors)) / np.diff(np.log(dts))
    return np.concatenate([[np.nan], slopes])


def step_for(dts: Numbers, errors: Numbers, accuracy: float) -> float:
    """The largest dt that meets an accuracy, and below which all that were tried do.

    On the law that the errors make: a straight line in log error over log dt between two steps
    that were tried, and beyond the finest or the coarsest one the line through the last two. NaN
    where errors do not fall towards dt → 0, or are fewer than two.
    """
    require_positive("accuracy", accuracy, "a relative error")
    dts, errors = _known(dts, errors)
    if len(dts) < 2:
        return math.nan
    ranked = np.argsort(dts)
    x, y, goal = np.log(dts[ranked]), np.log(errors[ranked]), math.log(accuracy)
    missed = np.flatnonzero(y > goal)
    first = int(missed[0]) if len(missed) else len(x) - 1  # of the fine steps, the first to miss
    first = max(first, 1)  # even the finest misses: below it, the line through the finest two
    slope = (y[first] - y[first - 1]) / (x[first] - x[first - 1])
    return float(np.exp(x[first] + (goal - y[first]) / slope)) if slope > 0 else math.nan


def _known(dts: Numbers, errors: Numbers) -> tuple[np.ndarray, np.ndarray]:
    dts, errors = np.asarray(dts, float), np.asarray(errors, float)
    known = np.isfinite(errors) & (errors > 0)
    return dts[known], errors[known]


def _over(off: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.where(size > 0, off / np.where(size > 0, size, 1), np.nan)
