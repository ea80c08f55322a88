"""What steps an adaptive run has made, and why."""

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from skajax._checks import require
from skajax.plot._axes import TIME, AxesArray, AxesLike, layer_key, pair
from skajax.plot._read import one_run, series, times
from skajax.plot._style import GREY, INK, LINE_WIDTH, layer_line
from skajax.trajectory import Trajectory


def step_sizes(run: Trajectory, *, axes: AxesLike | None = None) -> AxesArray:
    """The steps Δt that a controller chose, above the flow that it followed, over one axis of time.

    Above: each accepted step as long as it was, on a logarithmic axis; a cross is a larger one that
    was tried there before, and rejected. Below: ‖Φ‖_F of each layer, in percent of its peak.
    Steps grow where the flow is even, and shrink where a layer turns. Returns the two axes.

    >>> above, below = ska.plot.step_sizes(run)
    """
    require(
        run.path is not None and len(run.path.t) > 1,
        "run",
        "be an adaptive one, outside of jit, that made at least one step",
        f"it was made by {run.method}, and ended so: {run.outcome}",
    )
    assert run.path is not None
    run = one_run(run)
    assert run.path is not None
    above, below = pair(axes)
    edges = np.asarray(run.path.t, float)
    sizes, rejected = np.diff(edges), np.asarray(run.path.rejected)
    above.stairs(sizes, edges, baseline=None, color=INK, linewidth=LINE_WIDTH, label="accepted")
    if rejected.any():
        at = rejected > 0
        above.plot(edges[:-1][at], sizes[at], "x", color=GREY, label="after a rejected one")
        above.legend(frameon=False, fontsize="small")
    above.set(yscale="log", ylabel=r"step $\Delta t$")
    above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    above.yaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:g}"))
    above.yaxis.set_minor_formatter(NullFormatter())
    t, flow = times(run), series(run, "flow_norm")
    layers = flow.shape[1]
    peak = np.maximum(flow.max(axis=0), np.finfo(float).tiny)
    for layer, curve in enumerate((flow / peak).T, 1):
        below.plot(t, curve, label=f"layer {layer}", **layer_line(layer, layers, len(t)))
    below.yaxis.set_major_formatter(PercentFormatter(1.0))
    below.set(xlabel=TIME, ylabel=r"flow $\Vert\Phi\Vert_F$" + "\nof its peak")
    layer_key(below, layers)
    return np.asarray([above, below], dtype=object)
