"""Studies: the paper's experiments, and what they say of its claims."""

from skajax.study.claims import CLAIMS, Claim, Finding, Verdict
from skajax.study.experiments import Evidence, gather
from skajax.study.invariance import invariance
from skajax.study.invariance_table import invariance_table
from skajax.study.recommend import Recommendation, cost_table, precision_floor, recommend
from skajax.study.reproduce import Reproduction, reproduce
from skajax.study.synchronise import Synchronisation, synchronise
from skajax.study.work_precision import work_precision

__all__ = [
    "CLAIMS",
    "Claim",
    "Evidence",
    "Finding",
    "Recommendation",
    "Reproduction",
    "Synchronisation",
    "Verdict",
    "cost_table",
    "gather",
    "invariance",
    "invariance_table",
    "precision_floor",
    "recommend",
    "reproduce",
    "synchronise",
    "work_precision",
]
