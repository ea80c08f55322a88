"""Inputs and targets of a run: a set of skajax.data, or a file of the user's."""

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import PydanticCustomError

from skajax._files import located
from skajax.cli._tables import File, Graph, Mnist, Set, Sklearn, Spectrum, Tfds
from skajax.cli._words import known, passed_on, refused

FILES = (".npy", ".npz", ".csv", ".tsv", ".nc")


def read_data(data: Set, folder: Path, dtype: str) -> tuple[Any, Any]:
    """``(x, y)``, x with the samples in front, in this precision; y None where there are no targets.

    What does not fit is raised as a PydanticCustomError at the key of ``data``.
    """
    try:
        x, y = _file(data, folder) if isinstance(data, File) else _set(data)
    except PydanticCustomError:
        raise
    except ValueError as error:
        raise passed_on(error) from error
    if data.flatten:
        x = x.reshape(len(x), -1)
    if y is not None and y.dtype.kind == "f":
        y = y.astype(dtype)
    if data.name == "text":
        return x, y  # numbers of characters
    return _scaled(x, data.scaling).astype(dtype), y


def _set(data: Set) -> tuple[Any, Any]:
    from skajax import data as sets

    given = data.model_dump(exclude={"name", "scaling", "flatten"})
    if isinstance(data, Mnist):
        return sets.mnist(data.per_class, data.layout, size=data.size)
    if isinstance(data, Sklearn):
        return sets.sklearn(data.name, data.layout, size=data.size)
    if isinstance(data, Tfds):
        return sets.tfds(given.pop("set"), **given)
    if isinstance(data, Graph):
        return sets.graph(data.graph)[:2]
    if isinstance(data, Spectrum):
        return sets.known_spectrum(**given), None
    return getattr(sets, data.name)(**given)[:2]


def _file(data: File, folder: Path) -> tuple[Any, Any]:
    """Arrays of a file, checked: at least one sample, numbers, finite."""
    path = folder / located(data.file)
    shown = repr(os.fspath(path))
    if path.suffix.lower() not in FILES:
        raise refused(
            f"name a file that ends in {', '.join(FILES)}", f"it was {data.file!r}", at="file"
        )
    if not path.exists():
        raise refused("name a file", f"there was none at {shown}", at="file")
    try:
        x, y = _read(path, data)
    except PydanticCustomError:
        raise
    except Exception as error:  # a damaged file makes the libraries fail in any way
        why = str(error) or type(error).__name__
        if "allow_pickle" in why:  # NumPy's advice, which would run what the file holds
            why = "it is of another kind, or holds objects of Python's"
        but = f"in {shown} nothing could be read: {why}"
        raise refused(f"name a whole file of the kind {path.suffix}", but, at="file") from error
    fits = x.ndim >= 2 and x.size >= 1 and x.dtype.kind in "fiub"
    if not fits:
        must, but = (
            "hold numbers of shape (samples, inputs, ...)",
            f"they were {x.dtype}, {x.shape}",
        )
        raise refused(must, f"in {shown} {but}", at="file")
    if y is not None and len(y) != len(x):
        but = f"in {shown} there were {len(y)} for {len(x)}"
        raise refused("hold a target for each sample", but, at="targets")
    if data.samples is not None and data.samples > len(x):
        must, but = f"be at most {len(x)}, as many as there are", f"it was {data.samples}"
        raise refused(must, but, at="samples")
    x, y = x[: data.samples], y if y is None else y[: data.samples]
    for key, values in (("file", x), ("targets", y)):
        wrong = [] if values is None else np.argwhere(~np.isfinite(values))
        if len(wrong):
            first = ", ".join(str(n) for n in wrong[0])
            raise refused(
                "hold finite numbers",
                f"in {shown} {len(wrong)} were not, the first at [{first}]",
                at=key,
            )
    return x, y


