"""What a claim is, what was found of it, and the words in which it is judged."""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline

from skajax._types import Float
from skajax.study.errors import Numbers, curve_error
from skajax.study.experiments import Evidence
from skajax.trajectory import Trajectory


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
    """A claim of the paper, and the rule by which evidence decides on it.

    >>> [claim.number for claim in ska.study.CLAIMS][:5]
    [1, 2, 3, 4, 5]
    """

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
    return curve_error(f, at(reference, observable, t)).l2


def at(run: Trajectory, observable: str, times: Numbers) -> Float[np.ndarray, "times layers"]:
    """An observable at any times within the run, on the cubic spline through its records."""
    return spline(run, observable)(np.asarray(times, float))


def spline(run: Trajectory, observable: str) -> CubicSpline:
    """The cubic spline through an observable's records, over time, for all layers."""
    return CubicSpline(np.asarray(run.t, float), np.asarray(getattr(run, observable), float))
