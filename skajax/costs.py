"""What learning costs in hardware: operations, words moved and held, and energy, by rules that are stated.

One step of three ways to learn, each on a batch of B samples:

- "SKA": layer after layer. A layer's gradient is there as soon as its knowledge is, so that what it reads can
  be forgotten before the next layer begins: one layer's activations are held at a time.
- "backprop": gradients of one energy through all layers, which come back when all layers are done: all
  activations are held.
- "pipeline": SKA with a unit for each layer, all at once (:class:`skajax.Pipelined`): each holds what it
  reads, and what it decides.

Counted are products (of matrices, convolutions, sums by index); elementwise functions happen on the way. A
product's factors are read once, and what it gives is written once, each number a word: hardware that keeps
all of a factor at hand while it is used. The update reads and writes every weight. For a dense layer of n
inputs and m outputs, with its m biases, that is

    product        multiply-adds   words moved           who
    x W            B n m           B n + n m + B m       all
    xᵀ g           B n m           B n + B m + n m       all
    g Wᵀ           B n m           B m + n m + B n       backprop, but for the first layer
    update                         2 (n m + m)           all

Words held are the weights, and: of SKA max (B n + B m) over layers; of backprop the inputs, every layer's
B m, and the widest gradient, max B m; of the pipeline Σ (B n + B m).
"""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from skajax._checks import as_number, require

__all__ = ["FLOAT16", "FLOAT32", "INT8", "RULES", "Costs", "Count"]

RULES: tuple[str, ...] = ("SKA", "backprop", "pipeline")


@dataclasses.dataclass(frozen=True)
class Costs:
    """Energy of hardware: of a multiply-add, and of a word that moves, in picojoules.

    - ``multiply_add``: pJ.
    - ``near``: of a word read from or written to memory on the chip, pJ; ``far``: off the chip. A way to
      learn moves all its words near if what it holds fits into ``capacity`` words, and far otherwise.
    - ``source``: where the numbers are from.

    Raises ValueError for negative or infinite numbers.

    >>> mine = ska.costs.Costs(multiply_add=1.0, near=5.0, far=100.0, capacity=1e6)
    """

    multiply_add: float
    near: float
    far: float
    capacity: float
    source: str = "your own"

    def __post_init__(self) -> None:
        for name in ("multiply_add", "near", "far", "capacity"):
            value = as_number(getattr(self, name))
            object.__setattr__(self, name, value)
            require(
                isinstance(value, float) and 0 <= value < math.inf,
                name,
                "be a finite number, at least 0",
                f"it was {value!r}",
            )


_HOROWITZ = "M. Horowitz, Computing's energy problem, ISSCC 2014: 45 nm, 0.9 V"

FLOAT32 = Costs(3.7 + 0.9, 50.0, 650.0, 2.0**18, _HOROWITZ)
"""Multiplying and adding float32 takes 3.7 and 0.9 pJ; 64 bits from 1 MB of cache 100 pJ, from DRAM at least
1300 pJ (M. Horowitz, ISSCC 2014, 45 nm). A word is 32 bits."""

FLOAT16 = Costs(1.1 + 0.4, 25.0, 325.0, 2.0**19, _HOROWITZ)
"""The same source's float16: 1.1 and 0.4 pJ; a word is 16 bits."""

INT8 = Costs(0.2 + 0.1, 12.5, 162.5, 2.0**20, _HOROWITZ)
"""The same source's integers: 8 bits multiplied (0.2 pJ), added up in 32 bits (0.1 pJ); a word is 8 bits."""


@dataclasses.dataclass(frozen=True)
class Count:
    """What one step of one way to learn takes."""

    rule: str
    """One of ``RULES``."""
    operations: int
    """Multiply-adds."""
    span: int
    """Those of them that come one after another: all, but in the pipeline the busiest layer's."""
    moved: int
    """Words between memory and arithmetic."""
    held: int
    """Words of weights and activations, at the most."""
    energy: float
    """Joules, by the costs that were given."""

    def per_time(self, dt: float) -> float:
        """Joules per unit of learning time, with steps of dt.

        ``ska.study.invariance`` finds the dt that a method needs for an accuracy.
        """
        return self.energy / dt


@dataclasses.dataclass(frozen=True)
class Item:
    """A layer or stage, in numbers of one step."""

    forward: tuple[int, int]
    """Multiply-adds and words moved of its products: forward, ..."""
    own: tuple[int, int]
    """... of its weights' gradients, ..."""
    back: tuple[int, int]
    """... and of the gradient by what it reads."""
    reads: int
    """Words."""
    gives: int
    parameters: int
    learns: bool


def counted(items: list[Item], costs: Costs) -> Mapping[str, Count]:
    """What each way takes, of the layers and stages from the first."""
    forward, own, back = (
        [getattr(item, part) for item in items] for part in ("forward", "own", "back")
    )
    first = next(n for n, item in enumerate(items) if item.learns)
    # Below the first layer nothing learns by SKA, nor by backprop where stages have no weights.
    back = [part if n > first else (0, 0) for n, part in enumerate(back)]
    weights = sum(item.parameters for item in items)
    updated = sum(2 * item.parameters for item in items if item.learns)
    activations = [item.reads + item.gives for item in items]
    local = _sums(
        forward, [o if item.learns else (0, 0) for o, item in zip(own, items, strict=True)]
    )
    whole = _sums(forward, own, back)
    units = [f[0] + o[0] for f, o in zip(forward, own, strict=True)]
    found = {
        "SKA": (local, local[0], updated, max(activations)),
        "backprop": (
            whole, whole[0], 2 * weights,
            items[0].reads + sum(item.gives for item in items) + max(item.gives for item in items),
        ),
        "pipeline": (local, max(units), updated, sum(activations)),
    }  # fmt: skip

    def count(rule: str, sums: Any, span: int, update: int, activations: int) -> Count:
        moved, held = sums[1] + update, weights + activations
        word = costs.near if held <= costs.capacity else costs.far
        energy = 1e-12 * (sums[0] * costs.multiply_add + moved * word)
        return Count(rule, sums[0], span, moved, held, energy)

    return MappingProxyType({rule: count(rule, *found[rule]) for rule in RULES})


def _sums(*parts: list[tuple[int, int]]) -> tuple[int, int]:
    every = [pair for part in parts for pair in part]
    return sum(pair[0] for pair in every), sum(pair[1] for pair in every)
