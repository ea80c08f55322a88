"""Methods: what one step through time is."""

from skajax.methods._adaptive import Adaptive
from skajax.methods._descent import Descent
from skajax.methods._euler import Euler
from skajax.methods._method import Evolution, Method, Outcome, Path, Resume, Stats
from skajax.methods._published import Published

__all__ = [
    "Adaptive",
    "Descent",
    "Euler",
    "Evolution",
    "Method",
    "Outcome",
    "Path",
    "Published",
    "Resume",
    "Stats",
]
