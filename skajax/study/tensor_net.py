"""Crossings of the Tensor Net over many initialisations: prediction against measurement."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from skajax import landmarks, timescales
from skajax._checks import is_whole, require
from skajax._files import netcdf, put
from skajax._progress import each
from skajax._types import Sign
from skajax._version import versions
from skajax.methods import Adaptive
from skajax.study.kept import check_settings, described, kept, open_folder
from skajax.study.settings import QUICK, Setting
from skajax.sweeps import grid, sweep
from skajax.timescales._tensor_net import MODES, TensorNet, answers

__all__ = ["tensor_net", "tensor_net_table"]

_PAPER = (256, 128, 64, 10)
SETTINGS = (
    Setting("mnist", 1000, _PAPER),
    Setting("digits", 150, _PAPER),
    Setting("breast_cancer", 150, _PAPER),
    Setting("mnist", 300, (64, 32)),
    Setting("mnist", 300, (128,) * 5),
)
"""The paper's own; its network on two other data sets; and two other networks."""

RTOL = 1e-3
EVERY = 2
"""Of the instants of the prediction, one in so many is a record of the run."""
REACH = 1.25
"""Runs go on for so many times the expected time of the last layer's peak of flow."""
SIGNS: tuple[Sign, ...] = ("published", "equation")
READ = ("tensor_net_rate", "tensor_net_rate_equation")
"""What is observed for either."""
OTHER = 2**30
"""A seed of the drawn weights, that is none of the simulated ones."""
COUNTS = 3
"""0, 1, and 2 or more crossings."""


def tensor_net(
    out: str | os.PathLike[str] | None = None,
    settings: Sequence[Setting] | None = None,
    *,
    seeds: int = 200,
    quick: bool = False,
) -> xr.Dataset:
    """How often each layer's Tensor Net crosses zero, and where, as simulated and as predicted before.

    Main arguments: a folder ``out``, or None to keep nothing; the settings, by default five: the paper's own,
    its network on two other data sets, and two other networks (``quick``: one small one); and how many
    ``seeds``, from 0 on.

    Each run is adaptive (Tsit5, rtol 1e-3, float32), with 65 records to 1.25 times the time at which the
    last flow is expected to peak. :func:`skajax.timescales.tensor_net` predicts it twice: from the weights
    that it begins with, and from the architecture alone, by as many drawings from another key.

    Over (setting, sign, seed, layer), for each of ``measured``, ``reduced`` and ``law`` (the reduced model
    and the law of one amplitude, from the weights), and over (setting, sign, draw, layer) for ``drawn`` (the
    reduced model, from the architecture): ``_count``, and ``_t`` and ``_norm``, time and ‖Z‖ of the last
    crossing, NaN where there is none. ``share``, p. ``expected`` (setting, sign, layer, crossings): the
    law's probability of 0, 1 and 2 crossings. Layers beyond a network's depth are NaN.

    In ``out``: a file a setting, written whole or not at all, so that the same call goes on where it was
    killed; ``tensor_net.nc``, and ``.md``, the table (:func:`tensor_net_table`). Raises ValueError for
    arguments that do not fit, and for a folder with the results of another study.

    Example::

        data = ska.study.tensor_net("tensor_net", quick=True, seeds=20)
        print(ska.study.tensor_net_table(data))

    >>> data = ska.study.tensor_net("tensor_net", quick=True, seeds=20)  # doctest: +SKIP
    """
    require(is_whole(seeds, 2), "seeds", "be a whole number, at least 2", f"it was {seeds!r}")
    chosen = check_settings(settings if settings is not None else QUICK[:1] if quick else SETTINGS)
    folder = open_folder(out)
    numbers = {**_NUMBERS, "seeds": int(seeds)}
    found = [
        kept(folder, "settings", one, numbers, partial(_setting, one, int(seeds)))
        for one in each(chosen, "settings", len(chosen))
    ]
    data = xr.concat(
        [row.drop_attrs() for row in found], "setting", join="outer", data_vars="all",
        coords="minimal", compat="override",
    )  # fmt: skip
    data = described(data, chosen).assign_attrs(format="skajax tensor net 1", **versions())
    if folder is not None:
        put(netcdf(data), folder / "tensor_net.nc")
        put(tensor_net_table(data).encode(), folder / "tensor_net.md")
    return data


