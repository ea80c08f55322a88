"""Named axes, whose product are the lanes; and arguments that are functions of them."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from skajax._checks import require
from skajax._memory import tree_bytes

KEPT = 500_000_000
"""Bytes of arguments that are kept for the lanes to come; beyond, they are made anew."""


def grid(**axes: Iterable[Any]) -> dict[str, tuple[Any, ...]]:
    """Named axes, whose product are the lanes of a sweep: ``grid(dt=[0.01, 0.001], seed=range(8))``."""
    values = {name: tuple(axis) for name, axis in axes.items()}
    for name, axis in values.items():
        require(len(axis) >= 1, name, "hold at least one value", "it was empty")
        taken = {"record", "layer", "output", "t"}
        require(name not in taken, name, f"be an axis other than {sorted(taken)}", "it was one")
    return values


class Arguments:
    """What each lane is made of: the same for all lanes, or a function of axes, by their names.

    Lanes count from 0, the last axis first. What lanes have in common is one object.
    """

    def __init__(self, axes: Mapping[str, Sequence[Any]], **given: Any) -> None:
        """Arguments by their names, for lanes over these axes."""
        self.axes = axes
        self.shape = tuple(len(values) for values in axes.values())
        self.given = given
        self.needs = {name: self._parameters(name, value) for name, value in given.items()}
        self._made: dict[Any, Any] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return math.prod(self.shape)

    def key(self, name: str, lane: int) -> tuple[Any, ...]:
        """Alike for lanes that have this argument in common."""
        needs = self.needs[name]
        if needs is None:
            return (name,)
        place = self._place(lane)
        return (name, *(place[axis] for axis in needs))

    def get(self, name: str, lane: int) -> Any:
        """A lane's argument."""
        return self.make(self.key(name, lane), lambda: self._call(name, lane))

    def make(self, key: Any, function: Callable[[], Any]) -> Any:
        """What a function gives, and gave before for this key; the same error, too."""
        if key in self._made:
            value = self._made[key]
        else:
            try:
                value = function()
            except ValueError as error:
                value = error
            size = tree_bytes(value)
            if self._bytes + size <= KEPT:
                self._made[key] = value
                self._bytes += size
        if isinstance(value, ValueError):
            raise value
        return value

    def _call(self, name: str, lane: int) -> Any:
        value, needs = self.given[name], self.needs[name]
        if needs is None:
            return value
        place = self._place(lane)
        return value(**{axis: self.axes[axis][place[axis]] for axis in needs})

    def _place(self, lane: int) -> dict[str, int]:
        """Where a lane is on each axis."""
        place = np.unravel_index(lane, self.shape)
        return {axis: int(n) for axis, n in zip(self.axes, place, strict=True)}

    def _parameters(self, name: str, value: Any) -> tuple[str, ...] | None:
        """The axes that an argument is a function of; None for one that is the same in all lanes."""
        if not inspect.isfunction(value):
            return None
        parameters = inspect.signature(value).parameters
        needed = {name for name, p in parameters.items() if p.default is p.empty}
        wanted = tuple(axis for axis in parameters if axis in self.axes)
        known = len(wanted) >= 1 and needed <= set(wanted)
        its = f"its parameters were {list(parameters)}"
        require(known, name, f"be a function of axes, {list(self.axes)}", its)
        return wanted
