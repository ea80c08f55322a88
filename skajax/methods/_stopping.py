"""An adaptive run that a stop rule may end, where values are not known: inside jit and vmap.

The steps are those of a run outside: whole ones until the rule holds within one, which is then undone;
and one step cut to end where it began to hold. Here all of it is one program of fixed shapes, and
whether it stopped is data.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from skajax._types import Scalar, TimeSeries, Weights
from skajax.methods._integrate import Integrator, Leg, advance, begin
from skajax.methods._method import (
    Evolution,
    Stats,
    blanked,
    finite_flow,
    finite_layers,
)
from skajax.methods._outcome import Code, Outcome


@eqx.filter_jit
def stopping(
    integrator: Integrator,
    weights: Weights,
    t1: Scalar,
    ts: TimeSeries,
    dt0: Scalar | None,
) -> Evolution:
    """Integrate to t1, or to where the integrator's rule first holds.

    Records at ``ts``, and one more, wherever the rule holds; what comes after is NaN.
    """
    system, kept = integrator.system, len(ts) + 1
    # One row to spare, so that the time after the last is infinite, with a record at the stop too.
    ts = jnp.append(ts, jnp.full(2, jnp.inf, ts.dtype))
    rows = jnp.arange(len(ts))
    carry, first, at_once = begin(integrator, weights, t1, dt0)
    assert at_once is not None

    def go(integrator: Integrator, carry: Any, ts: TimeSeries, saved: Any, end: Scalar) -> Leg:
        since = jnp.zeros_like(t1)
        return advance(integrator, carry, ts, saved, end, jnp.asarray(True), since, limit=None)

    nowhere = jnp.asarray(-jnp.inf, t1.dtype)  # to where no step leads
    way = go(integrator, carry, ts, jnp.asarray(0), jnp.where(at_once.holds, nowhere, t1))
    inside = way.status == Code.STOPPED
    stopped = at_once.holds | inside
    stop = jax.tree.map(lambda a, b: jnp.where(at_once.holds, a, b), at_once, way.stop)
    t_stop = jnp.where(at_once.holds, 0, way.stop_t)

    # The records that are due before it, and its own.
    due = jnp.sum(ts < t_stop)
    until = jnp.where(rows < due, ts, jnp.where(rows == due, t_stop, jnp.inf))
    before = way.carry._replace(watch=None)
    rest = go(
        integrator.without_rule(), before, until, way.saved, jnp.where(inside, t_stop, nowhere)
    )

    pick = lambda condition, a, b: jax.tree.map(
        lambda u, v: jnp.where(condition.reshape(-1, *[1] * (u.ndim - 1)), u, v), a, b
    )
    t, records = pick(rows < way.saved, way.buffers[:2], rest.buffers[:2])
    t, records = pick(at_once.holds & (rows == 0), (first.t, first.records), (t, records))
    saved = jnp.where(at_once.holds, 1, rest.saved)
    t, records = jax.tree.map(lambda a: a[:kept], (t, records))
    layers = finite_layers(records, jnp.zeros((kept, len(system.network.rows)), t.dtype))
    there = rows[:kept] < saved
    good = jnp.cumprod(there & layers.all(axis=-1)).astype(bool)
    t, records = blanked(good, t, records)

    end = rest.carry
    final = system.state(end.t, end.weights)
    status = jnp.where(inside, rest.status, way.status)
    failed = ~at_once.holds & (status != Code.RUNNING)
    flowing = finite_flow(system, end.t, end.weights)
    finite = (layers | ~there[:, None]).all(axis=0) & (flowing | ~failed)
    code = jnp.where(failed, status, jnp.where(stopped, Code.STOPPED, Code.COMPLETED))
    code = jnp.where(finite.all(), code, Code.DIVERGED)
    layer = jnp.where(status == Code.DIVERGED, jnp.where(inside, rest.layer, way.layer), 0)
    layer = jnp.where(finite.all(), layer, jnp.argmin(finite) + 1)
    ended = code == Code.STOPPED
    evaluations = None
    if way.evaluations is not None:
        evaluations = way.evaluations + rest.evaluations - way.carry.controller.evaluations
    return Evolution(
        t,
        records,
        final,
        Stats(evaluations, end.tried, end.tried - end.accepted),
        Outcome(
            code,
            jnp.where(finite.all(), end.t, jnp.nanmax(t, initial=0)),
            end.tried,
            jnp.where(ended, stop.layer, layer),
            jnp.where(ended, stop.rule, -1),
        ),
    )
