"""Studies: the paper's experiments, and what they say of its claims."""

from skajax._extras import take

take("skajax.study", "study", "matplotlib")
take("skajax.study", "study", "networkx")
take("skajax.study", "study", "markdown_it")

from skajax.study.architectures import architectures
from skajax.study.claims import CLAIMS, Claim, Finding, Verdict
from skajax.study.experiments import Evidence, gather
from skajax.study.families import families
from skajax.study.families_table import families_table
from skajax.study.intrinsic import Intrinsic, intrinsic, intrinsic_table
from skajax.study.invariance import invariance
from skajax.study.invariance_table import invariance_table
from skajax.study.net_control import net_control
from skajax.study.precision import precision, precision_table
from skajax.study.recommend import Recommendation, cost_table, precision_floor, recommend
from skajax.study.reproduce import Reproduction, reproduce
from skajax.study.rules import rules, rules_table
from skajax.study.schedules import schedules, schedules_table
from skajax.study.separation import (
    cluster_agreement,
    fisher_ratio,
    probe_accuracy,
    separation,
)
from skajax.study.settings import Setting
from skajax.study.synchronise import Synchronisation, synchronise
from skajax.study.tensor_net import tensor_net, tensor_net_table
from skajax.study.work_precision import work_precision

__all__ = [
    "CLAIMS",
    "Claim",
    "Evidence",
    "Finding",
    "Intrinsic",
    "Recommendation",
    "Reproduction",
    "Setting",
    "Synchronisation",
    "Verdict",
    "architectures",
    "cluster_agreement",
    "cost_table",
    "families",
    "families_table",
    "fisher_ratio",
    "gather",
    "intrinsic",
    "intrinsic_table",
    "invariance",
    "invariance_table",
    "net_control",
    "precision",
    "precision_floor",
    "precision_table",
    "probe_accuracy",
    "recommend",
    "reproduce",
    "rules",
    "rules_table",
    "schedules",
    "schedules_table",
    "separation",
    "synchronise",
    "tensor_net",
    "tensor_net_table",
    "work_precision",
]
