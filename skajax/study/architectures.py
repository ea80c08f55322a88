"""Characteristic times over many architectures and data: prediction against measurement."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from skajax import landmarks, timescales
from skajax._files import image, netcdf, put
from skajax._messages import unwarned
from skajax._progress import each
from skajax._simulate import simulate
from skajax._types import Float, Weights
from skajax._version import versions
from skajax.entropy import hidden_growth
from skajax.methods import Adaptive
from skajax.network import Network, mlp
from skajax.plot import predicted_times
from skajax.study.causes import FIRST, HIDDEN, causes
from skajax.study.kept import check_settings, described, kept, open_folder
from skajax.study.settings import QUICK, SETTINGS, Setting
from skajax.trajectory import Trajectory

__all__ = ["architectures", "table"]

RTOL = 1e-4
RECORDS = 192
"""Evenly spaced in ln t: 5 % apart, and the parabola through three is much finer."""
REACH = 3.0
"""A run goes on for so many times the time in which the slowest layer's knowledge would grow to 3."""
DONE = 0.7
"""It is made twice as long for as long as a layer's last flow is above this fraction of its peak,"""
DOUBLINGS = 5
"""but not more often."""
NAMES = tuple(name for name in timescales.DEFINITIONS if name != "flow_converged")
"""Of the characteristic times that are measured: runs end before the flow has converged."""


def architectures(
    out: str | os.PathLike[str] | None = None,
    settings: Sequence[Setting] | None = None,
    *,
    quick: bool = False,
) -> xr.Dataset:
    """When the layers of many networks learn, as simulated and as predicted before.

    Main arguments: a folder ``out``, or None to keep nothing, and the settings, by default
    :data:`skajax.study.settings.SETTINGS`, 53 of them, or ``QUICK``, three small ones.

    Each is solved adaptively (Tsit5, rtol 1e-4, float32) until every flow is past its peak, and every
    definition of :data:`skajax.timescales.DEFINITIONS` read off. What is predicted comes from
    :func:`skajax.timescales.predict`, from data and architecture alone: it sees no weights. Beside it,
    what it makes of the weights.

    Over (setting, layer), NaN beyond a network's depth: ``measured``, the time of peak flow; ``predicted``,
    its ``spread`` over draws, and ``error``, predicted / measured - 1; ``given`` and ``error_given``,
    the same from the weights; ``knowledge_error``, how far the predicted curve of ‖Z‖ is from the measured
    one at most, over its largest value; ``start``, the root mean square of z at t = 0;
    ``cause`` of a failure (:func:`skajax.study.causes.causes`), "" where the prediction is near enough.
    ``time`` and ``reason``, over (setting, definition, layer), are as :func:`skajax.timescales.measure`
    gives them. ``growth_predicted`` = 1 / λ of the first layer, by the spectrum of x xᵀ + 1.

    In ``out``: a file a setting, written whole or not at all, so that the same call goes on where it was
    killed; ``architectures.nc``, ``.md``, the table, and ``.png``, the figure. Files that were made by other
    numbers than this study's are refused with a ValueError, not mixed in.

    >>> data = ska.study.architectures("architectures", quick=True)  # doctest: +SKIP
    """
    chosen = check_settings(settings if settings is not None else QUICK if quick else SETTINGS)
    folder = open_folder(out)
    found = []
    for one in each(chosen, "settings", len(chosen)):
        measured = kept(folder, "measured", one, _NUMBERS["measured"], partial(_measured, one))
        predicted = kept(folder, "predicted", one, _NUMBERS["predicted"], partial(_predicted, one))
        found.append(_compared(measured, predicted))
    data = _assembled(chosen, found)
    if folder is not None:
        put(netcdf(data), folder / "architectures.nc")
        put(table(data).encode(), folder / "architectures.md")
        with matplotlib.rc_context({"backend": "agg"}):
            ax = predicted_times(data)
            figure = ax.get_figure(root=True)
            assert figure is not None
            put(image(figure), folder / "architectures.png")
            plt.close(figure)
    return data


