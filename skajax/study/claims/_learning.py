"""Claims 18 and 19: what different starts learn, and whether classes separate."""

from typing import Any

import jax
import numpy as np

from skajax._types import Array, Float, Int
from skajax.study.claims._claim import Claim, Finding, Verdict, claim, graded
from skajax.study.experiments import Evidence, Snapshots
from skajax.study.words import band, number, per_layer, percent
from skajax.trajectory import Trajectory


@claim(
    18,
    "Different initialisations give different but equally structured solutions",
    place="section 2.5.2",
    says="Distinct initialisations lead to different, yet equally structured and effective, knowledge"
    " representations.",
    rule="Different: median over the pairs of seeds of the distance ‖W - W'‖ / sqrt(‖W‖ ‖W'‖) ≥ 0.5 in"
    " every layer. Equally structured: coefficient of variation over the seeds of final H and ‖Z‖ ≤ 10 %"
    " in every layer, and of the output's nearest-centroid accuracy too. Holds if both;"
    " approximately, if different and up to 50 %; else not",
)
def initialisations(evidence: Evidence) -> Finding:
    """Final weights of pairs of seeds, and the spread of what they amount to."""

    def measure(ensemble: Trajectory) -> tuple[list[float], dict[str, np.ndarray]]:
        apart = [_pairwise(np.asarray(w.W)) for w in ensemble.final.weights]
        accuracy = np.array([nearest_centroid(D, evidence.y) for D in ensemble.final.D[-1]])
        variation = {
            "entropy": _variation(np.asarray(ensemble.entropy)[:, -1]),
            "knowledge_norm": _variation(np.asarray(ensemble.knowledge_norm)[:, -1]),
            "accuracy": _variation(accuracy[:, None]),
        }
        return apart, variation

    found = {
        "discrete": measure(evidence.ensemble_published),
        "continuous": measure(evidence.ensemble_reference),
    }

    def describe(apart: list[float], variation: dict[str, np.ndarray]) -> str:
        return (
            "distance of the weights "
            + per_layer([number(a, 2) for a in apart])
            + ". Coefficient of variation of H: "
            + per_layer([percent(v) for v in variation["entropy"]])
            + "; of ‖Z‖: "
            + per_layer([percent(v) for v in variation["knowledge_norm"]])
            + f"; of the output's accuracy: {percent(float(variation['accuracy'][0]))}"
        )

    apart, variation = found["discrete"]
    worst = max(float(v.max()) for v in variation.values())
    verdict = graded(worst, 0.1, 0.5) if min(apart) >= 0.5 else Verdict.FAILS
    return Finding(
        discrete=describe(*found["discrete"]),
        continuous=describe(*found["continuous"]),
        verdict=verdict,
        margin=f"variation up to {percent(worst)}",
        why="Which neuron goes up and which goes down is drawn at the start; how much entropy goes is"
        " set by data and widths in the wide layers, and less so in the output's ten neurons.",
        numbers={name: {"distance": f[0], "variation": f[1]} for name, f in found.items()},
    )


