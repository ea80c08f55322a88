"""Runs that begin saturated: with knowledge so large that there is little left to decide."""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from skajax._checks import is_traced
from skajax._messages import warn
from skajax._types import Weights
from skajax.decisions import SIGMOID
from skajax.energies import Entropy
from skajax.inputs import as_inputs
from skajax.methods._method import Evolution, end_state
from skajax.system import System

SATURATED = 0.6713389318617229
"""h(1.5434) in bits: the entropy of a decision where z D'(z), which drives the flow, is largest."""
DECISIONS = 2**15
"""Of so many decisions a layer the mean is taken; where there are more, of evenly spaced samples."""

_RULE = (
    f"decisions hold {{:.2g}} bit of entropy each on average at t = 0; below {SATURATED:.2f} bit (|z| beyond"
    " 1.54) a neuron's flow only falls"
)
_TRY = "Weights that have learnt may be so; for initial ones try a smaller scale"


def warn_saturated(system: System, weights: Weights, x: Any) -> None:
    """Warn where a layer's entropy a decision is below :data:`SATURATED` on average at t = 0.

    Costs a forward pass, by the program that makes the run's final state; of traced values nothing is
    known, and nothing said.
    """
    if is_traced(system, weights) or not _applies(system):
        return
    t = jax.device_put(np.zeros((), system.dtype))
    Z = end_state(system, weights, t).Z
    if is_traced(Z) or not all(z.is_fully_addressable for z in Z):
        return  # inside jit all the same, or other processes hold a part
    means = [
        _mean_entropy(np.asarray(z)) if own else np.nan
        for z, own in zip(Z, _sigmoid(system), strict=True)
    ]
    found = _saturated(means)
    if found:
        which, rule = "its", _RULE.format(means[found[0] - 1])
        layers = f"layer {found[0]} begins"
        if len(found) > 1:
            which = f"layer {found[0]}'s"
            layers = f"layers {', '.join(map(str, found[:-1]))} and {found[-1]} begin"
        warn(f"{layers} saturated: {which} {rule}. {_hint(x)}.")


class SaturatedLanes:
    """Which lanes of a sweep begin saturated, by what they have recorded at t = 0."""

    def __init__(self) -> None:
        """None so far."""
        self.seen, self.hint = 0, ""
        self.found: list[tuple[int, int, float]] = []

    def look(self, lane: int, evolution: Evolution, system: System, knowledge: Any) -> None:
        """At one that has run; one without a record at t = 0 is not counted.

        ``knowledge`` has the shapes of its layers'.
        """
        if not len(evolution.t) or float(evolution.t[0]) != 0 or not _applies(system):
            return
        if "entropy" not in evolution.records:
            return
        self.seen += 1
        decisions = np.asarray([z.size for z in knowledge])
        means = np.asarray(evolution.records.entropy[0]) / decisions
        means = np.where(_sigmoid(system), means, np.nan).tolist()
        layers = _saturated(means)
        if layers:
            self.hint = self.hint or _hint(system.inputs)
            self.found.append((lane, layers[0], means[layers[0] - 1]))

    def warn(self) -> None:
        """Once for all of them."""
        if self.found:
            lane, layer, mean = self.found[0]
            warn(
                f"{len(self.found)} of {self.seen} lanes begin saturated, the first of them lane {lane}:"
                f" its layer {layer}'s {_RULE.format(mean)}. {self.hint}."
            )


def _saturated(means: Iterable[float]) -> list[int]:
    """The numbers of those layers, from 1; NaN is none."""
    return [n for n, mean in enumerate(means, start=1) if mean < SATURATED]


def _mean_entropy(z: np.ndarray) -> float:
    """Mean entropy of a decision, bits."""
    z = z[:: -(-z.size // DECISIONS)]
    a = np.abs(z)
    e = np.exp(-a)
    return float(np.mean(np.log1p(e) + a * e / (1 + e))) / np.log(2)


def _sigmoid(system: System) -> list[bool]:
    """Which layers decide by the sigmoid: what saturates another decision is another amplitude."""
    return [decision is SIGMOID for decision in system.network.decisions]


def _applies(system: System) -> bool:
    """Whether it is the entropy that moves the weights."""
    return isinstance(system.energy, Entropy)


def _hint(x: Any) -> str:
    """What to try, by the inputs as they were given."""
    x = as_inputs(x).at(0.0).x
    if not np.issubdtype(x.dtype, np.floating):
        return _TRY
    largest = float(np.max(np.abs(np.asarray(x))))
    pixels = ": x / 255 brings pixel values into [0, 1]" if 100 < largest <= 255 else ""
    return f"{_TRY}, or smaller inputs; max |x| is {largest:.3g}{pixels}"
