"""``python -m skajax info``: what a file or a store holds."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skajax._files import located
from skajax.sweeps._store import Status, Store

if TYPE_CHECKING:
    import xarray as xr

LISTED = 20
"""Failures that are told one by one."""


def info(path: str) -> int:
    """Print it; 0 if it could be read."""
    where = located(path)
    if where.is_dir():
        _print_store(Store.open(path))
    elif not _print_sweep(where):
        _print_run(path)
    return 0


def counted(status: Status) -> str:
    """Lanes in words."""
    parts = [f"{status.done} of {status.lanes} lanes done"]
    parts += [f"{status.failed} failed"] if status.failed else []
    parts += [f"{status.refused} refused"] if status.refused else []
    return f"{', '.join(parts)}; {duration(status.seconds)} of computing"


def duration(seconds: float) -> str:
    """Seconds for people: 2 h 05 min."""
    if seconds < 59.5:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def _print_store(store: Store) -> None:
    status, manifest = store.status(), store.manifest
    print(f"{store.given}: a sweep; {counted(status)}, {status.chunks} chunks")
    for name, axis in manifest.axes.items():
        print(f"  axis {name}: {_in_short(axis)}")
    for name, each in manifest.arguments.items():
        print(f"  {name}: {each.text}")
    for name, value in manifest.attrs.items():
        print(f"  {name}: {value}")
    missing = store.missing()
    if missing:
        print(
            f"missing: lanes {_ranges(missing)}; the same sweep with this store goes on with them"
        )
    failures = store.failures()
    for lane, why in list(failures.items())[:LISTED]:
        print(f"{manifest.named(lane)}: {why}")
    if len(failures) > LISTED:
        print(f"... and {len(failures) - LISTED} more that failed")


def sweep_of(path: Path) -> "xr.Dataset | None":
    """The dataset of a sweep's file, as ``sweep.nc`` is one; None of any other."""
    import xarray as xr

    try:
        data = xr.load_dataset(path, engine="h5netcdf")
    except (OSError, KeyError, RuntimeError, AttributeError, ValueError, TypeError):
        return None  # of which what reads runs will say what it is
    return data if str(data.attrs.get("format", "")).startswith("skajax sweep") else None


def _print_sweep(path: Path) -> bool:
    """Whether the file holds a sweep's dataset."""
    data = sweep_of(path)
    if data is None:
        return False
    print(data)
    words, counts = np.unique(
        [str(text).partition(":")[0] for text in data["outcome"].values.flat], return_counts=True
    )
    print(", ".join(f"{count} {word}" for word, count in zip(words, counts, strict=True)))
    return True


def _print_run(path: str) -> None:
    import skajax as ska

    run = ska.load(path)
    print(run.to_dataset())
    for peak in ska.landmarks.peaks(run):
        where = f"peaks at t = {peak.t:.4g}" if peak.interior else "has no peak within the run"
        print(f"layer {peak.layer}: flow {where}")


def _in_short(axis: np.ndarray) -> str:
    labels = [str(label) for label in axis.tolist()]
    if len(labels) > 8:
        labels = [*labels[:3], "...", labels[-1]]
    return f"{len(axis)} values, {', '.join(labels)}"


def _ranges(numbers: list[int]) -> str:
    """Numbers in order, 3, 5-9, and not too many."""
    array = np.asarray(numbers)
    runs = np.split(array, np.flatnonzero(np.diff(array) > 1) + 1)
    words = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ", ".join(words if len(words) <= LISTED else [*words[:LISTED], "..."])
