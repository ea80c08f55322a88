"""Run a method over time, and record."""

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax import reduction as row_space
from skajax._checks import as_array, is_traced, require
from skajax._numbers import as_arrays, is_number
from skajax._types import Inputs, SaveTimes, ScalarLike, Weights
from skajax.methods import Method
from skajax.methods._method import Evolution, Problem, Request
from skajax.network import Network, check_inputs, check_weights
from skajax.stop import Rule
from skajax.trajectory import Aside, Trajectory


class RunFailed(RuntimeError):
    """A run ended before its end, under ``throw=True``; ``run`` holds what there is of it."""

    def __init__(self, run: Trajectory) -> None:
        """Explain by the run's outcome."""
        super().__init__(str(run.outcome))
        self.run = run


def simulate(
    network: Network,
    weights: Weights,
    x: Inputs,
    method: Method,
    t1: ScalarLike | None = None,
    *,
    steps: int | None = None,
    save_at: SaveTimes | Literal["steps", "end"] | None = None,
    dense: bool = False,
    until: Rule | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    reduction: Literal["auto", "full", "off"] = "auto",
    throw: bool = False,
) -> Trajectory:
    """Let the weights follow the flow dW/dt = -∇H (eq. 2, 32) by a method, and record.

    Main arguments: a network, its weights (``network.init(key, x)``), one batch of inputs (samples,
    inputs) in the weights' precision, and the method.

    - ``Euler(dt)`` and ``Published(dt)`` take ``t1``, a whole number of steps dt, or ``steps``, and
      record each step.
    - ``Descent(optimiser)`` takes ``steps``; its learning rates make up the time.
    - ``Adaptive(solver, rtol=..., atol=...)`` takes ``t1``, and records at the times ``save_at``, which
      increase within [0, t1] (default: 101, evenly spaced), or at every accepted step
      (``save_at="steps"``), or only at the end (``"end"``).

    Other arguments:

    - ``dense=True``, with Adaptive, keeps the weights at every accepted step, on the host: then
      :meth:`Trajectory.at` gives the state at any time, and landmarks are found exactly.
    - ``until`` is a stop rule (:mod:`skajax.stop`): the run ends, with a record, where it first holds.
      Inside jit and vmap too, where Adaptive keeps a row of records for that one, and what comes
      after is NaN; an adaptive run with a rule has no derivative in reverse.
    - ``checkpoint`` is a file that a long run writes every few seconds, and goes on from where it
      exists: killed at any moment and started again, it comes to the same bits. The file serves this
      very run alone (method, network, weights, x, save_at, rule), but to any later t1 (with
      Adaptive, if ``save_at`` is given, and the same).
    - ``reduction``: only the row space of x matters. ``"auto"`` simulates in it where that is cheap to
      find and pays (inputs that are 0 in all samples; fewer samples than inputs), ``"full"``
      also finds the rank of x, ``"off"`` never does. Exact to rounding; ``stats.rank`` tells.
      Optimisers but for Euler's method depend on coordinates: Descent never reduces.

    Returns a :class:`Trajectory`. A run that overflows or gives up is no error: its ``outcome`` says
    why, when and where, and it holds what came before; ``throw=True`` raises :class:`RunFailed`
    instead. A second call with other numbers (weights, dt, t1, tolerances) compiles nothing, for
    as long as shapes, network and solver stay. :func:`extend` goes on from a run's end.

    Works inside jit (network static), vmap and grad; there, give ``steps`` instead of ``t1``
    where dt or t1 is traced.

    Raises ValueError for arguments that do not fit: their names, what they must be, what they were.
    """
    request = Request(t1, steps, save_at, dense, until, checkpoint)
    prepared = prepare(network, weights, x, method, request, reduction)
    return trajectory(method.evolve(*prepared, request), method, network, prepared[0].space, throw)


def prepare(
    network: Network,
    weights: Weights,
    x: Inputs,
    method: Method,
    request: Request,
    reduction: Literal["auto", "full", "off"] = "auto",
) -> tuple[Problem, Weights]:
    """What :func:`simulate` hands to its method: arguments checked, inputs reduced."""
    x = check_arguments(network, x, method, request.until, reduction)
    return pose(network, weights, x, method, lambda running: find_rows(running, x, reduction))


def check_arguments(
    network: Network, x: Inputs, method: Method, until: Rule | None, reduction: str
) -> jax.Array:
    """Refuse what does not fit, but for weights; x as an array of JAX's."""
    require(isinstance(network, Network), "network", "be a Network", lambda: f"it was {network!r}")
    require(
        isinstance(method, Method),
        "method",
        "be a method, such as Euler(0.01)",
        lambda: f"it was {method!r}",
    )
    x = as_array("x", x)
    check_inputs(x)
    _check_rule(until)
    require(
        reduction in ("auto", "full", "off"),
        "reduction",
        "be 'auto', 'full' or 'off'",
        f"it was {reduction!r}",
    )
    return x


def find_rows(network: Network, x: Inputs, reduction: str) -> row_space.Rows | None:
    """The row space of x, as ``simulate``'s argument ``reduction`` asks for it."""
    if reduction == "off":
        return None
    return row_space.rows(network, x, "full" if reduction == "full" else "auto")


