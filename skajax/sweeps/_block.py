"""Many runs at once: a block of lanes that step together, on one device or divided among several.

Lanes of a block share their shapes and programs, not their numbers. All of them have taken
equally many steps; where the shortest is at its end it leaves, and the others go on in narrower
blocks, so that no lane makes a step that is not its own. Every device has lanes to itself, and asks
nothing of another.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from skajax._types import Array, Int, Weights
from skajax.methods import AbstractMethod, Adaptive, Evolution, Method, Outcome, Stats
from skajax.methods._adaptive import end_time, integrate_inside, save_times
from skajax.methods._fixed import (
    CHUNK,
    Look,
    Record,
    begin,
    look_of,
    no_verdict,
    record_shape,
    take,
)
from skajax.methods._method import Request, end_state, written
from skajax.methods._outcome import Code
from skajax.stop import Verdict
from skajax.system import System

LANES = "lanes"
"""The axis of a mesh over which lanes are divided."""


class Lane(NamedTuple):
    """One run of a block."""

    method: AbstractMethod
    """With its numbers as arrays."""
    system: System
    weights: Weights
    request: Request


def joins(method: AbstractMethod, request: Request, mesh: Mesh | None = None) -> bool:
    """Whether such a run can be one of a block, and not only one by itself.

    An adaptive one that records its steps goes by itself; and where samples are divided too, because
    Diffrax's checks cannot be compiled for lanes and samples on one mesh.
    """
    if isinstance(method, Method):
        return True
    known = not isinstance(request.save_at, str) or request.save_at == "end"
    whole = mesh is None or mesh.axis_names == (LANES,)
    return isinstance(method, Adaptive) and known and whole


def evolve_together(
    lanes: Sequence[Lane], mesh: Mesh | None = None, *, final: bool = False
) -> list[Evolution | None]:
    """Run lanes of one structure and shape to their ends, all at once.

    As each by itself, to rounding: products of many lanes are other programs than those of one. A
    lane that does not come to its end is None: its own run tells what happened to it. The others'
    final states are there where they are asked for.
    """
    if isinstance(lanes[0].method, Method):
        return _Steps(lanes, mesh, final).run()
    return _solve_together(lanes, mesh, final)


def widths(lanes: int, widest: int, devices: int = 1) -> list[int]:
    """Into blocks of how many lanes so many are divided: powers of two, times the devices.

    Few widths make few programs; the last block may hold a lane more than once, where devices
    would have nothing else to do.
    """
    found = []
    while lanes > 0:
        width = devices
        while 2 * width <= min(lanes, widest):
            width *= 2
        found.append(width)
        lanes -= width
    return found


class _Stack(eqx.Module):
    """Trees of many lanes as one; a leaf that all of them share is there once."""

    leaves: list[Array]
    axes: tuple[int | None, ...] = eqx.field(static=True)
    """0 for a leaf with an axis of lanes in front, None for one that is shared."""
    rest: Any

    def __init__(self, trees: Sequence[Any], mesh: Mesh | None) -> None:
        """Stack on the host, where nothing is compiled for so many lanes of such a shape."""
        arrays, rest = eqx.partition(trees[0], eqx.is_array)
        columns = list(zip(*(filter(eqx.is_array, jax.tree.leaves(t)) for t in trees), strict=True))
        same = [all(leaf is column[0] for leaf in column) for column in columns]
        self.axes = tuple(None if shared else 0 for shared in same)
        self.rest = rest, jax.tree.structure(arrays)
        leaves = [
            column[0] if shared else np.stack([np.asarray(leaf) for leaf in column])
            for column, shared in zip(columns, same, strict=True)
        ]
        self.leaves = _place(leaves, self.axes, mesh)

    def one(self, leaves: list[Array]) -> Any:
        """A lane's tree, of its leaves."""
        rest, structure = self.rest
        return eqx.combine(structure.unflatten(leaves), rest)

    def pick(self, which: Sequence[int], mesh: Mesh | None) -> "_Stack":
        """The same of some lanes."""
        leaves = [
            leaf if axis is None else _pick(leaf, which)
            for leaf, axis in zip(self.leaves, self.axes, strict=True)
        ]
        return eqx.tree_at(lambda s: s.leaves, self, _place(leaves, self.axes, mesh))


def _pick(tree: Any, which: Sequence[int]) -> Any:
    index = np.asarray(which)
    return jax.tree.map(lambda leaf: _take_rows(leaf, index), tree)


