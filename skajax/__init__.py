"""skajax: learning as a continuous-time process, dW/dt = -∇H, in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

from skajax import entropy, landmarks, stop, timescales, variational
from skajax._version import __version__
from skajax.flow import State, flow, state, tangents
from skajax.layers import Dense, DenseWeights, Paced
from skajax.methods import Adaptive, Descent, Euler, Published
from skajax.network import Network, mlp
from skajax.observables import Observables
from skajax.simulate import RunFailed, extend, simulate
from skajax.sweeps import grid, load_sweep, on_times, sweep
from skajax.trajectory import Trajectory, load

if TYPE_CHECKING:
    from skajax import data, plot, study

__all__ = [
    "Adaptive",
    "Dense",
    "DenseWeights",
    "Descent",
    "Euler",
    "Network",
    "Observables",
    "Paced",
    "Published",
    "RunFailed",
    "State",
    "Trajectory",
    "__version__",
    "data",
    "entropy",
    "extend",
    "flow",
    "grid",
    "landmarks",
    "load",
    "load_sweep",
    "mlp",
    "on_times",
    "plot",
    "simulate",
    "state",
    "stop",
    "study",
    "sweep",
    "tangents",
    "timescales",
    "variational",
]


def __getattr__(name: str) -> Any:
    # Plots and studies draw in matplotlib and xarray, which a sweep on a cluster need not import.
    if name in ("data", "plot", "study"):
        return importlib.import_module(f"skajax.{name}")
    raise AttributeError(f"module 'skajax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