@claim(
    19,
    "Knowledge grows, and class separation of the output grows with it",
    place="section 1.1",
    says="Accumulation manifests as growth in ‖Z‖ that correlates with increased separation in output"
    " decision probabilities.",
    rule="s is Spearman's rank correlation, over ten instants up to T, of the output layer's ‖Z‖ and the"
    " Fisher ratio of its D (between-class over within-class variance); a is the median over the seeds"
    " of the output's nearest-centroid accuracy at T minus that of the raw images. Holds if ‖Z‖ grows,"
    " s ≥ 0.9 and a ≥ 0; approximately, if ‖Z‖ grows and s ≥ 0.5; else not",
)
def class_separation(evidence: Evidence) -> Finding:
    """Separation of the output's decisions along a run."""
    raw = nearest_centroid(np.asarray(evidence.x), evidence.y)
    found = {
        "discrete": (evidence.snapshots_published, evidence.ensemble_published),
        "continuous": (evidence.snapshots_continuous, evidence.ensemble_reference),
    }
    texts: dict[str, str] = {}
    numbers: dict[str, Any] = {"raw_accuracy": raw}
    for name, (snapshots, ensemble) in found.items():
        norms, fisher, accuracy = _separation(snapshots, evidence.y)
        # The initial weights' small random output has a norm of its own, before anything is learnt.
        rank = _spearman(norms[1:], fisher[1:])
        grows = bool(np.all(np.diff(norms[1:]) > 0))
        final = np.array([nearest_centroid(D, evidence.y) for D in ensemble.final.D[-1]])
        start = np.array(
            [
                nearest_centroid(D, evidence.y)
                for D in jax.lax.map(
                    lambda w: evidence.network.forward(w, evidence.x)[1][-1],
                    evidence.ensemble_weights,
                )
            ]
        )
        texts[name] = (
            f"‖Z‖ of the output {'grows' if grows else 'does not grow'} at every instant, from"
            f" {number(norms[1])} to {number(norms[-1])}; Fisher ratio {number(fisher[0], 2)} at t = 0,"
            f" {number(fisher[1:].min(), 2)} to {number(fisher[1:].max(), 2)} later,"
            f" {number(fisher[-1], 2)} at the end;"
            f" rank correlation {number(rank, 2)}. Nearest-centroid accuracy over the seeds:"
            f" {band(100 * start, 2)} % at t = 0, {band(100 * final, 2)} % at the end"
            f" (raw images {percent(raw)})"
        )
        numbers[name] = {
            "norms": norms,
            "fisher": fisher,
            "accuracy": accuracy,
            "rank": rank,
            "grows": grows,
            "final_accuracy": final,
            "initial_accuracy": start,
        }
    d = numbers["discrete"]
    gain = float(np.median(d["final_accuracy"])) - raw
    verdict = Verdict.FAILS
    if d["grows"] and d["rank"] >= 0.5:
        strong = d["rank"] >= 0.9 and gain >= 0
        verdict = Verdict.HOLDS if strong else Verdict.APPROXIMATELY
    return Finding(
        discrete=texts["discrete"],
        continuous=texts["continuous"],
        verdict=verdict,
        margin=f"rank correlation {number(d['rank'], 2)} (seed 0), accuracy {number(100 * gain, 2)} points"
        " against the raw images",
        why="No label enters the rule: it pushes every decision towards certainty along the inputs'"
        " leading directions, of which classes are only a part.",
        numbers=numbers,
    )


def fisher_ratio(
    D: Float[Array | np.ndarray, "samples outputs"], y: Int[np.ndarray, " samples"]
) -> float:
    """Variance between the classes' means over variance within the classes, summed over neurons."""
    points = np.asarray(D, float)
    classes = [points[y == c] for c in np.unique(y)]
    whole = points.mean(axis=0)
    between = sum(len(c) * np.sum((c.mean(axis=0) - whole) ** 2) for c in classes)
    within = sum(np.sum((c - c.mean(axis=0)) ** 2) for c in classes)
    return float(between / within)


def nearest_centroid(
    D: Float[Array | np.ndarray, "samples outputs"], y: Int[np.ndarray, " samples"]
) -> float:
    """Part of the samples that lie nearest to their own class's mean."""
    points, classes = np.asarray(D, float), np.unique(y)
    means = np.array([points[y == c].mean(axis=0) for c in classes])
    squared = (points**2).sum(1)[:, None] - 2 * points @ means.T + (means**2).sum(1)
    return float(np.mean(classes[np.argmin(squared, axis=1)] == y))


def _separation(
    snapshots: Snapshots, y: Int[np.ndarray, " samples"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    norms = np.array([np.linalg.norm(Z[-1]) for Z in snapshots.Z])
    fisher = np.array([fisher_ratio(np.asarray(D[-1]), y) for D in snapshots.D])
    accuracy = np.array([nearest_centroid(np.asarray(D[-1]), y) for D in snapshots.D])
    return norms, fisher, accuracy


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    ranks = np.argsort(np.argsort([a, b], axis=1), axis=1)
    return float(np.asarray(np.corrcoef(ranks))[0, 1])


def _pairwise(W: Float[np.ndarray, "lanes inputs outputs"]) -> float:
    flat = W.reshape(len(W), -1).astype(float)
    inner = flat @ flat.T
    squared = np.diag(inner)
    distance = np.sqrt(np.maximum(squared[:, None] + squared - 2 * inner, 0))
    pairs = np.triu_indices(len(W), 1)
    return float(np.median((distance / (squared[:, None] * squared) ** 0.25)[pairs]))


def _variation(values: Float[np.ndarray, "lanes columns"]) -> np.ndarray:
    return np.std(values, axis=0, ddof=1) / np.abs(np.mean(values, axis=0))


CLAIMS: tuple[Claim, ...] = (initialisations, class_separation)
