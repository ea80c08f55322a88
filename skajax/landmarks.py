"""Landmarks of a run: where a layer's flow peaks, its entropy falls fastest, its Net crosses zero.

Read off the records of one trajectory, on the host, in float64. Between records an extremum is that
of the parabola through the three records around it, and a crossing that of the straight line
through two: errors of third and second order in the spacing of the records.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from skajax._checks import require
from skajax._types import Float
from skajax.observables import LABELS
from skajax.trajectory import Trajectory

PAPER_DT = 0.01
"""The time step of the paper's figures 3 to 6, K = 50."""


class Landmark(NamedTuple):
    """One landmark of one layer."""

    layer: int
    """From 1."""
    t: float
    """Its time."""
    step: float
    """Its place among the records, from 0, with a fraction between two records."""
    K: float
    """Its place on the paper's axis: pass K is recorded at t = (K - 1) dt, so K = 1 + t / dt."""
    value: float
    """The observable's value there."""
    knowledge_norm: float
    """‖Z‖_F there."""
    direction: int
    """Of a zero crossing: +1 rising, -1 falling; 0 for an extremum."""
    interior: bool
    """False for an extremum in the first or last record: there is none within the run."""


def peaks(run: Trajectory, observable: str = "flow_norm") -> tuple[Landmark, ...]:
    """The largest value of an observable, one landmark a layer; by default the flow's peak (fig. 4).

    A layer whose largest value is its first or last record has ``interior=False``.
    """
    return _extrema(run, observable, +1)


def minima(run: Trajectory, observable: str = "entropy_rate") -> tuple[Landmark, ...]:
    """The smallest value of an observable, one a layer; by default the paper's entropy minima.

    The red dots of figures 3 and 5: the paper's entropy per step is the entropy rate times dt. A
    layer whose smallest value is its first or last record has ``interior=False``.
    """
    return _extrema(run, observable, -1)


def crossings(run: Trajectory, observable: str = "tensor_net_rate") -> tuple[Landmark, ...]:
    """Every zero crossing of an observable, by layer and then by time, with its direction.

    By default the green dots of figures 5 and 6, which show the Tensor Net's rate in the published
    sign; ``"tensor_net_rate_equation"``, ``"tensor_net"`` and ``"tensor_net_equation"`` are the others.
    Zeros that a run begins with are no crossings: nothing changed sign.
    """
    t, values = _series(run, observable)
    found = []
    for column, series in enumerate(values.T):
        signed = np.flatnonzero(series)
        for before, after in pairwise(signed):
            if np.sign(series[before]) != np.sign(series[after]):
                if after == before + 1:
                    fraction = series[before] / (series[before] - series[after])
                    time = t[before] + fraction * (t[after] - t[before])
                else:  # records that are exactly 0: the middle of them
                    time = (t[before + 1] + t[after - 1]) / 2
                direction = int(np.sign(series[after]))
                found.append(_landmark(run, t, column, time, 0.0, direction, True))
    return tuple(found)


def _extrema(run: Trajectory, observable: str, sign: int) -> tuple[Landmark, ...]:
    t, values = _series(run, observable)
    found = []
    for column, series in enumerate(values.T):
        best = int(np.argmax(sign * series))
        interior = 0 < best < len(t) - 1
        time, value = t[best], series[best]
        if interior:
            around = slice(best - 1, best + 2)
            time, value = _vertex(t[around], series[around])
        found.append(_landmark(run, t, column, time, value, 0, interior))
    return tuple(found)


def _vertex(
    t: Float[np.ndarray, "3"], y: Float[np.ndarray, "3"]
) -> tuple[np.floating, np.floating]:
    """Where the parabola through three points turns: between the outer two, if the middle is best."""
    left, right = (y[1] - y[0]) / (t[1] - t[0]), (y[2] - y[1]) / (t[2] - t[1])
    curvature = (right - left) / (t[2] - t[0])
    if curvature == 0:  # three equal values
        return t[1], y[1]
    time = (t[0] + t[1]) / 2 - left / (2 * curvature)
    return time, y[0] + (time - t[0]) * (left + curvature * (time - t[1]))


def _series(
    run: Trajectory, observable: str
) -> tuple[Float[np.ndarray, " times"], Float[np.ndarray, "times layers"]]:
    per_layer = [name for name in LABELS if name != "output_mean"]
    require(
        observable in per_layer, "observable", f"be one of {per_layer}", f"it was {observable!r}"
    )
    require(
        np.ndim(run.t) == 1 and len(run.t) >= 1,
        "run",
        "be one run with at least one record",
        f"its times have the shape {np.shape(run.t)}"
        " (of a batch of runs, take one: jax.tree.map(lambda a: a[0], runs))",
    )
    t, values = np.asarray(run.t, float), np.asarray(getattr(run, observable), float)
    # A lane of a batch that failed is NaN from there on.
    good = int(np.cumprod(np.isfinite(values).all(axis=1)).sum())
    require(good >= 1, "run", "have at least one finite record", f"it ended so: {run.outcome}")
    return t[:good], values[:good]


def _landmark(
    run: Trajectory,
    t: Float[np.ndarray, " times"],
    column: int,
    time: np.floating,
    value: float | np.floating,
    direction: int,
    interior: bool,
) -> Landmark:
    dt = float(run.parameters.get("dt", PAPER_DT))
    Z = np.asarray(run.knowledge_norm[: len(t), column], float)
    return Landmark(
        layer=column + 1,
        t=float(time),
        step=float(np.interp(time, t, np.arange(len(t)))),
        K=1 + float(time) / dt,
        value=float(value),
        knowledge_norm=float(np.interp(time, t, Z)),
        direction=direction,
        interior=interior,
    )
