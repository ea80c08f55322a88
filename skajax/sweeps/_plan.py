"""What a sweep will do, before it does it: lanes in groups of one program, cut to the devices' size."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from skajax._checks import require
from skajax._held import held_bytes
from skajax._memory import available_bytes, in_words
from skajax._numbers import as_arrays
from skajax._simulate import (
    Problem,
    check_arguments,
    find_rows,
    numbers,
    pose,
    weights_dtype_of,
)
from skajax.energies import AbstractEnergy
from skajax.inputs import shape_of
from skajax.methods import AbstractMethod, Adaptive, Euler, Method, Published
from skajax.methods._adaptive import SAVES
from skajax.methods._fixed import CHUNK
from skajax.methods._method import Request
from skajax.network import Network, by_shapes, expected_knowledge, expected_weights
from skajax.observables import needs_start
from skajax.reduction import Rows
from skajax.sweeps._block import devices_of, joins, widths
from skajax.sweeps._grid import Arguments
from skajax.system import System

WIDEST = 128
"""Lanes of a block, at most."""
BUSY = 10_000_000
"""Operations of a lane's step from which on it keeps a processor busy by itself.

Measured on two cores: below, blocks of lanes are up to twenty times as fast as lanes one by one, above
up to two times slower, because products of many lanes are less well compiled than that of one.
"""
TWICE = 2
"""XLA's programs hold up to so many times what layers keep in one look at an instant, measured on CPUs."""
SHARE = 0.8
"""Of the memory that there is, what a block may take."""


class Spec(NamedTuple):
    """A lane before its weights are there."""

    lane: int
    problem: Problem
    x: jax.ShapeDtypeStruct
    """Shape and dtype of a batch."""
    knowledge: tuple[jax.ShapeDtypeStruct, ...]
    """Of each layer."""
    batch: Any
    """Alike for lanes whose x is."""
    method: AbstractMethod
    arrays: AbstractMethod
    """The same with its numbers as arrays."""
    parameters: dict[str, np.ndarray]
    """These numbers by their names."""
    request: Request
    steps: int | None
    """K, of a run whose steps are known beforehand."""
    cost: float
    """By which lanes are sorted: steps, or about how many there will be."""

    @property
    def network(self) -> Network:
        """As it runs."""
        return self.problem.system.network

    @property
    def rows(self) -> Rows | None:
        """The row space of its inputs, if it runs there."""
        return self.problem.rows()


