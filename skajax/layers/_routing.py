"""Residual connections and branches: an array is held back, and joined again further up."""

import abc
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from skajax._checks import require
from skajax._types import Array, Inputs, Key
from skajax.layers._fields import choice


@dataclasses.dataclass(frozen=True)
class Residual:
    """y = x + f(x), where f(x) is what a stack of layers and stages makes of x.

    ``stack``: a layer, or a tuple of layers, stages and other residuals. Each layer in it learns as any
    other does: it has its own knowledge, its own local flow, and its row in the results. What is
    added is the decisions D of the last of them, and the sum is what the next layer reads; so that
    x must have their shape.

    In ``network.layers`` it stands as the items that it is made of, (``Hold()``, the stack, ``Join("sum")``),
    each with a place and an entry in the weights; when printed, as it was written. Raises ValueError where
    the shapes do not add up.

    >>> block = ska.layers.Residual((ska.Dense(6), ska.Dense(4)))
    >>> network = ska.Network((ska.Dense(4), block, block, ska.Dense(2)))
    >>> weights = network.init(jax.random.key(0), jnp.ones((5, 3)))
    >>> len(network.rows)
    6
    """

    stack: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "stack", _items("stack", self.stack))

    @property
    def items(self) -> tuple[Any, ...]:
        """What it is made of."""
        return (Hold(), *self.stack, Join("sum"))


@dataclasses.dataclass(frozen=True)
class Merge:
    """y = f_1(x) + f_2(x) + ..., or their concatenation, where each f is what a branch makes of x.

    ``branches``: at least two, each a layer or a tuple of layers and stages, which all read the same
    x; the empty tuple () is x itself. ``kind``: "sum", of arrays of one shape, or "concatenate",
    along the last axis, in the order of the branches. Layers learn as in a :class:`Residual`, which is
    ``Merge(((), stack))``.

    >>> wide = ska.layers.Merge((ska.Dense(4), (ska.Dense(6), ska.Dense(3))), kind="concatenate")
    >>> network = ska.Network((wide, ska.Dense(2)))  # the last layer reads 7 numbers
    """

    branches: Any
    kind: str = "sum"

    def __post_init__(self) -> None:
        require(
            isinstance(self.branches, tuple | list) and len(self.branches) >= 2,
            "branches",
            "be a tuple of at least two layers, or tuples of layers and stages",
            f"it was {self.branches!r}",
        )
        branches = tuple(_items("branches", branch, empty=True) for branch in self.branches)
        object.__setattr__(self, "branches", branches)
        choice(self, "kind", KINDS)

    @property
    def items(self) -> tuple[Any, ...]:
        """What it is made of: f_1(x) is held back while the other branches read x."""
        first, *rest = self.branches
        others = rest[0] if len(rest) == 1 else Merge(tuple(rest), self.kind).items
        return (Hold(), *first, Swap(), *others, Join(self.kind))


KINDS = ("sum", "concatenate")

Meet = Callable[[Callable[[Any, Any], Any], Any, Any], Any]
"""Applies a function of two arrays to what is routed: arrays, their shapes, or arrays with their rates."""


class Route(abc.ABC):
    """An item of a network that computes nothing of its own, and decides which array is read next.

    ``held`` are the arrays that wait, the last one in front. Whoever runs through a network's
    items hands it on from one to the next.
    """

    def init(self, key: Key, x: Inputs | jax.ShapeDtypeStruct) -> tuple[()]:
        """It has no weights."""
        return ()

    @abc.abstractmethod
    def route(self, held: tuple[Any, ...], x: Any, meet: Meet) -> tuple[tuple[Any, ...], Any]:
        """What waits from here on, and what the next item reads."""


@dataclasses.dataclass(frozen=True)
class Hold(Route):
    """Holds x back, and lets the next item read it too.

    >>> network = ska.Network((ska.Dense(4), ska.layers.Residual((ska.Dense(4),))))
    >>> network.layers[1]
    Hold()
    """

    def route(self, held: tuple[Any, ...], x: Any, meet: Meet) -> tuple[tuple[Any, ...], Any]:
        """x waits."""
        return (*held, x), x


@dataclasses.dataclass(frozen=True)
class Swap(Route):
    """Holds x back, and lets the next item read what waited.

    >>> network = ska.Network((ska.layers.Merge(((ska.Dense(4),), (ska.Dense(4),))),))
    >>> [type(each).__name__ for each in network.layers]
    ['Hold', 'Dense', 'Swap', 'Dense', 'Join']
    """

    def route(self, held: tuple[Any, ...], x: Any, meet: Meet) -> tuple[tuple[Any, ...], Any]:
        """x waits in its place."""
        return (*held[:-1], x), held[-1]


