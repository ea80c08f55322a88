"""What lanes came to, as one labelled dataset: padded where one is longer than another."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from skajax._version import versions
from skajax.methods import Evolution, Method
from skajax.methods._method import INVALID, Problem
from skajax.observables import LABELS
from skajax.simulate import numbers
from skajax.trajectory import scalars

if TYPE_CHECKING:
    import xarray

FORMAT = "skajax sweep 2"
MISSING = -3
"""The outcome code of a lane that has not been run."""


class Row(NamedTuple):
    """What one lane came to: its variables, each an array with the names of its axes."""

    lane: int
    variables: Mapping[str, tuple[tuple[str, ...], np.ndarray]]


def row(lane: int, evolution: Evolution, method: Method, problem: Problem, *, final: bool) -> Row:
    """Of a lane that ran; ``final`` adds the state it ended in."""
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "t": (("record",), np.asarray(evolution.t))
    }
    for name in LABELS:
        last = "output" if name == "output_mean" else "layer"
        variables[name] = (("record", last), np.asarray(getattr(evolution.records, name)))
    stats = dataclasses.replace(evolution.stats, rank=problem.x.shape[1])
    told = scalars(evolution.outcome, numbers(method, problem.x.dtype), stats)
    for name, value in told.items():
        variables[name] = ((), np.asarray(value))
    variables["outcome"] = ((), np.asarray(str(evolution.outcome)))
    if final:
        for path, leaf in jax.tree.leaves_with_path(evolution.final):
            name = "final_" + jax.tree_util.keystr(path, simple=True, separator="_")
            axes = tuple(f"{name}_{axis}" for axis in range(leaf.ndim))
            variables[name] = (axes, np.asarray(leaf))
    return Row(lane, variables)


def refused(lane: int, error: ValueError) -> Row:
    """Of a lane whose arguments were refused: it made no step."""
    text = f"refused: {error}"
    return Row(lane, {
        "outcome": ((), np.asarray(text)), "outcome_code": ((), np.asarray(INVALID)),
        **{name: ((), np.asarray(0)) for name in ("evaluations", "steps", "rejected")},
    })  # fmt: skip


def stacked(rows: Sequence[Row], attrs: Mapping[str, Any] | None = None) -> "xarray.Dataset":
    """Rows over one axis ``lane``; NaN where one has fewer records, layers or outputs than another."""
    import xarray as xr

    names: dict[str, tuple[str, ...]] = {}
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
        variables[name] = (("lane", *axes), _padded(found, shape), _attributes(name))
    coords: dict[str, Any] = {axis: np.arange(size) for axis, size in sizes.items()}
    if "layer" in sizes:
        coords["layer"] = np.arange(1, sizes["layer"] + 1)
    coords["lane"] = [each.lane for each in rows]
    data = xr.Dataset(
        variables, coords, {"format": FORMAT, **_devices(), **versions(), **(attrs or {})}
    )
    return data.set_coords("t") if "t" in data else data


def assemble(
    data: "xarray.Dataset", axes: Mapping[str, Sequence[Any]], labels: Mapping[str, Sequence[Any]]
) -> "xarray.Dataset":
    """Lanes over their named axes; those that are not there have the outcome "missing"."""
    import pandas as pd
    import xarray as xr

    shape = [len(values) for values in axes.values()]
    every = np.arange(int(np.prod(shape)))
    if data.sizes["lane"] < len(every):
        missing = ~np.isin(every, data["lane"].values)
        data = data.reindex(lane=every)
        data["outcome"] = data["outcome"].where(~missing, "missing: not yet run")
        data["outcome_code"] = data["outcome_code"].where(~missing, MISSING).astype(int)
    else:
        data = data.sortby("lane")
    index = pd.MultiIndex.from_product([range(size) for size in shape], names=list(axes))
    # Whatever the axes are called, "lane" among them.
    coords = xr.Coordinates.from_pandas_multiindex(index, "_lane")
    data = data.drop_vars("lane").rename_dims(lane="_lane").assign_coords(coords).unstack("_lane")
    order = [name for name in ("record", "layer", "output") if name in data.dims]
    return data.transpose(*axes, *order, ...).assign_coords(labels)


def labels_of(axes: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """What to call an axis's values: numbers and names as they are; of anything else, its text."""
    return {name: _labels(values) for name, values in axes.items()}


def _labels(values: Sequence[Any]) -> list[Any]:
    plain = all(isinstance(value, int | float | str | np.number) for value in values)
    return list(values) if plain else [str(value) for value in values]


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


def _attributes(name: str) -> dict[str, str]:
    if name == "t":
        return {"long_name": "time", "units": "time"}
    label = LABELS.get(name)
    return {} if label is None else {"long_name": label.text, "units": label.unit}


def _devices() -> dict[str, str]:
    return {"device": ", ".join(sorted({device.device_kind for device in jax.devices()}))}