@dataclasses.dataclass(frozen=True)
class Group:
    """Lanes that share their programs: networks, inputs and methods alike but for their numbers."""

    name: str
    """Method, network and batch."""
    lanes: tuple[int, ...]
    """The longest first."""
    width: int
    """How many go together on each device."""
    blocks: tuple[tuple[int, ...], ...]
    """Which lanes go together, one block after another."""
    lane_steps: int | None
    """Σ K over the lanes; None where the step sizes are yet to be found."""
    device_bytes: int
    """What a block takes on each device, about."""
    record_bytes: int
    """What the lanes' records take, at most, but for the final states."""
    seconds: float | None = None
    """How long its lanes will take, by a pilot; None if there was none."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a sweep will do; ``str`` of it is a table.

    >>> draw = lambda seed: network.init(jax.random.key(seed), x)
    >>> plan = ska.sweep(network, draw, x, ska.Euler(0.05), 1.0, over=ska.grid(seed=range(3)), dry=True)
    >>> plan.lanes
    3
    """

    lanes: int
    refused: dict[int, Exception]
    """Lanes whose arguments do not fit, or raised an error, and why."""
    done: int
    """Lanes that the store has already."""
    groups: tuple[Group, ...]
    devices: int

    @property
    def lane_steps(self) -> int:
        """Σ K over the lanes still to be run whose steps are known beforehand."""
        return sum(group.lane_steps or 0 for group in self.groups)

    @property
    def device_bytes(self) -> int:
        """What the largest block takes on each device, about: the arrays of its programs, as XLA counts them.

        A process may hold more than its arrays: scratch of products, and what the allocator keeps.
        """
        return max((group.device_bytes for group in self.groups), default=0)

    @property
    def record_bytes(self) -> int:
        """What all records take, at most."""
        return sum(group.record_bytes for group in self.groups)

    @property
    def seconds(self) -> float | None:
        """How long it will take, but for compiling; None without a pilot."""
        each = [group.seconds for group in self.groups]
        return (
            None if any(s is None for s in each) else float(sum(s for s in each if s is not None))
        )

    def __str__(self) -> str:
        """A line a group, one for all, and one for each reason of lanes that are refused."""
        rows = [
            ("lanes", "at once", "blocks", "lane-steps", "on device", "records", "time", "what")
        ]
        for g in self.groups:
            rows.append((
                str(len(g.lanes)), str(g.width * self.devices), str(len(g.blocks)),
                "adaptive" if g.lane_steps is None else f"{g.lane_steps:,}",
                in_words(g.device_bytes), in_words(g.record_bytes), _time(g.seconds), g.name,
            ))  # fmt: skip
        ahead = sum(len(g.lanes) for g in self.groups)
        rows.append((
            str(ahead), "", str(sum(len(g.blocks) for g in self.groups)), f"{self.lane_steps:,}",
            in_words(self.device_bytes), in_words(self.record_bytes), _time(self.seconds),
            f"to run, of {self.lanes}; {self.done} done, {len(self.refused)} refused",
        ))  # fmt: skip
        sizes = [max(len(row[c]) for row in rows) for c in range(7)]
        lines = [
            "  ".join(cell.rjust(size) for cell, size in zip(row, sizes, strict=False))
            + "  "
            + row[7]
            for row in rows
        ]
        reasons = Counter(f"{type(e).__name__}: {e}" for e in self.refused.values())
        return "\n".join([*lines, *(f"{n} refused, {why}" for why, n in reasons.most_common())])


def look(
    arguments: Arguments,
    lane: int,
    base: Request,
    reduction: str,
    place: Callable[[Any], Any],
    energy: AbstractEnergy,
) -> tuple[Spec, Any]:
    """A lane, its inputs in their ``place``, and the key of its group.

    Lanes that differ by their weights alone are looked at once. Raises ValueError where a lane's
    arguments do not fit, and what their functions raise.
    """
    get = lambda name: arguments.get(name, lane)
    keys = {name: arguments.key(name, lane) for name in ("network", "x", "method", "t1", "steps")}

    def first() -> tuple[Spec, Any]:
        network, method = get("network"), get("method")
        given = arguments.make(("array", keys["x"]), lambda: place(get("x")))
        problem = arguments.make(
            ("problem", keys["network"], keys["x"], keys["method"]),
            lambda: _problem(network, given, method),
        )
        request = base._replace(t1=get("t1"), steps=get("steps"))
        steps, cost = _cost(method, request, problem.system)
        x, dtype = shape_of(problem.system.inputs).x, problem.system.dtype
        arrays, told = as_arrays(method, dtype), jax.device_get(numbers(method, dtype))
        Z = expected_knowledge(problem.system.network, x.shape, x.dtype)
        spec = Spec(lane, problem, x, Z, keys["x"], method, arrays, told, request, steps, cost)
        rows = spec.rows
        form = None if rows is None else (rows.x.shape, rows.basis.dtype)
        return spec, (_form(spec.network), _form(problem.system.inputs), form, _form(arrays))

    def _problem(network: Network, given: Any, method: AbstractMethod) -> Problem:
        inputs = check_arguments(network, given, method, base.until, reduction, energy)
        problem = pose(network, inputs, method, rows, energy)
        found = problem.rows()
        return problem._replace(rows=lambda: found)

    def rows(network: Network, x: Any) -> Rows | None:
        # One for all lanes with this batch: what they read is there once.
        width = getattr(network.layers[0], "rows", None)
        return arguments.make(
            ("rows", keys["x"], width), lambda: (find_rows(network, x, reduction),)
        )[0]

    spec, key = arguments.make(("spec", *keys.values()), first)
    return spec._replace(lane=lane), key


