"""Claims 1-3 and 21: trajectories at fixed η K, and what a better integrator gains."""

from collections.abc import Mapping

import numpy as np

from skajax.study.claims._claim import Claim, Finding, Verdict, claim, distance, graded
from skajax.study.errors import order, relative_error
from skajax.study.experiments import STEPS, Evidence, T
from skajax.study.words import number, per_layer, percent
from skajax.trajectory import Trajectory

_DTS = np.array([T / K for K in STEPS])
_SAME = (
    "D(η) is the relative L² distance in time of a curve to the ODE's, the largest over the layers."
    " Of a few seeds, at every η: holds if every D(0.02) ≤ 1 %; approximately, if D falls with η with an"
    " observed order between 0.8 and 1.2, the median over the seeds, and every D(0.001) ≤ 5 %; else not"
)


def _coincide(evidence: Evidence, observable: str, curves: str) -> Finding:
    by_rule = {
        name: np.array([distance(runs[K], evidence.reference, observable) for K in STEPS])
        for name, runs in (("published", evidence.published), ("euler", evidence.euler))
    }
    worst = {name: table.max(axis=1) for name, table in by_rule.items()}
    orders = {name: order(_DTS, errors) for name, errors in worst.items()}
    limits = evidence.lanes(evidence.ensemble_reference)
    lanes = [
        distance(run, limit, observable).max()
        for run, limit in zip(evidence.lanes(evidence.ensemble_published), limits, strict=True)
    ]
    seeds = np.array([
        worst["published"],
        *(
            [distance(runs[K], limit, observable).max() for K in STEPS]
            for runs, limit in zip(evidence.others, limits[1:], strict=False)
        ),
    ])  # fmt: skip
    each = np.array([order(_DTS, errors) for errors in seeds])
    converges = 0.8 <= np.median(each) <= 1.2 and seeds[:, -1].max() <= 0.05
    verdict = Verdict.APPROXIMATELY if converges else Verdict.FAILS
    if seeds[:, 0].max() <= 0.01:
        verdict = Verdict.HOLDS
    fine = seeds[:, -1]
    # The seed of the list above is one of those that the range is of.
    every = [*lanes, worst["published"][STEPS.index(50)]]
    middle, low, high = float(np.median(every)), min(every), max(every)
    local = np.diff(np.log(worst["published"])) / np.diff(np.log(_DTS))
    layer = int(by_rule["published"].max(axis=0).argmax())
    return Finding(
        discrete=f"distance of the {curves} to the ODE's, seed 0: "
        + ", ".join(
            f"{percent(error)} at η = {number(dt, 2)}"
            for dt, error in zip(_DTS, worst["published"], strict=True)
        )
        + f"; observed order {number(orders['published'])}; of {len(each)} seeds, the orders are"
        f" {', '.join(number(p, 2) for p in each)}",
        continuous=f"the curves have one limit; Euler's method reaches it with observed order"
        f" {number(orders['euler'])} ({percent(worst['euler'][0])} at η = 0.02,"
        f" {percent(worst['euler'][-1])} at 0.001)",
        verdict=verdict,
        margin=f"at η = 0.01 {percent(middle)} over {len(every)} seeds ({percent(low)} to"
        f" {percent(high)}); at η = 0.001 {percent(fine.min())} to {percent(fine.max())} over {len(fine)}",
        why="The curves are those of a first-order method at different steps: they approach one limit,"
        " and are not identical at any. Between neighbouring η the distance falls with orders from"
        f" {number(local.min(), 2)} to {number(local.max(), 2)}; the largest is that of layer {layer + 1}."
        + _trough(evidence, observable, layer),
        numbers={
            "eta": _DTS,
            "distance_by_layer": by_rule,
            "observed_order": orders,
            "distance_over_seeds": seeds,
            "observed_order_over_seeds": each,
            "local_orders": local,
            "distance_at_0.01_over_seeds": every,
        },
    )


def _trough(evidence: Evidence, observable: str, layer: int) -> str:
    """Of a cosine that falls and recovers, where it does so, and what a step does to that."""
    if observable != "alignment":
        return ""
    limit = evidence.reference
    curve = np.asarray(limit.alignment[:, layer], float)
    at = int(curve.argmin())
    if at in (0, len(curve) - 1):
        return ""
    lowest = [
        float(run.t[1 + int(np.asarray(run.alignment[1:, layer]).argmin())])
        for run in (evidence.published[K] for K in STEPS)
    ]
    return (
        f" Its cosine has a trough of {number(curve[at], 2)} at t = {number(float(limit.t[at]), 2)},"
        " where neurons whose decisions still move with their knowledge and such as already move against"
        " it nearly"
        " cancel. There a small error in time is a large one in the cosine: at the steps above the"
        f" trough lies at t = {', '.join(number(t, 2) for t in lowest)}, and distances are no longer"
        " in proportion to η."
    )


