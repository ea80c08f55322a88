"""Claims 8-12: the Tensor Net's zero crossings and shapes."""

from typing import Any

import numpy as np

from skajax.landmarks import Landmark, crossings, minima, peaks
from skajax.study.claims import _net_law
from skajax.study.claims._claim import Claim, Finding, Verdict, at, claim
from skajax.study.experiments import Evidence
from skajax.study.words import band, percent, spread
from skajax.trajectory import Trajectory

_BY_SHARE = (
    " Holds if true of at least 90 % of the seeds by the published rule; depends on the seed if of"
    " 10 to 90 %{also}; else does not hold"
)
_IN_RANGE = (
    ", or if the paper's values lie within the seeds' 5-95 % ranges, or a crossing exists for some"
    " seeds only"
)


def _by_share(share: float, seed_dependent: bool = False) -> Verdict:
    if share >= 0.9:
        return Verdict.HOLDS
    return Verdict.SEED if share > 0.1 or seed_dependent else Verdict.FAILS


def _onset(run: Trajectory, layer: int, observable: str = "tensor_net_rate") -> Landmark | None:
    """The paper's green dot: the last rising zero crossing of the Net's rate."""
    rising = [c for c in crossings(run, observable) if c.layer == layer and c.direction > 0]
    return rising[-1] if rising else None


def _onsets(
    evidence: Evidence,
    field: str,
    paper: dict[int, float],
    tolerance: dict[int, float],
    what: str,
    why: str,
) -> Finding:
    """Claims 8 and 9: where the crossings of layers 1 and 3 lie, over the seeds."""
    ensembles = {
        "discrete": evidence.lanes(evidence.ensemble_published),
        "continuous": evidence.lanes(evidence.ensemble_reference),
    }
    texts, shares, depends = {}, {}, {}
    numbers: dict[str, Any] = {}
    for name, runs in ensembles.items():
        onsets = {layer: [_onset(run, layer) for run in runs] for layer in paper}
        values = {
            layer: np.array([getattr(found, field) if found else np.nan for found in row])
            for layer, row in onsets.items()
        }
        near = [np.abs(values[layer] - paper[layer]) <= tolerance[layer] for layer in paper]
        shares[name] = float(np.mean(np.logical_and.reduce(near)))
        parts, depends[name] = [], False
        for layer, row in values.items():
            there = row[np.isfinite(row)]
            exists = there.size / row.size
            if there.size:
                low, _, high = spread(there)
                depends[name] |= bool(low <= paper[layer] <= high) or 0.1 < exists < 0.9
                parts.append(
                    f"layer {layer}: {what} {band(there)}, in {percent(exists)} of the seeds"
                )
            else:
                parts.append(f"layer {layer}: no crossing in any seed")
        texts[name] = (
            "; ".join(parts)
            + f". Both near the paper's values in {percent(shares[name])} of the seeds"
        )
        numbers[name] = {"value": values, "share": shares[name]}
    limits = ensembles["continuous"]
    other = {
        layer: float(
            np.mean([_onset(run, layer, "tensor_net_rate_equation") is not None for run in limits])
        )
        for layer in paper
    }
    texts["continuous"] += ". In the equation's sign, rising crossings exist in " + ", ".join(
        f"{percent(share)} of the seeds (layer {layer})" for layer, share in other.items()
    )
    numbers["share_with_crossing_in_equation_sign"] = other
    return Finding(
        discrete=texts["discrete"],
        continuous=texts["continuous"],
        verdict=_by_share(shares["discrete"], depends["discrete"]),
        why=why,
        numbers=numbers,
    )


@claim(
    8,
    "The Net crosses zero at ‖Z‖ of about 600 in layer 1 and 450 in layer 3",
    place="section 2.4.2, figure 5",
    says="Layer 1's zero crossing occurs at approximately 600 units, layer 3's at about 450.",
    rule="Last rising zero of the Net's rate (published sign) within 15 % of 600 in layer 1 and of"
    " 450 in layer 3." + _BY_SHARE.format(also=_IN_RANGE),
)
def crossing_norms(evidence: Evidence) -> Finding:
    """Figure 5's green dots."""
    return _onsets(
        evidence,
        "knowledge_norm",
        {1: 600.0, 3: 450.0},
        {1: 90.0, 3: 67.5},
        "‖Z‖ =",
        _net_law.of_norms(evidence, {1: 600.0, 3: 450.0}),
    )


@claim(
    9,
    "These crossings come at K of about 24 and 23",
    place="section 2.4.2, figure 6",
    says="Layers 1 and 3 cross zero at approximately K = 24 and K = 23.",
    rule="Last rising zero of the Net's rate (published sign) within 2 passes of 24 in layer 1 and of"
    " 23 in layer 3." + _BY_SHARE.format(also=_IN_RANGE),
)
def crossing_times(evidence: Evidence) -> Finding:
    """Figure 6's crossings."""
    return _onsets(
        evidence,
        "K",
        {1: 24.0, 3: 23.0},
        {1: 2.0, 3: 2.0},
        "K =",
        _net_law.of_times(evidence, {1: 24.0, 3: 23.0}),
    )


