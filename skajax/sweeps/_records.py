"""What lanes came to, as one labelled dataset: padded where one is longer than another."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from skajax._described import leaf_names
from skajax._messages import SkajaxWarning
from skajax._version import versions
from skajax.inputs import shape_of
from skajax.methods import Evolution
from skajax.methods._outcome import ENDED, Code
from skajax.observables import Observable
from skajax.system import System
from skajax.trajectory import scalars

if TYPE_CHECKING:
    import xarray

FORMAT = "skajax sweep 2"
NAMED = 3
"""Lanes that are named for a reason that several have."""


class LanesFailed(SkajaxWarning):
    """Some lanes of a sweep did not come to their ends; the rest did."""


class Row(NamedTuple):
    """What one lane came to: its variables, each an array with the names of its axes."""

    lane: int
    variables: Mapping[str, tuple[tuple[str, ...], np.ndarray]]
    observe: Sequence[Observable] = ()
    """What of them are observables."""


def row(
    lane: int,
    evolution: Evolution,
    parameters: Mapping[str, np.ndarray],
    system: System,
    observe: Sequence[Observable],
    *,
    final: bool,
) -> Row:
    """Of a lane that ran; ``final`` adds the state it ended in."""
    recorded = evolution.records.values
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "t": (("record",), np.asarray(evolution.t))
    }
    for each in observe:
        variables[each.name] = (("record", *each.dims), np.asarray(recorded[each.name]))
    rank = math.prod(shape_of(system.inputs).x.shape[1:])
    told = scalars(evolution.outcome, parameters, evolution.stats)
    for name, value in (told | {"rank": rank}).items():
        variables[name] = ((), np.asarray(value))
    variables["outcome"] = ((), np.asarray(str(evolution.outcome)))
    if final:
        leaves = jax.tree.leaves(evolution.final)
        for name, leaf in zip(leaf_names(evolution.final), leaves, strict=True):
            axes = tuple(f"{name}_{axis}" for axis in range(leaf.ndim))
            variables[name] = (axes, np.asarray(leaf))
    return Row(lane, variables, observe)


def refused(lane: int, error: Exception, place: str) -> Row:
    """Of a lane whose arguments were refused, or in which an error was raised: it made no step."""
    text, code = f"refused: {error}", Code.REFUSED
    if not isinstance(error, ValueError):
        text, code = f"raised {type(error).__name__}: {error}, in {place}", Code.RAISED
    # Whatever an error says must go into a file.
    text = text.replace("\0", "").encode(errors="backslashreplace").decode()
    return Row(lane, {
        "outcome": ((), np.asarray(text)), "outcome_code": ((), np.asarray(code)),
        **{name: ((), np.asarray(0)) for name in ("evaluations", "steps", "rejected")},
    })  # fmt: skip


def stacked(rows: Sequence[Row], attrs: Mapping[str, Any] | None = None) -> "xarray.Dataset":
    """Rows over one axis ``lane``; NaN where one has fewer records, layers or outputs than another."""
    import xarray as xr

    names: dict[str, tuple[str, ...]] = {}
    observed = {item.name: item for each in rows for item in each.observe}
    told = {name: item.describe() for name, item in observed.items()}
    told["t"] = {"long_name": "time", "units": "time"}
    sizes: dict[str, int] = {}
    for each in rows:
        for name, (axes, value) in each.variables.items():
            names[name] = axes
            for axis, size in zip(axes, value.shape, strict=True):
                sizes[axis] = max(sizes.get(axis, 0), size)
    variables = {}
    for name, axes in names.items():
        found = [each.variables.get(name, (axes, None))[1] for each in rows]
        shape = tuple(sizes[axis] for axis in axes)
        variables[name] = (("lane", *axes), _padded(found, shape), told.get(name, {}))
    coords: dict[str, Any] = {axis: np.arange(size) for axis, size in sizes.items()}
    if "layer" in sizes:
        coords["layer"] = np.arange(1, sizes["layer"] + 1)
    coords["lane"] = [each.lane for each in rows]
    data = xr.Dataset(
        variables, coords, {"format": FORMAT, **_devices(), **versions(), **(attrs or {})}
    )
    return data.set_coords("t") if "t" in data else data


def reason(outcome: str) -> str:
    """Why a lane ended, without which one it was."""
    return re.sub(r", in lane \d+ \(.*\)$", "", outcome)


def reasons(
    codes: Iterable[Any], outcomes: Iterable[str], place: Callable[[int], str]
) -> list[str]:
    """Why lanes did not come to their ends, a line for all whose reasons differ by numbers alone.

    ``codes`` and ``outcomes`` of all lanes, in order; those that have not been run are passed over.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for lane, (code, outcome) in enumerate(zip(codes, outcomes, strict=True)):
        if code not in (*ENDED, Code.MISSING):
            text = reason(outcome).rstrip(".")
            found.setdefault(re.sub(r"\d[\d.e+-]*", "0", text), []).append((lane, text))
    lines = []
    for lanes in found.values():
        count = f"{len(lanes)} {'lane' if len(lanes) == 1 else 'lanes'}"
        names = [place(lane) for lane, _ in lanes[:NAMED]]
        names += [f"{len(lanes) - NAMED} more"] if len(lanes) > NAMED else []
        lines.append(f"{count} {lanes[0][1]}; {', '.join(names)}")
    return lines


def assemble(
    data: "xarray.Dataset", axes: Mapping[str, Sequence[Any]], labels: Mapping[str, np.ndarray]
) -> "xarray.Dataset":
    """Lanes over their named axes; those that are not there have the outcome "missing"."""
    import xarray as xr

    if "steps" in axes:  # which tells what the statistic would
        data = data.drop_vars("steps", errors="ignore")
    shape = [len(values) for values in axes.values()]
    every = np.arange(math.prod(shape))
    if data.sizes["lane"] < len(every):
        missing = ~np.isin(every, data["lane"].values)
        data = data.reindex(lane=every)
        data["outcome"] = data["outcome"].where(~missing, "missing: not yet run")
        data["outcome_code"] = data["outcome_code"].where(~missing, Code.MISSING).astype(int)
    at, coords = np.argsort(data["lane"].values), set(data.coords) - {"lane"}

    def spread(item: xr.Variable) -> xr.Variable:
        if "lane" not in item.dims:
            return item
        item = item.transpose("lane", "record", "layer", "output", ..., missing_dims="ignore")
        values = item.values[at].reshape(*shape, *item.shape[1:])
        return xr.Variable((*axes, *item.dims[1:]), values, item.attrs)

    items = {name: spread(item) for name, item in data.variables.items() if name != "lane"}
    return xr.Dataset(items, attrs=data.attrs).set_coords(coords).assign_coords(labels)


def _padded(found: Sequence[np.ndarray | None], shape: tuple[int, ...]) -> np.ndarray:
    there = [value for value in found if value is not None]
    if len(there) == len(found) and all(value.shape == shape for value in there):
        return np.stack(there)
    kind = np.result_type(*there)
    kind = kind if np.issubdtype(kind, np.floating) else np.dtype(float)
    padded = np.full((len(found), *shape), np.nan, kind)
    for lane, value in enumerate(found):
        if value is not None:
            padded[(lane, *(slice(size) for size in value.shape))] = value
    return padded


def _devices() -> dict[str, str]:
    return {"device": ", ".join(sorted({device.device_kind for device in jax.devices()}))}
