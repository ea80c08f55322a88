"""By what law the Tensor Net crosses zero, and where the paper's values lie in it."""

import numpy as np

from skajax.landmarks import PAPER_DT
from skajax.study.experiments import Evidence
from skajax.study.words import band, number, percent
from skajax.timescales import net_amplitudes, net_law

BALANCE = (
    "In the published sign the rate is Σ f(z) ż with f > 0 everywhere, so that only the balance of rising and"
    " falling knowledge can turn its sign; which neurons rise, their initial weights decide"
    " (ska.timescales.tensor_net)"
)
SHARES = np.linspace(1e-3, 0.56, 4001)


def amplitude(evidence: Evidence, layer: int, norm: float) -> float:
    """The root mean square of z in a layer with that ‖Z‖."""
    return norm / np.sqrt(evidence.x.shape[0] * evidence.network.layers[layer - 1].width)


def share_at(a: float) -> float:
    """The share of rising knowledge with which a layer of one amplitude has its last crossing at a."""
    last = np.nanmax(np.asarray(net_amplitudes(SHARES), float), axis=1, initial=0)
    return float(SHARES[np.argmin(np.abs(last - a))])


def of_norms(evidence: Evidence, paper: dict[int, float]) -> str:
    """Claim 8's law: which share the paper's ‖Z‖ stand for, and their place among all initialisations."""
    parts = []
    norms = np.asarray(evidence.expected_net.reduced.last[1], float)
    for layer, value in paper.items():
        a = amplitude(evidence, layer, value)
        parts.append(
            f"{value:g} in layer {layer} is a root mean square z of {number(a)}, where with one amplitude a"
            f" share of {number(share_at(a))} rises, and {_place(norms[:, layer - 1], value)}"
        )
    return f"{BALANCE}. {_sentence(parts)}."


def of_times(evidence: Evidence, paper: dict[int, float]) -> str:
    """Claim 9's law: the place of the paper's K."""
    K = 1 + np.asarray(evidence.expected_net.reduced.last[0], float) / PAPER_DT
    parts = [
        f"K = {value:g} in layer {layer} {_place(K[:, layer - 1], value)}"
        for layer, value in paper.items()
    ]
    return f"A crossing comes when ‖Z‖ passes by the value of claim 8. {_sentence(parts)}."


def of_second(evidence: Evidence) -> str:
    """Claim 10's law: a positive start, and the peak's ‖Z‖."""
    net = evidence.expected_net
    rate, Z = (np.asarray(a, float)[:, :, 1] for a in (net.rate, net.knowledge_norm))
    top = np.take_along_axis(Z, rate.argmax(axis=1)[:, None], axis=1)[:, 0]
    return (
        "While knowledge is small f = 1/2, and the sign is that of Σ ż: an even chance, by the signs of the"
        f" weights ({percent((rate[:, 0] > 0).mean())} of the initialisations expected). 1250 is a root mean"
        f" square z of {number(amplitude(evidence, 2, 1250.0))}, beyond saturation (1.54), where what rises"
        f" outweighs; it {_place(top, 1250.0)}"
    )


def of_fourth(evidence: Evidence) -> str:
    """Claim 11's law: how often a layer of few neurons stays negative."""
    net = evidence.expected_net
    t, rate = np.asarray(net.t, float), np.asarray(net.rate, float)[:, :, -1]
    time = np.gradient(t)
    part = ((rate < 0) * time).sum(axis=1) / time.sum()
    width = evidence.network.layers[-1].width
    law = net_law(width)
    fewer = float(np.asarray(law.probability)[np.asarray(law.share) < 0.5].sum())
    return (
        f"Of n = {width} neurons m rise, binomially: fewer than half in {percent(fewer)} of the"
        " initialisations, which then are negative up to a z beyond 1.54 on average, hardly before T."
        f" Expected: negative in 90 % of the time in {percent((part >= 0.9).mean())} of them"
    )


def of_order(evidence: Evidence) -> str:
    """Claim 12's law: which comes first, the crossing or the strongest flow."""
    width = evidence.network.layers[0].width
    before = float(net_law(width).counts[2])
    return (
        "Entropy falls fastest near z tanh(z/2) = 1, |z| = 1.543; with one amplitude a layer crosses before"
        f" |z| = 1.537 if a share of 0.5 to 0.557 rises, which of n = {width} neurons happens in"
        f" {percent(before)} of the initialisations, and after it with less"
    )


def _place(values: np.ndarray, value: float) -> str:
    known = values[np.isfinite(values)]
    if not known.size:
        return "is expected of no initialisation"
    below = float(np.mean(known < value))
    return (
        f"lies above {percent(below)} of what is expected over initialisations, {band(known)},"
        f" where there is any, in {percent(known.size / values.size)}"
    )


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return text[0].upper() + text[1:]
