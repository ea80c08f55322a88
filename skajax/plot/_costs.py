"""What a step of each way to learn takes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from skajax._checks import require, require_positive
from skajax.costs import RULES
from skajax.plot._axes import AxesArray, AxesLike, single
from skajax.plot._style import layer_colour

if TYPE_CHECKING:
    from skajax._network_summary import NetworkSummary

_PANELS = {
    "operations": "multiply-adds",
    "span": "multiply-adds,\none after another",
    "moved": "words moved",
    "held": "words held",
    "energy": "energy, J",
}


def costs(
    found: "NetworkSummary",
    *,
    dt: Mapping[str, float] | None = None,
    axes: AxesLike | None = None,
) -> AxesArray:
    """Operations, words moved and held, and energy of SKA, backpropagation and the pipeline, as bars.

    ``found`` is what ``skajax.summary(network, x, costs=...)`` returns. Of one step each; with ``dt``, the
    step of each way by its name, such as ``{"SKA": 0.01, "pipeline": 0.004}``, all but what is held is per
    unit of learning time, and only those ways are drawn: each with the step that it needs for an accuracy.

    Returns the axes (5,). Raises ValueError for a summary without costs, and unknown names.

    >>> axes = ska.plot.costs(ska.summary(network, x, costs=ska.costs.FLOAT32))
    """
    counts = getattr(found, "counts", None)
    require(
        bool(counts),
        "found",
        "be what skajax.summary returns with costs=...",
        f"it was {type(found).__name__}",
    )
    assert counts is not None
    steps = dict.fromkeys(RULES, 1.0) if dt is None else dict(dt)
    require(
        bool(steps) and set(steps) <= set(RULES), "dt", f"have names of {RULES}", f"it was {dt!r}"
    )
    for step in steps.values():
        require_positive("dt", step, "a time step for each way")
    own = axes is None
    if own:
        _, axes = plt.subplots(1, len(_PANELS), figsize=(10.0, 2.8), layout="constrained")
    row = np.asarray(axes, dtype=object).ravel()
    require(row.shape == (len(_PANELS),), "axes", f"be {len(_PANELS)}", f"they were {row.shape}")
    names = [rule for rule in RULES if rule in steps]
    colours = [layer_colour(RULES.index(name) + 1, len(RULES)) for name in names]
    for ax, (quantity, text) in zip(row, _PANELS.items(), strict=True):
        single(ax)
        values = [getattr(counts[name], quantity) for name in names]
        per = "" if dt is None or quantity == "held" else " per unit of time"
        if per:
            values = [value / steps[name] for value, name in zip(values, names, strict=True)]
        ax.bar(range(len(names)), values, color=colours, width=0.7)
        ax.set_xticks(range(len(names)), names)
        ax.set_title(text + per, fontsize="small", loc="left")
        ax.tick_params("x", labelrotation=30)
    return row
