"""Run a method over time, and record."""

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax import reduction as row_space
from skajax._checks import as_array, is_traced, require, require_positive
from skajax._modes import working
from skajax._numbers import as_arrays, is_number
from skajax._progress import told
from skajax._saturation import warn_saturated
from skajax._types import Inputs, SaveTimes, ScalarLike, Weights
from skajax.energies import AbstractEnergy, Entropy
from skajax.inputs import Batch, MiniBatches, Moving, as_inputs, shape_of
from skajax.layers._layer import reads_integers
from skajax.methods._method import AbstractMethod, Evolution, Request
from skajax.network import (
    Network,
    check_apart,
    check_inputs,
    check_weights,
    expected_knowledge,
    nothing,
)
from skajax.observables import Observable, choose
from skajax.stop import Rule
from skajax.system import System
from skajax.trajectory import Aside, Trajectory


class RunFailed(RuntimeError):
    """A run ended before its end, under ``throw=True``; ``run`` holds what there is of it.

    >>> try:
    ...     ska.simulate(network, weights, x, ska.Adaptive(max_steps=3), t1=6.0, throw=True)
    ... except ska.RunFailed as failed:
    ...     print(failed.run.outcome.code.item() == ska.methods.Code.MAX_STEPS)
    ...
    True
    """

    def __init__(self, run: Trajectory) -> None:
        """Explain by the run's outcome."""
        super().__init__(str(run.outcome))
        self.run = run

    def __reduce__(self) -> tuple[Any, ...]:
        """What makes it anew, in another process: the run, and not its message."""
        return type(self), (self.run,)


@working()
@told("simulate: compiling")
def simulate(
    network: Network,
    weights: Weights,
    x: Inputs | Batch | MiniBatches | Moving,
    method: AbstractMethod,
    t1: ScalarLike | None = None,
    *,
    steps: int | None = None,
    energy: AbstractEnergy | None = None,
    observe: Sequence[str | Observable] | None = None,
    save_at: SaveTimes | Literal["steps", "end"] | None = None,
    dense: bool = False,
    until: Rule | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    reduction: Literal["auto", "full", "off"] = "auto",
    throw: bool = False,
) -> Trajectory:
    """Let the weights follow the flow dW/dt = -r ∇E (eq. 2, 32; by default E = H) by a method, and record.

    Main arguments: a network, its weights (``network.init(key, x)``), its inputs in the weights'
    precision, and the method. Inputs are one batch at rest, x of shape (samples, ...) or ``Batch(x,
    y)`` with targets; ``MiniBatches``, which take turns; or ``Moving``, a smooth function of time.

    - ``Euler(dt)`` and ``Published(dt)`` take ``t1``, a whole number of steps dt, or ``steps``, and
      record each step.
    - ``Descent(optimiser)`` takes ``steps``; its learning rates make up the time.
    - ``Adaptive(solver, rtol=..., atol=...)`` takes ``t1``, and records at the times ``save_at``, which
      increase within [0, t1] (default: 101, evenly spaced), or at every accepted step
      (``save_at="steps"``), or only at the end (``"end"``).

    Other arguments:

    - ``energy``: what the weights descend (:mod:`skajax.energies`): by default ``Entropy()``, each
      layer's own entropy. ``Published`` is a rule of that one alone. Or a :class:`skajax.Flow`, dW/dt of
      your own that need be no gradient (:mod:`skajax.rules` has some).
    - ``observe``: what is recorded, names of the paper's observables or :class:`skajax.Observable` objects of
      your own; by default all of the paper's; ``()`` records times alone, and costs nothing but the steps.
      Where a layer of your own has ``decide(z)`` and no ``potential(z)``, its entropy is not known: the
      default leaves out ``entropy``, ``tensor_net`` and ``tensor_net_equation``; asking for them is an error.
    - ``dense=True``, with Adaptive, keeps the weights at every accepted step, on the host: then
      :meth:`Trajectory.at` gives the state at any time, and landmarks are found exactly. How many bytes
      a step takes is said once, through ``logging.getLogger("skajax")``.
    - ``until`` is a stop rule (:mod:`skajax.stop`): the run ends, with a record, where it first holds.
      Inside jit and vmap too, where Adaptive keeps a row of records for that one, and what comes
      after is NaN; an adaptive run with a rule has no derivative in reverse. JAX's option
      ``jax_debug_nans`` takes any NaN that leaves jit for a mistake, this one too: where it is on, call
      the jitted function within ``with jax.debug_nans(False):``. Outside of jit there is no NaN.
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

    Warns (:class:`skajax.SkajaxWarning`) where a sigmoid layer begins saturated: its decisions hold less than
    h(1.54) = 0.67 bit each on average at t = 0, 1.54 being the |z| where z D'(z), a neuron's flow, is
    largest. Such a layer's flow falls from the start, and its peak is t = 0. Nothing is said inside jit.

    Works inside jit (network static), vmap and grad; there, give ``steps`` instead of ``t1``
    where dt or t1 is traced.

    Raises ValueError for arguments that do not fit: their names, what they must be, what they were.

    >>> run = ska.simulate(network, weights, x, ska.Euler(dt=0.05), t1=1.0)
    >>> run.entropy.shape  # (times, layers)
    (21, 2)
    """
    observables = choose(observe, network, energy)
    request = Request(t1, steps, save_at, dense, until, checkpoint, observables)
    system, start = prepare(network, weights, x, method, request, reduction, energy)
    warn_saturated(system, start, x)
    evolution = method.evolve(system, start, request)
    return trajectory(evolution, method, network, request, system.space, throw)


