"""Runs the blocks of a plan: lane by lane, or together, on the devices that there are."""

import dataclasses
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from skajax._checks import require
from skajax._memory import make_room_for_programs
from skajax._messages import tell_once
from skajax._saturation import SaturatedLanes
from skajax.energies import AbstractEnergy
from skajax.inputs import Batch, as_inputs
from skajax.methods._method import Request
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

    def __init__(
        self,
        arguments: Arguments,
        mesh: Mesh | None,
        final: bool,
        energy: AbstractEnergy,
    ) -> None:
        self.arguments, self.mesh, self.final = arguments, mesh, final
        self.energy = energy
        self.specs: dict[int, Spec] = {}
        self.errors: dict[int, Exception] = {}
        """Why lanes did not run."""
        self.saturated = SaturatedLanes()

    def look(
        self, lanes: Sequence[int], base: Request, reduction: str
    ) -> tuple[list[tuple[Spec, Any]], dict[int, Exception]]:
        """Lanes with the keys of their groups; and those whose arguments do not fit, or raise."""
        found, errors = [], {}
        for lane in lanes:
            try:
                spec, key = look(self.arguments, lane, base, reduction, self._place, self.energy)
            except Exception as error:
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
                started = spec.problem.start(self.arguments.get("weights", spec.lane))
            except Exception as error:
                yield self.lost(spec.lane, error)
            else:
                ready.append((spec, Lane(spec.arrays, *started, spec.request)))
        together: list[Any] = [None] * len(ready)
        several = len(ready) > 1 or devices_of(self.mesh) > 1
        if ready and several and joins(ready[0][1].method, ready[0][1].request, self.mesh):
            try:
                together = evolve_together([lane for _, lane in ready], self.mesh, final=self.final)
            except Exception as error:  # by itself, each lane tells whether it was its own
                tell_once(
                    f"skajax: {len(ready)} lanes run one by one, because together they failed with {error!r}"
                )
        for (spec, lane), evolution in zip(ready, together, strict=True):
            try:
                if evolution is None:
                    # By itself; or again by itself, to be told what happened to it.
                    evolution = spec.method.evolve(lane.system, lane.weights, lane.request)
                    evolution = evolution.explained(spec.method, spec.request)
                self.saturated.look(spec.lane, evolution, spec.problem.system, spec.knowledge)
                found = row(
                    spec.lane, evolution, spec.parameters, lane.system, spec.request.observe,
                    final=self.final,
                )  # fmt: skip
            except Exception as error:
                found = self.lost(spec.lane, error)
            yield found

    def lost(self, lane: int, error: Exception) -> Row:
        """Of a lane that did not run."""
        traceback.clear_frames(error.__traceback__)  # which may hold the lane's arrays
        self.errors.setdefault(lane, error)
        return refused(lane, error, self.arguments.place(lane))

    def _place(self, x: Any) -> Any:
        """Inputs where they are to be: a batch's samples divided, if the mesh says so."""
        inputs = as_inputs(x)
        samples = [] if self.mesh is None else [a for a in self.mesh.axis_names if a != LANES]
        if self.mesh is None or not samples or not isinstance(inputs, Batch) or inputs.x.ndim < 2:
            return inputs
        x = inputs.x
        (axis,) = samples
        parts = self.mesh.shape[axis]
        require(
            x.shape[0] % parts == 0,
            "x",
            f"have samples for each of the {parts} devices along {axis!r} alike",
            f"it had {x.shape[0]}",
        )
        spread = NamedSharding(self.mesh, P(axis))
        return jax.tree.map(lambda leaf: jax.device_put(leaf, spread), inputs)
