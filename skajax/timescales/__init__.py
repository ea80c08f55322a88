"""Characteristic times: what data and architecture alone say of when each layer learns.

- :func:`spectrum`: the growth rates of a batch, while knowledge is small.
- :func:`linear`: the flow in closed form there.
- :func:`predict`: each layer's time of peak flow, and its curves, from a reduced model.
- :func:`design`: the initial scales, or rates, for which layers peak at wanted times.
- :func:`schedule`: how long to train, and in what steps, before training.
"""

from skajax.timescales._design import Design, design
from skajax.timescales._linear import linear
from skajax.timescales._predict import Prediction, predict
from skajax.timescales._schedule import Schedule, schedule
from skajax.timescales._spectrum import Spectrum, spectrum
from skajax.timescales._thin import Size

__all__ = [
    "Design",
    "Prediction",
    "Schedule",
    "Size",
    "Spectrum",
    "design",
    "linear",
    "predict",
    "schedule",
    "spectrum",
]
