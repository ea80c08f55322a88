"""What lanes came to, as one labelled dataset: padded where one is longer than another."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from skajax._described import leaf_names
from skajax._messages import SkajaxWarning
from skajax._simulate import numbers
from skajax._version import versions
from skajax.inputs import shape_of
from skajax.methods import AbstractMethod, Evolution
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
    attrs: Mapping[str, Mapping[str, str]] = {}
    """Of variables, what there is to say."""


def row(
    lane: int,
    evolution: Evolution,
    method: AbstractMethod,
    system: System,
    observe: Sequence[Observable],
    *,
    final: bool,
) -> Row:
    """Of a lane that ran; ``final`` adds the state it ended in."""
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "t": (("record",), np.asarray(evolution.t))
    }
    for each in observe:
        variables[each.name] = (("record", *each.dims), np.asarray(evolution.records[each.name]))
    stats = dataclasses.replace(
        evolution.stats, rank=math.prod(shape_of(system.inputs).x.shape[1:])
    )
    told = scalars(evolution.outcome, numbers(method, system.dtype), stats)
    for name, value in told.items():
        variables[name] = ((), np.asarray(value))
    variables["outcome"] = ((), np.asarray(str(evolution.outcome)))
    if final:
        leaves = jax.tree.leaves(evolution.final)
        for name, leaf in zip(leaf_names(evolution.final), leaves, strict=True):
            axes = tuple(f"{name}_{axis}" for axis in range(leaf.ndim))
            variables[name] = (axes, np.asarray(leaf))
    return Row(lane, variables, {each.name: each.describe() for each in observe})


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
    told: dict[str, Mapping[str, str]] = {"t": {"long_name": "time", "units": "time"}}
    sizes: dict[str, int] = {}
    for each in rows:
        told |= each.attrs
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
    import pandas as pd
    import xarray as xr

    if "steps" in axes:  # which tells what the statistic would
        data = data.drop_vars("steps", errors="ignore")
    shape = [len(values) for values in axes.values()]
    every = np.arange(int(np.prod(shape)))
    if data.sizes["lane"] < len(every):
        missing = ~np.isin(every, data["lane"].values)
        data = data.reindex(lane=every)
        data["outcome"] = data["outcome"].where(~missing, "missing: not yet run")
        data["outcome_code"] = data["outcome_code"].where(~missing, Code.MISSING).astype(int)
    else:
        data = data.sortby("lane")
    index = pd.MultiIndex.from_product([range(size) for size in shape], names=list(axes))
    # Whatever the axes are called, "lane" among them.
    every = "_".join(("lane", *axes))
    coords = xr.Coordinates.from_pandas_multiindex(index, every)
    data = data.drop_vars("lane").rename_dims(lane=every).assign_coords(coords).unstack(every)
    order = [name for name in ("record", "layer", "output") if name in data.dims]
    return data.transpose(*axes, *order, ...).assign_coords(labels)


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
