"""Learning with numbers of few bits: what rounding, noise and clipped ranges do, and where runs stop."""

import dataclasses
import os
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from skajax._checks import as_seeds
from skajax._files import image, netcdf, put
from skajax._messages import unwarned
from skajax._modes import enable_x64
from skajax._progress import each
from skajax._simulate import simulate
from skajax._types import Float, Weights
from skajax._version import versions
from skajax.formats import BFLOAT16, FLOAT16, Clipped, Fixed, Floating, Format, Noise, stalling_step
from skajax.methods import Adaptive, Euler, Rounded
from skajax.network import Network
from skajax.plot import precision as draw
from skajax.study.errors import curve_error
from skajax.study.kept import kept, open_folder
from skajax.study.settings import Setting
from skajax.study.words import number, percent
from skajax.system import flow
from skajax.trajectory import Trajectory

__all__ = ["Held", "numbers", "precision", "precision_table"]

RTOL = 1e-10
CURVES = ("entropy", "knowledge_norm")
"""What trajectories are compared by."""
RECORDS = 32
"""Times, beside 0, that all step sizes have in common: those of the coarsest."""


class Held(NamedTuple):
    """In which formats a run holds its numbers."""

    text: str
    bits: int
    """Of all formats; 0 where they have none."""
    where: str
    """"weights" alone, "all" that there is, or "" where bits are not the matter."""
    rounding: str
    """"nearest", "stochastic" or ""."""
    weights: Format | None = None
    reads: Format | None = None
    knowledge: Format | None = None
    gradient: Format | None = None

    def method(self, dt: float, seed: int) -> Rounded:
        """Euler's, so held."""
        return Rounded(Euler(dt), *self[4:], seed=seed)


def numbers(bits: Sequence[int] = (8, 10, 12, 16)) -> dict[str, Held]:
    """The study's: float32, fixed and floating point, noise and clipped ranges, by name.

    In fixed point of b bits, weights and what is read lie within [-2, 2), knowledge within [-16, 16), and
    ∇_z H, which is at most 0.33, within [-0.5, 0.5): as many bits behind the point as that leaves.
    """
    found = {"float32": Held("float32", 32, "", "nearest")}
    for way in ("nearest", "stochastic"):
        lucky, said = way == "stochastic", ", stochastic" if way == "stochastic" else ""
        for b in bits:
            fixed = [Fixed(b, fraction, lucky) for fraction in (b - 2, b - 2, b - 5, b)]
            found[f"fixed{b}_weights_{way}"] = Held(
                f"weights of {b} bits{said}", b, "weights", way, fixed[0]
            )
            found[f"fixed{b}_all_{way}"] = Held(f"all of {b} bits{said}", b, "all", way, *fixed)
        for name, kind in (("bfloat16", BFLOAT16), ("float16", FLOAT16)):
            held = Floating(kind.exponent, kind.mantissa, lucky)
            found[f"{name}_{way}"] = Held(held.name, 16, "", way, *[held] * 4)
    for part in (0.01, 0.1):
        said = f"{100 * part:g} %"
        found[f"read_noise_{part:g}"] = Held(
            f"noise of {said} on reads", 0, "", "", reads=Noise(relative=part)
        )
    for part in (1e-4, 1e-3):
        found[f"write_noise_{part:g}"] = Held(
            f"noise of {part:g} on weights, each step", 0, "", "", Noise(absolute=part)
        )
    for limit in (0.2, 0.1):
        found[f"clipped_{limit:g}"] = Held(f"weights within ±{limit:g}", 0, "", "", Clipped(limit))
    return found


class _Size(NamedTuple):
    """How large the study is."""

    widths: tuple[int, ...]
    images: int
    steps: tuple[int, ...]
    """K of each step size: multiples of RECORDS."""
    bits: tuple[int, ...]
    only: tuple[str, ...] | None
    """Which formats; None: all."""


_QUICK = ("float32", "fixed8_weights_nearest", "fixed8_weights_stochastic", "bfloat16_nearest")
SIZES = {
    True: _Size((16, 10), 30, (32, 128), (8,), _QUICK),
    False: _Size((64, 32, 10), 100, (32, 128, 512, 2048), (8, 10, 12, 16), None),
}
T = 1.0


