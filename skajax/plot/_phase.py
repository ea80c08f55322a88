"""Quantities against knowledge, with time along the curve."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from skajax import landmarks
from skajax._types import Float
from skajax.plot._axes import (
    TIME,
    AxesArray,
    AxesLike,
    colour_bar,
    draw_marks,
    label,
    layer_key,
    legend_below,
    name_panels,
    panels,
    single,
    zero_line,
)
from skajax.plot._read import TENSOR_NETS, check_observable, one_run, series, times
from skajax.plot._style import (
    CROSSING,
    LINE_WIDTH,
    MINIMUM,
    TIMES,
    Mark,
    layer_colour,
    layer_line,
)
from skajax.trajectory import Trajectory


def flow_against_knowledge(run: Trajectory, *, axes: AxesLike | None = None) -> AxesArray:
    """‖Φ‖_F, per time, against ‖Z‖_F, one panel a layer: figure 3.

    A dot a record, from dark to light with time; the red dot is the entropy minimum, where
    the layer's entropy falls fastest (hollow if that is the run's first or last record: there is
    no minimum within the run). Returns the axes, one a layer.
    """
    run = one_run(run)
    return _against_knowledge(run, "flow_norm", [(MINIMUM, landmarks.minima(run))], axes)


def tensor_net_against_knowledge(
    run: Trajectory, *, observable: str = "tensor_net_rate", axes: AxesLike | None = None
) -> AxesArray:
    """The Tensor Net against ‖Z‖_F, one panel a layer: figure 5.

    By default its rate in the published sign, Σ (D + ∇_z H) ż, per time: what the paper's figure
    shows times Δt. ``"tensor_net"`` is the sum over time of eq. 8, and the names that end in
    ``_equation`` have the sign of the equations. Green where it crosses zero, and red at the
    entropy minimum (hollow if that is the run's first or last record). Returns the axes, one a
    layer.
    """
    check_observable(observable, TENSOR_NETS)
    run = one_run(run)
    marks = [(MINIMUM, landmarks.minima(run)), (CROSSING, landmarks.crossings(run, observable))]
    axes = _against_knowledge(run, observable, marks, axes)
    for ax in axes:
        zero_line(ax)
    return axes


def _against_knowledge(
    run: Trajectory,
    observable: str,
    marks: Sequence[tuple[Mark, tuple[landmarks.Landmark, ...]]],
    axes: AxesLike | None,
) -> AxesArray:
    t, Z, values = times(run), series(run, "knowledge_norm"), series(run, observable)
    own = axes is None
    axes = panels(axes, values.shape[1])
    colours = ScalarMappable(Normalize(t[0], t[-1]), TIMES)
    for column, ax in enumerate(axes):
        ax.plot(Z[:, column], values[:, column], color="0.75", linewidth=1.0, zorder=2)
        dots = {"s": 13, "linewidth": 0, "cmap": TIMES, "norm": colours.norm}
        ax.scatter(Z[:, column], values[:, column], c=t, zorder=3, **dots)
        for mark, found in marks:
            here = [f for f in found if f.layer == column + 1]
            heights = [np.interp(f.t, t, values[:, column]) for f in here]
            points = [(f.knowledge_norm, y, f.interior) for f, y in zip(here, heights, strict=True)]
            draw_marks(ax, mark, points)
    name_panels(axes, label("knowledge_norm"), label(observable, narrow=True), outer=own)
    colour_bar(colours, axes, TIME)
    legend_below(axes, own=own)
    return axes


def phase_portrait(run: Trajectory, *, ax: Axes | None = None) -> Axes:
    """All layers in one plane: ‖Φ‖_F against ‖Z‖_F, each over its own largest value in the run.

    So both are pure numbers from 0 to 1. Arrows point forward in time, and red dots are the entropy
    minima, as in figure 3 (hollow at the run's first or last record).
    """
    run = one_run(run)
    t = times(run)
    ax = single(ax, size=(5.6, 4.2))
    Z, flow = _scaled(series(run, "knowledge_norm")), _scaled(series(run, "flow_norm"))
    layers = Z.shape[1]
    for layer, (x, y) in enumerate(zip(Z.T, flow.T, strict=True), 1):
        ax.plot(x, y, label=f"layer {layer}", **layer_line(layer, layers, len(t)))
        _arrows(ax, x, y, layer_colour(layer, layers))
    points = []
    for f in landmarks.minima(run):
        x, y = (np.interp(f.t, t, values[:, f.layer - 1]) for values in (Z, flow))
        points.append((x, y, f.interior))
    draw_marks(ax, MINIMUM, points)
    ax.set(
        xlabel=r"knowledge $\Vert Z\Vert_F$ / its maximum",
        ylabel=r"knowledge flow $\Vert\Phi\Vert_F$ / its maximum",
    )
    layer_key(ax, layers)
    return ax


def _scaled(values: Float[np.ndarray, "times layers"]) -> Float[np.ndarray, "times layers"]:
    largest = values.max(axis=0)
    return values / np.where(largest > 0, largest, 1)


def _arrows(
    ax: Axes, x: Float[np.ndarray, " times"], y: Float[np.ndarray, " times"], colour: str
) -> None:
    """Arrow heads on the way up and on the way down."""
    travelled = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    if travelled[-1] == 0:
        return
    for fraction in (0.27, 0.74):
        at = fraction * travelled[-1] + np.array([-0.01, 0.01])
        tail, head = zip(np.interp(at, travelled, x), np.interp(at, travelled, y), strict=True)
        style = {"arrowstyle": "-|>", "color": colour, "linewidth": LINE_WIDTH, "shrinkA": 0}
        ax.annotate("", head, tail, arrowprops=style | {"shrinkB": 0, "mutation_scale": 13})
