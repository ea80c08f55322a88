"""What is read off a run before it is drawn, and refused where it does not fit."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from skajax._checks import require
from skajax._messages import nearest
from skajax._types import ArrayLike, Float
from skajax.observables import BY_NAME, PAPER, Observable
from skajax.trajectory import Trajectory

TENSOR_NETS = tuple(each.name for each in PAPER if each.name.startswith("tensor_net"))


def check_observable(observable: str, run: Any, among: Sequence[str] | None = None) -> Observable:
    """The observable of that name, a number a layer; refused if these runs have not recorded it."""
    known = recorded(run)
    if among is None:
        among = [name for name, each in known.items() if each.per_layer]
    but = f"it was {nearest(observable, among)}"
    require(observable in among, "observable", f"be one of {list(among)}", but)
    require(
        observable in known,
        "observable",
        f"be one that was recorded, {list(known)}",
        f"it was {observable!r}",
    )
    return known[observable]


def recorded(run: Any) -> dict[str, Observable]:
    """What a run has recorded, or a dataset of runs, by name; of several runs, what all have."""
    if isinstance(run, Trajectory):
        return {each.name: each for each in run.observe}
    if isinstance(run, Sequence):
        each = [recorded(one) for one in run]
        return {name: what for name, what in each[0].items() if all(name in e for e in each)}
    found = {}
    for name, item in run.data_vars.items():
        if "record" not in item.dims and "time" not in item.dims:
            continue
        dims = ("layer",) if "layer" in item.dims else (str(item.dims[-1]),)
        label, unit = item.attrs.get("long_name", ""), item.attrs.get("units", "1")
        made = Observable(str(name), _unread, label, "", unit, dims=dims)
        found[str(name)] = BY_NAME.get(str(name), made)
    return found


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
    finite = np.isfinite(t)
    for name in run.records:
        if name in BY_NAME:
            finite &= np.isfinite(np.asarray(run[name])).all(-1)
    keep = len(t) if finite.all() else int(np.argmin(finite))
    require(
        keep >= 1, argument, "have at least one finite record", f"there was none among {len(t)}"
    )
    if keep == len(t):
        return run
    return run.replace(t=run.t[:keep], **{name: run[name][:keep] for name in run.records})


def times(run: Trajectory) -> Float[np.ndarray, " times"]:
    """The times of the records, float64."""
    return np.asarray(run.t, float)


def series(run: Trajectory, observable: str) -> Float[np.ndarray, "*lanes times layers"]:
    """An observable of every record, float64; no alignment, NaN, where nothing flows.

    The published rule's first record has no flow, and so no direction: the 0 that stands there for
    the cosine is no measurement, and would be drawn as a fall from 1.
    """
    values = np.asarray(getattr(run, observable), float)
    if observable != "alignment" or "flow_norm" not in run.records:
        return values
    return directed(values, run.flow_norm)


def directed(
    alignment: Float[np.ndarray, "*lanes times layers"],
    flow: Float[ArrayLike, "*lanes times layers"],
) -> Float[np.ndarray, "*lanes times layers"]:
    """The alignment where there is a flow to be aligned, NaN elsewhere."""
    return np.where(np.asarray(flow) > 0, alignment, np.nan)


def step_size(run: Trajectory) -> float | None:
    """The time step, if the method has one."""
    return float(run.parameters["dt"]) if "dt" in run.parameters else None


def _unread(_: Any) -> Any:
    raise ValueError("a dataset has an observable's values, and not its function")