def precision(
    out: str | os.PathLike[str] | None = None,
    *,
    quick: bool = False,
    seeds: Sequence[int] | None = None,
) -> xr.Dataset:
    """How many bits SKA needs: Euler's method in fixed and floating point, with noise, and in clipped ranges.

    - ``out``: a folder for results, or None to keep nothing.
    - ``quick``: a small network, two step sizes and four formats, in less than a minute.
    - ``seeds``: of initial weights, of stochastic rounding and noise; by default 0, 1 (quick: 0).

    MNIST images, dense layers with W ~ N(0, 0.01²) at the start, rounded to nearest, T = 1. Every format of
    :func:`numbers` is simulated (:class:`skajax.Rounded`, in float32) with several step sizes dt, and
    compared with the ODE in float64 (Dopri8, rtol 1e-10) at 33 times: errors are those of the step and of the
    format together, and "float32" has those of the step alone.

    Returns a dataset over (number, seed, dt, layer), with

    - ``error``, also over ``observable`` (entropy, knowledge_norm): √(Σ (f - g)² / Σ g²), sums over times;
    - ``left``: the entropy at T over the exact one's, less 1; ``peak``: when the flow ‖ż‖ is largest, and
      ``exact_peak``, without number and dt;
    - ``rests``: of all steps the part in which no weight of the layer moved; ``last_move``: the time of the
      last step in which one did, 0 where none did;
    - ``stalling_dt``, without dt: the step below which rounding to nearest lets nothing move at the start
      (:func:`skajax.formats.stalling_step`); of formats that round otherwise NaN.

    In ``out``: a file for each format and seed, so that the same call goes on where it was killed;
    ``precision.nc``, ``precision.md``, the table, and ``precision.png``, the figure.

    ::

        data = ska.study.precision(quick=True)
        print(ska.study.precision_table(data))

    >>> data = ska.study.precision("precision", quick=True)  # doctest: +SKIP
    """
    chosen = as_seeds(seeds, (0,) if quick else (0, 1))
    folder, size = open_folder(out), SIZES[quick]
    every = numbers(size.bits)
    names = tuple(every) if size.only is None else size.only
    found, exact = {}, {}
    lanes = [(int(seed), name) for seed in chosen for name in names]
    for seed, name in each(lanes, "runs", len(lanes)):
        setting = Setting("mnist", size.images, size.widths, seed=seed)
        about = {"steps": size.steps, "T": T, "rtol": RTOL, "held": repr(every[name][4:])}
        make = partial(_measured, setting, size, every[name], exact)
        found[name, seed] = kept(folder, name, setting, about, make)
    join = partial(xr.concat, combine_attrs="drop")
    rows = [join([found[name, seed] for seed in chosen], "seed") for name in names]
    data = join(rows, "number").assign_coords(
        number=list(names),
        seed=list(chosen),
        **{
            key: ("number", [getattr(every[name], key) for name in names])
            for key in ("text", "bits", "where", "rounding")
        },
    )
    data["exact_peak"] = data["exact_peak"].isel(number=0)
    data = data.assign_attrs(format="skajax precision 1", T=T, **versions())
    if folder is not None:
        put(netcdf(data), folder / "precision.nc")
        put(precision_table(data).encode(), folder / "precision.md")
        with matplotlib.rc_context({"backend": "agg"}):
            figure = draw(data)[0].get_figure(root=True)
            put(image(figure), folder / "precision.png")
            plt.close(figure)
    return data


def precision_table(data: xr.Dataset) -> str:
    """Markdown: a line for each format; medians over the seeds, of the worst layer.

    >>> print(ska.study.precision_table(ska.study.precision(quick=True)))  # doctest: +SKIP
    """
    steps = data["dt"].values
    head = [
        "numbers", *(f"error of ‖Z‖, dt = {number(dt)}" for dt in steps), "entropy left, finest dt",
        "flow's peaks, finest dt", "steps at rest, finest dt", "nothing moves below dt =",
    ]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    median = data.median("seed")
    exact = ", ".join(number(t, 2) for t in median["exact_peak"].values)
    for name in data["number"].values:
        of, fine = median.sel(number=name), median.sel(number=name).isel(dt=-1)
        worst = of["error"].sel(observable="knowledge_norm").max("layer").values
        stall = of["stalling_dt"].values
        cells = [
            str(data["text"].sel(number=name).item()),
            *(percent(e) if np.isfinite(e) else "no end" for e in worst),
            ", ".join(f"{100 * e:+.1f} %" for e in fine["left"].values),
            ", ".join(number(t, 2) for t in fine["peak"].values),
            ", ".join(f"{100 * e:.0f} %" for e in fine["rests"].values),
            ", ".join(number(dt, 2) for dt in stall) if np.isfinite(stall).all() else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"The exact flow's peaks: {exact}.", ""])