def prepare(
    network: Network,
    weights: Weights,
    x: Any,
    method: AbstractMethod,
    request: Request,
    reduction: Literal["auto", "full", "off"] = "auto",
    energy: AbstractEnergy | None = None,
) -> tuple[System, Weights]:
    """What :func:`simulate` hands to its method: arguments checked, inputs reduced."""
    inputs = check_arguments(network, x, method, request.until, reduction, energy)
    problem = pose(network, inputs, method, lambda n, x: find_rows(n, x, reduction), energy)
    return problem.start(weights)


def check_arguments(
    network: Network,
    x: Any,
    method: AbstractMethod,
    until: Rule | None,
    reduction: str,
    energy: AbstractEnergy | None = None,
) -> Any:
    """Refuse what does not fit, but for weights; inputs with arrays of JAX's."""
    require(isinstance(network, Network), "network", "be a Network", lambda: f"it was {network!r}")
    require(
        isinstance(method, AbstractMethod),
        "method",
        "be a method, such as Euler(0.01)",
        lambda: f"it was {method!r}",
    )
    require(
        energy is None or isinstance(energy, AbstractEnergy),
        "energy",
        "be an energy, such as skajax.energies.Entropy()",
        lambda: f"it was {energy!r}",
    )
    inputs = as_inputs(x)
    require(
        not (inputs.moves() and reads_integers(network.layers[0])),
        "x",
        f"be at rest, or MiniBatches, for {type(network.layers[0]).__name__}, which reads integers",
        "it was Moving",
    )
    check_inputs(inputs.x if not inputs.moves() else inputs.at(0.0).x, network)
    if isinstance(inputs, MiniBatches):
        check_apart(network, inputs.x)
    _check_rule(until)
    require(
        reduction in ("auto", "full", "off"),
        "reduction",
        "be 'auto', 'full' or 'off'",
        f"it was {reduction!r}",
    )
    return inputs


def find_rows(network: Network, x: Inputs, reduction: str) -> row_space.Rows | None:
    """The row space of x, as ``simulate``'s argument ``reduction`` asks for it."""
    if reduction == "off":
        return None
    return row_space.rows(network, x, "full" if reduction == "full" else "auto")


class Problem(NamedTuple):
    """All that runs but for the weights: what many runs may have in common."""

    network: Network
    """With what only ``init`` reads."""
    x: jax.ShapeDtypeStruct
    """Of all samples."""
    system: System
    rows: Callable[[], row_space.Rows | None]
    """The row space of its inputs, if there is one to be used."""

    def start(self, weights: Weights) -> tuple[System, Weights]:
        """The system, in the row space if it is used, and the weights there; refused if they do not fit."""
        weights = jax.tree.map(lambda leaf: as_array("weights", leaf), weights)
        if isinstance(weights, tuple):
            weights = tuple(w if jax.tree.leaves(w) else nothing(self.x.dtype) for w in weights)
        check_weights(self.network, weights, self.x)
        system = self.system
        if not row_space.reducible(system.network, weights):
            return system, weights
        found = self.rows()
        if found is None:
            return system, weights
        space, weights = found.reduce(weights)
        inputs = Batch(found.x, system.inputs.y)
        return System(system.network, inputs, system.energy, space), weights


