"""What a claim is, what was found of it, and the words in which it is judged."""

import dataclasses
import enum
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from scipy.interpolate import CubicSpline

from skajax._types import Array, Float
from skajax.study.experiments import Evidence
from skajax.trajectory import Trajectory

Numbers: TypeAlias = Sequence[float] | np.ndarray | Array


class Verdict(enum.StrEnum):
    """How a claim stands."""

    HOLDS = "holds"
    APPROXIMATELY = "holds approximately"
    SEED = "depends on the seed"
    SIGN = "depends on the sign convention"
    FAILS = "does not hold"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was measured of a claim, and the verdict that its rule makes of it."""

    discrete: str
    """By the published rule."""
    continuous: str
    """In the continuous limit."""
    verdict: Verdict
    why: str
    numbers: dict[str, Any]
    """Everything measured, for ``claims.json``."""
    margin: str = ""
    """By how much it holds approximately."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the paper, and the rule by which evidence decides on it."""

    number: int
    title: str
    place: str
    says: str
    rule: str
    examine: Callable[[Evidence], Finding]


def claim(
    number: int, title: str, *, place: str, says: str, rule: str
) -> Callable[[Callable[[Evidence], Finding]], Claim]:
    """Make a claim of the function that examines it."""
    return lambda examine: Claim(number, title, place, says, rule, examine)


def graded(error: float | np.floating, holds: float, approximately: float) -> Verdict:
    """Holds up to one error, approximately up to another, and not beyond."""
    if error <= holds:
        return Verdict.HOLDS
    return Verdict.APPROXIMATELY if error <= approximately else Verdict.FAILS


def distance(
    run: Trajectory, reference: Trajectory, observable: str
) -> Float[np.ndarray, " layers"]:
    """Relative L² distance in time, per layer: ‖f - g‖ / ‖g‖ on the run's own times.

    Without the records that have no flow, as pass 1 of the published rule: rates are 0 there, and
    their cosine is undefined, for a reason that has nothing to do with the step size.
    """
    flows = (run.flow_norm > 0).all(axis=-1)
    t = np.asarray(run.t, float)[flows]
    f = np.asarray(getattr(run, observable), float)[flows]
    g = at(reference, observable, t)
    return np.sqrt(np.sum((f - g) ** 2, axis=0) / np.sum(g**2, axis=0))


def at(run: Trajectory, observable: str, times: Numbers) -> Float[np.ndarray, "times layers"]:
    """An observable at any times within the run, on the cubic spline through its records."""
    return spline(run, observable)(np.asarray(times, float))


def spline(run: Trajectory, observable: str) -> CubicSpline:
    """The cubic spline through an observable's records, over time, for all layers."""
    return CubicSpline(np.asarray(run.t, float), np.asarray(getattr(run, observable), float))


def order(dts: Numbers, errors: Numbers) -> float:
    """Observed order of convergence: the slope of log error over log dt, by least squares."""
    return float(np.polyfit(np.log(dts), np.log(errors), 1)[0])


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


def percent(value: float | np.floating) -> str:
    """A fraction as a percentage, in two digits."""
    return f"{number(100 * value, 2)} %"


def per_layer(texts: list[str]) -> str:
    """One text a layer, numbered."""
    return "; ".join(f"layer {layer}: {text}" for layer, text in enumerate(texts, start=1))
