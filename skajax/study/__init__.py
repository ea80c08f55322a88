"""Studies: the paper's experiments, and what they say of its claims."""

from skajax.study.claims import CLAIMS, Claim, Finding, Verdict
from skajax.study.experiments import Evidence, gather
from skajax.study.reproduce import Reproduction, reproduce

__all__ = [
    "CLAIMS",
    "Claim",
    "Evidence",
    "Finding",
    "Reproduction",
    "Verdict",
    "gather",
    "reproduce",
]