def table(data: xr.Dataset) -> str:
    """Markdown: one line a setting, with each layer's measured and predicted peak, and what failed."""
    lines = [
        "| data | samples | widths | scale | inputs | peaks, measured | predicted | error, % | failures |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in data["setting"].values:
        row = data.sel(setting=name).isel(layer=slice(0, int(data["depth"].sel(setting=name))))
        each = lambda values, form: ", ".join(
            format(v, form) if np.isfinite(v) else "–" for v in values
        )
        failed = [f"layer {n}: {why}" for n, why in enumerate(row["cause"].values, 1) if why]
        cells = [
            row["data"].item(),
            f"{row['samples'].item()}",
            row["widths"].item(),
            f"{row['scale'].item():g}",
            f"{row['input_scale'].item():g}",
            each(row["measured"].values, ".3g"),
            each(row["predicted"].values, ".3g"),
            each(100 * row["error"].values, "+.0f"),
            "; ".join(failed),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_summary(data), ""])


def _summary(data: xr.Dataset) -> list[str]:
    """What it comes to, in sentences."""
    there = np.isfinite(data["start"].values)
    first = there & (data["layer"].values == 1)[None, :]
    linear = first & (data["start"].values < LINEAR)
    parts = (
        ("First layers that start in the linear regime, within 10 %", linear, FIRST),
        ("All first layers, within 10 %", first, FIRST),
        ("Hidden layers, within 15 %", there & ~first, HIDDEN),
    )
    near = lambda name, part, limit: int((np.abs(data[name].values)[part] <= limit).sum())
    apart = data["knowledge_error"].values[there]
    curves = (
        f"Curves of ‖Z‖ are apart by {100 * np.median(apart):.0f} % of their largest value in the median,"
        f" by at most 10 % in {int((apart <= 0.1).sum())} of {apart.size} layers."
    )
    lines = [
        f"{text}: {near('error', part, limit)} of {int(part.sum())};"
        f" with the weights given, {near('error_given', part, limit)}."
        for text, part, limit in parts
    ]
    return [*lines, curves]


LINEAR = 0.5
"""Root mean square of z: up to there D' is within 6 % of 1/4."""


_CURVES = ("flow_norm", "knowledge_norm", "entropy")
_NUMBERS: Mapping[str, Mapping[str, Any]] = {
    "measured": {
        "rtol": RTOL, "records": RECORDS, "reach": REACH, "done": DONE, "times": list(NAMES),
    },
    "predicted": {"draws": 4, "of": ["the architecture", "the weights"]},
}  # fmt: skip


def _problem(setting: Setting) -> tuple[Network, Weights, Float[np.ndarray, "samples inputs"]]:
    network, x = setting.network(), setting.inputs()
    return network, network.init(jax.random.key(setting.seed), x), x


def _measured(setting: Setting) -> xr.Dataset:
    """Times read off the run, and the curves themselves."""
    network, weights, x = _problem(setting)
    leading = float(timescales.spectrum(x, 1).rates[0])
    rates = [leading, *map(hidden_growth, setting.widths[:-1])]
    size = np.asarray([np.sqrt(np.mean(np.square(z))) for z in network.forward(weights, x)[0]])
    run = to_beyond_the_peaks(
        lambda end: _run(setting, weights, x, np.geomspace(0.03 / max(rates), end, RECORDS - 1)),
        float(np.max(REACH * np.log1p(3 / size) / rates)),
    )
    data = timescales.measure(run, [timescales.DEFINITIONS[name] for name in NAMES])
    more: dict[str, Any] = {n: (("record", "layer"), np.asarray(getattr(run, n))) for n in _CURVES}
    return data.assign(
        more
        | {
            "t": ("record", np.asarray(run.t)),
            "start": ("layer", size),
            "second_hump": ("layer", _second_humps(run)),
            "growth_predicted": 1 / leading,
            "evaluations": int(run.stats.evaluations or 0),
        }
    )


def to_beyond_the_peaks(make: Callable[[float], Trajectory], end: float) -> Trajectory:
    """A run long enough for every layer's flow to have come down, or as long as is tried."""
    doublings = 0
    while True:
        run = make(end)
        flows = np.asarray(run.flow_norm)
        down = (flows[-1] < DONE * flows.max(axis=0)).all()
        if down or not run.outcome.completed or doublings == DOUBLINGS:
            return run
        end, doublings = 2 * end, doublings + 1


