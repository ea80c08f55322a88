"""Runs against runs: step sizes on one time axis, ensembles of seeds."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from skajax._checks import require
from skajax.plot._axes import (
    TIME,
    AxesArray,
    AxesLike,
    label,
    legend_below,
    name_panels,
    panels,
    zero_line,
)
from skajax.plot._ensemble import Curves, Runs, band_key, draw, is_ensemble, read
from skajax.plot._history import history
from skajax.plot._read import check_observable
from skajax.plot._style import STEPS


def comparison(
    runs: Mapping[str, Runs],
    observable: str = "entropy_rate",
    *,
    reference: Runs | None = None,
    axes: AxesLike | None = None,
) -> AxesArray:
    """An observable against time, one panel a layer and one curve a run: figures 1 and 2.

    Figure 1 is the entropy rate, bits per time (the paper shows it times Δt, per step, which puts
    runs with other steps on other scales); figure 2 is ``observable="alignment"``. ``runs`` maps
    labels, such as "η = 0.01, K = 50", to runs. Colours go by step size, the finest the darkest;
    ``reference``, the solution of the ODE, is dashed in black. An ensemble (runs by ``jax.vmap``, or
    a dataset of ``skajax.sweep``), is drawn as its median upon a band from 5 to 95 % of its runs.

    Returns the axes, one a layer. Raises ValueError for no runs, for runs with different numbers
    of layers, and for what is no observable of a layer.

    >>> steps = ska.simulate(network, weights, x, ska.Euler(0.05), t1=1.0)
    >>> ska.plot.comparison({"fixed": steps, "adaptive": run}, "flow_norm").shape
    (2,)
    """
    require(len(runs) > 0, "runs", "hold at least one run", "it was empty")
    what = check_observable(observable, list(runs.values()))
    drawn = {name: read(run, observable, f"runs[{name!r}]") for name, run in runs.items()}
    everyone = list(drawn.values())
    if reference is not None:
        everyone.append(read(reference, observable, "reference"))
    counts = sorted({curves.values.shape[-1] for curves in everyone})
    require(len(counts) == 1, "runs", "have equally many layers", f"they had {counts}")

    colours = _colours_by_step(drawn)
    own = axes is None
    axes = panels(axes, counts[0])
    for column, ax in enumerate(axes):
        if what.signed:
            zero_line(ax)
        for name, (t, values, *_) in drawn.items():
            style = {"color": colours[name], "linewidth": 1.4, "marker": "o" if len(t) == 1 else ""}
            draw(ax, t, values[..., column], bands=1, label=name, **style)
        if reference is not None:
            t, values, *_ = everyone[-1]
            style = {"color": "black", "linewidth": 1.3, "linestyle": (0, (3.5, 2)), "zorder": 4}
            draw(ax, t, values[..., column], bands=1, label="ODE limit", **style)
        ax.margins(x=0.02)
    name_panels(axes, TIME, label(what, narrow=True), outer=own)
    legend_below(axes, own=own, also=band_key(*everyone, bands=1))
    return axes


def _colours_by_step(runs: Mapping[str, Curves]) -> dict[str, tuple[float, ...]]:
    # By rank, because the published steps crowd together on every simple scale.
    def step(name: str) -> float:
        t = runs[name].t
        return runs[name].dt or (t[-1] - t[0]) / len(t)

    ranked = sorted(runs, key=step)
    return {name: STEPS(rank / max(len(ranked) - 1, 1)) for rank, name in enumerate(ranked)}


def ensemble(runs: Runs, observable: str = "flow_norm", *, ax: Axes | None = None) -> Axes:
    """What many runs have in common: each layer's median over the runs, and two quantile bands.

    Bands from 25 to 75 % and, fainter, from 5 to 95 % of the runs, at each time, of an observable
    in its own unit: :func:`history` of an ensemble, and of nothing else. ``runs`` is a batch, such as
    ``jax.vmap`` over seeds makes, or a dataset of ``skajax.sweep``.

    >>> draw = lambda seed: network.init(jax.random.key(seed), x)
    >>> found = ska.sweep(network, draw, x, ska.Euler(0.05), 1.0, over=ska.grid(seed=range(3)))
    >>> ax = ska.plot.ensemble(found, "flow_norm")
    """
    shape = np.shape(getattr(runs, "t", 0.0))
    require(
        is_ensemble(runs),
        "runs",
        "be a batch of runs, as jax.vmap makes it, or a sweep's dataset",
        f"its times have the shape {shape}",
    )
    check_observable(observable, runs)
    read(runs, observable, "runs")  # refuses by this function's name for them
    return history(runs, observable, ax=ax)
