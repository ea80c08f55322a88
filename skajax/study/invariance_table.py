"""What :func:`skajax.study.invariance` found, as a table to read."""

import math

import numpy as np
import xarray as xr

from skajax._checks import require
from skajax.observables import BY_NAME
from skajax.study.errors import order
from skajax.study.invariance import NORMS
from skajax.study.words import band, number, percent

__all__ = ["invariance_table"]


def invariance_table(data: xr.Dataset, *, norm: str = "l2") -> str:
    """Markdown: of every observable, rule by rule, errors at each step, order, and the step needed.

    Of the worst layer; over several seeds the median, with the 5 % and 95 % quantiles of the order.

    >>> found = ska.study.invariance(network, weights, x, pairs=[(0.05, 5), (0.025, 10)])  # doctest: +SKIP
    >>> print(ska.study.invariance_table(found))  # doctest: +SKIP
    """
    require(norm in NORMS, "norm", f"be one of {list(NORMS)}", f"it was {norm!r}")
    accuracy = data["accuracy"].item()
    seeds = data.sizes["seed"]
    parts = []
    for rule in data["rule"].values:
        case = data.sel(rule=rule, norm=norm)
        steps = [f"η = {dt:.3g}" for dt in data["dt"].values]
        heads = ["observable", *steps, "order", f"η for {percent(accuracy)}"]
        over = f"median of {seeds} seeds, " if seeds > 1 else ""
        lines = [f"**{rule}**: {over}worst layer", "", f"| {' | '.join(heads)} |"]
        lines.append("|" + "---|" * len(heads))
        for name in data["observable"].values:
            row = case.sel(observable=name)
            worst = row["error"].max("layer")
            cells = [percent(e) for e in worst.median("seed").values]
            orders = [order(data["dt"].values, e) for e in worst.transpose("seed", "pair").values]
            needed = row["needed_dt"].min(("layer", "seed")).item()
            last = f"{needed:.2g}" if math.isfinite(needed) else "–"
            lines.append(
                f"| {' | '.join([BY_NAME[str(name)].label, *cells, _orders(orders), last])} |"
            )
        met = data["verified_K"].sel(rule=rule).item()
        if math.isfinite(met):
            dt, error = (data[f"verified_{n}"].sel(rule=rule).item() for n in ("dt", "error"))
            judge = BY_NAME[data.attrs["judge"]].label
            lines += [
                "",
                f"Verified: η = {dt:.3g}, K = {met:.0f} leaves {percent(error, 3)} of the {judge}.",
            ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _orders(orders: list[float]) -> str:
    known = [value for value in orders if np.isfinite(value)]
    if not known:
        return "–"
    return band(known) if len(known) > 1 else number(known[0])