def _run(setting: Setting, weights: Weights, x: Any, times: np.ndarray) -> Trajectory:
    # Weights tell a run all about their scale: settings that differ in theirs share one program.
    network = mlp(setting.widths)
    method = Adaptive(rtol=RTOL, atol=RTOL / 100)
    with unwarned():  # of saturated starts its table tells
        return simulate(network, weights, x, method, float(times[-1]), save_at=np.append(0, times))


def _second_humps(run: Trajectory) -> list[float]:
    """Each layer's second-highest local maximum of the flow, as a fraction of the highest."""
    start = np.asarray(run.flow_norm[0], float)
    heights: list[list[float]] = [[first] for first in start]  # the start is a maximum, or small
    for one in landmarks.peaks(run, "flow_norm", every=True):
        heights[one.layer - 1].append(one.value)
    ordered = [sorted(each) for each in heights]
    return [each[-2] / each[-1] if len(each) > 1 and each[-1] > 0 else 0.0 for each in ordered]


def _predicted(setting: Setting) -> xr.Dataset:
    """What is expected of weights drawn as the network draws them, with the curves; and of its own."""
    network, weights, x = _problem(setting)
    found = timescales.predict(network, None, x, draws=_NUMBERS["predicted"]["draws"])
    given = timescales.predict(network, weights, x)
    peak = lambda p: ("layer", np.where(p.inside, np.asarray(p.peak, float), np.nan))
    curve = lambda values: (("record", "layer"), np.asarray(values))
    return xr.Dataset(
        {
            "predicted": peak(found),
            "spread": ("layer", np.asarray(found.spread, float)),
            "given": peak(given),
            "t": ("record", np.asarray(found.t)),
            "flow_norm": curve(found.flow_norm),
            "knowledge_norm": curve(found.knowledge_norm),
            "entropy": curve(found.entropy),
        }
    )


def _compared(measured: xr.Dataset, predicted: xr.Dataset) -> xr.Dataset:
    """One setting's row of the study."""
    peaks = measured["time"].sel(definition="flow_peak", drop=True)
    names = ("predicted", "spread", "given")
    row = measured.drop_vars([*_CURVES, "t"]).assign({n: predicted[n] for n in names})
    t, flows = measured["t"].values, measured["flow_norm"].values
    height = [
        float(np.interp(when, t, column) / column.max()) if np.isfinite(when) else np.nan
        for when, column in zip(predicted["predicted"].values, flows.T, strict=True)
    ]
    row = row.assign(
        measured=peaks,
        error=row["predicted"] / peaks - 1,
        error_given=row["given"] / peaks - 1,
        height=("layer", height),
        knowledge_error=("layer", _apart(measured, predicted, "knowledge_norm")),
    )
    return row.assign(cause=("layer", np.asarray(causes(row), object)))


def _apart(measured: xr.Dataset, predicted: xr.Dataset, name: str) -> list[float]:
    """Each layer's largest distance of the curves, over the measured one's largest value there."""
    t = predicted["t"].values
    t = t[t <= measured["t"].values[-1]]
    found = []
    for expected, there in zip(predicted[name].values.T, measured[name].values.T, strict=True):
        curve = np.interp(t, measured["t"].values, there)
        found.append(float(np.abs(expected[: len(t)] - curve).max() / curve.max()))
    return found


def _assembled(settings: Sequence[Setting], found: Sequence[xr.Dataset]) -> xr.Dataset:
    text = found[0]["text"]
    data = xr.concat(
        [row.drop_vars("text") for row in found], "setting", join="outer", data_vars="all",
        coords="minimal", compat="override", combine_attrs="drop",
    )  # fmt: skip
    for name in ("cause", "reason"):
        data[name] = data[name].where(data["start"].notnull(), "").astype(object)
    data = described(data.assign_coords(text=text), settings)
    return data.assign_attrs(format="skajax architectures 1", **versions())