@jax.jit
def _take_rows(leaf: Array, index: Int[Array, " lanes"]) -> Array:
    return leaf[index]


def _divides(mesh: Mesh | None) -> bool:
    return mesh is not None and LANES in mesh.axis_names


def _place(leaves: list[Any], axes: Sequence[int | None], mesh: Mesh | None) -> list[Array]:
    """Lanes divided among the mesh's devices; what they share, on all of them."""
    if mesh is None or not _divides(mesh):
        return [jax.device_put(leaf) for leaf in leaves]
    return [
        leaf
        if axis is None and _on(leaf, mesh)
        else jax.device_put(leaf, NamedSharding(mesh, spec))
        for leaf, axis in zip(leaves, axes, strict=True)
        for spec in [P() if axis is None else P(LANES)]
    ]


def _on(leaf: Any, mesh: Mesh) -> bool:
    """Whether an array is on these devices already: inputs divided by their samples stay so."""
    return isinstance(leaf, jax.Array) and leaf.sharding.device_set == set(mesh.devices.flat)


def _over_lanes(one: Callable[..., Any], axes: Sequence[int | None], mesh: Mesh | None) -> Any:
    """``one(leaves, moving, *same)`` of a lane, for all; on every device for those that it has.

    ``moving`` has an axis of lanes in front of each leaf; ``same`` is the same for all lanes.
    """

    def many(leaves: list[Array], moving: Any, *same: Any) -> Any:
        first = next(leaf for leaf in jax.tree.leaves(moving))
        if first.shape[0] > 1:
            return jax.vmap(lambda a, b: one(a, b, *same), in_axes=(list(axes), 0))(leaves, moving)
        # A lane by itself is the program of a single run, not that of a batch of one.
        alone = [leaf if axis is None else leaf[0] for leaf, axis in zip(leaves, axes, strict=True)]
        ended = one(alone, jax.tree.map(lambda leaf: leaf[0], moving), *same)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], ended)

    if not _divides(mesh):
        return many
    specs = [P() if axis is None else P(LANES) for axis in axes]

    def divided(leaves: list[Array], moving: Any, *same: Any) -> Any:
        return jax.shard_map(
            many,
            mesh=mesh,
            in_specs=(specs, P(LANES), *(P() for _ in same)),
            out_specs=P(LANES),
            axis_names={LANES},
            check_vma=False,
        )(leaves, moving, *same)

    return divided


class _Chunk(NamedTuple):
    now: Any
    watch: Any
    records: Record
    good: Int[Array, " lanes"]
    """How many records are finite."""
    stop: Verdict
    at: Int[Array, " lanes"]
    """At which record the rule held, where it did."""


@eqx.filter_jit
def _begin(fixed: _Stack, starts: _Stack, look: Look, n: Array, mesh: Mesh | None) -> Any:
    """What the lanes' first steps carry, and what a rule has seen by then."""
    cut = len(fixed.leaves)

    def one(leaves: list[Array], n: Array) -> Any:
        method, system = fixed.one(leaves[:cut])
        now = begin(method, system, starts.one(leaves[cut:]), look)
        return now, look.begin(system, now)

    axes = (*fixed.axes, *starts.axes)
    return _over_lanes(one, axes, mesh)([*fixed.leaves, *starts.leaves], n)


@eqx.filter_jit
def advance(
    fixed: _Stack, moving: Any, look: Look, count: Int[Array, ""], mesh: Mesh | None
) -> _Chunk:
    """``count`` <= CHUNK steps of every lane."""

    def one(leaves: list[Array], moving: Any, count: Int[Array, ""]) -> _Chunk:
        method, system = fixed.one(leaves)
        now, watch = moving
        shape = record_shape(method, system, look, now)
        buffer = jax.tree.map(lambda s: jnp.zeros((CHUNK, *s.shape), s.dtype), shape)

        def step(k: Int[Array, ""], chunk: _Chunk) -> _Chunk:
            after, seen, record, verdict = take(method, system, look, chunk.now, chunk.watch)
            buffer = written(chunk.records, k, record)
            if look.rule is None:
                return chunk._replace(now=after, watch=seen, records=buffer)
            # A lane that its rule has stopped stays, for as long as its block goes on.
            stopped = chunk.stop.holds
            holds = verdict.holds & record.finite.all()
            stay = lambda old, new: jnp.where(stopped | holds, old, new)
            first = lambda old, new: jnp.where(stopped, old, new)
            after, seen = jax.tree.map(stay, (chunk.now, chunk.watch), (after, seen))
            verdict = jax.tree.map(first, chunk.stop, verdict._replace(holds=stopped | holds))
            return _Chunk(after, seen, buffer, chunk.good, verdict, first(chunk.at, k))

        zero = jnp.zeros_like(count)
        chunk = _Chunk(now, watch, buffer, zero, no_verdict(), zero)
        chunk = lax.fori_loop(0, count, step, chunk)
        bad = ~chunk.records.finite.all(axis=-1) & (jnp.arange(CHUNK) < count)
        good = jnp.where(bad.any(), jnp.argmax(bad), count)
        return chunk._replace(good=good.astype(count.dtype))

    return _over_lanes(one, fixed.axes, mesh)(fixed.leaves, moving, count)