class _Exact(NamedTuple):
    """The ODE's solution, in float64."""

    curves: dict[str, Float[np.ndarray, "times layers"]]
    peak: Float[np.ndarray, " layers"]


def _solved(network: Network, weights: Weights, x: Any, finest: int) -> _Exact:
    times = np.linspace(0, T, finest + 1)
    method = Adaptive(diffrax.Dopri8(), rtol=RTOL, atol=RTOL / 100)
    with enable_x64(True):
        start, inputs = jax.tree.map(
            lambda a: jnp.asarray(np.asarray(a), jnp.float64), (weights, x)
        )
        run = simulate(
            network, start, inputs, method, T, save_at=times, reduction="off", throw=True,
            observe=(*CURVES, "flow_norm"),
        )  # fmt: skip
        run = jax.tree.map(np.asarray, run)
    stride = finest // RECORDS
    return _Exact(
        {name: run[name][::stride] for name in CURVES}, times[run["flow_norm"].argmax(axis=0)]
    )


def _measured(setting: Setting, size: _Size, held: Held, exact: dict[int, _Exact]) -> xr.Dataset:
    """One format from one start, at every step size."""
    network, seed = setting.network(), setting.seed
    x = jnp.asarray(setting.inputs()[: size.images])
    weights = network.init(jax.random.key(seed), x)
    if seed not in exact:
        exact[seed] = _solved(network, weights, x, max(size.steps))
    limit, rows, grid = exact[seed], [], held.weights
    stalls = np.full(len(setting.widths), np.nan)
    if isinstance(grid, Fixed | Floating):
        nearest = dataclasses.replace(grid, stochastic=False)
        weights = jax.tree.map(nearest, weights)
        if not grid.stochastic:
            stalls = np.asarray(stalling_step(grid, weights, flow(network, weights, x)))
    for K in size.steps:
        with unwarned():
            run = simulate(
                network, weights, x, held.method(T / K, seed), steps=K,
                observe=(*CURVES, "flow_norm", "weight_norm"),
            )  # fmt: skip
        rows.append(_row(run, K, limit))
    columns = {
        name: (("dt", *dims), np.stack([row[name] for row in rows]))
        for name, dims in {
            "error": ("observable", "layer"), "left": ("layer",), "peak": ("layer",),
            "rests": ("layer",), "last_move": ("layer",),
        }.items()
    }  # fmt: skip
    return xr.Dataset(
        columns | {"stalling_dt": ("layer", stalls), "exact_peak": ("layer", limit.peak)},
        {
            "dt": [T / K for K in size.steps],
            "observable": list(CURVES),
            "layer": np.arange(1, len(setting.widths) + 1),
        },
    )


def _row(run: Trajectory, K: int, limit: _Exact) -> dict[str, np.ndarray]:
    """What one run comes to; NaN of one that did not come to its end."""
    layers = limit.peak.size
    if len(run.t) != K + 1 or not np.isfinite(np.asarray(run.entropy)).all():
        nothing = np.full(layers, np.nan)
        names = ("left", "peak", "rests", "last_move")
        return {"error": np.full((len(CURVES), layers), np.nan), **dict.fromkeys(names, nothing)}
    t, stride = np.linspace(0, T, K + 1), K // RECORDS
    off = [curve_error(np.asarray(run[name])[::stride], limit.curves[name]).l2 for name in CURVES]
    moved = np.diff(np.asarray(run["weight_norm"]), axis=0) != 0
    last = np.where(moved.any(axis=0), K - moved[::-1].argmax(axis=0), 0)
    return {
        "error": np.stack(off),
        "left": np.asarray(run["entropy"])[-1] / limit.curves["entropy"][-1] - 1,
        "peak": t[np.asarray(run["flow_norm"]).argmax(axis=0)],
        "rests": 1 - moved.mean(axis=0),
        "last_move": t[last],
    }
