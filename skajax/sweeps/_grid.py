"""Named axes, whose product are the lanes; and arguments that are functions of them."""

import inspect
import math
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import as_array, require
from skajax._memory import tree_bytes
from skajax.inputs import as_inputs
from skajax.methods import AbstractMethod
from skajax.network import Network
from skajax.observables import NAMES

KEPT = 500_000_000
"""Bytes of arguments that are kept for the lanes to come; beyond, they are made anew."""


_TAKEN = (
    *("record", "layer", "output", "t", "time", *NAMES),
    *("outcome", "evaluations", "rejected", "rank"),
)
"""What results have themselves; a run's number of ``steps`` gives way to an axis of that name."""
_PREFIXES = ("outcome_", "parameter_", "final_")


def grid(**axes: Iterable[Any]) -> dict[str, tuple[Any, ...]]:
    """Named axes, whose product are the lanes of a sweep: ``grid(dt=[0.01, 0.001], seed=range(8))``.

    Values are of any kind, in any container that has an order: lists, ranges, arrays of NumPy, JAX,
    xarray or pandas. Those that are numbers reach functions of the axis as Python's own, and are
    its labels; of anything else, its text is.

    Raises ValueError for an axis that is no such container, or empty, or has a name that results have
    themselves (``layer``, ``entropy``, ...).

    >>> axes = ska.grid(seed=range(4), dt=[0.01, 0.02])
    >>> list(axes)
    ['seed', 'dt']
    """
    return {name: _values(name, axis) for name, axis in axes.items()}


def _values(name: str, axis: Any) -> tuple[Any, ...]:
    """An axis's values, numbers of every library as Python's or NumPy's."""
    require(
        name not in _TAKEN and not name.startswith(_PREFIXES),
        name,
        "be an axis other than what results have themselves, such as 'layer' or 'entropy'",
        "it was one",
    )
    # A frame of pandas' would be taken for the names of its columns.
    unfit = isinstance(axis, str | bytes | Mapping | set | frozenset) or hasattr(axis, "columns")
    require(
        isinstance(axis, Iterable) and not unfit and getattr(axis, "shape", None) != (),
        name,
        "be a list of values, or another container that has an order",
        f"it was {axis!r}",
    )
    values = tuple(map(_number, axis))
    require(len(values) >= 1, name, "hold at least one value", "it was empty")
    masked = sum(np.ma.is_masked(value) for value in values)
    require(masked == 0, name, "have no masked values", f"it had {masked} of them")
    return values


def _number(value: Any) -> Any:
    """A number that is an array of no axes, as NumPy has it; anything else as it is."""
    if not hasattr(value, "__array__") or np.ndim(value) != 0 or value is np.ma.masked:
        return value
    try:
        array = np.asarray(value)
    except TypeError:  # a PRNG key
        return value
    return array[()] if jnp.issubdtype(array.dtype, np.number) or array.dtype == bool else value


def _python(value: Any) -> Any:
    """A number of NumPy's as Python's own, which every function takes."""
    if not isinstance(value, np.generic) or isinstance(value, float | complex):
        return value
    number = jnp.issubdtype(value.dtype, np.number) or value.dtype == bool
    return value.item() if number else value


def labels(values: Sequence[Any]) -> np.ndarray:
    """What to call an axis's values: numbers, truths and names as they are; of anything else, its text."""
    values = [_label(value) for value in values]
    numbers = not any(isinstance(value, str) for value in values)
    found = np.asarray(values if numbers else [str(value) for value in values])
    return np.asarray([str(value) for value in values]) if found.dtype == object else found


def _label(value: Any) -> Any:
    """A number that an index can hold, or text."""
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if isinstance(value, np.generic) and jnp.issubdtype(value.dtype, np.floating):
        size = value.dtype.itemsize
        return value if size in (4, 8) else np.float32(value) if size < 4 else float(value)
    plain = isinstance(value, bool | int | float | str) or kind in ("b", "i", "u")
    return value if plain and np.ndim(value) == 0 else str(value)


