"""Runs the blocks of a plan: lane by lane, or together, on the devices that there are."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from skajax._checks import as_array, require
from skajax._memory import make_room_for_programs
from skajax.methods._method import Request
from skajax.simulate import pose
from skajax.sweeps._block import LANES, Lane, devices_of, evolve_together, joins
from skajax.sweeps._grid import Arguments
from skajax.sweeps._plan import Group, Plan, Spec, look
from skajax.sweeps._records import Row, refused, row

PILOT = 8
"""Steps of a pilot, where steps are known beforehand; of adaptive lanes it is a whole block."""


def mesh_of(devices: Any) -> Mesh | None:
    """The devices of a sweep, as a mesh whose axis "lanes" divides lanes; None for just one."""
    if devices is None:
        return None
    if isinstance(devices, str) and devices == "all":
        return Mesh(np.asarray(jax.local_devices()), (LANES,))
    fits = isinstance(devices, Mesh) and len(set(devices.axis_names) - {LANES}) <= 1
    must = f"be 'all', or a Mesh with an axis {LANES!r}, or one for the samples, or both"
    require(fits, "devices", must, f"it was {devices!r}")
    assert isinstance(devices, Mesh)
    here = all(device.process_index == jax.process_index() for device in devices.devices.flat)
    require(here, "devices", "be this process's", "some were another's: lanes know no others")
    return devices


class Runner:
    """Makes lanes of their arguments, and runs them."""

    def __init__(self, arguments: Arguments, mesh: Mesh | None, final: bool) -> None:
        self.arguments, self.mesh, self.final = arguments, mesh, final
        self.specs: dict[int, Spec] = {}

    def look(
        self, lanes: Sequence[int], base: Request, reduction: str
    ) -> tuple[list[tuple[Spec, Any]], dict[int, ValueError]]:
        """Lanes with the keys of their groups; and those whose arguments do not fit."""
        found, errors = [], {}
        for lane in lanes:
            try:
                spec, key = look(self.arguments, lane, base, reduction, self._place)
            except ValueError as error:
                errors[lane] = error
            else:
                self.specs[lane] = spec
                found.append((spec, key))
        return found, errors

    def run(self, block: Sequence[int]) -> Iterator[Row]:
        """The lanes of a block."""
        yield from self._run([self.specs[lane] for lane in block])

    def timed(self, plan: Plan) -> Plan:
        """The plan, with times by a pilot of each group: its first block, after it is compiled."""
        groups = tuple(dataclasses.replace(g, seconds=self._seconds(g)) for g in plan.groups)
        return dataclasses.replace(plan, groups=groups)

    def _seconds(self, group: Group) -> float:
        make_room_for_programs()
        specs = [self.specs[lane] for lane in group.blocks[0]]
        share = sum(self.specs[lane].cost for lane in group.lanes) / sum(s.cost for s in specs)
        if specs[0].steps is not None:
            few = [min(spec.steps or 0, PILOT) for spec in specs]
            share = (group.lane_steps or 0) / sum(few)
            specs = [
                spec._replace(request=spec.request._replace(t1=None, steps=n))
                for spec, n in zip(specs, few, strict=True)
            ]
        took = []
        for _ in range(3):
            start = time.perf_counter()
            list(self._run(specs))
            took.append(time.perf_counter() - start)
        return min(took[1:]) * share

    def _run(self, specs: Sequence[Spec]) -> Iterator[Row]:
        ready: list[tuple[Spec, Lane]] = []
        for spec in specs:
            try:
                network, weights = (
                    self.arguments.get(n, spec.lane) for n in ("network", "weights")
                )
                posed = pose(network, weights, spec.x, spec.method, lambda _, s=spec: s.rows)
            except ValueError as error:
                yield refused(spec.lane, error)
            else:
                ready.append((spec, Lane(spec.method, *posed, spec.request)))
        together = [None] * len(ready)
        several = len(ready) > 1 or devices_of(self.mesh) > 1
        if ready and several and joins(ready[0][1].method, ready[0][1].request, self.mesh):
            together = evolve_together([lane for _, lane in ready], self.mesh, final=self.final)
        for (spec, lane), evolution in zip(ready, together, strict=True):
            if evolution is None:
                # By itself; or again by itself, to be told what happened to it.
                evolution = lane.method.evolve(lane.problem, lane.weights, lane.request)
            yield row(spec.lane, evolution, lane.method, lane.problem, final=self.final)

    def _place(self, x: Any) -> jax.Array:
        """Inputs where they are to be: their samples divided, if the mesh says so."""
        x = as_array("x", x)
        samples = [] if self.mesh is None else [a for a in self.mesh.axis_names if a != LANES]
        if self.mesh is None or not samples or x.ndim != 2:
            return x
        (axis,) = samples
        parts = self.mesh.shape[axis]
        require(
            x.shape[0] % parts == 0,
            "x",
            f"have samples for each of the {parts} devices along {axis!r} alike",
            f"it had {x.shape[0]}",
        )
        return jax.device_put(x, NamedSharding(self.mesh, P(axis)))
