"""Characteristic times: when each layer of a network learns, as measured and as predicted.

- :func:`measure`: the times that a run shows, by a registry of definitions; :func:`spread` and
  :func:`rank`: which of them are intrinsic; :func:`decay`: the power law of late times.
- :func:`spectrum`: the growth rates of a batch, while knowledge is small.
- :func:`linear`: the flow in closed form there.
- :func:`predict`: each layer's time of peak flow, and its curves, from a reduced model.
- :func:`design`: the initial scales, or rates, for which layers peak at wanted times.
- :func:`schedule`: how long to train, and in what steps, before training.

Every time is in the unit of the flow's: in a run of fixed steps, the number of steps times dt.
"""

from skajax.timescales._decay import PowerLaw, decay, power_law
from skajax.timescales._design import Design, design
from skajax.timescales._intrinsic import rank, spread
from skajax.timescales._linear import linear
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
from skajax.timescales._predict import Prediction, predict
from skajax.timescales._schedule import Schedule, schedule
from skajax.timescales._spectrum import Spectrum, spectrum
from skajax.timescales._thin import Size

__all__ = [
    "DEFINITIONS",
    "Definition",
    "Design",
    "PowerLaw",
    "Prediction",
    "Schedule",
    "Size",
    "Spectrum",
    "Times",
    "by_rule",
    "decay",
    "design",
    "entropy_left",
    "linear",
    "measure",
    "power_law",
    "predict",
    "rank",
    "residence",
    "residence_at",
    "schedule",
    "spectrum",
    "spread",
]
