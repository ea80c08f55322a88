"""Recommended schedules, run: does the entropy come to what was wanted, as accurately as was wanted?"""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import xarray as xr

from skajax import timescales
from skajax._checks import require, require_positive
from skajax._files import netcdf, put
from skajax._progress import each
from skajax._simulate import simulate
from skajax._version import versions
from skajax.methods import Adaptive, Euler
from skajax.network import mlp
from skajax.study.kept import check_settings, described, kept, open_folder
from skajax.study.settings import QUICK, SETTINGS, Setting

__all__ = ["schedules", "schedules_table"]

NEAR = 0.10
"""How far the entropy may be from the wanted fraction of it, relative to that."""
RTOL = 1e-5
"""Of the solution that Euler's method is held against."""


def schedules(
    out: str | os.PathLike[str] | None = None,
    settings: Sequence[Setting] | None = None,
    *,
    fractions: Sequence[float] = (0.75, 0.5, 0.25),
    accuracy: float = 0.02,
    quick: bool = False,
) -> xr.Dataset:
    """Run what :func:`skajax.timescales.schedule` recommends, and see what is left of the entropy.

        left = Σ_l H^(l)(T) / Σ_l H^(l)(0) after K steps of Euler's method, of dt each,
        error = left / fraction - 1,    discretisation = max_l ‖Z_dt(T) - Z(T)‖ / ‖Z(T)‖.

    Main arguments: a folder ``out``, or None to keep nothing; the settings, by default those of
    :func:`architectures`; the fractions of the entropy that are to be left, and the relative error of Z
    that is asked for. The recommendation sees data and architecture alone, no weights; Z(T) is
    solved adaptively (Tsit5, rtol 1e-5).

    Over (setting, fraction): ``T``, ``dt`` and ``K``, as recommended; ``reached``, whether the fraction is
    predicted to be at all; ``left``, ``error`` and ``discretisation``.

    In ``out``: a file a setting, so that the same call goes on where it was killed, ``schedules.nc`` and
    ``.md``. Raises ValueError for arguments that do not fit.

    >>> found = ska.study.schedules(quick=True)  # doctest: +SKIP
    """
    chosen = check_settings(settings if settings is not None else QUICK if quick else SETTINGS)
    fits = len(fractions) >= 1 and all(0 < f < 1 for f in fractions)
    require(fits, "fractions", "lie inside (0, 1)", f"they were {fractions!r}")
    require_positive("accuracy", accuracy, "a relative error")
    folder = open_folder(out)
    numbers = {"fractions": list(fractions), "accuracy": accuracy, "rtol": RTOL}
    rows = [
        kept(folder, "scheduled", one, numbers, partial(_scheduled, one, fractions, accuracy))
        for one in each(chosen, "settings", len(chosen))
    ]
    joined = xr.concat(rows, "setting", combine_attrs="drop")
    data = described(joined, chosen).assign_attrs(
        format="skajax schedules 1", accuracy=accuracy, **versions()
    )
    if folder is not None:
        put(netcdf(data), folder / "schedules.nc")
        put(schedules_table(data).encode(), folder / "schedules.md")
    return data


def schedules_table(data: xr.Dataset) -> str:
    """Markdown: a line a setting, with each fraction's T, K, what was left, and Euler's error.

    >>> print(ska.study.schedules_table(ska.study.schedules(quick=True)))  # doctest: +SKIP
    """
    fractions = data["fraction"].values
    heads = [f"{f:g}: T, K, left, error of Z" for f in fractions]
    lines = [
        f"| setting | {' | '.join(heads)} |",
        "|---|" + "---|" * len(heads),
    ]
    for name in data["setting"].values:
        cells = []
        for f in fractions:
            one = data.sel(setting=name, fraction=f)
            late = "" if one["reached"] else " (not within reach)"
            cells.append(
                f"{one['T'].item():.3g}, {one['K'].item()}, {one['left'].item():.3f},"
                f" {100 * one['discretisation'].item():.1f} %{late}"
            )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    near, accuracy = abs(data["error"]) <= NEAR, data.attrs["accuracy"]
    fine = data["discretisation"] <= 1.25 * accuracy
    count = lambda true: f"{int(true.sum())} of {true.size}"
    lines += [
        "",
        f"Entropy within 10 % of the wanted fraction: {count(near)}.",
        *(
            f"- of {f:g}: {count(near.sel(fraction=f))}; beside it: "
            + (", ".join(_beside(data.sel(fraction=f))) or "none")
            for f in fractions
        ),
        f"Euler's error at most 1.25 times the {100 * accuracy:g} % asked for: {count(fine)}.",
    ]
    return "\n".join([*lines, ""])


def _beside(column: xr.Dataset) -> list[str]:
    """The settings that miss, and by how much."""
    missed = column["setting"].values[np.abs(column["error"].values) > NEAR]
    return [f"{name} ({100 * column['error'].sel(setting=name).item():+.0f} %)" for name in missed]


def _scheduled(one: Setting, fractions: Sequence[float], accuracy: float) -> xr.Dataset:
    network, x = one.network(), one.inputs()
    weights = network.init(jax.random.key(one.seed), x)
    plain = mlp(one.widths)  # weights tell a run their scale: one program for all scales
    found: list[dict[str, Any]] = []
    for fraction in fractions:
        wanted = timescales.schedule(network, x, fraction, accuracy=accuracy)
        run = simulate(plain, weights, x, Euler(wanted.dt), steps=wanted.K, observe=("entropy",))
        method = Adaptive(rtol=RTOL, atol=RTOL / 100)
        end = float(run.final.t)
        exact = simulate(plain, weights, x, method, end, save_at="end", observe=())
        entropy = np.asarray(run.entropy, float).sum(axis=1)
        norm = lambda a: float(np.linalg.norm(np.asarray(a, float)))
        apart = [norm(a - b) / norm(b) for a, b in zip(run.final.Z, exact.final.Z, strict=True)]
        left = entropy[-1] / entropy[0]
        found.append(
            {
                "T": float(wanted.T), "dt": float(wanted.dt), "K": wanted.K, "reached": bool(wanted.reached),
                "left": left, "error": left / fraction - 1, "discretisation": max(apart),
            }
        )  # fmt: skip
    columns = {name: ("fraction", [row[name] for row in found]) for name in found[0]}
    return xr.Dataset(columns, coords={"fraction": list(fractions)})
