"""Which characteristic time is intrinsic: each definition's spread over seeds, scales, batches, steps."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from skajax import timescales
from skajax._checks import as_array, is_whole, require, require_positive
from skajax._progress import Progress
from skajax._simulate import simulate
from skajax._types import Inputs, Weights
from skajax.layers import Dense
from skajax.methods import Adaptive, Euler
from skajax.network import Network, check_inputs
from skajax.trajectory import Trajectory

__all__ = ["Intrinsic", "intrinsic", "intrinsic_table"]

RECORDS = 256
"""Evenly spaced in ln t, over three and a half powers of ten."""
SPAN = 3000.0


class Intrinsic(NamedTuple):
    """What :func:`intrinsic` found."""

    times: dict[str, xr.Dataset]
    """Of every axis, the times measured along it: what :func:`skajax.timescales.spread` takes."""
    table: xr.Dataset
    """Definitions by how little they spread (:func:`skajax.timescales.rank`)."""
    decay: xr.Dataset
    """Exponents of the late flow, ‖Φ‖ ~ t^-p, with their intervals, over (seed, layer)."""


def intrinsic(
    network: Network,
    x: Inputs,
    *,
    t1: float = 20.0,
    seeds: int = 16,
    scales: Sequence[float] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    batches: Sequence[int] = (10, 30, 100, 300),
    steps: Sequence[float] = (0.02, 0.01, 0.005, 0.0025),
    t1_steps: float = 4.0,
) -> Intrinsic:
    """Every characteristic time over four axes, one at a time, and the definitions ranked.

    Main arguments: a network of dense layers, and a batch ordered by class, as those of
    :mod:`skajax.data` are: of the batch axis, each is spread evenly over it.

    - ``seed``: as many initialisations; the other axes keep the first. ``scale``: the initial
      weights' standard deviation, in all layers. ``batch``: samples. All three are solved adaptively up
      to ``t1``, recorded at times evenly spaced in ln t.
    - ``dt``: Euler's method, up to ``t1_steps``, so that a definition's spread is the discretisation's.

    Raises ValueError for arguments that do not fit.

    >>> found = ska.study.intrinsic(network, x, seeds=4)  # doctest: +SKIP
    """
    x = as_array("x", x)
    check_inputs(x)
    dense = isinstance(network, Network) and all(isinstance(one, Dense) for one in network.layers)
    require(dense, "network", "have dense layers only", f"it was {network!r}")
    require_positive("t1", t1, "an end time")
    require_positive("t1_steps", t1_steps, "an end time")
    fits = is_whole(seeds, 2)
    must = "be a whole number, 2 or more, because spreads are measured"
    require(fits, "seeds", must, f"it was {seeds!r}")
    for name, values in (("scales", scales), ("batches", batches), ("steps", steps)):
        require(np.ndim(values) == 1, name, "be a sequence of numbers", f"it was {values!r}")
    most = x.shape[0]
    fits = all(is_whole(batch) and batch <= most for batch in batches)
    require(fits, "batches", f"be numbers of samples up to {most}", f"they were {batches!r}")
    for scale in scales:
        require_positive("scales", scale, "standard deviations")
    for dt in steps:
        require_positive("steps", dt, "step sizes")
        count = round(t1_steps / dt)
        fits = count >= 1 and abs(t1_steps / dt - count) <= min(1e-6 * count, 1e-2)
        must = f"make up t1_steps, {t1_steps}, in a whole number of steps"
        require(fits, "steps", must, f"one was {dt!r}")

    # Weights of scale 1 times a scale, by one network: one program for them all.
    unit = _rescaled(network, 1.0)
    times = np.append(0, np.geomspace(t1 / SPAN, t1, RECORDS - 1))
    drawn = lambda seed: network.init(jax.random.key(seed), x)

    def adaptive(weights: Weights, x: Any = x) -> Trajectory:
        return simulate(unit, weights, x, Adaptive(), t1, save_at=times)

    def scaled(scale: float) -> Trajectory:
        return adaptive(_rescaled(network, scale).init(jax.random.key(0), x))

    def part(batch: int) -> Trajectory:
        rows = np.linspace(0, most - 1, batch).round().astype(int)
        # Repeated as often as it fits: the same batch, in nearly one shape for all.
        return adaptive(drawn(0), x[np.tile(rows, most // batch)])

    lanes: dict[str, tuple[Sequence[Any], Callable[[Any], Trajectory]]] = {
        "seed": (range(seeds), lambda seed: adaptive(drawn(seed))),
        "scale": (scales, scaled),
        "batch": (batches, part),
        "dt": (steps, lambda dt: simulate(unit, drawn(0), x, Euler(dt), t1_steps)),
    }
    found: dict[str, xr.Dataset] = {}
    decays = []
    total = sum(len(values) for values, _ in lanes.values())
    with Progress("lanes", total) as bar:
        for axis, (values, run_at) in lanes.items():
            measured = []
            for value in values:
                run = run_at(value)
                measured.append(timescales.measure(run).drop_attrs(deep=False))
                if axis == "seed":
                    decays.append(timescales.decay(run))
                bar.update()
            if measured:
                found[axis] = _along(measured, axis, values)
    return Intrinsic(found, timescales.rank(found), _along(decays, "seed", range(seeds)))


def intrinsic_table(found: Intrinsic) -> str:
    """Markdown: the definitions in order, the relative spread of each on each axis, and what is undefined.

    >>> print(ska.study.intrinsic_table(ska.study.intrinsic(network, x, seeds=4)))  # doctest: +SKIP
    """
    table = found.table
    axes = [str(axis) for axis in table["axis"].values]
    lines = [
        f"| definition | {' | '.join(axes)} | undefined |",
        "|---|" + "---|" * (len(axes) + 1),
    ]
    percent = lambda value: f"{100 * value:.1f} %" if np.isfinite(value) else "–"
    for name in table["definition"].values:
        row = table.sel(definition=name)
        cells = [
            f"{percent(row['relative'].sel(axis=axis).item())} ({row['rank'].sel(axis=axis).item()})"
            for axis in axes
        ]
        missing = percent(row["undefined"].mean().item())
        lines.append(f"| {name} | {' | '.join(cells)} | {missing} |")
    return "\n".join(lines)


def _rescaled(network: Network, scale: float) -> Network:
    layers = [dataclasses.replace(one, scale=scale) for one in network.layers]  # pyright: ignore[reportArgumentType]
    return Network(tuple(layers))


def _along(measured: list[xr.Dataset], axis: str, values: Sequence[Any]) -> xr.Dataset:
    data = xr.concat(measured, axis, coords="minimal", compat="override", join="override")
    return data.assign_coords({axis: list(values)})