def _read(path: Path, data: File) -> tuple[Any, Any]:
    """Inputs and targets of a file, whichever its kind."""
    kind = path.suffix.lower()
    if kind == ".npy":
        for key in ("array", "targets"):
            if getattr(data, key) is not None:
                raise refused(
                    "be left out with .npy, which holds one array", "it was given", at=key
                )
        # Mapped: a header that promises more than the file has is found out before memory is taken.
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False)), None
    if kind == ".npz":
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return _chosen(arrays, arrays.files, data)
    if kind == ".nc":
        import xarray as xr

        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            return _chosen(dataset, [str(name) for name in dataset.variables], data)
    return _columns(path, "," if kind == ".csv" else "\t", data)


def _chosen(arrays: Any, names: list[str], data: File) -> tuple[Any, Any]:
    """The arrays of these names: x, or the only one; and the targets."""
    array = data.array or (names[0] if len(names) == 1 else "x")
    if data.array is None and array not in names:
        must = f"be one of {', '.join(map(repr, names))}"
        raise refused(must, "it was left out, and none is called 'x'", at="array")
    for key, name in (("array", array), ("targets", data.targets)):
        if name is not None:
            known("one of", name, names, at=key)
    return np.asarray(arrays[str(array)]), _targets(
        data.targets and np.asarray(arrays[data.targets])
    )


def _columns(path: Path, separator: str, data: File) -> tuple[Any, Any]:
    """Columns of a table; its first line has their names, unless it has numbers alone."""
    import pandas as pd

    shown = repr(os.fspath(path))
    lines = functools.partial(pd.read_csv, path, sep=separator)
    first = lines(header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0].tolist()
    for other in {";", "\t"} - {separator}:
        if any(other in name for name in first):
            must, but = f"have {separator!r} between its columns", f"in {shown} there was {other!r}"
            raise refused(must, but, at="file")
    numbers = [name for name in first if is_number(name)]
    counted = [[str(n + start) for n in range(len(numbers))] for start in (0, 1)]
    if len(numbers) == len(first):
        frame = lines(header=None)
        frame.columns = [str(n) for n in range(1, frame.shape[1] + 1)]
    elif numbers and numbers not in counted:
        must = "have a first line of names, or of numbers alone"
        raise refused(must, f"in {shown} it had {first[0]!r} ... {first[-1]!r}", at="file")
    else:
        frame = lines()
    names = [str(name) for name in frame.columns]
    if data.targets is not None:
        known("one of the columns", data.targets, names, at="targets")
    array = [data.array] if isinstance(data.array, str) else data.array
    chosen = list(array or [name for name in names if name != data.targets])
    for name in chosen:
        known("one of the columns", name, names, at="array")
        if len(frame) and frame[name].dtype.kind not in "fiub":
            but = f"in {shown} the column {name!r} has words (is it the targets? --targets {name})"
            raise refused("hold numbers in all columns that are inputs", but, at="file")
    for name in [*chosen, *([] if data.targets is None else [data.targets])]:
        wrong = np.flatnonzero(frame[name].isna() | frame[name].isin([np.inf, -np.inf]))
        if len(wrong):
            but = f"in {shown} the column {name!r} has none in row {wrong[0] + 1}"
            at = "targets" if name == data.targets else "file"
            raise refused("hold finite numbers", but, at=at)
    return frame[chosen].to_numpy(), _targets(
        None if data.targets is None else frame[data.targets].to_numpy()
    )


def _targets(y: Any) -> Any:
    """Classes, numbered where they are words; or values."""
    if y is not None and y.dtype.kind not in "fiub":
        y = np.unique(y, return_inverse=True)[1]
    return y if y is None or y.dtype.kind == "f" else y.astype(np.int32)


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _scaled(x: Any, scaling: Any) -> Any:
    """Divided by a number; or each input moved and divided by its range, or by its standard deviation."""
    if scaling is None:
        return x
    x = np.asarray(x, np.float64)
    if not isinstance(scaling, str):
        return x / scaling
    start = x.min(axis=0) if scaling == "range" else x.mean(axis=0)
    size = np.ptp(x, axis=0) if scaling == "range" else x.std(axis=0)
    return (x - start) / np.where(size > 0, size, 1)
