"""Methods: what one step through time is."""

import importlib
from typing import TYPE_CHECKING, Any

from skajax.methods._adaptive import Adaptive
from skajax.methods._euler import Euler
from skajax.methods._fixed import Method, Now, Step
from skajax.methods._method import AbstractMethod, Evolution, Path, Resume, Stats
from skajax.methods._outcome import Code, Outcome
from skajax.methods._pipelined import Pipelined
from skajax.methods._published import Published
from skajax.methods._rounded import Rounded

if TYPE_CHECKING:
    from skajax.methods._descent import Descent

__all__ = [
    "AbstractMethod",
    "Adaptive",
    "Code",
    "Descent",
    "Euler",
    "Evolution",
    "Method",
    "Now",
    "Outcome",
    "Path",
    "Pipelined",
    "Published",
    "Resume",
    "Rounded",
    "Stats",
    "Step",
]


def __getattr__(name: str) -> Any:
    # Optax is imported by who descends with it.
    if name == "Descent":
        return importlib.import_module("skajax.methods._descent").Descent
    raise AttributeError(f"module 'skajax.methods' has no attribute {name!r}")
