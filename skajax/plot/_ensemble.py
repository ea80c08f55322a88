"""Ensembles: what is read off one run or many, and how many are drawn: a median and quantile bands."""

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, Union

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from skajax._checks import require
from skajax._types import Float
from skajax.methods._outcome import Code
from skajax.plot._read import directed, one_run, series, step_size, times
from skajax.plot._style import GREY
from skajax.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray

Runs: TypeAlias = Union[Trajectory, "xarray.Dataset"]
"""A run; or an ensemble: runs by ``jax.vmap``, or a dataset of ``skajax.sweep``, of any axes,
on its own times or those of ``skajax.on_times``."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_OUTER, _INNER = 0.16, 0.28


class Curves(NamedTuple):
    """One run, or many recorded at the same times."""

    t: Float[np.ndarray, " times"]
    values: Float[np.ndarray, "runs times curves"]
    """NaN where a run has failed."""
    failed: int
    dt: float | None
    """The step of them all, if there is one."""


def is_ensemble(runs: object) -> bool:
    """Whether these are runs, and not one."""
    return not isinstance(runs, Trajectory) or np.ndim(runs.t) > 1


def read(runs: Runs, observable: str, argument: str = "runs") -> Curves:
    """An observable of one run, up to its failure, or of many at the times that they share."""
    if not isinstance(runs, Trajectory):
        return _of_sweep(runs, observable, argument)
    if not is_ensemble(runs):
        run = one_run(runs, argument)
        return Curves(times(run), series(run, observable)[None], 0, step_size(run))
    t, values = np.asarray(runs.t, float), series(runs, observable)
    failed = ~np.asarray(runs.outcome.completed | runs.outcome.stopped)
    values = values.reshape(-1, *values.shape[-2:])
    steps = runs.parameters.get("dt", np.nan)
    return _together(t.reshape(-1, t.shape[-1]), values, failed, steps, argument)


def _of_sweep(data: "xarray.Dataset", observable: str, argument: str) -> Curves:
    if "time" in getattr(data, "dims", ()) and "record" not in data.dims:  # of ska.on_times
        data = data.rename_dims(time="record").rename_vars(time="t")
    require(
        {"t", "outcome_code", observable} <= set(getattr(data, "variables", ())),
        argument,
        f"be a run, a batch of runs or a sweep's dataset, with t, outcome_code and {observable}",
        f"it was {type(data).__name__}",
    )
    rest = ("record", "output" if observable == "output_mean" else "layer")
    lanes = {dim: data.sizes[dim] for dim in data[observable].dims if dim not in rest}

    def flat(name: str) -> np.ndarray:  # one axis for all lanes, in front
        tail = {dim: data.sizes[dim] for dim in rest if dim in data[name].dims}
        whole = data[name].variable.set_dims({**lanes, **tail})
        return whole.values.reshape(-1, *tail.values())

    values = np.asarray(flat(observable), float)
    if observable == "alignment":
        values = directed(values, flat("flow_norm"))
    failed = ~np.isin(flat("outcome_code"), (Code.COMPLETED, Code.STOPPED))
    steps = data["parameter_dt"].values if "parameter_dt" in data else np.nan
    return _together(np.asarray(flat("t"), float), values, failed, steps, argument)


def _together(
    t: Float[np.ndarray, "runs times"],
    values: Float[np.ndarray, "runs times curves"],
    failed: np.ndarray,
    steps: Any,
    argument: str,
) -> Curves:
    require(t.size > 0, argument, "hold at least one record", "there was none")
    known = np.isfinite(t)
    recorded = known.any(axis=0)
    t, known, values = t[:, recorded], known[:, recorded], values[:, recorded]
    shared = np.where(known, t, -np.inf).max(axis=0)
    require(
        bool((~known | (t == shared)).all()),
        argument,
        "be recorded at the same times, because quantiles are taken at each",
        "its lanes differ in t (of a sweep over dt, choose one: data.sel(dt=...))",
    )
    steps = np.unique(np.asarray(steps, float))
    dt = float(steps[0]) if len(steps) == 1 and np.isfinite(steps[0]) else None
    return Curves(shared, values, int(np.sum(failed)), dt)


def quantiles(values: Float[np.ndarray, "runs *points"]) -> Float[np.ndarray, "5 *points"]:
    """5, 25, 50, 75 and 95 % of the runs that have a number there; NaN where none has."""
    finite = np.isfinite(values)
    known = finite.any(axis=0)
    found = np.full((len(QUANTILES), *known.shape), np.nan)
    some = np.where(finite, values, np.nan)[:, known]
    found[:, known] = np.nanquantile(some, QUANTILES, axis=0)
    return found


def draw(
    ax: Axes,
    x: Float[np.ndarray, " points"],
    values: Float[np.ndarray, "runs points"],
    *,
    bands: int = 2,
    **style: Any,
) -> Any:
    """The curve of one run; of many the median, upon one band (5 to 95 %) or two (25 to 75 %)."""
    if len(values) == 1:
        return ax.plot(x, values[0], **style)[0]
    outer_low, low, median, high, outer_high = quantiles(values)
    zorder = style.pop("zorder", 3)
    band: dict[str, Any] = {"color": style["color"], "linewidth": 0, "zorder": 2}
    ax.fill_between(x, outer_low, outer_high, alpha=_OUTER, **band)
    if bands > 1:
        ax.fill_between(x, low, high, alpha=_INNER, **band)
    return ax.plot(x, median, zorder=zorder, **style)[0]


def band_key(*drawn: Curves, bands: int = 2) -> list[Patch]:
    """What the bands are, for a legend; nothing if there are none."""
    many = [curves for curves in drawn if len(curves.values) > 1]
    if not many:
        return []
    counts = sorted({len(curves.values) for curves in many})
    runs = f"{counts[0]} runs" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} runs"
    failed = sum(curves.failed for curves in many)
    runs += f", {failed} failed" if failed else ""
    style: dict[str, Any] = {"color": GREY, "linewidth": 0}
    outer = f"5–95 % of\n{runs}" if bands == 1 else "5–95 %"
    patches = [Patch(alpha=0.4, label=outer, **style)]
    if bands > 1:
        patches.insert(0, Patch(alpha=0.8, label=f"25–75 % of\n{runs}", **style))
    return patches
