"""What the positions of a sequence attend to."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from skajax import landmarks
from skajax._checks import as_array, require
from skajax._types import AnyArray, Array, Float
from skajax.layers import Paced, SelfAttention
from skajax.plot._axes import AxesArray, AxesLike, colour_bar
from skajax.plot._space import Moment, Times, layer_with, moments, places, seen
from skajax.plot._style import GREY, INK, shades
from skajax.system import Instant
from skajax.trajectory import Trajectory


def attention(
    run: Trajectory | AnyArray | Float[np.ndarray, "..."],
    layer: int | None = None,
    *,
    times: Times = None,
    sample: int = 0,
    axes: AxesLike | None = None,
) -> AxesArray:
    """Attention weights A of a sample: how much each position attends to each other, a panel for each head.

    A position attends along its row of the panel, in which A sums to 1, to the positions from left to
    right. One scale of colours for all panels, dark at 0. Grey is where A is 0 exactly: the future of a
    causal layer, and padding. Of a dense run, a row of panels is a time.

    Args:
        run: One run of ``simulate(..., dense=True)``; or the weights themselves, of shape (samples, heads,
            times, times), as :meth:`skajax.layers.SelfAttention.attention` gives them.
        layer: Of a run, the number of a self-attention among its layers, from 1; by default the first.
        times: Of a run, times within it; or how many, evenly spaced; by default the start, the peak of
            the layer's flow if there is one within the run, and the end.
        sample: Which, from 0.
        axes: One for each panel, row by row; by default those of a new figure.

    Returns:
        The axes, in this order.

    Raises:
        ValueError: The run is not dense or has no self-attention, or something asked for is not there.

    Example:
        >>> x, y = ska.data.mnist(per_class=1, layout="patches")
        >>> layer = ska.layers.SelfAttention(4, heads=2, scale=0.5)
        >>> weights = layer.init(jax.random.key(0), x)
        >>> ska.plot.attention(layer.attention(weights, x), sample=3).shape  # a panel for each head
        (2,)
    """
    if isinstance(run, Trajectory):
        shown, panels = _of_run(run, layer, times, sample)
    else:
        alone = layer is None and times is None
        must = "be left out, with layer, where weights are given instead of a run"
        require(alone, "times", must, f"it was {times!r}, and layer {layer!r}")
        shown, panels = [], _of_sample(as_array("run", run), sample)[None]
    rows, heads, positions, _ = panels.shape
    if axes is None:
        size = (max(2.1 * heads + 1.5, 3.6), 2.1 * rows + 0.9)
        _, axes = plt.subplots(
            rows, heads, sharex=True, sharey=True, squeeze=False, figsize=size, layout="constrained"
        )
    drawn = np.asarray(axes, dtype=object).ravel()
    must = f"hold one Axes for each of {rows * heads} panels"
    require(len(drawn) == rows * heads, "axes", must, f"there were {len(drawn)}")
    colours = shades(panels, signed=False)
    colours["cmap"] = colours["cmap"].with_extremes(bad=GREY)
    for n, ax in enumerate(drawn):
        row, head = divmod(n, heads)
        weights = np.ma.masked_equal(panels[row, head], 0.0)
        ax.imshow(weights, interpolation="nearest", **colours)
        ax.spines[:].set(color=INK, linewidth=0.5)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(min(5, positions), integer=True))
        ax.tick_params(labelsize="small", length=2)
        if row == 0:
            ax.set_title(f"head {head}", fontsize="medium")
        if row == rows - 1:
            ax.set_xlabel("attends to position")
        if head == 0:
            time = f"{shown[row].text}\n" if shown else ""
            ax.set_ylabel(f"{time}position")
    colour_bar(drawn[0].images[-1], drawn, "attention $A$")
    return drawn


def _of_run(
    run: Trajectory, layer: int | None, times: Times, sample: int
) -> tuple[list[Moment], Float[np.ndarray, "moments heads times times"]]:
    layer = layer_with(run, layer, lambda each, _: _is_attention(each), "that is a SelfAttention")
    found = moments(run, times, landmarks.peaks(run)[layer - 1])
    weights = [seen(run, _weights, layer, moment.t) for moment in found]
    return found, np.stack([_of_sample(A, sample) for A in weights])


def _of_sample(A: Array, sample: int) -> Float[np.ndarray, "heads times times"]:
    require(
        A.ndim == 4 and A.shape[2] == A.shape[3],
        "run",
        "be a run, or attention weights of shape (samples, heads, times, times)",
        f"its shape was {A.shape}",
    )
    (chosen,) = places("sample", sample, A.shape[0])
    return np.asarray(A[chosen], float)


def _is_attention(layer: Any) -> bool:
    return isinstance(_itself(layer), SelfAttention)


def _itself(layer: Any) -> Any:
    return layer.layer if isinstance(layer, Paced) else layer


def _weights(instant: Instant) -> list[Any]:
    """A of each self-attention, None of other layers."""
    network, weights = instant.network, instant.coordinates
    inputs = instant.system.trace(instant.t, weights).inputs
    rows = zip(network.learning, network.rows, inputs, strict=True)
    return [
        _itself(layer).attention(weights[place], given) if _is_attention(layer) else None
        for layer, place, given in rows
    ]
