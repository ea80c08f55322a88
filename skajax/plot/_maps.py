"""Maps of layers with space: knowledge, its flow, or decisions, side by side or one after another."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from skajax import landmarks
from skajax._checks import require
from skajax._types import Float
from skajax.landmarks import Landmark
from skajax.plot._axes import (
    TIME,
    AxesArray,
    AxesLike,
    colour_bar,
    draw_marks,
    label,
    legend_at_the_right,
    single,
    title_layer,
)
from skajax.plot._space import Moment, Places, Times, layer_with, moments, places, seen
from skajax.plot._style import GREY, INK, PEAK, layer_colour, layer_line, shades
from skajax.system import Instant
from skajax.trajectory import Trajectory

What: TypeAlias = Literal["knowledge", "flow", "decisions"]

READ: Mapping[str, tuple[Callable[[Instant], Any], str]] = {
    "knowledge": (lambda instant: instant.Z, "knowledge $z$"),
    "flow": (lambda instant: instant.Zdot, "knowledge flow\n$\\dot z$ (1/time)"),
    "decisions": (lambda instant: instant.D, "decision $D$"),
}
_CHANNELS = 4
"""So many channels are shown unless others are asked for."""


def maps(
    run: Trajectory,
    layer: int | None = None,
    *,
    what: What = "knowledge",
    times: Times = None,
    samples: Places = 0,
    channels: Places | None = None,
    axes: AxesLike | None = None,
) -> AxesArray:
    """Maps of a layer's knowledge z, its flow ż (eq. 6) or its decisions D, at several times of a dense run.

    A column is a time. Of knowledge (samples, height, width, channels) a row of maps is a channel of a
    sample; of knowledge (samples, positions, features), such as a sequence's, it is a sample, positions to
    the right and features upwards. All maps share one scale of colours: purple below 0, white at 0 and
    orange above; decisions that are never negative go from dark at 0 to light. On top the layer's flow
    ‖Φ‖_F over time, with its peak and the times of the maps.

    Args:
        run: One run of ``simulate(..., dense=True)``.
        layer: Its number, from 1; by default the first whose knowledge has one or two axes in space.
        what: "knowledge", "flow" or "decisions".
        times: Within the run; or how many, evenly spaced; by default the start, the peak of the layer's
            flow if there is one within the run, and the end.
        samples: Which, from 0: one or several.
        channels: Which channels or features, from 0; by default the first four channels, or all features.
        axes: One for the flow, then one for each map, row by row; by default those of a new figure.

    Returns:
        The axes, in this order.

    Raises:
        ValueError: The run is not dense, the layer has no space, or something asked for is not there.

    Example:
        >>> x, y = ska.data.mnist(per_class=1)
        >>> network = ska.Network((ska.layers.Conv(3, (5, 5), strides=2, scale=0.1),))
        >>> weights = network.init(jax.random.key(0), x)
        >>> run = ska.simulate(network, weights, x, ska.Adaptive(), 1.0, dense=True)
        >>> ska.plot.maps(run, what="flow", times=[0.1, 0.9]).shape  # the flow over time, 3 x 2 maps
        (7,)
    """
    shown = _read(run, layer, what, times, samples, channels)
    columns, rows = len(shown.moments), len(shown.names)
    strip, *drawn = axes = _axes(axes, shown, rows, columns)
    _draw_flow(strip, run, shown, shown.moments)
    for n, ax in enumerate(drawn):
        row, column = divmod(n, columns)
        _draw_map(ax, shown, shown.values[column, row])
        if row == 0:
            ax.set_title(shown.moments[column].text, fontsize="medium")
        _name(ax, shown, left=shown.names[row] if column == 0 else None, below=row == rows - 1)
    colour_bar(drawn[0].images[-1], drawn, READ[what][1])
    return axes


def animate(
    run: Trajectory,
    layer: int | None = None,
    *,
    what: What = "knowledge",
    times: Times = 40,
    samples: Places = 0,
    channels: Places | None = None,
    interval: float | int = 100,
    axes: AxesLike | None = None,
) -> FuncAnimation:
    """The maps of :func:`maps` one time after another, with a mark that moves along the layer's flow.

    Keep the animation for as long as it is to play: ``animation.save("maps.gif", writer="pillow")``, or
    ``IPython.display.HTML(animation.to_jshtml())`` in a notebook.

    Args:
        run: As of :func:`maps`.
        layer: As of :func:`maps`.
        what: As of :func:`maps`.
        samples: As of :func:`maps`.
        channels: As of :func:`maps`.
        times: As of :func:`maps`, one a frame; by default 40, evenly spaced. Of a flow that peaks early they
            see little: ``np.append(0, np.geomspace(t, run.final.t, 40))`` has more at first.
        interval: Milliseconds from frame to frame.
        axes: One for the flow, then one for each map; by default those of a new figure.

    Returns:
        The animation.

    Raises:
        ValueError: As :func:`maps` does.

    >>> x, y = ska.data.mnist(per_class=1)
    >>> network = ska.Network((ska.layers.Conv(3, (5, 5), strides=2, scale=0.1),))
    >>> weights = network.init(jax.random.key(0), x)
    >>> run = ska.simulate(network, weights, x, ska.Adaptive(), 1.0, dense=True)
    >>> ska.plot.animate(run, times=2, channels=1).save("knowledge.gif")
    """
    shown = _read(run, layer, what, times, samples, channels)
    strip, *drawn = _axes(axes, shown, 1, len(shown.names))
    curve, line, dot = _draw_flow(strip, run, shown, shown.moments[:1])
    t, flow = map(np.asarray, curve.get_data())
    images = []
    for n, (ax, name) in enumerate(zip(drawn, shown.names, strict=True)):
        images.append(_draw_map(ax, shown, shown.values[0, n]))
        ax.set_title(name, fontsize="medium")
        _name(ax, shown, left="" if n == 0 else None, below=True)
    colour_bar(images[0], drawn, READ[what][1])

    def update(frame: int) -> list[Any]:
        moment = shown.moments[frame]
        for image, values in zip(images, shown.values[frame], strict=True):
            image.set_data(values)
        line.set_xdata([moment.t, moment.t])
        dot.set_data([moment.t], [np.interp(moment.t, t, flow)])
        strip.set_title(moment.text.replace("\n", ", "), fontsize="medium")
        return [*images, line, dot]

    update(0)
    frames = len(shown.moments)
    return FuncAnimation(strip.figure, update, frames=frames, interval=interval)


class _Shown(NamedTuple):
    layer: int
    peak: Landmark
    images: bool
    """Whether the layer has two axes in space."""
    features: list[int]
    """Of a layer with one, which are shown."""
    names: list[str]
    """Of the maps of one time."""
    moments: list[Moment]
    values: Float[np.ndarray, "times maps rows columns"]
    colours: dict[str, Any]


def _read(
    run: Trajectory,
    layer: int | None,
    what: str,
    times: Times,
    samples: Places,
    channels: Places | None,
) -> _Shown:
    require(what in READ, "what", f"be one of {list(READ)}", f"it was {what!r}")
    with_space = lambda _, z: z.ndim in (3, 4)
    layer = layer_with(run, layer, with_space, "whose knowledge has one or two axes in space")
    shape = run.final.Z[layer - 1].shape
    images = len(shape) == 4
    if channels is None:
        channels = range(min(shape[-1], _CHANNELS) if images else shape[-1])
    chosen = places("samples", samples, shape[0])
    shown = places("channels", channels, shape[-1])
    peak = landmarks.peaks(run)[layer - 1]
    found = moments(run, times, peak)
    values = []
    for moment in found:
        z = np.asarray(seen(run, READ[what][0], layer, moment.t), float)
        values.append(np.moveaxis(z[chosen][..., shown], -1, 1))
    # A map for each sample and channel; of sequences for each sample, whose channels are its rows.
    values = np.stack(values)
    values = values.reshape(len(found), -1, *shape[1:3]) if images else values
    named = [f"sample {n}" if len(chosen) > 1 else "" for n in chosen]
    if images:
        named = [f"{name}\nchannel {c}".lstrip() for name in named for c in shown]
    signed = what != "decisions" or bool((values < 0).any())
    colours = shades(values, signed=signed)
    return _Shown(layer, peak, images, shown, named, found, values, colours)


def _axes(given: AxesLike | None, shown: _Shown, rows: int, columns: int) -> AxesArray:
    """Those given, or those of a new figure: the flow's above rows and columns of maps."""
    if given is not None:
        given = np.asarray(given, dtype=object).ravel()
        must = f"hold one Axes for the flow, and one for each of {rows * columns} maps"
        require(len(given) == 1 + rows * columns, "axes", must, f"there were {len(given)}")
        return given
    down, across = shown.values.shape[2:]
    width = 1.5 if shown.images else 2.0
    height = width * down / across if shown.images else np.clip(0.12 * down, 1.0, 2.4)
    size = (max(width * columns + 1.8, 5.6), 1.75 + (height + 0.12) * rows + 0.4)
    figure = plt.figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[0.9, *[height] * rows])
    cells = [grid[0, :], *(grid[1 + n // columns, n % columns] for n in range(rows * columns))]
    return np.array([figure.add_subplot(cell) for cell in cells], dtype=object)


def _draw_flow(
    ax: Axes, run: Trajectory, shown: _Shown, marked: list[Moment]
) -> tuple[Line2D, Line2D, Line2D]:
    """The layer's flow, its peak, and the times that are marked: the curve, the last one's line, the dots."""
    ax = single(ax)
    layer, layers, peak = shown.layer, len(run.network.rows), shown.peak
    t, flow = landmarks.series(run, "flow_norm")
    flow = flow[:, layer - 1]
    (curve,) = ax.plot(t, flow, **layer_line(layer, layers))
    at = [moment.t for moment in marked]
    across = [ax.axvline(t, color=GREY, linewidth=0.9, zorder=1) for t in at]
    colour = layer_colour(layer, layers)
    style: dict[str, Any] = {"color": colour, "markeredgecolor": "white", "markersize": 6.0}
    (dots,) = ax.plot(at, np.interp(at, t, flow), "o", clip_on=False, zorder=5, **style)
    draw_marks(ax, PEAK, [(peak.t, peak.value, peak.interior)])
    ax.set(xlabel=TIME, ylabel=label("flow_norm", narrow=True), ylim=(0, 1.12 * peak.value or 1))
    ax.margins(x=0.02)
    title_layer(ax, layer, layers)
    legend_at_the_right(ax)
    return curve, across[-1], dots


def _draw_map(ax: Axes, shown: _Shown, values: Float[np.ndarray, "rows columns"]) -> AxesImage:
    kind: dict[str, Any] = {"aspect": "equal"}
    if not shown.images:
        kind = {"aspect": "auto", "origin": "lower"}
    return ax.imshow(values, interpolation="nearest", **kind, **shown.colours)


def _name(ax: Axes, shown: _Shown, *, left: str | None, below: bool) -> None:
    """Names and ticks at the left and below, where the map is the outermost."""
    ax.spines[:].set(color=INK, linewidth=0.5)
    if shown.images:
        ax.set(xticks=[], yticks=[], ylabel=left or "")
        return
    features = len(shown.features)
    ticks = range(0, features, -(-features // 6))
    ax.set_yticks(ticks, [str(shown.features[n]) for n in ticks])
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.tick_params(labelleft=left is not None, labelbottom=below, labelsize="small", length=2)
    if left is not None:
        ax.set_ylabel(f"{left}\nfeature".lstrip())
    if below:
        ax.set_xlabel("position")
