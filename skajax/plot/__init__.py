"""Figures of runs, in matplotlib: the paper's figures 1 to 6, and what else a run shows.

Every function takes axes and returns them: one Axes, or an array of Axes with one a layer. Without
axes it makes a figure with ``layout="constrained"``, which is the layout to give axes of, because
legends stand beside the data and not on it. None shows or closes a figure, and none changes
matplotlib's settings.

A layer has one colour and one kind of line in all figures. Red dots are entropy minima, where a
layer's entropy falls fastest, green diamonds zero crossings of the Tensor Net, and black triangles
peaks of the flow; a hollow one is the extremum of a run that has none within. Axes name the
quantity, its symbol and its unit; a pure number has none.

Curves take an ensemble as well as a run: runs stacked by ``jax.vmap``, or a dataset of
``skajax.sweep``. They are drawn as the median over the runs, and bands from 25 to 75 % and from 5 to
95 % of them. What belongs to one run alone (landmarks, heat maps, steps) takes one run.

Layers with space have maps of what they know at each place, side by side or as an animation; attention,
its weights; graphs, colours at their nodes. What is drawn at chosen times takes a dense run
(``simulate(..., dense=True)``), which knows its state at any.
"""

from skajax._extras import take

take("skajax.plot", "plot", "matplotlib")

from skajax.plot._attention import attention
from skajax.plot._compare import comparison, ensemble
from skajax.plot._convergence import convergence, invariance
from skajax.plot._costs import costs
from skajax.plot._families import families
from skajax.plot._graph import graph
from skajax.plot._history import history, output_mean, overview
from skajax.plot._maps import animate, maps
from skajax.plot._net_phases import net_phases
from skajax.plot._phase import flow_against_knowledge, phase_portrait, tensor_net_against_knowledge
from skajax.plot._precision import precision
from skajax.plot._predicted import predicted_times
from skajax.plot._rules import rules
from skajax.plot._separation import separation
from skajax.plot._steps import step_sizes
from skajax.plot._style import STYLE
from skajax.plot._surface import heatmap
from skajax.plot._work_precision import work_precision

__all__ = [
    "STYLE",
    "animate",
    "attention",
    "comparison",
    "convergence",
    "costs",
    "ensemble",
    "families",
    "flow_against_knowledge",
    "graph",
    "heatmap",
    "history",
    "invariance",
    "maps",
    "net_phases",
    "output_mean",
    "overview",
    "phase_portrait",
    "precision",
    "predicted_times",
    "rules",
    "separation",
    "step_sizes",
    "tensor_net_against_knowledge",
    "work_precision",
]
