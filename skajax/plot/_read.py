"""What is read off a run before it is drawn, and refused where it does not fit."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from skajax._checks import require
from skajax._types import Float
from skajax.landmarks import PAPER_DT
from skajax.observables import LABELS
from skajax.trajectory import Trajectory

PER_LAYER = tuple(name for name in LABELS if name != "output_mean")
TENSOR_NETS = tuple(name for name in PER_LAYER if name.startswith("tensor_net"))
SIGNED = ("entropy_rate", "dissipation", "transport", "alignment", "lagrangian", *TENSOR_NETS)


def check_observable(observable: str, among: Sequence[str] = PER_LAYER) -> None:
    """Refuse a name that is none of these."""
    require(observable in among, "observable", f"be one of {list(among)}", f"it was {observable!r}")


def one_run(run: Trajectory, argument: str = "run") -> Trajectory:
    """One run, up to where it failed if it did: under ``jax.vmap``, NaN comes after that."""
    t = np.asarray(run.t)
    require(
        t.ndim == 1,
        argument,
        "be one run",
        f"its times have the shape {t.shape} (of a batch of runs, take one:"
        " jax.tree.map(lambda a: a[0], runs); plot.ensemble draws them all)",
    )
    records = [np.asarray(getattr(run, name)) for name in LABELS]
    finite = np.isfinite(t) & np.logical_and.reduce([np.isfinite(r).all(-1) for r in records])
    keep = len(t) if finite.all() else int(np.argmin(finite))
    require(
        keep >= 1, argument, "have at least one finite record", f"there was none among {len(t)}"
    )
    if keep == len(t):
        return run
    fields = ("t", *LABELS)
    return dataclasses.replace(run, **{name: getattr(run, name)[:keep] for name in fields})


def times(run: Trajectory) -> Float[np.ndarray, " times"]:
    """The times of the records, float64."""
    return np.asarray(run.t, float)


def series(run: Trajectory, observable: str) -> Float[np.ndarray, "*lanes times layers"]:
    """An observable of every record, float64; no alignment, NaN, where nothing flows.

    The published rule's first record has no flow, and so no direction: the 0 that stands there for
    the cosine is no measurement, and would be drawn as a fall from 1.
    """
    values = np.asarray(getattr(run, observable), float)
    if observable == "alignment":
        return np.where(np.asarray(run.flow_norm) > 0, values, np.nan)
    return values


def step_size(run: Trajectory) -> float | None:
    """The time step, if the method has one."""
    return float(run.parameters["dt"]) if "dt" in run.parameters else None


def pass_length(run: Trajectory) -> float:
    """The time between the paper's passes, K = 1 + t / Δt: of a method without Δt, the paper's."""
    return step_size(run) or PAPER_DT


def batch(
    runs: Trajectory, observable: str
) -> tuple[Float[np.ndarray, " times"], Float[np.ndarray, "lanes times layers"]]:
    """The times that all lanes share, and each lane's observable; NaN after a failure."""
    t = np.asarray(runs.t, float)
    require(
        t.ndim == 2 and t.size > 0,
        "runs",
        "be a batch of runs with one axis in front, as jax.vmap makes it",
        f"its times have the shape {t.shape}",
    )
    shared = np.where(np.isfinite(t), t, -np.inf).max(axis=0)
    require(
        bool((np.isnan(t) | (t == shared)).all()),
        "runs",
        "be recorded at the same times, because quantiles are taken at each",
        "its lanes differ in t",
    )
    values = series(runs, observable)
    recorded = np.isfinite(shared)
    return shared[recorded], values[:, recorded]
