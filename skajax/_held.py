"""How much of what a program computes is there at one time, before anything is compiled."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

LOOPS = frozenset(("scan", "while", "cond"))
VIEWS = frozenset(
    ("reshape", "broadcast_in_dim", "squeeze", "expand_dims", "convert_element_type", "copy")
)
"""What is the same array, or no array yet: of a type, only constants are converted."""
STORED = LOOPS | {
    "concatenate", "conv_general_dilated", "dot_general", "gather", "pad", "rev", "scatter", "scatter-add",
    "optimization_barrier", "sort", "split", "transpose",
}  # fmt: skip
"""What reads arrays from memory, and writes some; sums do too."""
READING = STORED - {"concatenate"}
"""What reads arrays from memory. A concatenation does not: its parts are computed where they belong in it."""


class _Step(NamedTuple):
    name: str
    reads: list[int]
    makes: list[int]
    within: int
    """What is there for the time of this step alone: in loops."""


def held_bytes(program: Any) -> int:
    """Of a jaxpr, the bytes of what it computes that are there at one time, at most; arguments apart.

    Steps are taken in its order, without those that nobody reads. As XLA has it, what is computed twice is
    computed once, and kept until its last reader. An elementwise function is computed, and a slice taken,
    within what reads it; it is stored where that is a product, a gather or a loop.
    """
    steps, sizes, results = _flat(getattr(program, "jaxpr", program))
    end, readers = len(steps), dict[int, list[int]]()
    for n, step in enumerate(steps):
        for value in step.reads:
            readers.setdefault(value, []).append(n)
    last = dict.fromkeys(
        results, end
    )  # by when a value is read for the last time, of what is stored
    stored = set(results)
    for n in reversed(range(end)):
        for value in steps[n].makes:
            reading = readers.get(value, [])
            if _stores(steps[n]) or any(steps[m].name in READING for m in reading):
                stored.add(value)
            late = [last[v] for m in reading for v in steps[m].makes if v not in stored]
            last[value] = max([last.get(value, n), *reading, *late])
    there = most = 0
    ends: dict[int, int] = {}
    for n, step in enumerate(steps):
        for value in stored.intersection(step.makes):
            there += sizes[value]
            ends[last[value]] = ends.get(last[value], 0) + sizes[value]
        most = max(most, there + step.within)
        there -= ends.pop(n, 0)
    return most


def _stores(step: _Step) -> bool:
    return step.name in STORED or step.name.startswith(("reduce", "arg", "cum"))


def _flat(program: Any) -> tuple[list[_Step], list[int], set[int]]:
    """The steps that are needed, calls in place; how large each value is; and which are given back."""
    steps, sizes, known = list[_Step](), list[int](), dict[Any, list[int]]()

    def new(values: Iterable[Any], size: Callable[[Any], int]) -> list[int]:
        first = len(sizes)
        sizes.extend(map(size, values))
        return list(range(first, len(sizes)))

    def run(program: Any, values: dict[Any, int]) -> list[int | None]:
        given = [v for v in (*program.invars, *program.constvars) if v not in values]
        values.update(zip(given, new(given, lambda v: 0), strict=True))
        of = lambda v: None if hasattr(v, "val") else values.get(v)
        for equation in program.eqns:
            name, makes = equation.primitive.name, equation.outvars
            within = list(_programs(equation.params))
            reads = [of(v) for v in equation.invars]
            if within and name not in LOOPS and len(within[0].invars) == len(reads):
                pairs = zip(within[0].invars, reads, strict=True)
                found: list[Any] = run(within[0], {v: n for v, n in pairs if n is not None})
            elif name in VIEWS:
                found = reads[:1]
            else:
                pairs = zip(equation.invars, reads, strict=True)
                told = [str(v.val) if hasattr(v, "val") else n for v, n in pairs]
                key = (name, *told, str(equation.params), *(str(v.aval) for v in makes))
                if key not in known:
                    known[key] = new(makes, _bytes)
                    here = sum(map(_bytes, (*equation.invars, *makes))) if name == "scan" else 0
                    here += max(map(held_bytes, within), default=0)
                    steps.append(_Step(name, [n for n in reads if n is not None], known[key], here))
                found = known[key]
            values.update((v, n) for v, n in zip(makes, found, strict=True) if n is not None)
        return [of(v) for v in program.outvars]

    results = {n for n in run(program, {}) if n is not None}
    needed, kept = set(results), list[_Step]()
    for step in reversed(steps):
        if needed.intersection(step.makes):
            needed.update(step.reads)
            kept.append(step)
    return kept[::-1], sizes, results


def _programs(params: Any) -> Iterator[Any]:
    """The jaxprs among an equation's parameters."""
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            each = getattr(each, "jaxpr", each)
            if hasattr(each, "eqns"):
                yield each


def _bytes(value: Any) -> int:
    aval = value.aval
    return math.prod(getattr(aval, "shape", ())) * getattr(
        getattr(aval, "dtype", None), "itemsize", 0
    )
