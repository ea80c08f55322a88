"""Characteristic times: when each layer of a network learns, as measured and as predicted.

- :func:`measure`: the times that a run shows, by a registry of definitions; :func:`spread` and
  :func:`rank`: which of them are intrinsic; :func:`decay`: the power law of late times.
- :func:`growth`: the growth rates of any layer and energy, without a Jacobian.
- :func:`spectrum`: those of a batch that dense layers read, with all modes; :func:`linear`: the flow in
  closed form, while knowledge is small.
- :func:`predict`: each layer's time of peak flow, and its curves, from a reduced model.
- :func:`design`: the initial scales, or rates, for which layers peak at wanted times.
- :func:`tensor_net`: whether, when and where each layer's Tensor Net crosses zero; :func:`net_amplitudes`
  and :func:`net_law`: the law of it; :func:`signed`: initial weights that cross, or do not;
  :func:`net_phases`: when a run's layers grow, overtake and saturate.
- :func:`schedule`: how long to train, and in what steps, before training.

:func:`linear`, :func:`predict`, :func:`design`, :func:`tensor_net` and :func:`schedule` are of dense
sigmoid layers under their local entropy; of other layers and energies :func:`growth` gives the rates.

Every time is in the unit of the flow's: in a run of fixed steps, the number of steps times dt.
"""

from skajax.timescales._decay import PowerLaw, decay, power_law
from skajax.timescales._design import Design, design
from skajax.timescales._growth import Growth, growth
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
from skajax.timescales._net_law import NetLaw, net_amplitudes, net_law
from skajax.timescales._net_phases import NET_PARTS, NetPhases, net_phases
from skajax.timescales._predict import Prediction, predict
from skajax.timescales._schedule import Schedule, schedule
from skajax.timescales._spectrum import Spectrum, spectrum
from skajax.timescales._tensor_net import NetCrossings, TensorNet, signed, tensor_net
from skajax.timescales._thin import Size

__all__ = [
    "DEFINITIONS",
    "NET_PARTS",
    "Definition",
    "Design",
    "Growth",
    "NetCrossings",
    "NetLaw",
    "NetPhases",
    "PowerLaw",
    "Prediction",
    "Schedule",
    "Size",
    "Spectrum",
    "TensorNet",
    "Times",
    "by_rule",
    "decay",
    "design",
    "entropy_left",
    "growth",
    "linear",
    "measure",
    "net_amplitudes",
    "net_law",
    "net_phases",
    "power_law",
    "predict",
    "rank",
    "residence",
    "residence_at",
    "schedule",
    "signed",
    "spectrum",
    "spread",
    "tensor_net",
]
