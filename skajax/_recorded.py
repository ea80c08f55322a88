"""What is read off a run's records: of a Trajectory, of its dataset, or of one lane of a sweep's."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from skajax._checks import require
from skajax.methods._outcome import ENDED
from skajax.observables import Observables
from skajax.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray


class Recorded(NamedTuple):
    """The records of one run, in NumPy."""

    t: np.ndarray
    records: Observables
    per_layer: tuple[str, ...]
    """Names of the records that have one number a layer."""
    dt: float | None
    """The method's step, if it has one."""
    failure: str | None
    """Why the run failed, if it did."""


def recorded(run: "Trajectory | xarray.Dataset") -> Recorded:
    """The records; raises ValueError for what is no single run."""
    if not isinstance(run, Trajectory):
        return _of_dataset(run)
    require(
        np.ndim(run.t) == 1 and len(run.t) >= 1,
        "run",
        "be one run with at least one record",
        f"its times have the shape {np.shape(run.t)}"
        " (of a batch of runs, take one: jax.tree.map(lambda a: a[0], runs))",
    )
    per_layer = tuple(each.name for each in run.observe if each.per_layer)
    failure = None if int(run.outcome.code) in ENDED else str(run.outcome)
    return Recorded(np.asarray(run.t), run.records, per_layer, run.parameters.get("dt"), failure)


def _of_dataset(data: Any) -> Recorded:
    import xarray as xr

    ours = isinstance(data, xr.Dataset) and "outcome_code" in data
    require(ours, "run", "be a Trajectory, or a dataset of one", f"it was a {type(data).__name__}")
    lanes = data["outcome_code"].dims
    require(
        not lanes,
        "run",
        "be one run, or one lane of a sweep",
        f"it has lanes over {list(lanes)} (take one: data.isel({', '.join(f'{a}=0' for a in lanes)}))",
    )
    t = data["t"] if "t" in data.coords else data["time"]
    kept = np.isfinite(t.values)  # beside lanes with more records, NaN follows
    failed = int(data["outcome_code"]) not in ENDED
    failure = str(data["outcome"].item()) if failed and "outcome" in data else None
    but = "it has none" if failure is None else f"it has none ({failure})"
    require(bool(kept.any()), "run", "have at least one finite record", but)
    found = {str(name): item for name, item in data.items() if item.dims[:1] == t.dims}
    layered = {name: item for name, item in found.items() if item.dims[1:2] == ("layer",)}
    # Beside lanes of deeper networks, layers that are not there are NaN too.
    there = [
        np.isfinite(item.values).any(axis=(0, *range(2, item.ndim))) for item in layered.values()
    ]
    depth = max((1 + int(np.flatnonzero(each)[-1]) for each in there if each.any()), default=None)
    records = {
        name: item.values[kept][:, :depth] if name in layered else item.values[kept]
        for name, item in found.items()
    }
    per_layer = tuple(name for name, item in layered.items() if item.ndim == 2)
    dt = float(data.get("parameter_dt", np.nan))  # NaN where lanes have other methods
    dt = dt if np.isfinite(dt) else None
    return Recorded(t.values[kept], Observables(records), per_layer, dt, failure)
