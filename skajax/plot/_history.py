"""Curves over time: one a layer, or one an output neuron."""

import numpy as np
from matplotlib.axes import Axes

from skajax import landmarks
from skajax._checks import require
from skajax.plot._axes import (
    TIME,
    draw_marks,
    label,
    layer_key,
    legend_beside,
    single,
    zero_line,
)
from skajax.plot._read import (
    SIGNED,
    TENSOR_NETS,
    check_observable,
    one_run,
    pass_length,
    series,
    times,
)
from skajax.plot._style import CROSSING, MINIMUM, PEAK, layer_line, output_line
from skajax.trajectory import Trajectory

LANDMARKS = {
    "flow_norm": (PEAK, landmarks.peaks),
    "entropy_rate": (MINIMUM, landmarks.minima),
    **dict.fromkeys(TENSOR_NETS, (CROSSING, landmarks.crossings)),
}
"""Which landmarks belong to a curve over time: those that are read off that very observable."""


def history(
    run: Trajectory,
    observable: str = "flow_norm",
    *,
    against: str = "time",
    ax: Axes | None = None,
) -> Axes:
    """An observable of every layer over the run; figures 4 and 6, norms, entropy and Lagrangian.

    Against the ``"time"``, or against the paper's passes ``"K"`` = 1 + t / Δt, with the run's Δt,
    or the paper's 0.01 if the method has none. Figure 4 is ``history(run, against="K")``, and
    figure 6 ``history(run, "tensor_net_rate", against="K")``, as rates, per time; ‖Z‖ and ‖W‖
    are ``"knowledge_norm"`` and ``"weight_norm"``, and the Lagrangian, nats per time, is
    ``"lagrangian"``.

    Landmarks that are read off the observable are marked, and no others: triangles at the peaks of
    the flow, red dots at the minima of the entropy rate, and green diamonds where a Tensor Net
    crosses zero. An extremum in the run's first or last record is hollow: there is none within.
    """
    check_observable(observable)
    require(against in ("time", "K"), "against", "be 'time' or 'K'", f"it was {against!r}")
    run = one_run(run)
    t, values = times(run), series(run, observable)
    dt = pass_length(run)
    x = t if against == "time" else 1 + t / dt
    layers = values.shape[1]
    ax = single(ax)
    if observable in SIGNED:
        zero_line(ax)
    for layer, curve in enumerate(values.T, 1):
        ax.plot(x, curve, label=f"layer {layer}", **layer_line(layer, layers, len(t)))
    if observable in LANDMARKS:
        mark, find = LANDMARKS[observable]
        found = find(run, observable)
        points = ((f.t if against == "time" else f.K, f.value, f.interior) for f in found)
        draw_marks(ax, mark, points)
    ax.margins(x=0.02)
    passes = rf"pass $K = 1 + t / \Delta t$,  $\Delta t = {dt:.4g}$"
    ax.set(xlabel=TIME if against == "time" else passes, ylabel=label(observable))
    layer_key(ax, layers)
    return ax


def output_mean(run: Trajectory, *, ax: Axes | None = None) -> Axes:
    """Mean decision of each output neuron over time, a number from 0 to 1: the output activations.

    Neurons count from 0, the digits that MNIST's classes are; the legend lists them as
    the curves end, from top to bottom.
    """
    run = one_run(run)
    t, values = times(run), np.asarray(run.output_mean, float)
    outputs = values.shape[1]
    ax = single(ax)
    lines = [
        ax.plot(t, curve, label=f"{neuron}", **output_line(neuron, outputs, len(t)))[0]
        for neuron, curve in enumerate(values.T)
    ]
    ax.margins(x=0.02)
    ax.set(xlabel=TIME, ylabel=label("output_mean"))
    ranked = [lines[neuron] for neuron in np.argsort(-values[-1], kind="stable")]
    legend_beside(ax, ranked, title="neuron", title_fontsize="small", ncols=-(-outputs // 16))
    return ax
