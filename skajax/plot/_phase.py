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
from skajax.plot._ensemble import Runs, band_key, draw, is_ensemble, quantiles, read
from skajax.plot._read import TENSOR_NETS, check_observable, one_run
from skajax.plot._style import (
    CROSSING,
    GREY,
    LINE_WIDTH,
    MINIMUM,
    TIMES,
    Mark,
    layer_colour,
    layer_line,
)
from skajax.trajectory import Trajectory


def flow_against_knowledge(run: Runs, *, axes: AxesLike | None = None) -> AxesArray:
    """‖Φ‖_F, per time, against ‖Z‖_F, one panel a layer: figure 3.

    A dot a record, from dark to light with time; the red dot is the entropy minimum, where
    the layer's entropy falls fastest (hollow if that is the run's first or last record: there is
    no minimum within the run). Returns the axes, one a layer.

    Of an ensemble (runs by ``jax.vmap``, or a dataset of ``skajax.sweep``), at each time the median of
    both over the runs, and bands from 25 to 75 % and 5 to 95 % of the flow; without landmarks.

    >>> ska.plot.flow_against_knowledge(run).shape
    (2,)
    """
    marks = []
    if isinstance(run, Trajectory) and not is_ensemble(run):
        run = one_run(run)
        marks = [(MINIMUM, landmarks.minima(run))]
    return _against_knowledge(run, "flow_norm", marks, axes)


def tensor_net_against_knowledge(
    run: Runs, *, observable: str = "tensor_net_rate", axes: AxesLike | None = None
) -> AxesArray:
    """The Tensor Net against ‖Z‖_F, one panel a layer: figure 5.

    By default its rate in the published sign, Σ (D + ∇_z H) ż, per time: what the paper's figure
    shows times Δt. ``"tensor_net"`` is the sum over time of eq. 8, and the names that end in
    ``_equation`` have the sign of the equations. Green where it crosses zero, and red at the
    entropy minimum (hollow if that is the run's first or last record). Returns the axes, one a
    layer. An ensemble is drawn as by :func:`flow_against_knowledge`.

    >>> ska.plot.tensor_net_against_knowledge(run).shape
    (2,)
    """
    check_observable(observable, run, TENSOR_NETS)
    marks = []
    if isinstance(run, Trajectory) and not is_ensemble(run):
        run = one_run(run)
        marks = [(MINIMUM, landmarks.minima(run)), (CROSSING, landmarks.crossings(run, observable))]
    axes = _against_knowledge(run, observable, marks, axes)
    for ax in axes:
        zero_line(ax)
    return axes


def _against_knowledge(
    run: Runs,
    observable: str,
    marks: Sequence[tuple[Mark, tuple[landmarks.Landmark, ...]]],
    axes: AxesLike | None,
) -> AxesArray:
    knowledge, found = read(run, "knowledge_norm", "run"), read(run, observable, "run")
    t, Z = found.t, _middle(knowledge.values)
    own = axes is None
    axes = panels(axes, found.values.shape[-1])
    colours = ScalarMappable(Normalize(t[0], t[-1]), TIMES)
    for column, ax in enumerate(axes):
        many = found.values[..., column]
        grey = GREY if len(many) > 1 else "0.75"
        curve = draw(ax, Z[:, column], many, color=grey, linewidth=1.0, zorder=2)
        values = curve.get_ydata()
        dots = {"s": 13, "linewidth": 0, "cmap": TIMES, "norm": colours.norm}
        ax.scatter(Z[:, column], values, c=t, zorder=3, **dots)
        for mark, events in marks:
            here = [f for f in events if f.layer == column + 1]
            heights = [np.interp(f.t, t, values) for f in here]
            points = [(f.knowledge_norm, y, f.interior) for f, y in zip(here, heights, strict=True)]
            draw_marks(ax, mark, points)
    name_panels(axes, label("knowledge_norm"), label(observable, narrow=True), outer=own)
    colour_bar(colours, axes, TIME)
    legend_below(axes, own=own, also=band_key(found))
    return axes


def _middle(values: Float[np.ndarray, "runs times layers"]) -> Float[np.ndarray, "times layers"]:
    return quantiles(values)[2] if len(values) > 1 else values[0]


def phase_portrait(run: Runs, *, ax: Axes | None = None) -> Axes:
    """All layers in one plane: ‖Φ‖_F against ‖Z‖_F, each over its own largest value in the run.

    So both are pure numbers from 0 to 1. Arrows point forward in time, and red dots are the entropy
    minima, as in figure 3 (hollow at the run's first or last record). Of an ensemble, the medians of
    both over the runs at each time, and bands of the flow.

    >>> ax = ska.plot.phase_portrait(run)
    """
    knowledge, flow = (read(run, name, "run") for name in ("knowledge_norm", "flow_norm"))
    t, layers = flow.t, flow.values.shape[-1]
    ax = single(ax, size=(5.6, 4.2))
    x = _middle(_scaled(knowledge.values))
    heights = _scaled(flow.values)
    y = _middle(heights)
    for layer in range(1, layers + 1):
        style = layer_line(layer, layers, len(t))
        draw(ax, x[:, layer - 1], heights[..., layer - 1], label=f"layer {layer}", **style)
        _arrows(ax, x[:, layer - 1], y[:, layer - 1], layer_colour(layer, layers))
    if isinstance(run, Trajectory) and not is_ensemble(run):
        points = []
        for f in landmarks.minima(one_run(run)):
            at = (np.interp(f.t, t, values[:, f.layer - 1]) for values in (x, y))
            points.append((*at, f.interior))
        draw_marks(ax, MINIMUM, points)
    ax.set(
        xlabel=r"knowledge $\Vert Z\Vert_F$ / its maximum",
        ylabel=r"knowledge flow $\Vert\Phi\Vert_F$ / its maximum",
    )
    layer_key(ax, layers, also=band_key(flow))
    return ax


def _scaled(
    values: Float[np.ndarray, "runs times layers"],
) -> Float[np.ndarray, "runs times layers"]:
    largest = np.nanmax(values, axis=1, keepdims=True)
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
