"""Many runs, one call: lanes over methods, step sizes, seeds, networks, data; one labelled result."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import jax
import numpy as np
from jax.sharding import Mesh

from skajax._checks import is_whole, require
from skajax._files import require_folder
from skajax._fingerprint import fingerprint
from skajax._interrupt import finishing, keeping
from skajax._memory import host_bytes, in_words, make_room_for_programs
from skajax._messages import warn
from skajax._modes import working
from skajax._progress import Progress, told
from skajax._types import SaveTimes, ScalarLike, Weights
from skajax._version import versions
from skajax.energies import AbstractEnergy, Entropy
from skajax.methods import AbstractMethod
from skajax.methods._method import Request
from skajax.methods._outcome import Code
from skajax.network import Network
from skajax.observables import Observable
from skajax.observables import choose as chosen
from skajax.stop import Rule
from skajax.sweeps._block import devices_of
from skajax.sweeps._grid import Arguments, grid, labels
from skajax.sweeps._manifest import Described, describe
from skajax.sweeps._plan import Plan, make_groups
from skajax.sweeps._records import (
    LanesFailed,
    Row,
    assemble,
    reasons,
    stacked,
)
from skajax.sweeps._runner import Runner, mesh_of
from skajax.sweeps._store import Store

if TYPE_CHECKING:
    import xarray

INTERVAL = 2.0
"""Seconds after which finished lanes are written, at the latest: what a kill can cost."""


@working()
@told("sweep: preparing")
def sweep(
    network: Network | Callable[..., Network],
    weights: Weights | Callable[..., Weights],
    x: Any,
    method: AbstractMethod | Sequence[AbstractMethod] | Callable[..., AbstractMethod],
    t1: ScalarLike | Callable[..., ScalarLike] | None = None,
    *,
    steps: int | Callable[..., int] | None = None,
    over: Mapping[str, Sequence[Any]] | None = None,
    energy: AbstractEnergy | None = None,
    observe: Sequence[str | Observable] | None = None,
    save_at: SaveTimes | Literal["steps", "end"] | None = None,
    until: Rule | None = None,
    reduction: Literal["auto", "full", "off"] = "auto",
    final: bool = False,
    devices: Literal["all"] | Mesh | None = None,
    at_once: int | None = None,
    store: str | os.PathLike[str] | None = None,
    dry: bool = False,
) -> "xarray.Dataset | Plan":
    """Every combination of the axes ``over``, simulated: :func:`skajax.simulate`, many lanes at once.

    Main arguments: each is either the same for all lanes, or a function of axes (anything that can be
    called), by the names of its parameters:

        sweep(
            network,
            lambda seed: network.init(jax.random.key(seed), x),
            x,
            lambda dt: Published(dt),
            t1=0.5,
            over=grid(dt=[0.02, 0.01], seed=range(16)),
        )

    A list of methods is an axis by itself, ``method`` (in xarray's words, ``.sel({"method": "Euler"})``:
    its ``sel`` has an argument of that name). Lanes that share their shapes go together, and
    each makes the steps of its own run, none more: where lanes of a block have different lengths,
    those that are at their end leave it (adaptive ones are put beside others of about as many
    steps). On a processor that one lane keeps busy they go one by one, and each *is* its
    single run, bit for bit; in wider blocks each is its single run to rounding.

    Other arguments: ``energy``, ``observe``, ``save_at``, ``until`` and ``reduction`` as in ``simulate``; and

    - ``final=True`` keeps the states that lanes ended in: weights, Z and D.
    - ``devices``: ``"all"`` divides the lanes among this process's devices, or a ``jax.sharding.Mesh``
      says which. Its axis "lanes" divides lanes, another, if there is one, the samples of each.
    - ``at_once``: how many lanes go together on each device. None chooses: one by one where a lane
      keeps a processor busy by itself, as many as fit into memory (128 at most) elsewhere.
    - ``store``, a folder: lanes are written there when they are done, every two seconds. Killed at
      any moment, the same call goes on with those that are missing; another sweep's store is refused.
      With several processes (``jax.distributed``) each runs and writes its part of the lanes, and
      returns what is there when it is done: the last one all of it, as :func:`load_sweep` does.
    - ``dry=True`` runs nothing but a short pilot, and returns the :class:`Plan`: lanes, groups,
      lane-steps, bytes on a device and on disk, the time it will take.

    Returns a Dataset with the axes in front, then ``record`` and ``layer`` (or ``output``). Lanes have
    their own times, the coordinate ``t``; where one has fewer records (or layers) than another,
    NaN follows; :func:`on_times` puts all on common times. Failures are data: ``outcome`` tells for every
    lane why it ended, ``outcome_code`` and the statistics as in a run's own dataset. A lane whose
    arguments are refused, weights that are not finite, say, has the code -2 and its reason; one in
    which any other error is raised, in a function of axes or while it runs, has -4, and runs again
    when the same sweep with its store is started again. Neither harms another lane; a warning
    (:class:`skajax.sweeps.LanesFailed`) counts, by reason, those that did not come to their ends, and
    names them; another tells of all lanes that begin saturated (see ``simulate``), where t = 0 is recorded.
    An axis called ``steps`` takes the place of the statistic of that name.

    Raises ValueError if a function names no axis, or an axis is no function's; if no lane can run,
    as soon as that shows; or if the records cannot be held.

    >>> draw = lambda seed: network.init(jax.random.key(seed), x)
    >>> found = ska.sweep(network, draw, x, ska.Euler(0.05), 1.0, over=ska.grid(seed=range(3)))
    >>> found.entropy.dims, found.entropy.shape
    (('seed', 'record', 'layer'), (3, 21, 2))
    """
    axes, names, choose = _axes(over, method)
    require(
        at_once is None or is_whole(at_once), "at_once", "be a whole number, at least 1, or None",
        f"it was {at_once!r}",
    )  # fmt: skip
    processes, process = jax.process_count(), jax.process_index()
    require(
        processes == 1 or store is not None or dry,
        "store",
        "be a folder that all processes see",
        f"it was None, and there are {processes} processes",
    )
    mesh = mesh_of(devices)
    arguments = Arguments(
        axes, names, network=network, weights=weights, x=x, method=choose, t1=t1, steps=steps
    )
    energy = Entropy() if energy is None else energy
    runner = Runner(arguments, mesh, final, energy)
    base = Request(save_at=save_at, until=until, observe=chosen(observe, network, energy))
    kept = _store(store, names, arguments, base, reduction, final, energy)
    with nullcontext() if kept is None or dry else kept:
        done = set() if kept is None else kept.ahead()
        # By their numbers, and not among those that are missing: all processes agree whose is which.
        mine = [lane for lane in range(len(arguments)) if lane % processes == process]
        specs, errors = runner.look([lane for lane in mine if lane not in done], base, reduction)
        groups, unfit = make_groups(specs, mesh, at_once)
        errors |= unfit
        if errors and len(errors) == len(arguments):
            _raise(arguments, errors)
        plan = Plan(len(arguments), errors, len(done), groups, devices_of(mesh))
        if dry:
            return runner.timed(plan)
        _check_host(plan, kept)
        lanes = _Lanes(kept, len(arguments), len(done))
        with keeping(), lanes:
            for lane, error in errors.items():
                lanes.add(runner.lost(lane, error))
            for group in groups:
                make_room_for_programs()
                for block in group.blocks:
                    for found in runner.run(block):
                        lanes.add(found)
        data = lanes.data if kept is None else kept.read()
    data = assemble(data, axes, names)
    _tell(data, arguments, runner.errors)
    runner.saturated.warn()
    return data


def load_sweep(store: str | os.PathLike[str]) -> "xarray.Dataset":
    """The dataset of a sweep's ``store``, as far as it is there: missing lanes have the ``outcome_code`` -3.

    >>> draw = lambda seed: network.init(jax.random.key(seed), x)
    >>> _ = ska.sweep(network, draw, x, ska.Euler(0.05), 1.0, over=ska.grid(seed=range(3)), store="sweep")
    >>> ska.load_sweep("sweep").sizes["seed"]
    3
    """
    kept = Store.open(store)
    axes = {name: axis.tolist() for name, axis in kept.manifest.axes.items()}
    return assemble(kept.read(), axes, kept.manifest.axes)


class _Lanes:
    """Finished lanes, on their way into the store, or into one dataset."""

    def __init__(self, store: Store | None, total: int, done: int) -> None:
        self.store, self.rows, self.parts = store, [], []
        self.bar = Progress("lanes", total, done=done, begins="compiling, first lanes")
        self.since = time.monotonic()

    def __enter__(self) -> "_Lanes":
        self.bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        # Whatever ends a sweep early: what it has found is kept.
        self.bar.__exit__()
        self.flush()

    def add(self, row: Row) -> None:
        """One more is done."""
        self.rows.append(row)
        self.bar.update()
        if self.store is not None and time.monotonic() > self.since + INTERVAL:
            self.flush()

    @finishing()
    def flush(self) -> None:
        """Write what has not been written."""
        if self.rows:
            data = stacked(self.rows)
            now = time.monotonic()
            if self.store is None:
                self.parts.append(data)
            else:
                self.store.write(data, seconds=now - self.since)
            self.rows, self.since = [], time.monotonic()

    @property
    def data(self) -> "xarray.Dataset":
        """All of it."""
        (data,) = self.parts
        return data


def _axes(
    over: Mapping[str, Sequence[Any]] | None, method: Any
) -> tuple[dict[str, tuple[Any, ...]], dict[str, np.ndarray], Any]:
    """The axes, what their values are called, and the method as one, or a function of axes."""
    over = {} if over is None else over
    named = isinstance(over, Mapping) and all(isinstance(name, str) for name in over)
    require(named, "over", "be axes by their names, as grid() makes them", f"it was {over!r}")
    axes = grid(**over)
    names = {name: labels(values) for name, values in axes.items()}
    if isinstance(method, Sequence):
        require("method" not in axes, "over", "leave out 'method'", "methods were given as a list")
        methods = list(method)
        require(len(methods) >= 1, "method", "hold at least one method", "it was empty")
        axes = {"method": tuple(range(len(methods)))} | axes
        names = {"method": labels([getattr(each, "name", str(each)) for each in methods])} | names
        return axes, names, lambda method: methods[method]
    require(len(axes) >= 1, "over", "name at least one axis, or method be a list", "it was empty")
    return axes, names, method


def _raise(arguments: Arguments, errors: Mapping[int, Exception]) -> NoReturn:
    """Say why no lane could run, by the first."""
    lane = min(errors)
    if isinstance(errors[lane], ValueError):
        raise errors[lane]
    raise ValueError(
        f"Argument over must have lanes that can run, but all raised errors:"
        f" {type(errors[lane]).__name__}: {errors[lane]}, in {arguments.place(lane)}."
    ) from errors[lane]


def _tell(data: "xarray.Dataset", arguments: Arguments, errors: Mapping[int, Exception]) -> None:
    """Warn of lanes that did not come to their ends; a ValueError where none could run."""
    codes, outcomes = (data[name].values.ravel() for name in ("outcome_code", "outcome"))
    if np.isin(codes, (Code.REFUSED, Code.RAISED)).all():
        if errors:
            _raise(arguments, errors)
        raise ValueError(f"Argument over must have lanes that can run, but all {outcomes[0]}")
    lines = reasons(codes, outcomes, arguments.place)
    if lines:
        count = sum(int(line.split()[0]) for line in lines)
        few = f"{count} of {len(codes)} lanes did not come to their ends"
        warn("\n  ".join([f"{few}:", *lines]), LanesFailed)


def _store(
    store: str | os.PathLike[str] | None,
    names: Mapping[str, np.ndarray],
    arguments: Arguments,
    base: Request,
    reduction: str,
    final: bool,
    energy: AbstractEnergy,
) -> Store | None:
    """The store, if there is to be one."""
    if store is None:
        return None
    require_folder("store", store)
    described = {name: _described(arguments, name) for name in arguments.given}
    same: dict[str, Any] = {
        "save_at": base.save_at, "until": base.until, "reduction": reduction, "final": final,
    }  # fmt: skip
    # What is there unless it is asked for otherwise is not told: stores of before stay the same sweep's.
    if not isinstance(energy, Entropy) or not energy.local:
        same["energy"] = energy
    if base.observe != chosen(None, energy=energy):
        same["observe"] = base.observe
    described |= {name: describe([value]) for name, value in same.items()}
    return Store(
        store, described, names, process=jax.process_index(), processes=jax.process_count(),
        attrs=versions(),
    )  # fmt: skip


def _described(arguments: Arguments, name: str) -> Described:
    """What an argument is in all lanes; no two of its values need be there at a time."""
    digests: dict[Any, str | None] = {}
    first = ""
    for lane in range(len(arguments)):
        key = arguments.key(name, lane)
        if key not in digests:
            try:
                one = describe([arguments.get(name, lane)])
            except ValueError as error:
                one = describe([str(error)])
            except Exception:
                digests[key] = None  # nobody knows what it would have been
                continue
            digests[key], first = one.digest, first or one.text
    more = f", the first of {len(digests)}" if len(digests) > 1 else ""
    in_order = [digests[arguments.key(name, lane)] for lane in range(len(arguments))]
    each = tuple(digest and digest[:16] for digest in digests.values())
    return Described(fingerprint(in_order), first + more, each)


def _check_host(plan: Plan, kept: Store | None) -> None:
    """Refuse a sweep whose result cannot be held."""
    there = host_bytes()
    require(
        there is None or kept is not None or 2 * plan.record_bytes <= there,
        "store",
        "be a folder, or the lanes fewer, or their records (save_at, steps)",
        f"the records take {in_words(plan.record_bytes)} and as much again to be put together, and"
        f" there are {in_words(there or 0)}",
    )