def placed(names: Mapping[str, np.ndarray], lane: int) -> dict[str, Any]:
    """A lane's labels on the axes of these ``names``, the last of which is the fastest."""
    return {name: names[name][n].item() for name, n in _index(names, lane).items()}


def named(names: Mapping[str, np.ndarray], lane: int) -> str:
    """A lane's number and its labels, in words."""
    at = (f"{name} = {names[name][n]}" for name, n in _index(names, lane).items())
    return f"lane {lane} ({', '.join(at)})"


def _index(axes: Mapping[str, Any], lane: int) -> dict[str, int]:
    at = np.unravel_index(lane, [len(values) for values in axes.values()])
    return {axis: int(n) for axis, n in zip(axes, at, strict=True)}


class Arguments:
    """What each lane is made of: the same for all lanes, or a function of axes, by their names.

    Lanes count from 0, the last axis first. What lanes have in common is one object.
    """

    def __init__(
        self, axes: Mapping[str, Sequence[Any]], names: Mapping[str, np.ndarray], **given: Any
    ) -> None:
        """Arguments by their names, for lanes over these axes, each of which must be one's.

        ``names`` are the axes' labels.

        A function is anything that can be called: of its parameters, those that are axes.
        """
        self.axes, self.names = axes, names
        self.shape = tuple(len(values) for values in axes.values())
        self.needs = {name: self._parameters(name, value) for name, value in given.items()}
        read = {axis for needs in self.needs.values() for axis in needs or ()}
        unread = [axis for axis in axes if axis not in read]
        require(
            not unread,
            "over",
            "have axes that an argument is a function of",
            f"nothing depends on {', '.join(map(repr, unread))}",
        )
        self.given = {
            name: _owned(name, value) if self.needs[name] is None else value
            for name, value in given.items()
        }
        self._made: dict[Any, Any] = {}
        self._held: set[int] = set()
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
            except Exception as error:
                # Of where it was raised the lines are kept, not the arrays that were there.
                traceback.clear_frames(error.__traceback__)
                value = error
            # What is kept already, as a part of something else, takes no more.
            leaves = {id(leaf): leaf for leaf in jax.tree.leaves(value)}
            new = {place: leaf for place, leaf in leaves.items() if place not in self._held}
            size = tree_bytes(new)
            if self._bytes + size <= KEPT:
                self._made[key] = value
                self._held |= new.keys()
                self._bytes += size
        if isinstance(value, Exception):
            raise value
        return value

    def place(self, lane: int) -> str:
        """A lane's number and its values, in words."""
        return named(self.names, lane)

    def _call(self, name: str, lane: int) -> Any:
        value, needs = self.given[name], self.needs[name]
        if needs is None:
            return value
        place = self._place(lane)
        at = {axis: _python(self.axes[axis][place[axis]]) for axis in needs}
        parameters = inspect.signature(value).parameters.items()
        first = [at.pop(n, p.default) for n, p in parameters if p.kind is p.POSITIONAL_ONLY]
        return _owned(name, value(*first, **at))

    def _place(self, lane: int) -> dict[str, int]:
        """Where a lane is on each axis."""
        return _index(self.axes, lane)

    def _parameters(self, name: str, value: Any) -> tuple[str, ...] | None:
        """The axes that an argument is a function of; None for one that is the same in all lanes."""
        if not callable(value) or isinstance(value, Network | AbstractMethod):
            return None
        try:
            parameters = inspect.signature(value).parameters
        except (TypeError, ValueError):
            parameters = {}
        every = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        single = {
            n: p for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        }
        needed = {name for name, p in single.items() if p.default is p.empty}
        wanted = tuple(axis for axis in (self.axes if every else single) if axis in self.axes)
        known = len(wanted) >= 1 and needed <= set(wanted)
        its = f"its parameters were {list(parameters)}"
        require(known, name, f"be a function of axes, {list(self.axes)}", its)
        return wanted


def _owned(name: str, value: Any) -> Any:
    """An argument in memory of its own: a function of axes may fill one buffer for all lanes."""
    if name == "x":
        return as_inputs(value)
    if name == "weights":
        return jax.tree.map(lambda leaf: as_array(name, leaf), value)
    return value.copy() if isinstance(value, np.ndarray) else value
