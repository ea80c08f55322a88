"""skajax: learning as a continuous-time process, dW/dt = -∇H, in JAX.

The examples of all docstrings begin where these lines end; ``# doctest: +SKIP`` marks what takes longer:

>>> import jax, jax.numpy as jnp, numpy as np, skajax as ska
>>> x, y = ska.data.mnist_subset(per_class=2)
>>> network = ska.mlp([8, 10], scale=0.1)
>>> weights = network.init(jax.random.key(0), x)
>>> run = ska.simulate(network, weights, x, ska.Adaptive(), t1=6.0)
"""

import importlib
import os
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from skajax._interrupt import finishing

# ``python -m skajax``, and the executable of that name, import this before __main__, which first makes
# Ctrl-C end the command in one line, and only then imports the rest, by loading this again. Python has "-m"
# for the program's name until it has found __main__.
_PROGRAM = os.path.basename(sys.argv[0]) if sys.argv else ""
_MODULE = _PROGRAM == "-m" and ("-m", __name__) in pairwise(sys.orig_argv)
_SCRIPT = _PROGRAM in ("skajax", "skajax.exe", "skajax-script.py")
if not _MODULE and not (_SCRIPT and "skajax.__main__" not in sys.modules):
    from skajax import (
        costs,
        decisions,
        energies,
        entropy,
        formats,
        layers,
        pipeline,
        rules,
        stop,
    )
    from skajax._messages import SkajaxWarning
    from skajax._network_summary import summary
    from skajax._simulate import RunFailed, extend, simulate
    from skajax._version import __version__
    from skajax.energies import Energy
    from skajax.flows import Flow
    from skajax.inputs import Batch, MiniBatches, Moving
    from skajax.layers import Dense, DenseWeights, Paced
    from skajax.methods import Adaptive, Euler, Method, Pipelined, Published, Rounded, Step
    from skajax.network import Network, mlp
    from skajax.observables import Observable, Observables
    from skajax.system import Instant, State, System, flow, state, tangents
    from skajax.trajectory import Trajectory, load


if TYPE_CHECKING:
    from skajax import data, explore, landmarks, plot, study, timescales, variational
    from skajax._precision import check_precision
    from skajax.methods import Descent
    from skajax.sweeps import grid, load_sweep, on_times, sweep

__all__ = [
    "Adaptive",
    "Batch",
    "Dense",
    "DenseWeights",
    "Descent",
    "Energy",
    "Euler",
    "Flow",
    "Instant",
    "Method",
    "MiniBatches",
    "Moving",
    "Network",
    "Observable",
    "Observables",
    "Paced",
    "Pipelined",
    "Published",
    "Rounded",
    "RunFailed",
    "SkajaxWarning",
    "State",
    "Step",
    "System",
    "Trajectory",
    "__version__",
    "check_precision",
    "costs",
    "data",
    "decisions",
    "energies",
    "entropy",
    "explore",
    "extend",
    "flow",
    "formats",
    "grid",
    "landmarks",
    "layers",
    "load",
    "load_sweep",
    "mlp",
    "on_times",
    "pipeline",
    "plot",
    "rules",
    "simulate",
    "state",
    "stop",
    "study",
    "summary",
    "sweep",
    "tangents",
    "timescales",
    "variational",
]


_LATER = {
    **dict.fromkeys(
        ("data", "explore", "landmarks", "plot", "study", "sweeps", "timescales", "variational")
    ),
    "Descent": "methods",
    "check_precision": "_precision",
    **dict.fromkeys(("grid", "load_sweep", "on_times", "sweep"), "sweeps"),
}
"""What is imported when it is first asked for: modules, and names, each with the module that has it.

Most runs need none of it, and some of it needs other packages: Descent takes Optax, plots take Matplotlib.
"""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'skajax' has no attribute {name!r}")
    place = _LATER[name]
    with finishing():  # half of a library can often not be imported again
        module = importlib.import_module(f"skajax.{place or name}")
    return module if place is None else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