@dataclasses.dataclass(frozen=True)
class Join(Route):
    """The sum, or the concatenation along the last axis, of what waited and x.

    >>> network = ska.Network((ska.Dense(4), ska.layers.Residual((ska.Dense(4),))))
    >>> network.layers[-1]
    Join(kind='sum')
    """

    kind: str = "sum"

    def __post_init__(self) -> None:
        choice(self, "kind", KINDS)

    def route(self, held: tuple[Any, ...], x: Any, meet: Meet) -> tuple[tuple[Any, ...], Any]:
        """Nothing of the two waits any more."""
        return held[:-1], meet(self.join, held[-1], x)

    def join(self, a: Array, b: Array) -> Array:
        """a + b, or a beside b. Raises ValueError where their shapes do not fit."""
        whole = self.kind == "sum"
        require(
            a.ndim == b.ndim and (a.shape == b.shape if whole else a.shape[:-1] == b.shape[:-1]),
            "layers",
            "add up arrays of one shape"
            if whole
            else "concatenate arrays that differ in the last axis only",
            f"they were {a.shape} and {b.shape}",
        )
        return a + b if whole else jnp.concatenate([a, b], axis=-1)


def flat(items: Any) -> Iterator[Any]:
    """Layers, stages and routes, with what residuals and branches are made of in their place."""
    for item in items:
        if isinstance(item, Residual | Merge):
            yield from flat(item.items)
        else:
            yield item


def nested(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """Residuals and branches in the place of what they are made of: :func:`flat` undoes it."""
    if not balanced(items):
        return items
    open_: list[list[list[Any]]] = [[[]]]  # of the network, and of what is not joined yet: branches
    for item in items:
        if isinstance(item, Hold):
            open_.append([[]])
        elif isinstance(item, Swap):
            open_[-1].append([])
        elif isinstance(item, Join):
            branches = open_.pop()
            open_[-1][-1] += _joined([tuple(branch) for branch in branches], item)
        else:
            open_[-1][-1].append(item)
    return tuple(open_[0][0])


def _joined(branches: list[tuple[Any, ...]], join: Join) -> tuple[Any, ...]:
    """What is made of a Hold, these branches with a Swap between them, and a Join."""
    if len(branches) == 1 and branches[0] and join.kind == "sum":
        return (Residual(branches[0]),)
    if len(branches) == 2:
        first, rest = branches
        others = (rest,)
        if len(rest) == 1 and isinstance(rest[0], Merge) and rest[0].kind == join.kind:
            others = rest[0].branches
        return (Merge((first, *others), join.kind),)
    between = [part for branch in branches[1:] for part in (Swap(), *branch)]
    return (Hold(), *branches[0], *between, join)


def written(items: Any, within: str = "layers") -> Iterator[tuple[str, Any]]:
    """Of each of the items that :func:`flat` gives, in which place it was written, and as what.

    Of a route, that of the residual or merge that it belongs to.
    """
    for n, item in enumerate(items):
        here = f"{within}[{n}]", item
        if isinstance(item, Residual):
            yield here
            yield from written(item.stack, f"{here[0]}.stack")
            yield here
        elif isinstance(item, Merge):
            *branches, last = (
                written(branch, f"{here[0]}.branches[{m}]")
                for m, branch in enumerate(item.branches)
            )
            for branch in branches:
                yield from (here, *branch, here)
            yield from (*last, *(here for _ in branches))
        else:
            yield here


def balanced(items: tuple[Any, ...]) -> bool:
    """Whether all that is held back is joined again."""
    waiting = 0
    for item in items:
        if isinstance(item, Swap | Join) and not waiting:
            return False
        waiting += isinstance(item, Hold) - isinstance(item, Join)
    return waiting == 0


def _items(name: str, stack: Any, *, empty: bool = False) -> tuple[Any, ...]:
    """A stack, or one layer, as a tuple."""
    items = tuple(stack) if isinstance(stack, tuple | list) else (stack,)
    require(
        (empty or len(items) > 0)
        and all(hasattr(item, "init") or isinstance(item, Residual | Merge) for item in items),
        name,
        "be a layer, or a tuple of layers and stages",
        f"it was {stack!r}",
    )
    return items
