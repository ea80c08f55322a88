"""``skajax info``: what a file or a folder that skajax has written holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

    from skajax.landmarks import Landmark
    from skajax.sweeps._store import Status, Store
    from skajax.trajectory import Trajectory

LISTED = 20
"""Failures that are told one by one."""
STUDIES = (
    "architectures", "experiments", "families", "intrinsic", "invariance", "net_control", "precision",
    "rules", "schedules", "separation", "setting", "synchronise", "tensor net", "work_precision",
)  # fmt: skip
"""What files of studies are called; experiments are those of reproduce."""


def info(path: str, /) -> int:
    """What a file or a folder that skajax has written holds.

    For example:

        skajax info run.nc
        skajax info lanes
        skajax info out

    Args:
        path: A run's, sweep's, study's or checkpoint's file; a sweep's, study's or reproduce's folder.
    """
    import skajax as ska
    from skajax._files import located
    from skajax.cli._config import precision

    where = located(path)
    with precision("float64"):
        if where.is_dir():
            _print_folder(path, where)
            return 0
        found = _dataset(path)
        form = found.attrs["format"]
        run = ska.load(path) if form.startswith("skajax trajectory") else None
        peaks = () if run is None else _peaks(run)
        print(_groups(where) if form.startswith("skajax experiments") else found)
        if run is not None:
            print(run)
        for peak in peaks:
            where = f"peaks at t = {peak.t:.4g}" if peak.interior else "has no peak within the run"
            print(f"layer {peak.layer}: flow {where}")
        if form.startswith("skajax sweep"):
            _print_outcomes(found)
        if form.startswith("skajax checkpoint"):
            count = found["record_0"].shape[0]
            print(
                f"{path}: a checkpoint; {count} records; the call that wrote it goes on from here"
            )
    return 0


def opened(path: str) -> Any:
    """A run; or the dataset of a sweep, from its folder or its file, or of a study."""
    import skajax as ska
    from skajax._files import located

    where = located(path)
    if where.is_dir():
        kept = sorted(where.glob("*.nc"))
        if (where / "sweep.json").exists() or len(kept) != 1:
            return ska.load_sweep(path)
        path = str(kept[0])
    form = str(_dataset(path).attrs.get("format", ""))
    return ska.load(path) if form.startswith("skajax trajectory") else _dataset(path)


def _dataset(path: str) -> "xr.Dataset":
    """The content of any NetCDF file that skajax has written."""
    from skajax._files import read_netcdf
    from skajax.methods._checkpoint import FORMAT as CHECKPOINT
    from skajax.sweeps._records import FORMAT as SWEEP
    from skajax.trajectory import FORMATS

    studies = [f"skajax {name} 1" for name in STUDIES]
    return read_netcdf(path, "path", *FORMATS, SWEEP, "skajax sweep 1", CHECKPOINT, *studies)


def _print_folder(path: str, where: Path) -> None:
    from skajax._checks import require
    from skajax.sweeps._store import Store

    if (where / "sweep.json").exists():
        return _print_store(Store.open(path))
    if (where / "claims.json").exists():
        return _print_claims(where / "claims.json")
    found, parts = sorted(where.glob("*.nc")), sorted(where.glob("*/*.nc"))
    must = "be a file or a folder that skajax has written: a run, a sweep, a study, a checkpoint"
    require(
        len(found) + len(parts) >= 1, "path", must, f"there was nothing of the kind in {path!r}"
    )
    for file in found:
        print(f"{file}: a study\n{_dataset(str(file))}")
    if not found:
        print(f"{path}: a study, not finished; the same command goes on from here")
    if parts:
        print(f"{len(parts)} files of settings")
    return None


def _print_claims(file: Path) -> None:
    """What reproduce has found."""
    import json
    from collections import Counter

    try:
        found = json.loads(file.read_bytes())
        claims = [(each["number"], each["verdict"], each["title"]) for each in found["claims"]]
        about = dict(found["setting"])
    except (ValueError, KeyError, TypeError) as error:
        must = "be a folder of skajax reproduce"
        raise ValueError(
            f"Argument path must {must}, but {str(file)!r} is damaged: {error!r}."
        ) from error
    print(f"{file.parent}: the paper, reproduced; read {file.with_suffix('.md')}")
    for name, value in about.items():
        print(f"  {name}: {value}")
    for number, verdict, title in claims:
        print(f"{number:>3}  {verdict:<30} {title}")
    counts = Counter(verdict for _, verdict, _ in claims)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))


def _groups(path: Path) -> str:
    """The runs that reproduce keeps, by name."""
    import xarray as xr

    with xr.open_datatree(path, engine="h5netcdf") as tree:
        lines = [f"{node.path}: {dict(node.sizes)}" for node in tree.leaves]
    return "\n".join(lines)


def counted(status: "Status") -> str:
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


def _print_store(store: "Store") -> None:
    status, manifest = store.status(), store.manifest
    print(f"{store.given}: a sweep; {counted(status)}, {status.chunks} chunks")
    for name, axis in manifest.axes.items():
        print(f"  axis {name}: {in_short(axis)}")
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


def _print_outcomes(data: "xr.Dataset") -> None:
    """How many lanes ended how."""
    from collections import Counter

    words = Counter(str(text).partition(":")[0] for text in data["outcome"].values.flat)
    print(", ".join(f"{count} {word}" for word, count in sorted(words.items())))


def _peaks(run: "Trajectory") -> "tuple[Landmark, ...]":
    """Of the flow, if there is one run that has recorded it."""
    from skajax import landmarks

    one = run.t.ndim == 1 and "flow_norm" in run.records and len(run.t) > 0
    return landmarks.peaks(run) if one else ()


def in_short(axis: "np.ndarray") -> str:
    labels = [str(label) for label in axis.tolist()]
    if len(labels) > 8:
        labels = [*labels[:3], "...", labels[-1]]
    return f"{len(axis)} values, {', '.join(labels)}"


def _ranges(numbers: list[int]) -> str:
    """Numbers in order, 3, 5-9, and not too many."""
    import numpy as np

    array = np.asarray(numbers)
    runs = np.split(array, np.flatnonzero(np.diff(array) > 1) + 1)
    words = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ", ".join(words if len(words) <= LISTED else [*words[:LISTED], "..."])
