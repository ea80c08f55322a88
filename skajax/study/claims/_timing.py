"""Claims 4-7 and 20: when layers learn, and when they are done."""

from collections.abc import Callable

import numpy as np

from skajax._types import Float
from skajax.landmarks import PAPER_DT, Landmark, minima, peaks
from skajax.study.claims._claim import Claim, Finding, Verdict, at, claim, graded
from skajax.study.experiments import LATE, Evidence, T
from skajax.study.words import band, number, per_layer, percent, spread
from skajax.trajectory import Trajectory

_FLOW_PEAKS = (28.0, 16.0, 24.0)


@claim(
    4,
    "T = 0.5 is the time the dynamics need to complete",
    place="section 2.2.1",
    says="T = η K = 0.5 is the intrinsic timescale over which the system completes its dynamics.",
    rule="r is the largest, over the layers and both, of H(T)/H(0) and flow(T)/peak flow, medians"
    " over the seeds in the continuous limit. Holds if r ≤ 5 %; approximately up to 20 %; else not",
)
def completes(evidence: Evidence) -> Finding:
    """What is left at T."""

    def left(runs: list[Trajectory]) -> tuple[np.ndarray, np.ndarray]:
        entropy = np.array([run.entropy[-1] / run.entropy[0] for run in runs])
        flow = np.array([run.flow_norm[-1] / run.flow_norm.max(axis=0) for run in runs])
        return entropy, flow

    discrete = left(evidence.lanes(evidence.ensemble_published))
    continuous = left(evidence.lanes(evidence.ensemble_reference))

    def describe(entropy: np.ndarray, flow: np.ndarray) -> str:
        return (
            "entropy left: "
            + per_layer([band(layer, 2) for layer in entropy.T])
            + ". Flow over its peak: "
            + per_layer([band(layer, 2) for layer in flow.T])
        )

    rest = float(np.median(np.concatenate(continuous, axis=-1), axis=0).max())
    late = evidence.late.entropy[-1] / evidence.late.entropy[0]
    return Finding(
        discrete=describe(*discrete),
        continuous=describe(*continuous)
        + f". At t = {number(LATE)} there is still "
        + per_layer([percent(rest) for rest in late]),
        verdict=graded(rest, 0.05, 0.2),
        margin=f"{percent(rest)} left",
        why="T lies after the peaks of layers 1-3 and before the end of anything: entropy goes on"
        " falling, and the flow decays as a power of time that has no end.",
        numbers={
            "entropy_left": {"discrete": discrete[0], "continuous": continuous[0], "late": late},
            "flow_left": {"discrete": discrete[1], "continuous": continuous[1]},
        },
    )


@claim(
    5,
    "The flow peaks at K of about 28, 16 and 24, and not at all in layer 4",
    place="section 2.3.2, figure 4",
    says="Layer 2 peaks at K ≈ 16, layers 3 and 1 around 24 and 28; layer 4 rises gradually.",
    rule="Per layer 1-3, m is the median over the seeds of the peak's K (K = 1 + t / 0.01 in the"
    " continuous limit), by the published rule. Holds if every |m - paper| ≤ 1.5 and layer 4 has no"
    " peak within T in 90 % of the seeds; approximately, up to 4 passes and 50 %; if not, depends"
    " on the seed where a layer's 5-95 % range is wider than 8 passes; else not",
)
def flow_peaks(evidence: Evidence) -> Finding:
    """Where the knowledge flow is largest."""
    discrete = _by_layer(peaks, evidence.lanes(evidence.ensemble_published))
    continuous = _by_layer(peaks, evidence.lanes(evidence.ensemble_reference))

    def describe(layers: list[list[Landmark]]) -> str:
        texts = [
            f"K = {band([peak.K for peak in found])}"
            if np.mean([peak.interior for peak in found]) >= 0.5
            else "none within T"
            for found in layers
        ]
        return per_layer(texts)

    off = max(
        abs(float(np.median([peak.K for peak in found])) - paper)
        for found, paper in zip(discrete[:3], _FLOW_PEAKS, strict=True)
    )
    no_peak = 1 - float(np.mean([peak.interior for peak in discrete[3]]))
    widths = [np.ptp(spread([peak.K for peak in found])[[0, 2]]) for found in discrete[:3]]
    if off <= 1.5 and no_peak >= 0.9:
        verdict = Verdict.HOLDS
    elif off <= 4 and no_peak >= 0.5:
        verdict = Verdict.APPROXIMATELY
    else:
        verdict = Verdict.SEED if max(widths) > 8 else Verdict.FAILS
    return Finding(
        discrete=describe(discrete),
        continuous=describe(continuous),
        verdict=verdict,
        margin=f"within {number(off, 2)} passes",
        why="This is the intrinsic part of the characteristic time: linear growth ends where"
        " z D'(z) saturates, at a time that the data and the widths set, and the seed hardly.",
        numbers={
            name: {"K": [[peak.K for peak in found] for found in layers], "layer_4_without": share}
            for name, layers, share in (
                ("discrete", discrete, no_peak),
                ("continuous", continuous, 1 - np.mean([p.interior for p in continuous[3]])),
            )
        },
    )