def make_groups(
    looked: Iterable[tuple[Spec, Any]], mesh: Mesh | None, at_once: int | None
) -> tuple[tuple[Group, ...], dict[int, Exception]]:
    """Lanes by their keys, the longest first, cut into blocks; and those that can be in none."""
    found: dict[Any, list[Spec]] = {}
    for spec, key in looked:
        found.setdefault(key, []).append(spec)
    groups, errors = [], {}
    for specs in found.values():
        try:
            groups.append(_group(specs, mesh, at_once))
        except Exception as error:
            errors |= {spec.lane: error for spec in specs}
    return tuple(groups), errors


def _group(specs: list[Spec], mesh: Mesh | None, at_once: int | None) -> Group:
    specs = sorted(specs, key=lambda spec: (-spec.cost, str(spec.batch), spec.lane))
    first, devices = specs[0], devices_of(mesh)
    shared, each = _bytes(first, mesh)
    there = available_bytes()
    require(
        there is None or shared + each <= there,
        "network",
        "fit into the device's memory with its inputs: fewer samples, narrower layers, float32",
        f"one lane of {_name(first)} takes about {in_words(shared + each)}, and there are"
        f" {in_words(there or 0)}",
    )
    most = len(specs) if there is None else max(int((SHARE * there - shared) / each), 1)
    width = min(most, _worthwhile(first) if at_once is None else at_once)
    if not joins(first.method, first.request, mesh):
        width, devices = 1, 1
    lanes = [spec.lane for spec in specs]
    blocks, rest = [], lanes
    for size in widths(len(lanes), width * devices, devices):
        blocks.append(tuple(rest[:size]))
        rest = rest[size:]
    widest = max(-(-len(block) // devices) for block in blocks)
    known = [spec.steps for spec in specs if spec.steps is not None]
    records = sum(_records(spec) for spec in specs)
    return Group(
        _name(first), tuple(lanes), widest, tuple(blocks), sum(known) if known else None,
        shared + widest * each, records,
    )  # fmt: skip


def _worthwhile(spec: Spec) -> int:
    """How many lanes of a block are faster than so many one by one."""
    if jax.devices()[0].platform != "cpu":
        return WIDEST
    weights = expected_weights(spec.network, _inputs(spec), spec.x.dtype)
    # A layer's weights are used at every position of every sample: of a dense layer, once a sample.
    used = [
        z.size // z.shape[-1] * sum(leaf.size for leaf in jax.tree.leaves(weights[place]))
        for place, z in zip(spec.network.rows, spec.knowledge, strict=True)
    ]
    return 1 if 4 * sum(used) >= BUSY else WIDEST


def _cost(method: AbstractMethod, request: Request, system: System) -> tuple[int | None, float]:
    """K, if it is known; and about how many steps there will be."""
    if isinstance(method, Method):
        method.accepts(system)
        steps = method.check(request)
        return steps if method.records_end else steps + 1, float(steps)
    assert isinstance(method, Adaptive)
    t1 = method.check(request, system.dtype)
    first = method.first_step(system, None, t1)
    return None, float("inf") if first is None else float(t1 / first)


def _form(tree: Any) -> Any:
    """What of a method, a network or inputs is compiled: all but the values of arrays."""
    arrays, rest = eqx.partition(tree, eqx.is_array)
    leaves, structure = jax.tree.flatten(rest)
    return structure, tuple(leaves), tuple((a.shape, a.dtype) for a in jax.tree.leaves(arrays))


def _inputs(spec: Spec) -> tuple[int, ...]:
    return spec.x.shape if spec.rows is None else spec.rows.x.shape


def _name(spec: Spec) -> str:
    shapes = [spec.x.shape, *(z.shape for z in spec.knowledge)]
    sizes = "-".join("x".join(map(str, shape[1:])) for shape in shapes)
    return f"{spec.method.name}, {sizes}, {spec.x.shape[0]} samples"


def _bytes(spec: Spec, mesh: Mesh | None) -> tuple[int, int]:
    """What a block takes on a device: whatever its width, and for each of its lanes."""
    size = weights_dtype_of(spec.x).itemsize
    width = lambda shape: sum(
        leaf.size for leaf in jax.tree.leaves(expected_weights(spec.network, shape, spec.x.dtype))
    )
    whole, weights = width(spec.x.shape), width(_inputs(spec))
    parts = 1 if mesh is None else mesh.size // devices_of(mesh)
    activations = sum(z.size for z in spec.knowledge) // parts
    shared = math.prod(_inputs(spec)) // parts
    # What lies outside of the row space is there for the lane and for its block, beside what it is of.
    outside = 0 if spec.rows is None else 2 * (whole - weights) + whole
    kept = by_shapes(_kept, spec.network, spec.x.shape, spec.x.dtype)
    copies, slices = _arrays(spec.method, needs_start(spec.request.observe))
    each = int(copies * weights + slices * activations) + outside
    records = CHUNK if spec.steps is not None else _rows(spec)
    return size * shared, size * (each + 2 * records * _record(spec)) + TWICE * kept // parts


def _kept(network: Network, shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes of what layers keep for their own flow and tangents, beside numbers like their knowledge.

    Of attention, for example, its maps. Of dense layers about nothing.
    """
    x, weights = jax.ShapeDtypeStruct(shape, dtype), expected_weights(network, shape, dtype)

    def look(weights: Any, x: Any) -> Any:
        trace = network.trace(weights, x)
        flow = network.pull(weights, trace.inputs, trace.Z)
        _, motion = network.motion(weights, flow, x)
        return flow, [jnp.sum(jnp.square(z)) for z in motion.Zdot]

    numbers = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    usual = 2 * numbers(weights) + 3.4 * numbers(expected_knowledge(network, shape, dtype))
    held = held_bytes(jax.make_jaxpr(look)(weights, x))
    return max(held - int(weights_dtype_of(x).itemsize * usual), 0)


def _arrays(method: AbstractMethod, net: bool) -> tuple[float | int, float]:
    """How many arrays like a lane's weights, and like its Z, a block holds.

    What XLA plans on a CPU for the larger of its programs, that which begins or that which steps; and the
    weights that it began with, once in a block whose program reads them throughout, otherwise twice.
    ``net``: whether the Tensor Net is observed.
    """
    if isinstance(method, Adaptive):
        stages = getattr(getattr(method.solver, "tableau", None), "num_stages", 1)
        return 2 * stages + 7 + 1, 18.0 if net else 6.8
    if isinstance(method, Published):
        return 4 + 2, 13.0
    copies = 4 + 2 if isinstance(method, Euler) else 8 + 2
    return copies, 18.0 if net else 6.0


def _records(spec: Spec) -> int:
    """What a lane's records take."""
    return _rows(spec) * _record(spec) * weights_dtype_of(spec.x).itemsize


def _rows(spec: Spec) -> int:
    """How many records there are; every accepted step of an adaptive lane is a guess."""
    save_at = spec.request.save_at
    if spec.steps is not None:
        return spec.steps + 1
    return SAVES if save_at is None or isinstance(save_at, str) else len(np.asarray(save_at))


def _record(spec: Spec) -> int:
    """The numbers of one record."""
    sizes = {"layer": len(spec.network.rows), "output": spec.knowledge[-1].shape[-1]}
    each = [math.prod(sizes.get(dim, 1) for dim in o.dims) for o in spec.request.observe]
    return 1 + sum(each)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.2g} s" if seconds < 120 else f"{seconds / 60:.3g} min"
