"""When a network's layers learn: characteristic times, as a simulation shows them.

Rates are per unit of the flow's time t, and every time here is in that unit: in a run of fixed
steps, the number of steps times dt.
"""

from skajax.timescales._decay import PowerLaw, decay, power_law
from skajax.timescales._intrinsic import rank, spread
from skajax.timescales._measured import (
    DEFINITIONS,
    Definition,
    Times,
    by_rule,
    entropy_left,
    measure,
    residence,
    residence_at,
)

__all__ = [
    "DEFINITIONS",
    "Definition",
    "PowerLaw",
    "Times",
    "by_rule",
    "decay",
    "entropy_left",
    "measure",
    "power_law",
    "rank",
    "residence",
    "residence_at",
    "spread",
]