_NUMBERS: Mapping[str, Any] = {"rtol": RTOL, "every": EVERY, "reach": REACH, "other": OTHER}


def _setting(setting: Setting, seeds: int) -> xr.Dataset:
    network, x = setting.network(), jnp.asarray(setting.inputs())
    known = timescales.spectrum(x, min(MODES, *x.shape))
    ends = timescales.predict(network, None, x, spectrum=known, draws=4).peak
    t1 = REACH * float(jnp.max(ends))
    drawn = answers(network, None, x, SIGNS, t1, known, jax.random.key(OTHER), seeds)
    times = np.append(np.asarray(drawn[0].t, float)[:-1:EVERY], t1)
    method = Adaptive(rtol=RTOL, atol=RTOL / 100)
    draw = lambda seed: network.init(jax.random.key(seed), x)
    lanes: Any = sweep(
        network, draw, x, method, t1, over=grid(seed=range(seeds)), save_at=times,
        observe=("knowledge_norm", *READ),
    )  # fmt: skip
    rows: dict[str, list[Any]] = {name: [] for name in ("measured", "reduced", "law", "share")}
    for seed in each(range(seeds), "seeds", seeds):
        run = lanes.sel(seed=seed)
        rows["measured"].append([_last(landmarks.crossings(run, name), network) for name in READ])
        foreseen = answers(network, draw(seed), x, SIGNS, t1, known)
        rows["reduced"].append([_answer(found, "reduced") for found in foreseen])
        rows["law"].append([_answer(found, "law") for found in foreseen])
        rows["share"].append(np.asarray(foreseen[0].share))
    laws = [[law.counts for law in found.expected or ()] for found in drawn]
    parts: dict[str, Any] = {
        "share": (("seed", "layer"), np.array(rows.pop("share"))),
        "expected": (("sign", "layer", "crossings"), np.array(laws)),
        "t1": t1,
    }
    stacks = {name: np.moveaxis(np.array(row), 0, 1) for name, row in rows.items()}
    stacks["drawn"] = np.array([_answer(found, "reduced") for found in drawn])
    for name, values in stacks.items():  # (sign, seed, part, layer) of runs
        lane = "draw" if name == "drawn" else "seed"
        values = np.moveaxis(values, 1, 2) if name == "drawn" else values
        for k, part in enumerate(("count", "t", "norm")):
            parts[f"{name}_{part}"] = (("sign", lane, "layer"), values[:, :, k])
    return xr.Dataset(parts, {"sign": list(SIGNS), "layer": 1 + np.arange(len(setting.widths))})


def _last(found: Sequence[landmarks.Landmark], network: Any) -> np.ndarray:
    """Of each layer how many crossings, and the last one's time and ‖Z‖: (part, layer)."""
    rows = []
    for layer in range(1, len(network.layers) + 1):
        own = [c for c in found if c.layer == layer]
        rows.append((len(own), own[-1].t, own[-1].knowledge_norm) if own else (0, np.nan, np.nan))
    return np.array(rows, float).T


def _answer(found: TensorNet, name: str) -> np.ndarray:
    """The same of a prediction: (part, *draws, layer)."""
    crossings = getattr(found, name)
    return np.stack([np.asarray(a, float) for a in (crossings.count, *crossings.last)])