@claim(
    6,
    "Flow peaks align with entropy minima in layers 1-3",
    place="section 2.3.2, figure 3",
    says="Layers 1-3 show clear peaks in knowledge flow that align with entropy minimisation.",
    rule="d is the largest, over layers 1-3, median over the seeds of |K(flow peak) - K(minimum of"
    " the entropy per step)| by the published rule. Holds if d ≤ 1 pass; approximately up to 3;"
    " else not",
)
def peaks_align(evidence: Evidence) -> Finding:
    """How far apart the two are."""

    def gaps(ensemble: Trajectory) -> np.ndarray:
        runs = evidence.lanes(ensemble)
        pairs = zip(_by_layer(peaks, runs)[:3], _by_layer(minima, runs)[:3], strict=True)
        return np.array([[p.K - m.K for p, m in zip(*pair, strict=True)] for pair in pairs])

    discrete, continuous = gaps(evidence.ensemble_published), gaps(evidence.ensemble_reference)
    d = float(np.median(np.abs(discrete), axis=1).max())
    return Finding(
        discrete="flow peak minus entropy minimum, in passes: "
        + per_layer([band(gap, 2) for gap in discrete]),
        continuous="in units of 0.01: " + per_layer([band(gap, 2) for gap in continuous]),
        verdict=graded(d, 1.0, 3.0),
        margin=f"within {number(d, 2)} passes",
        why="The entropy rate is -(1/ln 2) Σ z D' ż: with |z D'| nearly equal over the neurons it"
        " follows ‖ż‖, and turns when the flow does.",
        numbers={"discrete": discrete, "continuous": continuous},
    )


@claim(
    7,
    "Convergence of the flow marks completion",
    place="section 2.3.2, abstract",
    says="Convergence of knowledge flow, with that of entropy, marks the end of accumulation.",
    rule="Take the time after its peak at which a layer's flow is 10 % of the peak, in the continuous"
    " limit up to t = 10. Holds if every layer has one within T, with at most 10 % of its entropy"
    " left there; approximately, if every layer has one, with at most 25 % left; else not",
)
def flow_converges(evidence: Evidence) -> Finding:
    """What is left when the flow has died down."""
    late = evidence.late
    times, left, exponents = [], [], []
    for layer in range(len(evidence.network.layers)):
        flow = late.flow_norm[:, layer]
        top = int(flow.argmax())
        low = np.flatnonzero(flow[top:] <= 0.1 * flow[top])
        times.append(float(late.t[top + low[0]]) if low.size else np.inf)
        left.append(
            float(late.entropy[top + low[0] if low.size else -1, layer] / late.entropy[0, layer])
        )
        tail = late.t >= LATE / 5
        exponents.append(float(np.polyfit(np.log(late.t[tail]), np.log(flow[tail]), 1)[0]))
    verdict = Verdict.FAILS
    if max(times) <= LATE and max(left) <= 0.25:
        verdict = Verdict.HOLDS if max(times) <= T and max(left) <= 0.1 else Verdict.APPROXIMATELY
    published = evidence.lanes(evidence.ensemble_published)
    ends = np.array([run.flow_norm[-1] / run.flow_norm.max(axis=0) for run in published])
    return Finding(
        discrete="flow at the end over its peak: " + per_layer([band(end, 2) for end in ends.T]),
        continuous="10 % of the peak, and the entropy left there: "
        + per_layer(
            [
                f"{f't = {number(time, 2)}' if time < np.inf else 'not by t = 10'}, {percent(rest)}"
                for time, rest in zip(times, left, strict=True)
            ]
        )
        + f". From t = {number(LATE / 5)} on, the flow falls as t to the power "
        + per_layer([number(p, 2) for p in exponents]),
        verdict=verdict,
        margin=f"seed 0: at most {percent(max(left))} of a layer's entropy left, by"
        f" t = {number(max(times), 2)}",
        why="A power law has no time of its own at which it is over: any threshold on the flow"
        " marks a chosen degree of completion, later than T.",
        numbers={"time": times, "entropy_left": left, "exponent": exponents, "end": ends},
    )


@claim(
    20,
    "The residence time ‖Z‖/‖Φ‖ is the characteristic time",
    place="section 2.2.2, eq. 5",
    says="T = knowledge capacity / knowledge flow, like the residence time of a gas.",
    rule="q is ‖Z‖/‖Φ‖ at T over T, per layer, median over the seeds in the continuous limit. Holds if"
    " every |q - 1| ≤ 20 %; approximately, up to 50 %; else not",
)
def residence_time(evidence: Evidence) -> Finding:
    """Eq. 5 along the run."""

    def ratio(run: Trajectory, times: Float[np.ndarray, " times"]) -> np.ndarray:
        return at(run, "knowledge_norm", times) / at(run, "flow_norm", times)

    end = np.array([T - 2 * PAPER_DT])  # the last pass that the published rule records
    discrete = np.array([ratio(run, end)[0] for run in evidence.lanes(evidence.ensemble_published)])
    continuous = np.array(
        [ratio(run, np.array([T]))[0] for run in evidence.lanes(evidence.ensemble_reference)]
    )
    along = ratio(evidence.reference, np.linspace(0.1 * T, T, 50))
    off = float(np.abs(np.median(continuous, axis=0) / T - 1).max())
    return Finding(
        discrete="at the last pass: " + per_layer([band(r, 2) for r in discrete.T]),
        continuous="at T: "
        + per_layer([band(r, 2) for r in continuous.T])
        + ". From 0.1 T to T it runs through "
        + per_layer([f"{number(r.min(), 2)} to {number(r.max(), 2)}" for r in along.T]),
        verdict=graded(off, 0.2, 0.5),
        margin=f"within {percent(off)} of T",
        why="The ratio is no constant of a layer: it grows throughout the run, and passes through"
        " T = 0.5 at a different moment in each layer.",
        numbers={"discrete": discrete, "continuous": continuous, "along": along},
    )


def _by_layer(
    find: Callable[[Trajectory], tuple[Landmark, ...]], runs: list[Trajectory]
) -> list[list[Landmark]]:
    return [list(layer) for layer in zip(*(find(run) for run in runs), strict=True)]


CLAIMS: tuple[Claim, ...] = (completes, flow_peaks, peaks_align, flow_converges, residence_time)
