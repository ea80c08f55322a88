"""What follows from :func:`skajax.study.work_precision`: a default, a table, float32's floor."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from skajax._checks import require, require_positive
from skajax._types import Float
from skajax.study.work_precision import numbers

__all__ = ["Recommendation", "cost_table", "precision_floor", "recommend"]

TARGETS = (2e-3, 1e-4, 1e-6)
"""Errors to reach, relative, of the weights."""


class Recommendation(NamedTuple):
    """The cheapest setting that reaches an error wherever it was tried."""

    solver: str
    setting: float
    """rtol; or of constant steps, how many evaluations they may spend."""
    error: float
    """Of the weights, relative: the largest over end times and scales."""
    cost: float
    """Over all end times and scales together."""


def recommend(
    data: xr.Dataset,
    target: float,
    *,
    precision: str = "float32",
    cost: str = "evaluations",
    kind: str | None = "adaptive",
) -> Recommendation | None:
    """The cheapest setting that reaches an error, by this rule; None where there is none.

    A setting qualifies if its error of the weights is at most ``target`` at *every* end time and
    scale of the dataset, and so is that of the next finer setting of its solver, if there is one:
    a single small error may be luck, where two curves happened to cross. Of those that qualify,
    the one with the smallest ``cost`` ("evaluations" or "seconds"), summed over end times and
    scales; of equals, the first. ``kind`` is "adaptive", "fixed", or None for both.

    Evaluations do not depend on the machine or its load; seconds are those of one machine.

    >>> data = ska.study.work_precision(network, weights, x)  # doctest: +SKIP
    >>> ska.study.recommend(data, target=1e-4)  # doctest: +SKIP
    """
    require_positive("target", target, "an error to reach")
    _check_cost(cost)
    require(kind in ("adaptive", "fixed", None), "kind", "be adaptive, fixed or None", f"{kind!r}")
    require(
        precision in data["precision"].values,
        "precision",
        f"be one of the dataset's, {list(data['precision'].values)}",
        f"it was {precision!r}",
    )
    cases = data.sel(precision=precision).stack(case=("scale", "T"))
    found = []
    for label in data["solver"].values:
        if kind is not None and str(data["kind"].sel(solver=label).item()) != kind:
            continue
        solver = cases.sel(solver=label)
        worst = solver["error"].max("case", skipna=False).values
        costs = solver[cost].sum("case", skipna=False).values
        for level in _reaches(worst, target):
            if np.isfinite(costs[level]):
                setting = float(solver["setting"].values[level])
                error, paid = float(worst[level]), float(costs[level])
                found.append(Recommendation(str(label), setting, error, paid))
    return min(found, key=lambda r: r.cost, default=None)


def _reaches(errors: Float[np.ndarray, " levels"], target: float) -> list[int]:
    """Levels, ordered from coarse to fine, that meet the target, as does the next one, if any."""
    tried = np.flatnonzero(~np.isnan(errors))
    met = dict(zip(tried.tolist(), (errors[tried] <= target).tolist(), strict=True))
    return [level for level in met if met[level] and met.get(level + 1, True)]


def precision_floor(data: xr.Dataset) -> xr.Dataset:
    """How small an error float32 gets, and at which setting of each solver it stops following.

    Over (scale, T): ``floor``, the smallest error of the weights that any solver reached in float32;
    with also ``solver``: ``from_setting``, the coarsest setting from which on float32's error is
    more than twice that of float64, NaN where it never is; and ``error`` there. Rounding has taken
    over, and a finer setting only costs more.

    ``data``: what :func:`work_precision` returns, with both precisions. Raises ValueError otherwise.

    >>> data = ska.study.work_precision(network, weights, x)  # doctest: +SKIP
    >>> ska.study.precision_floor(data)  # doctest: +SKIP
    """
    have = data["precision"].values.tolist()
    require(set(have) == {"float32", "float64"}, "data", "hold both precisions", f"it holds {have}")
    single, double = (data["error"].sel(precision=p, drop=True) for p in ("float32", "float64"))
    both = single.notnull() & double.notnull()
    apart = (single > 2 * double) | ~both
    # From which level on they stay apart: counted from the finest.
    onward = apart.isel(level=slice(None, None, -1)).cumprod("level")
    stays = onward.isel(level=slice(None, None, -1)).astype(bool) & both
    first, some = stays.argmax("level"), stays.any("level")
    return xr.Dataset(
        {
            "floor": single.min(("solver", "level")),
            "from_setting": data["setting"]
            .isel(level=first)
            .where(some)
            .drop_vars(["level", "setting"]),
            "error": single.isel(level=first).where(some).drop_vars(["level", "setting"]),
        }
    )


def cost_table(data: xr.Dataset, targets: Sequence[float] = TARGETS) -> str:
    """Markdown: what each solver pays for each error, a table an end time, scale and precision.

    A cell names the setting that :func:`recommend`'s rule allows and costs least there, its
    evaluations, milliseconds and rejected steps, if any.

    >>> print(ska.study.cost_table(ska.study.work_precision(network, weights, x)))  # doctest: +SKIP
    """
    targets = numbers("targets", targets, "an error to reach")
    parts = []
    for scale in data["scale"].values:
        for T in data["T"].values:
            for precision in data["precision"].values:
                case = data.sel(scale=scale, T=T, precision=precision)
                parts.append(_one_table(case, targets))
    return "\n\n".join(parts)


def _one_table(case: xr.Dataset, targets: tuple[float, ...]) -> str:
    title = f"**T = {case['T'].item():g}, {case['precision'].item()}**"
    if case["scale"].item() != 1:
        title += f", initial weights times {case['scale'].item():g}"
    heads = ["solver", *(f"error ≤ {t:g}" for t in targets), "smallest error", "compile, s"]
    lines = [title, "", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for label in case["solver"].values:
        solver = case.sel(solver=label)
        errors = solver["error"].values
        cells = [_cell(solver, _reaches(errors, target)) for target in targets]
        least = f"{np.nanmin(errors):.1e}" if np.isfinite(errors).any() else "none finished"
        compiling = solver["compile_seconds"].item()
        compiling = f"{compiling:.1f}" if np.isfinite(compiling) else "–"
        lines.append(f"| {' | '.join([str(label), *cells, least, compiling])} |")
    return "\n".join(lines)


def _cell(solver: xr.Dataset, levels: list[int]) -> str:
    if not levels:
        return "–"
    costs = solver["evaluations"].values
    if np.isnan(costs[levels]).any():  # a solver that does not count
        costs = solver["seconds"].values
    level = min(levels, key=lambda n: costs[n])
    at = solver.isel(level=level)
    adaptive = str(solver["kind"].item()) == "adaptive"
    how = f"rtol {at['setting'].item():g}" if adaptive else f"{at['steps'].item():.0f} steps"
    spent = at["evaluations"].item()
    paid = f"{spent:.0f} evaluations" if np.isfinite(spent) else "evaluations unknown"
    rejected = at["rejected"].item()
    again = f", {rejected:.0f} rejected" if rejected else ""
    taken = 1e3 * at["seconds"].item()
    taken = f", {taken:.0f} ms" if np.isfinite(taken) else ""
    return f"{paid}{taken} ({how}{again})"


def _check_cost(cost: str) -> None:
    require(
        cost in ("evaluations", "seconds", "steps"),
        "cost",
        "be evaluations, seconds or steps",
        f"it was {cost!r}",
    )
