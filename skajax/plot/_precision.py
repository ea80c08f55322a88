"""Errors of runs with numbers of few bits."""

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from skajax._checks import require
from skajax.plot._axes import AxesArray, AxesLike, legend_below, single
from skajax.plot._style import GREY, INK, layer_colour

if TYPE_CHECKING:
    import xarray

_TITLES = {"weights": "weights alone", "all": "all numbers"}


def precision(data: "xarray.Dataset", *, axes: AxesLike | None = None) -> AxesArray:
    """The error of ‖Z‖ over the step dt: of weights in fixed point alone, and of all numbers.

    ``data`` is what ``skajax.study.precision`` returns. Full lines round to nearest, dashed ones with hollow
    marks stochastically; a colour is a number of bits, and black float32, whose error is that of the step.
    Ticks at the bottom are the steps below which rounding to nearest lets no weight of any layer move at
    the start. Of the worst layer, medians over the seeds.

    Returns the axes (2,). Raises ValueError for other data.

    >>> axes = ska.plot.precision(ska.study.precision(quick=True))  # doctest: +SKIP
    """
    missing = {"error", "stalling_dt"} - set(data.data_vars)
    require(
        not missing,
        "data",
        "be what skajax.study.precision returns",
        f"it lacked {sorted(missing)}",
    )
    own = axes is None
    if own:
        _, axes = plt.subplots(1, 2, figsize=(7.2, 3.6), layout="constrained", sharey=True)
    pair = np.asarray(axes, dtype=object).ravel()
    require(pair.shape == (2,), "axes", "be two", f"they were {pair.shape}")
    median = data.median("seed")
    error = median["error"].sel(observable="knowledge_norm").max("layer")
    dt = data["dt"].values
    bits = sorted(
        {int(b) for b, w in zip(data["bits"], data["where"], strict=True) if str(w.item())}
    )
    for ax, where in zip(pair, _TITLES, strict=True):
        single(ax)
        ax.set(xscale="log", yscale="log", xlabel="step $dt$")
        ax.set_title(_TITLES[where], fontsize="small", loc="left")
        exact = error.sel(number=data["bits"].values == 32)
        ax.plot(dt, exact.values[0], color=INK, marker="s", markersize=4, label="float32")
        for place, b in enumerate(bits, 1):
            for way in ("nearest", "stochastic"):
                chosen = (
                    (data["bits"] == b) & (data["where"] == where) & (data["rounding"] == way)
                ).values
                if not chosen.any():
                    continue
                colour, lucky = layer_colour(place, len(bits)), way == "stochastic"
                ax.plot(
                    dt, error.values[chosen][0], color=colour, marker="o", markersize=4.5,
                    linestyle=(0, (3.5, 2)) if lucky else "-",
                    markerfacecolor="white" if lucky else colour,
                    label=f"{b} bits" + (", stochastic" if lucky else ""),
                )  # fmt: skip
                stall = median["stalling_dt"].values[chosen].min()
                if not lucky and dt.min() <= stall <= dt.max():
                    ax.plot([stall], [0.02], color=colour, marker="|", markersize=14, linestyle="none",
                            transform=ax.get_xaxis_transform())  # fmt: skip
        ax.axhline(1, color=GREY, linewidth=0.8)
    pair[0].set_ylabel(r"relative error of $\Vert Z\Vert$, worst layer")
    legend_below(pair, own=own)
    return pair
