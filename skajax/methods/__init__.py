"""Methods: what one step through time is."""

from skajax.methods._adaptive import Adaptive
from skajax.methods._descent import Descent
from skajax.methods._euler import Euler
from skajax.methods._fixed import Method, Now, Step
from skajax.methods._method import AbstractMethod, Evolution, Outcome, Path, Resume, Stats
from skajax.methods._published import Published

__all__ = [
    "AbstractMethod",
    "Adaptive",
    "Descent",
    "Euler",
    "Evolution",
    "Method",
    "Now",
    "Outcome",
    "Path",
    "Published",
    "Resume",
    "Stats",
    "Step",
]
