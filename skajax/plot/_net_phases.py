"""What makes a Tensor Net cross zero, over the phases of a run."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from skajax import landmarks
from skajax._checks import require
from skajax.plot._axes import (
    TIME,
    AxesArray,
    AxesLike,
    draw_marks,
    label,
    legend_below,
    name_panels,
    panels,
    zero_line,
)
from skajax.plot._read import check_observable, one_run, series, times
from skajax.plot._style import CROSSING, GREY, LINE_WIDTH, layer_colour
from skajax.timescales import NET_PARTS, TensorNet
from skajax.timescales import net_phases as ends_of
from skajax.trajectory import Trajectory

PHASES = ("linear growth", "overtaking", "saturation", "slow decay")
SHADES = ("1.0", "0.93", "0.86", "0.97")


def net_phases(
    run: Trajectory, predicted: TensorNet | None = None, *, axes: AxesLike | None = None
) -> AxesArray:
    """The Tensor Net's rate over time with its rising and falling parts, one panel a layer.

    The published rate (the layer's colour) is the sum of two parts: over the z that rise, which is positive
    (dashed), and over those that fall, negative (dotted). Green diamonds are where it crosses zero. Shades
    tell the phases apart (:func:`skajax.timescales.net_phases`): linear growth, overtaking, saturation, slow
    decay.

    ``run``: one run that has recorded ``tensor_net_rate``, ``knowledge_norm``, ``flow_norm`` and both of
    ``skajax.timescales.NET_PARTS``. ``predicted``: of given weights, what
    :func:`skajax.timescales.tensor_net` says; a grey line marks each crossing by the reduced model. Returns
    the axes, one a layer.

    >>> parts = ("tensor_net_rate", "knowledge_norm", "flow_norm", *ska.timescales.NET_PARTS)
    >>> run = ska.simulate(network, weights, x, ska.Euler(0.05), steps=100, observe=parts)
    >>> ska.plot.net_phases(run).shape
    (2,)
    """
    run = one_run(run)
    names = ("tensor_net_rate", *(each.name for each in NET_PARTS))
    for name in names:
        check_observable(name, run)
    t, ends = times(run), ends_of(run)
    rate, rising, falling = (series(run, name) for name in names)
    layers = rate.shape[1]
    if predicted is not None:
        shape = np.shape(predicted.share)
        fits = shape == (layers,)
        must = f"be of these {layers} layers, and of weights that were given"
        require(fits, "predicted", must, f"its shares have the shape {shape}")
    own = axes is None
    axes = panels(axes, layers)
    crossings = landmarks.crossings(run)
    for k, ax in enumerate(axes):
        _shade(ax, t, [part[k] for part in ends])
        zero_line(ax)
        style = {"color": layer_colour(k + 1, layers), "zorder": 3}
        ax.plot(t, rate[:, k], linewidth=LINE_WIDTH, label="rate", **style)
        ax.plot(t, rising[:, k], linewidth=1.0, linestyle="--", label="of what rises", **style)
        ax.plot(t, falling[:, k], linewidth=1.0, linestyle=":", label="of what falls", **style)
        if predicted is not None:
            found = np.asarray(predicted.reduced.t[k], float)
            for when in found[np.isfinite(found)]:
                ax.axvline(when, color=GREY, linewidth=1.0, zorder=2, label="predicted crossing")
        draw_marks(ax, CROSSING, [(c.t, 0.0, True) for c in crossings if c.layer == k + 1])
        ax.set_xlim(t[0], t[-1])
    name_panels(axes, TIME, label("tensor_net_rate", narrow=True), outer=own)
    patches = [
        Patch(facecolor=shade, edgecolor="0.8", linewidth=0.5, label=name)
        for name, shade in zip(PHASES, SHADES, strict=True)
    ]
    legend_below(axes, own=own, also=patches)
    return axes


def _shade(ax: Axes, t: np.ndarray, ends: list[float]) -> None:
    """Bands from one phase's end to the next; a phase that another has overrun has none."""
    last = t[0]
    for shade, end in zip(SHADES, [*ends, np.nan], strict=True):
        until = t[-1] if np.isnan(end) else end
        if until > last:
            ax.axvspan(last, until, color=shade, linewidth=0, zorder=0)
            last = until
