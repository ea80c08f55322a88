"""Layers beside time: heat maps."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from skajax._types import Float
from skajax.plot._axes import (
    TIME,
    colour_bar,
    draw_marks,
    label,
    legend_above,
    named,
    number,
    single,
)
from skajax.plot._history import LANDMARKS
from skajax.plot._read import check_observable, one_run, series, times
from skajax.plot._style import INK, MAGNITUDE, SIGNED
from skajax.trajectory import Trajectory

_NAMED = 12
"""So many rows have room for a name of two lines and for signs."""


def heatmap(
    run: Trajectory,
    observable: str = "entropy_rate",
    *,
    normalise: bool | None = None,
    ax: Axes | None = None,
) -> Axes:
    """An observable over time, one row a layer, the first on top: entropy and cosine heat maps.

    Quantities with a sign are white at 0, purple below and orange above, with their sign written
    in for print in greys; others go from dark to light. ``normalise`` divides each row by its
    largest magnitude, which the row's name tells: layers of 256 and of 10 neurons differ
    twentyfold and more, and on one scale the small ones would be blank. That is the default, but
    not for the alignment, a cosine, whose rows are comparable on the scale from -1 to 1. Landmarks
    are marked as in :func:`history`.

    >>> ax = ska.plot.heatmap(run, "entropy_rate")
    """
    what = check_observable(observable, run)
    run = one_run(run)
    t, values = times(run), series(run, observable)
    layers = values.shape[1]
    if normalise is None:
        normalise = observable != "alignment"
    largest = np.nanmax(np.abs(values), axis=0, initial=0.0)
    drawn = values / np.where(largest > 0, largest, 1) if normalise else values
    top = 1.0 if normalise or observable == "alignment" else float(largest.max()) or 1.0

    ax = single(ax, size=(6.6, 1.5 + 0.5 * min(layers, 10)))
    ax.grid(visible=False)
    signed = what.signed
    rows = np.arange(layers + 1) + 0.5
    edges = _edges(t)
    mesh = ax.pcolormesh(
        edges,
        rows,
        drawn.T,
        cmap=SIGNED if signed else MAGNITUDE,
        vmin=-top if signed else 0.0,
        vmax=top,
        rasterized=True,
    )
    ax.hlines(rows[1:-1], edges[0], edges[-1], color="white", linewidth=2)
    key = []
    if signed and layers <= _NAMED:
        for layer, row in enumerate(drawn.T, 1):
            _write_signs(ax, t, row / top, layer)
        key.append(
            Line2D([], [], color=INK, marker=r"$\pm$", linestyle="", label="sign of a stretch")
        )
    if observable in LANDMARKS:
        mark, find = LANDMARKS[observable]
        found = find(run, observable)
        draw_marks(ax, mark, [(f.t, float(f.layer), f.interior) for f in found])
    legend_above(ax, [*named(ax), *key])
    ax.set(xlabel=TIME, ylim=(layers + 0.5, 0.5))
    shown = np.arange(1, layers + 1, -(-layers // _NAMED))
    most = ["" for _ in shown]
    if normalise:
        sign = "±" if signed else "≤ "
        most = [f"\n{sign}{_amount(largest[n - 1], what.unit)}" for n in shown]
    names = [f"layer {n}{much}" for n, much in zip(shown, most, strict=True)]
    ax.set_yticks(shown, names, fontsize="small", linespacing=1.3)
    ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
    text = label(what, narrow=True)
    if normalise:
        text = f"{what.label or what.name}\nover the layer's largest"
    colour_bar(mesh, [ax], text)
    return ax


def _amount(value: float, unit: str) -> str:
    """Two digits and a unit: 7.2 × 10⁵ bit/time."""
    return number(value) + (unit.removeprefix("1") if unit.startswith("1") else f" {unit}")


def _edges(t: Float[np.ndarray, " times"]) -> Float[np.ndarray, " edges"]:
    """Limits of the records' cells: half way between them."""
    if len(t) == 1:
        return t[0] + np.array([-0.5, 0.5])
    middle = (t[1:] + t[:-1]) / 2
    return np.concatenate([[2 * t[0] - middle[0]], middle, [2 * t[-1] - middle[-1]]])


def _write_signs(
    ax: Axes, t: Float[np.ndarray, " times"], row: Float[np.ndarray, " times"], layer: int
) -> None:
    """A plus or minus over the centre of every stretch of one sign that can be seen."""
    row = np.nan_to_num(row)
    for stretch in np.split(np.arange(len(t)), np.flatnonzero(np.diff(np.sign(row))) + 1):
        if np.abs(row[stretch]).max() > 0.05:
            centre = np.average(t[stretch], weights=np.abs(row[stretch]))
            value = np.interp(centre, t, row)
            colour = "white" if abs(value) > 0.5 else INK
            style = {"ha": "center", "va": "center", "fontweight": "bold", "clip_on": True}
            sign = "+" if value > 0 else "−"
            ax.text(centre, layer - 0.27, sign, fontdict={"color": colour, **style})