def pose(
    network: Network,
    inputs: Any,
    method: AbstractMethod,
    rows: Callable[[Network, Any], row_space.Rows | None],
    energy: AbstractEnergy | None = None,
) -> Problem:
    """What the method is to solve; ``rows`` finds the row space of a network's inputs."""
    energy = Entropy() if energy is None else energy
    batch = shape_of(inputs)
    x = batch.x if inputs.moves() else jax.ShapeDtypeStruct(inputs.x.shape, inputs.x.dtype)
    given = batch if inputs.moves() else Batch(inputs.x, inputs.y)
    energy.check(given, expected_knowledge(network, x.shape, x.dtype))
    running = network.running()
    system = System(running, inputs, as_arrays(energy, weights_dtype_of(x)))
    reduces = isinstance(inputs, Batch) and method.rotates and not energy.reads_weights
    return Problem(network, x, system, lambda: rows(running, inputs.x) if reduces else None)


def weights_dtype_of(x: Any) -> Any:
    """The precision that goes with inputs like x: their own, or of whole numbers JAX's default."""
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)


@told("extend: compiling")
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

    >>> longer = ska.extend(run, t1=7.0)
    >>> float(longer.t[-1])
    7.0
    """
    require(isinstance(run, Trajectory), "run", "be a Trajectory", f"it was {type(run).__name__}")
    require(np.ndim(run.t) == 1, "run", "be one run", f"its times have the shape {np.shape(run.t)}")
    require(
        run.resume is not None and run.resume.carry is not None,
        "run",
        "be as simulate returned it, completed or stopped by a rule",
        lambda: (
            f"{run.aside.why} (from run.final.weights a new run goes on, whose time begins at 0:"
            " skajax.simulate(network, run.final.weights, x, method, t1))"
            if run.resume is None
            else f"it failed ({run.outcome})"
        ),
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
    request = Request(t1, steps, wanted, dense, until, checkpoint, run.observe)
    with working(resume.double):
        after = resume.method.proceed(before, request)
        return trajectory(after, resume.method, run.network, request, resume.system.space, throw)


def _onwards(run: Trajectory, spacing: float, t1: ScalarLike | None) -> np.ndarray | None:
    """Times as far apart as the run's, from its end to t1, which is one of them."""
    if t1 is None:
        return None
    start, end = float(run.final.t), require_positive("t1", t1, "an end time")
    span = end - start
    if not 0 < span < np.inf:
        return None
    count = math.ceil(span / spacing - 1e-3) if spacing else 1
    return np.append(start + spacing * np.arange(1, count), end)


def trajectory(
    evolution: Evolution,
    method: AbstractMethod,
    network: Network,
    request: Request,
    space: row_space.RowSpace | None = None,
    throw: bool = False,
) -> Trajectory:
    """What a method hands back, as the result that a user holds."""
    evolution = evolution.explained(method, request)
    stats = evolution.stats
    if space is not None:
        stats = dataclasses.replace(stats, rank=jnp.asarray(space.rank))
    run = Trajectory(
        records=evolution.records,
        t=evolution.t,
        final=evolution.final,
        stats=stats,
        outcome=evolution.outcome,
        parameters=numbers(method, evolution.t.dtype),
        aside=Aside(evolution.path, evolution.resume),
        method=method.name,
        network=network,
        observe=request.observe,
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


def numbers(method: AbstractMethod, dtype: jnp.dtype) -> dict[str, jax.Array]:
    """A method's numbers by their names: dt, or rtol, atol, ..."""
    found = eqx.filter(method, is_number)
    named = {
        jax.tree_util.keystr(path, simple=True, separator="_"): value
        for path, value in jax.tree.leaves_with_path(found)
    }
    return as_arrays(named, dtype)
