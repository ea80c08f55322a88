"""Landmarks of a run: where a layer's flow peaks, its entropy falls fastest, its Net crosses zero.

Of a dense run (``simulate(..., dense=True)``) they are exact: extrema are zeros of an observable's
derivative, crossings zeros of the observable, each found between samples of the solver's own
interpolant by Brent's method, to 1e-7 of the run's time in float64, and whatever was recorded.

Of any other run they are read off the records, in float64: between records an extremum is that of
the parabola through the three around it, and a crossing that of the straight line through two,
with errors of third and second order in the spacing of the records. In place of a run every function takes
its dataset too, or one lane of a sweep's: ``data.sel(seed=0)``.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.polynomial import Polynomial

from skajax._checks import require
from skajax._nodes import GRID, INTERVALS
from skajax._recorded import Recorded, recorded
from skajax._solution import Reading
from skajax._types import Float
from skajax.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray

__all__ = ["Kind", "Landmark", "crossings", "minima", "peaks", "series", "timeline"]

PAPER_DT = 0.01
"""The time step of the paper's figures 3 to 6, K = 50."""


KNOTS = 4
"""Within a step, after its start, at which a dense run is read: every other one of its samples."""
_POWERS = np.arange(2 * KNOTS + 2)
_AT = np.vander(GRID[:: INTERVALS // KNOTS], len(_POWERS), increasing=True)
HERMITE = np.linalg.inv(np.concatenate([_AT, _POWERS * np.pad(_AT, ((0, 0), (1, 0)))[:, :-1]]))
"""Values and slopes at the knots to coefficients of 1, x, x², ... on [-1, 1]."""

Kind = Literal["peak", "minimum", "crossing"]


class Landmark(NamedTuple):
    """One landmark of one layer.

    >>> peak = ska.landmarks.peaks(run)[0]
    >>> peak.layer, peak.kind, peak.interior
    (1, 'peak', True)
    """

    layer: int
    """From 1."""
    t: float
    """Its time."""
    step: float
    """Its place among the records, of a dense run among its steps, from 0, with a fraction between."""
    K: float
    """Its place on the paper's axis: pass K is recorded at t = (K - 1) dt, so K = 1 + t / dt."""
    value: float
    """The observable's value there."""
    knowledge_norm: float
    """‖Z‖_F there; NaN where the run has not recorded it."""
    direction: int
    """Of a zero crossing: +1 rising, -1 falling; 0 for an extremum."""
    interior: bool
    """False for an extremum in the first or last record: there is none within the run."""
    kind: Kind
    """What it is: "peak", "minimum" or "crossing"."""


def peaks(
    run: "Trajectory | xarray.Dataset", observable: Reading = "flow_norm", *, every: bool = False
) -> tuple[Landmark, ...]:
    """The largest value of an observable, one landmark a layer; by default the flow's peak (fig. 4).

    A layer whose largest value is its first or last record has ``interior=False``. With ``every``,
    all local maxima within the run instead, by layer and then by time.

    >>> [f"{peak.t:.1f}" for peak in ska.landmarks.peaks(run)]
    ['0.1', '2.1']
    >>> ska.landmarks.peaks(run.to_dataset()) == ska.landmarks.peaks(run)
    True
    """
    return _extrema(_source(run, observable), +1, every)


def minima(
    run: "Trajectory | xarray.Dataset", observable: Reading = "entropy_rate", *, every: bool = False
) -> tuple[Landmark, ...]:
    """The smallest value of an observable, one a layer; by default the paper's entropy minima.

    The red dots of figures 3 and 5: the paper's entropy per step is the entropy rate times dt. A
    layer whose smallest value is its first or last record has ``interior=False``. With ``every``,
    all local minima within the run instead, by layer and then by time.

    >>> [f"{low.t:.1f}" for low in ska.landmarks.minima(run, "entropy_rate")]
    ['0.1', '2.1']
    """
    return _extrema(_source(run, observable), -1, every)


def crossings(
    run: "Trajectory | xarray.Dataset", observable: Reading = "tensor_net_rate"
) -> tuple[Landmark, ...]:
    """Every zero crossing of an observable, by layer and then by time, with its direction.

    By default the green dots of figures 5 and 6, which show the Tensor Net's rate in the published
    sign; ``"tensor_net_rate_equation"``, ``"tensor_net"`` and ``"tensor_net_equation"`` are the others.
    Zeros that a run begins with are no crossings: nothing changed sign.

    >>> fast = lambda o: o.flow_norm - 0.5 * o.knowledge_norm  # where a residence time of 2 begins or ends
    >>> [event.layer for event in ska.landmarks.crossings(run, fast)]
    [1, 2]
    """
    return _crossings(_source(run, observable))


def timeline(
    run: "Trajectory | xarray.Dataset",
    observable: Reading = "tensor_net_rate",
    *,
    kinds: Iterable[Kind] = ("peak", "minimum", "crossing"),
) -> tuple[Landmark, ...]:
    """All zero crossings, local minima and local maxima of an observable, of all layers, in time order.

    ``observable`` is a name, or a function of :class:`skajax.Observables` that gives one number a
    layer: ``lambda o: o.flow_norm - 0.1 * o.knowledge_norm``. Of a run that is not dense, the
    function is given whole series, (times, layers).

    >>> events = ska.landmarks.timeline(run, "flow_norm", kinds=("peak",))
    >>> [event.layer for event in events]
    [2, 1, 2]
    """
    find = {
        "peak": lambda source: _extrema(source, +1, True),
        "minimum": lambda source: _extrema(source, -1, True),
        "crossing": lambda source: _crossings(source),
    }
    kinds = tuple(kinds)
    known = set(kinds) <= set(find)
    require(known, "kinds", f"be among {list(find)}", f"they were {kinds!r}")
    source = _source(run, observable)
    found = [landmark for kind in kinds for landmark in find[kind](source)]
    return tuple(sorted(found, key=lambda landmark: (landmark.t, landmark.layer)))


def series(
    run: "Trajectory | xarray.Dataset", observable: Reading
) -> tuple[Float[np.ndarray, " samples"], Float[np.ndarray, "samples layers"]]:
    """Times and values that landmarks are found among: of a dense run, some within each step.

    Of any other run its records, up to where it failed if it did; in float64.

    >>> t, flow = ska.landmarks.series(run, "flow_norm")
    >>> t.shape, flow.shape
    ((101,), (101, 2))
    """
    source = _source(run, observable)
    return source.t, source.values


class _Point(NamedTuple):
    column: int
    t: float
    value: float
    direction: int
    interior: bool
    kind: Kind


_Place: TypeAlias = tuple[int, int]
"""A column, and the sample k before which, and k + 1 after which, something is."""


@runtime_checkable
class _Source(Protocol):
    """An observable over time, and what lies between its samples."""

    t: Float[np.ndarray, " samples"]
    values: Float[np.ndarray, "samples layers"]
    steps: Float[np.ndarray, " steps"]
    """Times of the records, of a dense run of its steps."""
    dt: float | None
    """The method's step, if it has one."""

    def crossings(self, places: Sequence[_Place]) -> list[float]:
        """Where it is zero, between samples of opposite signs."""
        ...

    def turns(self, sign: int) -> list[tuple[int, float, float]]:
        """All local maxima of sign times the observable within the samples: columns, times, values."""
        ...

    def knowledge_norms(self, points: Sequence[_Point]) -> list[float]:
        """‖Z‖ of their layers there."""
        ...


class _Records:
    """The records of a run."""

    def __init__(self, run: Recorded, reading: Reading) -> None:
        self.t, self.values, self.Z = _series(run, reading)
        self.steps, self.dt = np.asarray(run.t, float), run.dt

    def crossings(self, places: Sequence[_Place]) -> list[float]:
        found = []
        for column, k in places:
            a, b = self.values[k, column], self.values[k + 1, column]
            found.append(float(self.t[k] + a / (a - b) * (self.t[k + 1] - self.t[k])))
        return found

    def turns(self, sign: int) -> list[tuple[int, float, float]]:
        found = []
        for column, y in enumerate(sign * self.values.T):
            moving = np.flatnonzero(np.diff(y))  # a plateau turns where it begins
            steps = np.sign(np.diff(y)[moving])
            tops = moving[:-1][(steps[:-1] > 0) & (steps[1:] < 0)] + 1
            found += [(column, *self._vertex(column, int(k))) for k in tops]
        return found

    def knowledge_norms(self, points: Sequence[_Point]) -> list[float]:
        last = self.Z.shape[1] - 1
        return [
            float(np.interp(point.t, self.t, self.Z[:, min(point.column, last)]))
            for point in points
        ]

    def _vertex(self, column: int, k: int) -> tuple[float, float]:
        """Where the parabola through three records turns: between the outer two."""
        t, y = self.t[k - 1 : k + 2], self.values[k - 1 : k + 2, column]
        left, right = (y[1] - y[0]) / (t[1] - t[0]), (y[2] - y[1]) / (t[2] - t[1])
        curvature = (right - left) / (t[2] - t[0])
        if curvature == 0:  # three equal values
            return float(t[1]), float(y[1])
        time = (t[0] + t[1]) / 2 - left / (2 * curvature)
        value = y[0] + (time - t[0]) * (left + curvature * (time - t[1]))
        return float(time), float(value)


class _Dense:
    """The solution itself.

    Read at a few times of each step, with its slopes: the polynomial with these values and slopes tells
    where landmarks are, and what it is off by there, read, mends it.
    """

    def __init__(self, run: Trajectory, reading: Reading) -> None:
        assert run.path is not None
        self.solution, self.reading = run.solution(), reading
        self.steps, self.dt = np.asarray(run.path.t, float), run.parameters.get("dt")
        t, *read = self.solution.sample(reading, KNOTS)
        within = np.arange(0, len(t) - 1, KNOTS)[:, None] + np.arange(KNOTS + 1)
        self.ends = t[within[:, [0, -1]]]
        half = np.diff(self.ends)[..., None] / 2
        values, slopes = (each[within] for each in read)  # steps, knots, layers
        self.models = HERMITE @ np.concatenate([values, slopes * half], axis=1)
        # Between the knots the polynomial's; each step's end is the next one's start.
        powers = np.vander(GRID, self.models.shape[1], increasing=True)
        change = np.arange(1, self.models.shape[1])[:, None] * self.models[:, 1:]
        fine = (powers @ self.models, powers[:, :-1] @ change / half)
        for dense, exact in zip(fine, (values, slopes), strict=True):
            dense[:, :: INTERVALS // KNOTS] = exact
        self.values, self.slopes = (
            np.concatenate([each[:, :-1].reshape(-1, each.shape[-1]), each[-1, -1:]])
            for each in fine
        )
        even = self.ends[:, :1] + half[:, 0] * (GRID + 1)
        self.t = np.append(even[:, :-1], t[-1])

    def crossings(self, places: Sequence[_Place]) -> list[float]:
        return [t for t, _ in self._roots(self.values, 0, places)]

    def turns(self, sign: int) -> list[tuple[int, float, float]]:
        places: list[_Place] = []
        for column, slope in enumerate(sign * self.slopes.T):
            tops = np.flatnonzero((slope[:-1] > 0) & (slope[1:] <= 0))
            places += [(column, int(k)) for k in tops]
        roots = self._roots(self.slopes, 1, places)
        return [(column, *root) for (column, _), root in zip(places, roots, strict=True)]

    def knowledge_norms(self, points: Sequence[_Point]) -> list[float]:
        norms, _ = self.solution.read("knowledge_norm", np.asarray([p.t for p in points]))
        last = norms.shape[1] - 1
        return [
            float(row[min(point.column, last)]) for row, point in zip(norms, points, strict=True)
        ]

    def _roots(
        self, samples: np.ndarray, part: int, places: Sequence[_Place]
    ) -> list[tuple[float, float]]:
        """Between samples k and k + 1, zeros of the reading (part 0), or of its slope (1); and readings."""
        from scipy.optimize import brentq

        eps = float(np.finfo(self.solution.t.dtype).eps)
        near = max(1e-8, 4 * eps) * (self.t[-1] - self.t[0])
        roots: list[tuple[float, float]] = []
        models, ahead = {}, []
        for n, (column, k) in enumerate(places):
            left, right, ends = self.t[k], self.t[k + 1], samples[k : k + 2, column]
            if ends[0] == 0 or ends[1] == 0 or np.sign(ends[0]) == np.sign(ends[1]):
                # Zero to rounding at one end, on either side of a step's end.
                at = k if abs(ends[0]) <= abs(ends[1]) else k + 1
                roots.append((float(self.t[at]), float(self.values[at, column])))
                continue
            step = k // INTERVALS
            model = Polynomial(self.models[step, :, column], domain=self.ends[step]).deriv(part)
            guess: Any = left + (right - left) * ends[0] / (ends[0] - ends[1])
            if model(left) * model(right) < 0:
                guess = brentq(model, left, right, xtol=near / 10)
            models[n] = model.deriv()
            roots.append((float(guess), np.nan))
            ahead.append(n)
        for _ in range(3):
            if not ahead:
                return roots
            read = self.solution.read(self.reading, np.asarray([roots[n][0] for n in ahead]))
            missed = []
            for n, value, change in zip(ahead, *read, strict=True):
                (column, k), (guess, _) = places[n], roots[n]
                off, slope = (value, change)[part][column], models[n](guess)
                better = float(
                    np.clip(guess - off / slope if slope else guess, self.t[k], self.t[k + 1])
                )
                moved = better - guess
                roots[n] = better, float(value[column] + change[column] * moved)
                if abs(moved) > near:
                    missed.append(n)
            ahead = missed
        for n in ahead:
            column, k = places[n]
            true = lambda t, c=column: self.solution.read(self.reading, t)[part][c]
            root: Any = brentq(true, self.t[k], self.t[k + 1], xtol=near)
            roots[n] = float(root), float(self.solution.read(self.reading, root)[0][column])
        return roots


def _source(run: Any, reading: Reading) -> _Source:
    solves = isinstance(run, Trajectory) and run.dense
    if solves and run.path is not None and len(run.path.t) > 1:
        _check(reading, [each.name for each in run.solution().observables if each.per_layer])
        return _Dense(run, reading)
    found = recorded(run)
    _check(reading, list(found.per_layer))
    return _Records(found, reading)


def _check(reading: Reading, names: list[str]) -> None:
    require(
        callable(reading) or reading in names,
        "observable",
        f"be one of {names}, or a function of Observables",
        f"it was {reading!r}",
    )


def _crossings(source: _Source) -> tuple[Landmark, ...]:
    changes = [
        (column, before, after, int(np.sign(series[after])))
        for column, series in enumerate(source.values.T)
        for before, after in pairwise(map(int, np.flatnonzero(series)))
        if np.sign(series[before]) != np.sign(series[after])
    ]
    between = [(column, k) for column, k, after, _ in changes if after == k + 1]
    times = dict(zip(between, source.crossings(between), strict=True))
    points = []
    for column, before, after, direction in changes:
        # Where samples are exactly 0, the middle of them.
        middle = float(source.t[before + 1] + source.t[after - 1]) / 2
        time = times.get((column, before), middle)
        points.append(_Point(column, time, 0.0, direction, True, "crossing"))
    return _landmarks(source, points)


def _extrema(source: _Source, sign: int, every: bool) -> tuple[Landmark, ...]:
    kind: Kind = "peak" if sign > 0 else "minimum"
    points = [_Point(column, t, y, 0, True, kind) for column, t, y in source.turns(sign)]
    if not every:
        ends = (0, len(source.t) - 1)
        edges = [
            _Point(column, float(source.t[k]), float(series[k]), 0, False, kind)
            for column, series in enumerate(source.values.T)
            for k in ends
        ]
        points = [
            max((p for p in (*points, *edges) if p.column == column), key=lambda p: sign * p.value)
            for column in range(source.values.shape[1])
        ]
    return _landmarks(source, points)


def _series(run: Recorded, reading: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    t, found = np.asarray(run.t, float), run.records
    values = np.asarray(found[reading] if isinstance(reading, str) else reading(found), float)
    require(
        values.ndim == 2 and len(values) == len(t),
        "observable",
        f"give one number a layer, in the shape ({len(t)}, layers) for {len(t)} records",
        f"it gave the shape {values.shape}",
    )
    # A lane of a batch that failed is NaN from there on.
    good = int(np.cumprod(np.isfinite(values).all(axis=1)).sum())
    what = reading if isinstance(reading, str) else "what was asked for"
    why = "" if run.failure is None else f" ({run.failure})"
    but = lambda: f"the first of {len(t)}, at t = {t[0]:g}, has {what} {values[0]}{why}"
    require(good >= 1, "run", "have at least one finite record", but)
    # Of a run that has not recorded ‖Z‖, landmarks do not tell it.
    Z = found["knowledge_norm"] if "knowledge_norm" in found else np.full((len(t), 1), np.nan)
    return t[:good], values[:good], np.asarray(Z, float)[:good]


def _landmarks(source: _Source, points: Sequence[_Point]) -> tuple[Landmark, ...]:
    if not points:
        return ()
    dt, steps = PAPER_DT if source.dt is None else float(source.dt), source.steps
    return tuple(
        Landmark(
            layer=point.column + 1,
            t=float(point.t),
            step=float(np.interp(point.t, steps, np.arange(len(steps)))),
            K=1 + float(point.t) / dt,
            value=float(point.value),
            knowledge_norm=norm,
            direction=point.direction,
            interior=point.interior,
            kind=point.kind,
        )
        for point, norm in zip(points, source.knowledge_norms(points), strict=True)
    )
