"""Curves over time: one a layer, or one an output neuron."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from skajax import landmarks
from skajax._checks import require
from skajax._types import ArrayLike, Float
from skajax.landmarks import PAPER_DT
from skajax.plot._axes import (
    TIME,
    AxesArray,
    AxesLike,
    draw_marks,
    is_layer,
    label,
    layer_bar,
    layer_key,
    legend_below,
    legend_beside,
    named,
    panels,
    single,
    zero_line,
)
from skajax.plot._ensemble import Curves, Runs, band_key, draw, is_ensemble, read
from skajax.plot._read import TENSOR_NETS, check_observable, one_run
from skajax.plot._style import (
    CROSSING,
    INK,
    MINIMUM,
    PEAK,
    has_palette,
    layer_colour,
    layer_line,
    output_line,
)
from skajax.trajectory import Trajectory

LANDMARKS = {
    "flow_norm": (PEAK, landmarks.peaks),
    "entropy_rate": (MINIMUM, landmarks.minima),
    **dict.fromkeys(TENSOR_NETS, (CROSSING, landmarks.crossings)),
}
"""Which landmarks belong to a curve over time: those that are read off that very observable."""


def history(
    run: Runs,
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
    crosses zero, with an edge in their layer's colour. An extremum in the run's first or last record is
    hollow: there is none within. A second run on the same axes is paler, and the legend counts: "layer
    1, run 2"; runs with names have :func:`comparison`.

    Of an ensemble (runs by ``jax.vmap``, or a dataset of ``skajax.sweep``), each layer's median over
    the runs and bands from 25 to 75 % and, fainter, from 5 to 95 % of them, at each time, without
    landmarks. A run that failed counts up to its failure, and the legend says how many there were.

    >>> ax = ska.plot.history(run, "flow_norm")
    >>> ax.figure.savefig("flow.png")
    """
    ax = single(ax)
    found = _curves(run, observable, against, ax)
    layer_key(ax, found.values.shape[-1], also=band_key(found))
    return ax


def overview(
    run: Trajectory,
    observables: Sequence[str] = ("flow_norm", "entropy", "tensor_net_rate", "entropy_rate"),
    *,
    predicted: Sequence[float] | Float[ArrayLike, " layers"] | None = None,
    axes: AxesLike | None = None,
) -> AxesArray:
    """Several observables of one run side by side, with their landmarks and one legend for all.

    Each panel is :func:`history` of an observable. ``predicted`` holds a time of peak flow for each layer,
    such as ``skajax.timescales.predict(...).peak``: dotted lines in the layers' colours, in the flow's
    panel; NaN is no prediction. The legend stands below a figure of which these are all axes, and else in
    the last of them.

    Returns the axes, one an observable. Raises ValueError for no observables, for what was not recorded,
    and for predictions that are not one a layer.

    >>> network = ska.mlp([3, 2]); x = jnp.ones((4, 5)); weights = network.init(jax.random.key(0), x)
    >>> run = ska.simulate(network, weights, x, ska.Euler(0.1), steps=20)
    >>> axes = ska.plot.overview(run, ("flow_norm", "entropy"), predicted=[0.3, float("nan")])
    >>> len(axes), axes[0].get_ylabel().splitlines()[0]
    (2, 'knowledge flow')
    """
    observables = tuple(observables)
    require(len(observables) >= 1, "observables", "hold at least one name", "it was empty")
    for observable in observables:
        check_observable(observable, run)
    layers = run[observables[0]].shape[-1]
    times = np.full(layers, np.nan) if predicted is None else np.asarray(predicted, float)
    require(
        times.shape == (layers,),
        "predicted",
        f"hold one time for each of the {layers} layers",
        lambda: f"its shape was {np.shape(times)}",
    )
    axes = panels(axes, len(observables), titled=False)
    whole = set(axes[0].figure.axes) == set(axes)
    for ax, observable in zip(axes, observables, strict=True):
        _curves(run, observable, "time", ax, narrow=True)
        if observable == "flow_norm" and np.isfinite(times).any():
            for layer in np.flatnonzero(np.isfinite(times)) + 1:
                colour = layer_colour(int(layer), layers)
                ax.axvline(times[layer - 1], color=colour, linestyle=":", linewidth=1.3, zorder=1.5)
            ax.plot([], [], ":", color=INK, linewidth=1.3, label="flow peak, predicted")
    axes[0].figure.align_ylabels(axes)
    if not has_palette(layers):
        for curve in (handle for ax in axes for handle in named(ax) if is_layer(handle)):
            curve.set_label("_")  # a bar of colours says it
        layer_bar(axes, layers)
    legend_below(axes, own=whole)
    return axes


def _curves(run: Runs, observable: str, against: str, ax: Axes, *, narrow: bool = False) -> Curves:
    """Draw an observable of every layer with its landmarks, name the axes, and give back what was drawn."""
    what = check_observable(observable, run)
    require(against in ("time", "K"), "against", "be 'time' or 'K'", f"it was {against!r}")
    found = read(run, observable, "run")
    t, dt = found.t, found.dt or PAPER_DT
    x = t if against == "time" else 1 + t / dt
    layers = found.values.shape[-1]
    if what.signed:
        zero_line(ax)
    before = sum(str(line.get_label()).split(",")[0] == "layer 1" for line in ax.lines)
    again = f", run {before + 1}" if before else ""
    for layer in range(1, layers + 1):
        style = layer_line(layer, layers, len(t))
        style |= {"alpha": 0.5**before} if before else {}
        draw(ax, x, found.values[..., layer - 1], label=f"layer {layer}{again}", **style)
    if observable in LANDMARKS and isinstance(run, Trajectory) and not is_ensemble(run):
        mark, find = LANDMARKS[observable]
        marked = find(one_run(run), observable)
        for layer in range(1, layers + 1):
            here = [f for f in marked if f.layer == layer]
            points = ((f.t if against == "time" else f.K, f.value, f.interior) for f in here)
            edge = layer_colour(layer, layers) if mark is CROSSING else "white"
            draw_marks(ax, mark, points, edge)
    ax.margins(x=0.02)
    passes = rf"pass $K = 1 + t / \Delta t$,  $\Delta t = {dt:.4g}$"
    ax.set(xlabel=TIME if against == "time" else passes, ylabel=label(what, narrow=narrow))
    return found


def output_mean(run: Runs, *, ax: Axes | None = None) -> Axes:
    """Mean decision of each output neuron over time, a number from 0 to 1: the output activations.

    Neurons count from 0, the digits that MNIST's classes are; the legend lists them as
    the curves end, from top to bottom. An ensemble is drawn as by :func:`history`.

    >>> ax = ska.plot.output_mean(run)
    """
    found = read(run, "output_mean", "run")
    outputs = found.values.shape[-1]
    ax = single(ax)
    lines = [
        draw(ax, found.t, curve, label=f"{neuron}", **output_line(neuron, outputs, len(found.t)))
        for neuron, curve in enumerate(np.moveaxis(found.values, -1, 0))
    ]
    ax.margins(x=0.02)
    ax.set(xlabel=TIME, ylabel=label("output_mean"))
    last = [line.get_ydata()[-1] for line in lines]
    ranked = [lines[neuron] for neuron in np.argsort(-np.array(last), kind="stable")]
    handles = [*ranked, *band_key(found)]
    legend_beside(ax, handles, title="neuron", title_fontsize="small", ncols=-(-outputs // 16))
    return ax