class _Piece(NamedTuple):
    """A block on its way: which lanes, what is theirs for good, and what moves."""

    members: list[int]
    fixed: _Stack
    moving: Any
    taken: int


class _Steps:
    """Lanes of a method whose steps are known beforehand."""

    def __init__(self, lanes: Sequence[Lane], mesh: Mesh | None, final: bool) -> None:
        self.lanes, self.mesh, self.final = lanes, mesh, final
        self.devices = devices_of(mesh)
        first = lanes[0]
        assert isinstance(first.method, Method)
        self.look = look_of(first.request, first.system)
        self.records_end = first.method.records_end
        self.counts = [count_steps(lane) for lane in lanes]
        self.parts: list[list[Record]] = [[] for _ in lanes]
        self.ended: list[Evolution | None] = [None] * len(lanes)

    def run(self) -> list[Evolution | None]:
        members = _filled(
            sorted(range(len(self.lanes)), key=lambda n: -self.counts[n]), self.devices
        )
        chosen = [self.lanes[n] for n in members]
        fixed = _Stack([(lane.method, lane.system) for lane in chosen], self.mesh)
        starts = _Stack([lane.weights for lane in chosen], self.mesh)
        moving = _begin(fixed, starts, self.look, _numbered(members, self.mesh), self.mesh)
        queue = deque([_Piece(members, fixed, moving, 0)])
        del starts, moving
        while queue:
            queue.extend(self._go(queue.popleft()))
        return self.ended

    def _go(self, piece: _Piece) -> list[_Piece]:
        """Advance until some lanes are through; what is left of the block, in powers of two."""
        members, fixed, moving, taken = piece
        del piece  # or what its lanes began with would stay until they end
        places = {n: members.index(n) for n in members}  # one for each, where some fill up
        through: set[int] = set()
        while not through:
            ahead = min(self.counts[n] for n in members) - taken
            size = min(CHUNK, ahead) or 1  # the last only looks at the end
            chunk = advance(fixed, moving, self.look, jnp.asarray(size), self.mesh)
            good, stop, at = jax.device_get((chunk.good, chunk.stop, chunk.at))
            records = jax.tree.map(np.asarray, chunk.records)
            for n, place in places.items():
                if n in through:
                    continue
                looks = self.counts[n] == taken
                if good[place] < size:
                    through.add(n)  # without a result
                    continue
                held = bool(stop.holds[place]) and not (looks and not self.records_end)
                kept = int(at[place]) + 1 if held else size
                part = jax.tree.map(lambda leaf, p=place, k=kept: leaf[p, :k], records)
                if held or looks:
                    through.add(n)
                    verdict = jax.tree.map(lambda leaf, p=place: leaf[p], stop) if held else None
                    ends = (chunk.now if held else moving[0]).weights
                    last = jax.tree.map(lambda leaf, p=place: leaf[p], ends) if self.final else None
                    self._end(n, part, taken + kept - 1 if held else taken, verdict, last)
                else:
                    self.parts[n].append(part)
            taken, moving = taken + size, (chunk.now, chunk.watch)
        left = list(dict.fromkeys(n for n in members if n not in through))
        pieces = []
        for width in widths(len(left), len(left), self.devices):
            some, left = _filled(left[:width], self.devices), left[width:]
            which = [places[n] for n in some]
            moved = _placed(_pick(moving, which), self.mesh)
            pieces.append(_Piece(some, fixed.pick(which, self.mesh), moved, taken))
        return pieces

    def _end(
        self, n: int, last: Record, taken: int, verdict: Verdict | None, weights: Weights | None
    ) -> None:
        """What a lane comes to; with the state of its last weights, if they are given."""
        parts, self.parts[n] = self.parts[n], []
        if verdict is not None or self.records_end:
            parts = [*parts, last]
        records = parts[0]
        if len(parts) > 1:
            records = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        t, code, layer, rule = last.t[-1], Code.COMPLETED, 0, -1
        if verdict is not None:
            code, layer, rule = Code.STOPPED, int(verdict.layer), int(verdict.rule)
        state: Any = None
        if weights is not None:
            state = end_state(self.lanes[n].system, weights, jnp.asarray(t))
        method, request = self.lanes[n].method, self.lanes[n].request
        self.ended[n] = Evolution(
            records.t, records.observables, state,
            Stats(evaluations=taken, steps=taken, rejected=0),
            Outcome(code, jnp.asarray(t), taken, layer, rule, request.rules, method.note),
        )  # fmt: skip