def pose(
    network: Network,
    weights: Weights,
    x: Inputs,
    method: Method,
    rows: Callable[[Network], row_space.Rows | None],
) -> tuple[Problem, Weights]:
    """The problem, in the row space that ``rows`` finds for the network, if it does; and its weights."""
    weights = jax.tree.map(lambda leaf: as_array("weights", leaf), weights)
    check_weights(network, weights, x)
    running = network.running()
    if method.rotates and row_space.reducible(network, weights):
        reduced = rows(running)
        if reduced is not None:
            space, weights = reduced.reduce(weights)
            return Problem(running, reduced.x, space), weights
    return Problem(running, x), weights


def extend(
    run: Trajectory,
    t1: ScalarLike | None = None,
    *,
    steps: int | None = None,
    save_at: SaveTimes | None = None,
    until: Rule | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    throw: bool = False,
) -> Trajectory:
    """Go on from a run's end to a later ``t1`` (or number of ``steps``), as if it had never stopped.

    ``simulate`` to T₁ and ``extend`` to T₂ give the bits of ``simulate`` to T₂: of Euler, Published and
    Descent all of them, and of Adaptive too, whose step before T₁, cut short for it, is made
    again whole. Takes what ``simulate`` returned, completed or stopped by a rule, in the
    same process; over several processes, use ``checkpoint``.

    ``save_at``, with Adaptive: times in (end, t1]; without, as far apart as the run's, and t1. A
    run that recorded its steps, or only its end, goes on to do so. A rule ``until`` must not hold
    yet; the same as before goes on with what it has seen, another first looks at the run's
    records (an ErrorBudget counts from here). ``checkpoint`` is a file of the extension's own.
    Returns the whole run, old and new; ``run`` itself stays as it was.
    """
    require(isinstance(run, Trajectory), "run", "be a Trajectory", f"it was {type(run).__name__}")
    require(np.ndim(run.t) == 1, "run", "be one run", f"its times have the shape {np.shape(run.t)}")
    require(
        run.resume is not None and run.resume.carry is not None,
        "run",
        "be as simulate returned it, completed or stopped by a rule",
        f"it was read from a file, made inside jit, the result of a tree operation, or failed"
        f" ({run.outcome})",
    )
    _check_rule(until)
    resume = run.resume
    assert resume is not None
    adaptive = run.path is not None
    kind = resume.saves if adaptive else "times"
    require(
        save_at is None or (kind == "times" and not isinstance(save_at, str)),
        "save_at",
        "be left out, or times for a run that recorded at times",
        f"it was {save_at!r} for a run that recorded {kind!r}",
    )
    wanted = save_at
    if adaptive and save_at is None:
        wanted = kind if kind != "times" else _onwards(run, resume.spacing, t1)
    before = Evolution(
        run.t,
        run.observables,
        run.final,
        run.stats,
        run.outcome,
        run.path,
        resume,
    )
    dense = run.path is not None and run.path.weights is not None
    request = Request(t1, steps, wanted, dense, until, checkpoint)
    after = resume.method.proceed(before, request)
    return trajectory(after, resume.method, run.network, resume.problem.space, throw)


def _onwards(run: Trajectory, spacing: float, t1: ScalarLike | None) -> np.ndarray | None:
    """Times as far apart as the run's, from its end to t1, which is one of them."""
    if t1 is None:
        return None
    start, end = float(run.final.t), float(t1)
    span = end - start
    if not 0 < span < np.inf:
        return None
    count = math.ceil(span / spacing - 1e-3) if spacing else 1
    return np.append(start + spacing * np.arange(1, count), end)


def trajectory(
    evolution: Evolution,
    method: Method,
    network: Network,
    space: row_space.RowSpace | None = None,
    throw: bool = False,
) -> Trajectory:
    """What a method hands back, as the result that a user holds."""
    stats = evolution.stats
    if space is not None:
        stats = dataclasses.replace(stats, rank=jnp.asarray(space.rank))
    run = Trajectory(
        **vars(evolution.records),
        t=evolution.t,
        final=evolution.final,
        stats=stats,
        outcome=evolution.outcome,
        parameters=numbers(method, evolution.t.dtype),
        aside=Aside(evolution.path, evolution.resume),
        method=method.name,
        network=network,
    )
    if throw:
        require(not is_traced(run), "throw", "be False inside jit and vmap", "it was True")
        if not (run.outcome.completed | run.outcome.stopped):
            raise RunFailed(run)
    return run


def _check_rule(until: object) -> None:
    require(
        until is None or isinstance(until, Rule),
        "until",
        "be a stop rule, such as skajax.stop.FlowConverged(0.1)",
        lambda: f"it was {until!r}",
    )


def numbers(method: Method, dtype: jnp.dtype) -> dict[str, jax.Array]:
    """A method's numbers by their names: dt, or rtol, atol, ..."""
    found = eqx.filter(method, is_number)
    named = {
        jax.tree_util.keystr(path, simple=True, separator="_"): value
        for path, value in jax.tree.leaves_with_path(found)
    }
    return as_arrays(named, dtype)
