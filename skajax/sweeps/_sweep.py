"""Many runs, one call: lanes over methods, step sizes, seeds, networks, data; one labelled result."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal

import jax
from jax.sharding import Mesh
from tqdm.auto import tqdm

from skajax._checks import is_whole, require
from skajax._fingerprint import fingerprint
from skajax._memory import host_bytes, in_words, make_room_for_programs
from skajax._types import Inputs, SaveTimes, ScalarLike, Weights
from skajax._version import versions
from skajax.methods import Method
from skajax.methods._method import Request
from skajax.network import Network
from skajax.stop import Rule
from skajax.sweeps._block import devices_of
from skajax.sweeps._grid import Arguments, grid
from skajax.sweeps._manifest import Described, describe
from skajax.sweeps._plan import Plan, make_groups
from skajax.sweeps._records import Row, assemble, labels_of, refused, stacked
from skajax.sweeps._runner import Runner, mesh_of
from skajax.sweeps._store import Store

if TYPE_CHECKING:
    import xarray

INTERVAL = 2.0
"""Seconds after which finished lanes are written, at the latest: what a kill can cost."""


def sweep(
    network: Network | Callable[..., Network],
    weights: Weights | Callable[..., Weights],
    x: Inputs | Callable[..., Inputs],
    method: Method | Sequence[Method] | Callable[..., Method],
    t1: ScalarLike | Callable[..., ScalarLike] | None = None,
    *,
    steps: int | Callable[..., int] | None = None,
    over: Mapping[str, Sequence[Any]] | None = None,
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

    Main arguments: each is either the same for all lanes, or a function of axes, by their names:

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

    Other arguments: ``save_at``, ``until`` and ``reduction`` as in ``simulate``; and

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
    lane why it ended, ``outcome_code`` and the statistics as in a run's own dataset; a lane whose
    arguments are refused, weights that are not finite, say, has the code -2 and its reason, and harms
    no other.

    Raises ValueError if a function names no axis, all lanes are refused, or they cannot fit.
    """
    axes, labels, choose = _axes(over, method)
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
        axes, network=network, weights=weights, x=x, method=choose, t1=t1, steps=steps
    )
    runner = Runner(arguments, mesh, final)
    base = Request(save_at=save_at, until=until)
    kept = _store(store, labels, arguments, base, reduction, final)
    with nullcontext() if kept is None or dry else kept:
        done = set() if kept is None else kept.ahead()
        # By their numbers, and not among those that are missing: all processes agree whose is which.
        mine = [lane for lane in range(len(arguments)) if lane % processes == process]
        specs, errors = runner.look([lane for lane in mine if lane not in done], base, reduction)
        if errors and len(errors) == len(arguments):
            raise next(iter(errors.values()))
        groups = make_groups(specs, mesh, at_once)
        plan = Plan(len(arguments), errors, len(done), groups, devices_of(mesh))
        if dry:
            return runner.timed(plan)
        _check_host(plan, kept)
        lanes = _Lanes(kept, len(arguments), len(done))
        with lanes:
            for lane, error in errors.items():
                lanes.add(refused(lane, error))
            for group in groups:
                make_room_for_programs()
                for block in group.blocks:
                    for found in runner.run(block):
                        lanes.add(found)
        data = lanes.data if kept is None else kept.read()
    return assemble(data, axes, labels)


def load_sweep(store: str | os.PathLike[str]) -> "xarray.Dataset":
    """The dataset of a sweep's ``store``, as far as it is there: missing lanes have the outcome -3."""
    kept = Store.open(store)
    axes = {name: tuple(labels) for name, labels in kept.manifest.axes.items()}
    return assemble(kept.read(), axes, {name: list(labels) for name, labels in axes.items()})


class _Lanes:
    """Finished lanes, on their way into the store, or into one dataset."""

    def __init__(self, store: Store | None, total: int, done: int) -> None:
        self.store, self.rows, self.parts = store, [], []
        self.bar = tqdm(
            total=total, initial=done, desc="lanes", unit="lane", disable=None, delay=1, leave=False
        )
        self.since = time.monotonic()

    def __enter__(self) -> "_Lanes":
        return self

    def __exit__(self, *error: object) -> None:
        # Whatever ends a sweep early: what it has found is kept.
        self.flush()
        self.bar.close()

    def add(self, row: Row) -> None:
        """One more is done."""
        self.rows.append(row)
        self.bar.update()
        if self.store is not None and time.monotonic() > self.since + INTERVAL:
            self.flush()

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
) -> tuple[dict[str, tuple[Any, ...]], dict[str, list[Any]], Any]:
    """The axes, what their values are called, and the method as one, or a function of axes."""
    axes = dict(grid(**over)) if over is not None else {}
    labels = labels_of(axes)
    if isinstance(method, Sequence):
        require("method" not in axes, "over", "leave out 'method'", "methods were given as a list")
        methods = list(method)
        require(len(methods) >= 1, "method", "hold at least one method", "it was empty")
        axes = {"method": tuple(range(len(methods)))} | axes
        labels = {"method": [getattr(each, "name", str(each)) for each in methods]} | labels
        return axes, labels, lambda method: methods[method]
    require(len(axes) >= 1, "over", "name at least one axis, or method be a list", "it was empty")
    return axes, labels, method


def _store(
    store: str | os.PathLike[str] | None,
    labels: Mapping[str, Sequence[Any]],
    arguments: Arguments,
    base: Request,
    reduction: str,
    final: bool,
) -> Store | None:
    """The store, if there is to be one."""
    if store is None:
        return None
    described = {name: _described(arguments, name) for name in arguments.given}
    same = {"save_at": base.save_at, "until": base.until, "reduction": reduction, "final": final}
    described |= {name: describe([value]) for name, value in same.items()}
    return Store(
        store, described, labels, process=jax.process_index(), processes=jax.process_count(),
        attrs=versions(),
    )  # fmt: skip


def _described(arguments: Arguments, name: str) -> Described:
    """What an argument is in all lanes; no two of its values need be there at a time."""
    digests: dict[Any, str] = {}
    first = ""
    for lane in range(len(arguments)):
        key = arguments.key(name, lane)
        if key not in digests:
            try:
                value = arguments.get(name, lane)
            except ValueError as error:
                value = str(error)
            one = describe([value])
            digests[key], first = one.digest, first or one.text
    more = f", the first of {len(digests)}" if len(digests) > 1 else ""
    in_order = [digests[arguments.key(name, lane)] for lane in range(len(arguments))]
    return Described(fingerprint(in_order), first + more)


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
