"""The paper's claims, each with the rule by which evidence decides on it."""

from skajax.study.claims import _invariance, _learning, _tensor_net, _theory, _timing
from skajax.study.claims._claim import Claim, Finding, Verdict

CLAIMS: tuple[Claim, ...] = tuple(
    sorted(
        (
            claim
            for theme in (_invariance, _timing, _tensor_net, _theory, _learning)
            for claim in theme.CLAIMS
        ),
        key=lambda claim: claim.number,
    )
)

__all__ = ["CLAIMS", "Claim", "Finding", "Verdict"]
