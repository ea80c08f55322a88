"""What is read off a run before it is drawn, and refused where it does not fit."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from skajax._checks import require
from skajax._types import ArrayLike, Float
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
        " jax.tree.map(lambda a: a[0], runs); plot.ensemble and plot.history draw them all)",
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
    return directed(values, run.flow_norm) if observable == "alignment" else values


def directed(
    alignment: Float[np.ndarray, "*lanes times layers"],
    flow: Float[ArrayLike, "*lanes times layers"],
) -> Float[np.ndarray, "*lanes times layers"]:
    """The alignment where there is a flow to be aligned, NaN elsewhere."""
    return np.where(np.asarray(flow) > 0, alignment, np.nan)


def step_size(run: Trajectory) -> float | None:
    """The time step, if the method has one."""
    return float(run.parameters["dt"]) if "dt" in run.parameters else None