def count_steps(lane: Lane) -> int:
    """How many steps a lane's run has."""
    assert isinstance(lane.method, Method)
    return lane.method.count_steps(lane.request.t1, lane.request.steps)


def devices_of(mesh: Mesh | None) -> int:
    """Among how many devices lanes are divided."""
    return mesh.shape[LANES] if mesh is not None and _divides(mesh) else 1


def _filled(members: list[int], devices: int) -> list[int]:
    """Lanes for all devices: the last one as often as there would be nothing else to do."""
    return members + members[-1:] * (-len(members) % devices)


def _numbered(members: Sequence[int], mesh: Mesh | None) -> Array:
    return _placed(np.arange(len(members)), mesh)


def _placed(tree: Any, mesh: Mesh | None) -> Any:
    """What has an axis of lanes in front, where the lanes are."""
    if mesh is None or not _divides(mesh):
        return jax.device_put(tree)
    return jax.device_put(tree, NamedSharding(mesh, P(LANES)))


@eqx.filter_jit
def integrate(fixed: _Stack, look: Look, n: Array, mesh: Mesh | None) -> Any:
    """Adaptive solves of all lanes, in step until the slowest is at its end."""

    def one(leaves: list[Array], n: Array) -> Any:
        method, system, weights, t1, ts = fixed.one(leaves)
        evolution = integrate_inside(method, system, weights, t1, ts, look)
        outcome = evolution.outcome
        told = (outcome.code, outcome.t, outcome.step, outcome.layer, jnp.asarray(outcome.rule))
        stats = evolution.stats
        costs = (stats.evaluations, stats.steps, stats.rejected)
        return evolution.t, evolution.records, evolution.final.weights, costs, told

    return _over_lanes(one, fixed.axes, mesh)(fixed.leaves, n)


def _solve_together(
    lanes: Sequence[Lane], mesh: Mesh | None, final: bool
) -> list[Evolution | None]:
    parts = []
    for lane in lanes:
        t1 = end_time(lane.request.t1, lane.system.dtype)
        ts = save_times(lane.request.save_at, t1)
        parts.append((lane.method, lane.system, lane.weights, t1, ts))
    members = _filled(list(range(len(lanes))), devices_of(mesh))
    fixed = _Stack([parts[n] for n in members], mesh)
    look = look_of(lanes[0].request, lanes[0].system)
    t, records, weights, costs, told = integrate(fixed, look, _numbered(members, mesh), mesh)
    t, records, costs, told = jax.device_get((t, records, costs, told))
    ended: list[Evolution | None] = []
    for n, lane in enumerate(lanes):
        here: Any = jax.tree.map(lambda leaf, n=n: leaf[n], (t, records, costs, told))
        times, observed, (evaluations, steps, rejected), (code, end, step, layer, rule) = here
        if code not in (Code.COMPLETED, Code.STOPPED):
            ended.append(None)
            continue
        kept = int(np.isfinite(times).sum())
        times, observed = jax.tree.map(lambda leaf, k=kept: leaf[:k], (times, observed))
        state: Any = None
        if final:
            last = jax.tree.map(lambda leaf, n=n: leaf[n], weights)
            state = end_state(lane.system, last, jnp.asarray(end))
        spent = None if evaluations is None else int(evaluations)
        ended.append(Evolution(
            times, observed, state, Stats(spent, int(steps), int(rejected)),
            Outcome(
                int(code), jnp.asarray(end), int(step), int(layer), int(rule), lane.request.rules,
                lane.method.note,
            ),
        ))  # fmt: skip
    return ended