@claim(
    1,
    "Entropy curves coincide at fixed η K",
    place="section 2.1.2, figure 1",
    says="The learning trajectory is the same whatever η and K, as long as η K = 0.5.",
    rule=_SAME,
)
def entropy_curves(evidence: Evidence) -> Finding:
    """Figure 1, in numbers."""
    return _coincide(evidence, "entropy_rate", "entropy rates")


@claim(
    2,
    "Cosine curves coincide at fixed η K",
    place="section 2.1.2, figure 2",
    says="The cosine alignment follows the same trajectory whatever η and K.",
    rule=_SAME,
)
def cosine_curves(evidence: Evidence) -> Finding:
    """Figure 2, in numbers."""
    return _coincide(evidence, "alignment", "cosines")


@claim(
    3,
    "Entropy per step scales with η",
    place="section 2.5.2",
    says="Entropy values scale proportionally with the time step while shapes stay the same.",
    rule="p is the slope of log |smallest entropy per step| over log η, per layer. Holds if every"
    " |p - 1| ≤ 0.02; approximately up to 0.2; else not",
)
def entropy_scales(evidence: Evidence) -> Finding:
    """The depth of figure 1's minima over η."""

    def slopes(runs: Mapping[int, Trajectory]) -> np.ndarray:
        depth = np.array([np.abs(runs[K].entropy_rate.min(axis=0)) * T / K for K in STEPS])
        return np.array([order(_DTS, layer) for layer in depth.T])

    published, euler = slopes(evidence.published), slopes(evidence.euler)
    errors = [
        float(np.abs(slopes(runs) - 1).max()) for runs in (evidence.published, *evidence.others)
    ]
    error = max(errors)
    return Finding(
        discrete="slope, seed 0: " + per_layer([number(p) for p in published]),
        continuous="1 exactly: entropy per step is a rate times η, and the rate has a limit."
        " Euler: " + per_layer([number(p) for p in euler]),
        verdict=graded(error, 0.02, 0.2),
        margin=f"slopes within {number(error, 2)} of 1 over {len(errors)} seeds",
        why="A step's entropy is the rate times η; the rate itself still changes with η, by the"
        " first-order error of claim 1.",
        numbers={"slope_published": published, "slope_euler": euler, "error_over_seeds": errors},
    )


@claim(
    21,
    "Adaptive steps speed learning up",
    place="section 2.6.2",
    says="Adaptive time stepping from numerical integration may speed up SKA learning.",
    rule="Speed-up is the number of flow evaluations of Euler's method for the same error of the"
    " final weights (by its observed order) over those of Tsit5 at rtol = 1e-3. Holds if ≥ 2;"
    " approximately if ≥ 1.2; else not",
)
def adaptive_steps(evidence: Evidence) -> Finding:
    """Evaluations for equal error of the weights at T."""
    exact = evidence.reference.final.weights
    euler = np.array([relative_error(evidence.euler[K].final.weights, exact) for K in STEPS])
    slope, intercept = np.polyfit(np.log(_DTS), np.log(euler), 1)
    gains, texts = {}, []
    for rtol, run in evidence.adaptive.items():
        error = relative_error(run.final.weights, exact)
        evaluations = int(run.stats.evaluations or 0)
        equal = T / np.exp((np.log(error) - intercept) / slope)
        gains[rtol] = equal / evaluations
        texts.append(
            f"Tsit5 at rtol = {rtol:.0e} reaches {number(error, 2)} in {evaluations} evaluations,"
            f" Euler would need {number(equal, 2)}"
        )
    gain = gains[1e-3]
    verdict = graded(1 / gain, 1 / 2, 1 / 1.2)
    K = STEPS[1]
    return Finding(
        discrete=f"relative error of the final weights by Euler: {number(euler[1], 2)} at K = {K},"
        f" {number(euler[-1], 2)} at K = {STEPS[-1]} (order {number(slope)})",
        continuous="; ".join(texts),
        verdict=verdict,
        margin=f"seed 0: {number(gain, 2)} times fewer evaluations",
        why="The flow is smooth, so that a fifth-order method with error control takes few, long"
        " steps; the gain grows with the accuracy asked for.",
        numbers={"euler_error": euler, "euler_order": slope, "speed_up": gains},
    )


CLAIMS: tuple[Claim, ...] = (entropy_curves, cosine_curves, entropy_scales, adaptive_steps)
