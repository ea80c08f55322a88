"""What is read off a dense run at chosen times, for figures of layers with space."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from skajax._checks import as_number, as_whole, is_whole, require
from skajax._types import SaveTimes
from skajax.landmarks import Landmark
from skajax.plot._axes import number
from skajax.system import Instant
from skajax.trajectory import Trajectory

Times: TypeAlias = SaveTimes | int | None
"""None: a layer's landmarks; a number: so many, evenly spaced over the run; or the times themselves."""
Places: TypeAlias = int | Sequence[int]


class Moment(NamedTuple):
    """A time at which something is drawn."""

    t: float
    name: str = ""
    """What it is, of a landmark."""

    @property
    def text(self) -> str:
        """For a title."""
        time = f"$t$ = {number(self.t, 3)}"
        return f"{self.name}\n{time}" if self.name else time


def layer_with(
    run: Trajectory, layer: int | None, has: Callable[[Any, Any], bool], what: str
) -> int:
    """A layer of which it holds, by its number from 1, given itself and its knowledge; None: the first."""
    run.solution()
    rows = zip(run.network.learning, run.final.Z, strict=True)
    among = [n for n, (each, z) in enumerate(rows, 1) if has(each, z)]
    require(len(among) > 0, "run", f"have a layer {what}", "none of its layers was one")
    if layer is None:
        return among[0]
    known = is_whole(layer) and int(layer) in among
    require(known, "layer", f"be one of the layers {what}, {among}", f"it was {layer!r}")
    return int(layer)


def moments(run: Trajectory, times: Times, peak: Landmark) -> list[Moment]:
    """The times asked for; by default the start, the peak of a layer's flow, and the end."""
    end = float(run.final.t)
    if times is None:
        inside = [Moment(peak.t, "flow peak")] if peak.interior else []
        return [Moment(0.0, "start"), *inside, Moment(end, "end")]
    count = as_whole(times)
    if is_whole(count):
        return [Moment(float(t)) for t in np.linspace(0.0, end, count)]
    one = isinstance(times, str) or np.ndim(times) != 1
    found = [] if one else [as_number(t) for t in cast(Iterable[Any], times)]
    good = all(isinstance(t, float) and 0 <= t <= end * (1 + 1e-6) for t in found)
    require(
        len(found) > 0 and good,
        "times",
        f"be times within the run, [0, {end:.8g}], or how many",
        f"it was {times!r}",
    )
    return [Moment(min(t, end)) for t in found]


def seen(
    run: Trajectory, function: Callable[[Instant], Sequence[Any]], layer: int, t: float
) -> Any:
    """What a function gives of the run at one time for a layer."""
    return run.solution().see(function, t)[layer - 1]


def places(argument: str, value: Places, count: int) -> list[int]:
    """Which of so many, from 0, as a list."""
    found = list(value) if isinstance(value, Sequence | np.ndarray) else [value]
    good = len(found) > 0 and all(is_whole(n, least=0) and n < count for n in found)
    must = f"be whole numbers from 0 to {count - 1}, one or several"
    require(good, argument, must, f"it was {value!r}")
    return [int(n) for n in found]
