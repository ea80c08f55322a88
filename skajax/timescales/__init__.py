"""Characteristic times: when each layer of a network learns, as measured and as predicted.

- :func:`measure`: the times that a run shows, by a registry of definitions; :func:`spread` and
  :func:`rank`: which of them are intrinsic; :func:`decay`: the power law of late times.
- :func:`spectrum`: the growth rates of a batch, while knowledge is small.
- :func:`predict`: each layer's time of peak flow, and its curves, from a reduced model.

Every time is in the unit of the flow's: in a run of fixed steps, the number of steps times dt.
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
from skajax.timescales._predict import Prediction, predict
from skajax.timescales._spectrum import Spectrum, spectrum
from skajax.timescales._thin import Size

__all__ = [
    "DEFINITIONS",
    "Definition",
    "PowerLaw",
    "Prediction",
    "Size",
    "Spectrum",
    "Times",
    "by_rule",
    "decay",
    "entropy_left",
    "measure",
    "power_law",
    "predict",
    "rank",
    "residence",
    "residence_at",
    "spectrum",
    "spread",
]