@claim(
    10,
    "Layer 2 starts positive and peaks near ‖Z‖ = 1250",
    place="section 2.4.2, figures 5 and 6",
    says="Layer 2 begins with positive values and is a classic parabola with a peak around 1250.",
    rule="Layer 2's Net rate (published sign) is positive when the flow sets in (pass 2), and largest"
    " at ‖Z‖ within 15 % of 1250." + _BY_SHARE.format(also=""),
)
def second_layer(evidence: Evidence) -> Finding:
    """Layer 2 in figures 5 and 6."""
    found = {}
    for name, ensemble in _ensembles(evidence).items():
        runs = evidence.lanes(ensemble)
        # Pass 1 has no flow under the published rule, so that the first sign is pass 2's.
        start = np.array(
            [run.tensor_net_rate[np.nonzero(run.tensor_net_rate[:, 1])[0][0], 1] for run in runs]
        )
        top = np.array([peaks(run, "tensor_net_rate")[1].knowledge_norm for run in runs])
        near = np.abs(top / 1250 - 1) <= 0.15
        found[name] = (start > 0, top, near, float(np.mean((start > 0) & near)))

    def describe(positive: np.ndarray, top: np.ndarray, near: np.ndarray, share: float) -> str:
        return (
            f"starts positive in {percent(positive.mean())} of the seeds; peak at ‖Z‖ = {band(top)},"
            f" near 1250 in {percent(near.mean())}; both in {percent(share)}"
        )

    return Finding(
        discrete=describe(*found["discrete"]),
        continuous=describe(*found["continuous"]),
        verdict=_by_share(found["discrete"][3]),
        why=_net_law.of_second(evidence) + ".",
        numbers={name: {"positive": f[0], "peak_norm": f[1]} for name, f in found.items()},
    )


@claim(
    11,
    "Layer 4 is negative almost throughout",
    place="section 2.4.2, figures 5 and 6",
    says="Layer 4 shows uniquely negative Tensor Net values throughout most of its trajectory.",
    rule="Layer 4's Net rate (published sign) is negative in at least 90 % of the records with flow."
    + _BY_SHARE.format(also=""),
)
def fourth_layer(evidence: Evidence) -> Finding:
    """Layer 4 in figures 5 and 6."""
    negative = {}
    for name, ensemble in _ensembles(evidence).items():
        rate = np.asarray(ensemble.tensor_net_rate)[..., 3]
        negative[name] = np.sum(rate < 0, axis=1) / np.sum(rate != 0, axis=1)
    share = {name: float(np.mean(part >= 0.9)) for name, part in negative.items()}

    def describe(name: str) -> str:
        return (
            f"negative in {band(100 * negative[name], 2)} % of the records; in at least 90 % of them"
            f" for {percent(share[name])} of the seeds"
        )

    return Finding(
        discrete=describe("discrete"),
        continuous=describe("continuous"),
        verdict=_by_share(share["discrete"]),
        why=_net_law.of_fourth(evidence) + ".",
        numbers={"negative_part": negative, "share": share},
    )


@claim(
    12,
    "Entropy minimum and zero crossing come in a definite order, layer by layer",
    place="section 2.4.2, figure 5",
    says="Layer 1's minimum comes after its crossing, layer 2's early in the positive trajectory,"
    " layer 4's at the highest ‖Z‖.",
    rule="Layer 1: minimum of the entropy per step after the last rising zero of the Net's rate."
    " Layer 2: at a positive rate and below 1250, the top of the parabola. Layer 4: in the last"
    " record. All three." + _BY_SHARE.format(also=""),
)
def order_of_landmarks(evidence: Evidence) -> Finding:
    """The order in figure 5."""
    found = {}
    for name, ensemble in _ensembles(evidence).items():
        rows = []
        for run in evidence.lanes(ensemble):
            low = minima(run)
            onset = _onset(run, 1)
            rows.append(
                (
                    onset is not None and low[0].t > onset.t,
                    bool(at(run, "tensor_net_rate", [low[1].t])[0, 1] > 0)
                    and low[1].knowledge_norm < 1250,
                    not low[3].interior,
                )
            )
        found[name] = np.array(rows)

    def describe(table: np.ndarray) -> str:
        each = ", ".join(
            f"layer {n}: {percent(s)}" for n, s in zip((1, 2, 4), table.mean(0), strict=True)
        )
        return f"as the paper says, {each} of the seeds; all three, {percent(table.all(1).mean())}"

    return Finding(
        discrete=describe(found["discrete"]),
        continuous=describe(found["continuous"]),
        verdict=_by_share(float(found["discrete"].all(1).mean())),
        why=_net_law.of_order(evidence) + ". The minima themselves are intrinsic (claim 5).",
        numbers=found,
    )


def _ensembles(evidence: Evidence) -> dict[str, Trajectory]:
    return {"discrete": evidence.ensemble_published, "continuous": evidence.ensemble_reference}


CLAIMS: tuple[Claim, ...] = (
    crossing_norms,
    crossing_times,
    second_layer,
    fourth_layer,
    order_of_landmarks,
)