def tensor_net_table(data: xr.Dataset) -> str:
    """Markdown: a line a layer of each setting and sign, and what it comes to.

    Counts are of seeds with 0, 1 and more crossings, as measured, and out of a hundred as expected of the
    architecture by the reduced model and by the law. From the weights: in how many seeds the number of
    crossings agrees, by the reduced model and by the law; of the last crossings that both have, how many are
    within 10 % in ‖Z‖ and in t (the law's ‖Z‖ within 15 %). p-values: chi-squared of the measured and
    the drawn counts, of the measured counts and the law, and Kolmogorov and Smirnov's of measured and drawn
    ‖Z‖ at the last crossing.

    >>> print(ska.study.tensor_net_table(ska.study.tensor_net(seeds=20, quick=True)))  # doctest: +SKIP
    """
    lines = [
        "| setting | sign | layer | measured 0, 1, 2 | drawn, % | law, % | count agrees | ‖Z‖ in 10 %"
        " | t in 10 % | law: count | law: ‖Z‖ in 15 % | χ² drawn | χ² law | KS ‖Z‖ |",
        "|" + "---|" * 14,
    ]
    for name in data["setting"].values:
        for sign in data["sign"].values:
            for layer in range(1, int(data["depth"].sel(setting=name)) + 1):
                one = data.sel(setting=name, sign=sign, layer=layer)
                lines.append(f"| {' | '.join([str(name), str(sign), str(layer), *_cells(one)])} |")
    return "\n".join([*lines, ""])


def _cells(one: xr.Dataset) -> list[str]:
    counts = {n: _counted(one[f"{n}_count"].values) for n in ("measured", "drawn")}
    agree = lambda n: float(np.mean(one[f"{n}_count"].values == one["measured_count"].values))
    expected = one["expected"].values
    percent = lambda values: ", ".join(f"{100 * v:.0f}" for v in values)
    return [
        ", ".join(map(str, counts["measured"])),
        percent(counts["drawn"] / counts["drawn"].sum()),
        percent(expected),
        f"{100 * agree('reduced'):.1f} %",
        _near(one["reduced_norm"], one["measured_norm"], 0.10),
        _near(one["reduced_t"], one["measured_t"], 0.10),
        f"{100 * agree('law'):.1f} %",
        _near(one["law_norm"], one["measured_norm"], 0.15),
        f"{homogeneous(counts['measured'], counts['drawn']):.2g}",
        f"{as_expected(counts['measured'], expected):.2g}",
        f"{alike(one['measured_norm'].values, one['drawn_norm'].values):.2g}",
    ]


def _counted(counts: np.ndarray) -> np.ndarray:
    return np.bincount(np.minimum(counts.astype(int), COUNTS - 1), minlength=COUNTS)


def _near(found: xr.DataArray, measured: xr.DataArray, limit: float) -> str:
    error = (found / measured - 1).values
    error = error[np.isfinite(error)]
    return f"{100 * np.mean(np.abs(error) <= limit):.0f} % of {error.size}" if error.size else "–"


def homogeneous(a: np.ndarray, b: np.ndarray) -> float:
    """The p-value that two samples' counts have one distribution, chi-squared."""
    from scipy.stats import chi2_contingency

    table = np.stack([a, b])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0
    found: Any = chi2_contingency(table, correction=False)
    return float(found.pvalue)


def as_expected(counts: np.ndarray, probability: np.ndarray) -> float:
    """The p-value of counts under given probabilities, chi-squared; 0 if what has none was counted."""
    from scipy.stats import chisquare

    possible = probability > 1e-6
    if counts[~possible].sum():
        return 0.0
    share = np.asarray(probability[possible], float)
    share /= share.sum()
    if share.size < 2:
        return 1.0
    return float(chisquare(counts[possible], counts.sum() * share).pvalue)


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """The p-value that two samples, without NaN, are of one distribution, Kolmogorov and Smirnov's."""
    from scipy.stats import ks_2samp

    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if not min(a.size, b.size):
        return 1.0
    found: Any = ks_2samp(a, b)
    return float(found.pvalue)
