"""Characteristic times read off a run: one frozen registry of definitions, each layer by layer.

The network has times of its own, those of one layer that holds all neurons: its entropy and Tensor
Net are the sums over the layers, its ‖Z‖ and ‖Φ‖ the roots of the sums of squares.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax import landmarks, stop
from skajax._checks import as_number, is_traced, require, require_positive
from skajax._types import Array, Float
from skajax._version import versions
from skajax.observables import Observables
from skajax.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray


class Times(NamedTuple):
    """What a definition finds in a run."""

    t: Float[np.ndarray, " layers"]
    """One time a layer; NaN where the run has none."""
    reasons: tuple[str, ...]
    """Why there is none, one text a layer; "" where there is."""
    network: float = np.nan
    """That of the network as a whole."""
    network_reason: str = "the definition is one of single layers"
    """Why there is none."""


@dataclasses.dataclass(frozen=True)
class Definition:
    """One way to read a time off a run: ``read`` takes a :class:`skajax.Trajectory`, gives Times.

    >>> [definition.name for definition in ska.timescales.DEFINITIONS.values()][:2]
    ['flow_peak', 'entropy_rate_minimum']
    """

    name: str
    text: str
    """What it is, in words."""
    read: Callable[[Trajectory], Times]


def measure(
    run: Trajectory,
    definitions: Iterable[Definition] | None = None,
    *,
    lanes: Sequence[str] = (),
) -> "xarray.Dataset":
    """Every characteristic time of a run, by every definition, per layer and of the network.

    Main arguments: a run, or a batch of runs made by ``jax.vmap``, whose axes ``lanes`` names; and the
    definitions, those of :data:`DEFINITIONS` unless given. Of a dense run, peaks and crossings are
    exact (:mod:`skajax.landmarks`); of any other they are as fine as its records.

    Returns a Dataset over (definition, layer), the lanes in front: ``time``, NaN where the run has none,
    and ``reason``, which says why; over (definition,) ``network_time`` and ``network_reason``. A lane
    of a batch that has no finite record has no times, for the reason that it ended.

    Works outside of jit, vmap and grad. Raises ValueError for a single run without a finite record, and
    arguments that do not fit.

    >>> found = ska.timescales.measure(run)
    >>> found.time.dims
    ('definition', 'layer')
    """
    import xarray as xr

    chosen = tuple(DEFINITIONS.values() if definitions is None else definitions)
    known = len(chosen) >= 1 and all(isinstance(one, Definition) for one in chosen)
    require(known, "definitions", "be at least one Definition", f"it was {definitions!r}")
    names = [one.name for one in chosen]
    require(len({*names}) == len(names), "definitions", "have a name each", f"it was {names}")
    require(isinstance(run, Trajectory), "run", "be a Trajectory", f"it was {type(run).__name__}")
    require(not is_traced(run), "run", "be known", "it was traced: measure outside of jit and vmap")
    lanes, shape = tuple(lanes), np.shape(run.t)[:-1]
    free = len({*lanes, "definition", "layer"}) == len(lanes) + 2
    require(
        len(lanes) == len(shape) and free,
        "lanes",
        f"name each of the run's {len(shape)} vmapped axes, none of them 'definition' or 'layer'",
        f"it was {lanes!r}",
    )
    runs = [
        run if lane == () else jax.tree.map(lambda a, at=lane: a[at], run)
        for lane in np.ndindex(shape)
    ]
    layers = run.entropy.shape[-1]
    found = [[_checked(one, _read(one, each, lanes), layers) for one in chosen] for each in runs]

    def array(read: Callable[[Times], Any], dtype: Any, *last: int) -> np.ndarray:
        values = [[read(times) for times in row] for row in found]
        return np.asarray(values, dtype).reshape(*shape, len(chosen), *last)

    each, whole = (*lanes, "definition", "layer"), (*lanes, "definition")
    unit = {"units": "time"}
    data = xr.Dataset(
        {
            "time": (each, array(lambda o: o.t, float, layers), unit),
            "reason": (each, array(lambda o: o.reasons, object, layers)),
            "network_time": (whole, array(lambda o: o.network, float), unit),
            "network_reason": (whole, array(lambda o: o.network_reason, object)),
        },
        {
            "definition": names,
            "text": ("definition", [one.text for one in chosen]),
            "layer": np.arange(1, layers + 1),
        },
    )
    about = {"method": run.method, "precision": str(run.entropy.dtype), "outcome": str(run.outcome)}
    return data.assign_attrs(about | versions())


def _read(definition: Definition, run: Trajectory, lanes: Sequence[str]) -> Times:
    """What a definition finds; in a lane that has failed from the start, nothing."""
    if lanes and not np.isfinite(np.asarray(run.entropy)).all(axis=-1).any():
        return _all(run, np.nan, str(run.outcome))
    return definition.read(run)


def residence(run: Trajectory) -> "xarray.DataArray":
    """The residence time ‖Z‖ / ‖Φ‖ over a run (eq. 5), in (time, layer), at the run's records.

    The time in which a layer's knowledge would change by as much as there is of it: 1 / λ while it
    grows like e^{λt}. NaN where nothing flows, as in the published rule's first record.

    >>> ska.timescales.residence(run).shape
    (101, 2)
    """
    import xarray as xr

    require(np.ndim(run.t) == 1, "run", "be one run", f"its times have the shape {np.shape(run.t)}")
    Z, flow = np.asarray(run.knowledge_norm, float), np.asarray(run.flow_norm, float)
    values = np.divide(Z, flow, out=np.full(Z.shape, np.nan), where=flow > 0)
    coords = {"time": np.asarray(run.t), "layer": np.arange(1, Z.shape[1] + 1)}
    named = {"long_name": "residence time", "units": "time"}
    return xr.DataArray(values, coords, ("time", "layer"), "residence", named)


def entropy_left(fraction: float) -> Definition:
    """When a layer's entropy has fallen to a fraction of that at the start: H(t) = fraction · H(0).

    >>> times = ska.timescales.entropy_left(0.5).read(run)
    >>> [f"{t:.1f}" for t in times.t]
    ['0.2', '2.3']
    """
    fraction = require_positive("fraction", fraction, "a fraction of the entropy, below 1")
    require(fraction < 1, "fraction", "be below 1", f"it was {fraction!r}")

    def read(run: Trajectory) -> Times:
        start = _value(run, _Whole("entropy"), 0.0)
        if start is None:
            return _all(run, np.nan, "the run has no record at t = 0")
        falls: dict[int, float] = {}
        for one in landmarks.crossings(run, _Above("entropy", fraction * start)):
            if one.direction < 0:
                falls.setdefault(one.layer - 1, one.t)
        left = _last(run, _Whole("entropy")) / start
        why = lambda column: f"{left[column]:.3g} of the entropy is left at the end"
        return _times([(falls.get(c, np.nan), why(c)) for c in range(len(start))])

    text = f"H(t) = {fraction:g} H(0): only so much of the entropy is left"
    return Definition(f"entropy_left_{fraction:g}", text, read)


def residence_at(t: float) -> Definition:
    """The residence time ‖Z‖ / ‖Φ‖ (eq. 5) at one instant.

    >>> times = ska.timescales.residence_at(0.5).read(run)
    >>> [f"{t:.1f}" for t in times.t]
    ['1.0', '0.6']
    """
    t = as_number(t)
    fits = isinstance(t, float) and 0 <= t < np.inf
    require(fits, "t", "be a time of the run", f"it was {t!r}")

    def read(run: Trajectory) -> Times:
        rate = _value(run, _Turnover(), t)
        if rate is None:
            return _all(run, np.nan, f"the run has no record at t = {t:g}")
        return _times([(1 / r if r > 0 else np.nan, "nothing flows") for r in rate])

    return Definition(f"residence_at_{t:g}", f"‖Z‖ / ‖Φ‖ at t = {t:g}", read)


def by_rule(rule: stop.Rule) -> Definition:
    """When a stop rule would have ended the run, each layer looked at alone, and all together.

    As fine as the run's records, of a dense run as eight samples in each of its steps.

    >>> times = ska.timescales.by_rule(ska.stop.FlowConverged(0.5)).read(run)
    >>> [f"{t:.1f}" for t in times.t]
    ['0.5', '4.1']
    """
    require(isinstance(rule, stop.Rule), "rule", "be a stop rule", f"it was {rule!r}")
    name = " | ".join(rule.names())

    def read(run: Trajectory) -> Times:
        fine = _finely(run)
        ends = []
        for columns in (*([c] for c in range(run.entropy.shape[-1])), slice(None)):
            parts = {
                each.name: fine[each.name][:, columns] for each in fine.observe if each.per_layer
            }
            ended = stop.compare(fine.replace(**parts), [rule])
            ends.append((ended["t"].item(), "the rule never holds"))
        return _times(ends)

    return Definition(name, f"{name} holds", read)


class _Whole(eqx.Module):
    """An observable of each layer, and, in the last place, of the network as a whole."""

    name: str = eqx.field(static=True)

    def __call__(self, observed: Observables) -> Any:
        each = getattr(observed, self.name)
        on = _library(each)
        each = on.asarray(each)
        if self.name.endswith("_norm"):
            squares = on.sum(each * each, axis=-1, keepdims=True)
            positive = squares > 0
            whole = on.where(positive, on.sqrt(on.where(positive, squares, 1)), 0)
        else:
            whole = on.sum(each, axis=-1, keepdims=True)
        return on.concatenate([each, whole], axis=-1)


class _Turnover(eqx.Module):
    """‖Φ‖ / ‖Z‖, one over the residence time: finite where nothing flows."""

    def __call__(self, observed: Observables) -> Any:
        flow, Z = _Whole("flow_norm")(observed), _Whole("knowledge_norm")(observed)
        on = _library(flow)
        return on.where(Z > 0, flow / on.where(Z > 0, Z, 1), 0)


class _Above(eqx.Module):
    """By how much an observable is above a level."""

    name: str = eqx.field(static=True)
    level: Float[Array | np.ndarray, " layers"]

    def __call__(self, observed: Observables) -> Any:
        values = _Whole(self.name)(observed)
        on = _library(values)
        return values - on.broadcast_to(on.asarray(self.level, values.dtype), values.shape)


class _Everything(eqx.Module):
    """All of the observables that a run recorded, in one row."""

    names: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, observed: Observables) -> Array:
        return jnp.concatenate([observed[name].reshape(-1) for name in self.names])


def _library(values: Any) -> Any:
    """JAX's NumPy for a solution's instants; NumPy itself for records, where nothing need compile."""
    return jnp if is_traced(values) else np


def _flow_peak(run: Trajectory) -> Times:
    return _extrema(landmarks.peaks(run, _Whole("flow_norm")), "the flow is largest")


def _entropy_rate_minimum(run: Trajectory) -> Times:
    found = landmarks.minima(run, _Whole("entropy_rate"))
    return _extrema(found, "the entropy falls fastest")


def _growth(run: Trajectory) -> Times:
    t, flow = landmarks.series(run, _Whole("flow_norm"))
    why = "the flow grows by less than the factor e before its peak"
    return _times([(_fastest_growth(t, column), why) for column in flow.T])


def _residence_minimum(run: Trajectory) -> Times:
    found = landmarks.peaks(run, _Turnover())
    start = float(landmarks.series(run, _Turnover())[0][0])

    def read(one: landmarks.Landmark) -> tuple[float, str]:
        if one.value <= 0:
            return np.nan, "nothing flows"
        ended = not one.interior and one.t > start
        return np.nan if ended else 1 / one.value, "the residence time still falls at the end"

    return _times([read(one) for one in found])


def _residence_at_flow_peak(run: Trajectory) -> Times:
    peaks = _flow_peak(run)
    times, reasons = [*peaks.t, peaks.network], [*peaks.reasons, peaks.network_reason]
    found = []
    for column, (t, why) in enumerate(zip(times, reasons, strict=True)):
        rate = None if np.isnan(t) else _value(run, _Turnover(), t)
        found.append((np.nan if rate is None else 1 / rate[column], why))
    return _times(found)


def _flow_converged(run: Trajectory) -> Times:
    tops = landmarks.peaks(run, _Whole("flow_norm"))
    level = 0.1 * np.asarray([one.value for one in tops])
    down: dict[int, float] = {}
    for one in landmarks.crossings(run, _Above("flow_norm", level)):
        if one.direction < 0 and one.t > tops[one.layer - 1].t:
            down.setdefault(one.layer - 1, one.t)
    flows = _last(run, _Whole("flow_norm"))

    def why(column: int) -> str:
        top = tops[column].value
        if top <= 0:
            return "nothing flows"
        return f"the flow is at {flows[column] / top:.3g} of its peak at the end"

    return _times([(down.get(c, np.nan), why(c)) for c in range(len(tops))])


def _tensor_net_crossing(run: Trajectory) -> Times:
    columns = run.entropy.shape[-1] + 1
    first: dict[int, float] = {}
    for one in landmarks.crossings(run, _Whole("tensor_net_rate")):
        first.setdefault(one.layer - 1, one.t)
    why = "the Tensor Net's rate keeps its sign"
    return _times([(first.get(column, np.nan), why) for column in range(columns)])


_BUILT_IN = (
    Definition("flow_peak", "‖Φ‖ is largest: knowledge flows fastest", _flow_peak),
    Definition("entropy_rate_minimum", "dH/dt is smallest: entropy falls fastest", _entropy_rate_minimum),
    Definition("growth", "the shortest time in which ‖Φ‖ grows by e: 1 / λ while z is small", _growth),
    entropy_left(0.5),
    Definition("residence_minimum", "‖Z‖ / ‖Φ‖ (eq. 5) at its smallest", _residence_minimum),
    Definition("residence_at_flow_peak", "‖Z‖ / ‖Φ‖ (eq. 5) where ‖Φ‖ peaks", _residence_at_flow_peak),
    Definition("tensor_net_crossing", "dNet/dt, in the published sign, crosses 0", _tensor_net_crossing),
    Definition("flow_converged", "‖Φ‖ has come down to a tenth of its peak", _flow_converged),
)  # fmt: skip
DEFINITIONS: Mapping[str, Definition] = MappingProxyType({one.name: one for one in _BUILT_IN})
"""The characteristic times that skajax knows. For others, give ``measure`` definitions of your own:
``measure(run, [*DEFINITIONS.values(), Definition("mine", "...", read)])``."""


def _fastest_growth(t: np.ndarray, flow: np.ndarray) -> float:
    """The shortest time in which a series grows by e, up to its peak; logarithms joined by lines.

    The shortest window begins or ends at a record: within the lines, its length moves evenly.
    """
    rising = slice(None, int(np.argmax(flow)) + 1)
    t, flow = t[rising], flow[rising]
    t, g = t[flow > 0], np.log(flow[flow > 0])
    shortest = np.nan
    for k in range(len(g)):
        ahead = np.flatnonzero(g[k:] >= g[k] + 1)
        behind = np.flatnonzero(g[: k + 1] <= g[k] - 1)
        if ahead.size:
            j = k + int(ahead[0])
            end = np.interp(g[k] + 1, g[j - 1 : j + 1], t[j - 1 : j + 1])
            shortest = np.fmin(shortest, end - t[k])
        if behind.size:
            j = int(behind[-1])
            start = np.interp(g[k] - 1, g[j : j + 2], t[j : j + 2])
            shortest = np.fmin(shortest, t[k] - start)
    return float(shortest)


def _extrema(found: Sequence[landmarks.Landmark], what: str) -> Times:
    ends = {False: "at the start of the run", True: "at the end of the run"}
    return _times(
        [(one.t if one.interior else np.nan, f"{what} {ends[one.step > 0]}") for one in found]
    )


def _times(found: Sequence[tuple[float, str]]) -> Times:
    """From a time, and why it would be missing, of every layer and, last, of the network."""
    said = [(t, "" if np.isfinite(t) else why) for t, why in found]
    times, reasons = zip(*said, strict=True)
    return Times(np.asarray(times[:-1], float), reasons[:-1], float(times[-1]), reasons[-1])


def _all(run: Trajectory, t: float, reason: str) -> Times:
    return _times([(t, reason)] * (run.entropy.shape[-1] + 1))


def _value(run: Trajectory, reading: Any, t: float) -> np.ndarray | None:
    """A reading at one time, between records on straight lines; None outside of them."""
    if run.dense:
        inside = 0 <= t <= float(run.final.t)
        return run.solution().read(reading, t)[0] if inside else None
    times, values = landmarks.series(run, reading)
    if not times[0] <= t <= times[-1]:
        return None
    return np.asarray([np.interp(t, times, column) for column in values.T])


def _last(run: Trajectory, reading: Any) -> np.ndarray:
    return landmarks.series(run, reading)[1][-1]


def _finely(run: Trajectory) -> Trajectory:
    """A dense run with records within all its steps; any other as it is."""
    if not run.dense:
        return run
    names = tuple(run.records)
    t, rows = landmarks.series(run, _Everything(names))
    shapes = [run[name].shape[1:] for name in names]
    parts = np.split(rows, np.cumsum([math.prod(shape) for shape in shapes])[:-1], axis=1)
    dtype = run.t.dtype
    records = {
        name: jnp.asarray(part.reshape(-1, *shape), dtype)
        for name, part, shape in zip(names, parts, shapes, strict=True)
    }
    return run.replace(t=jnp.asarray(t, dtype), **records)


def _checked(definition: Definition, times: Any, layers: int) -> Times:
    fits = isinstance(times, Times) and len(times.t) == len(times.reasons) == layers
    require(
        fits,
        f"definitions[{definition.name!r}]",
        f"give Times of {layers} layers",
        f"it gave {times!r}",
    )
    return times
