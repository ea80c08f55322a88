"""Run a method over time, and record."""

import equinox as eqx
import jax
import jax.numpy as jnp

from skajax._checks import as_array, is_traced, require
from skajax._types import Inputs, SaveTimes, ScalarLike, Weights
from skajax.methods import Method
from skajax.methods._method import is_number
from skajax.network import Network, check_inputs, check_weights
from skajax.trajectory import Trajectory


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
    save_at: SaveTimes | None = None,
    throw: bool = False,
) -> Trajectory:
    """Let the weights follow the flow dW/dt = -∇H (eq. 2, 32) by a method, and record.

    Main arguments: a network, its weights (``network.init(key, x)``), one batch of inputs (samples,
    inputs) in the weights' precision, and the method.

    - ``Euler(dt)`` and ``Published(dt)`` take ``t1``, a whole number of steps dt, or ``steps``, and
      record each step.
    - ``Descent(optimiser)`` takes ``steps``; its learning rates make up the time.
    - ``Adaptive(solver, rtol=..., atol=...)`` takes ``t1``, and records at the times ``save_at``, which
      increase within [0, t1] (default: 101, evenly spaced).

    Returns a :class:`Trajectory`. A run that overflows or gives up is no error: its ``outcome`` says
    why, when and where, and it holds what came before; ``throw=True`` raises :class:`RunFailed`
    instead. A second call with other numbers (weights, dt, t1, tolerances) compiles nothing, for
    as long as shapes, network, solver and the number of save times stay.

    Works inside jit (network static), vmap and grad; there, give ``steps`` instead of ``t1``
    where dt or t1 is traced.

    Raises ValueError for arguments that do not fit: their names, what they must be, what they were.
    """
    require(isinstance(network, Network), "network", "be a Network", f"it was {network!r}")
    require(
        isinstance(method, Method),
        "method",
        "be a method, such as Euler(0.01)",
        f"it was {method!r}",
    )
    x = as_array("x", x)
    check_inputs(x)
    weights = jax.tree.map(lambda leaf: as_array("weights", leaf), weights)
    check_weights(network, weights, x)
    evolution = method.evolve(network, weights, x, t1=t1, steps=steps, save_at=save_at)
    run = Trajectory(
        **vars(evolution.records),
        t=evolution.t,
        final=evolution.final,
        stats=evolution.stats,
        outcome=evolution.outcome,
        parameters=_parameters(method, x.dtype),
        method=method.name,
        network=network,
    )
    if throw:
        require(not is_traced(run), "throw", "be False inside jit and vmap", "it was True")
        if not run.outcome.completed:
            raise RunFailed(run)
    return run


def _parameters(method: Method, dtype: jnp.dtype) -> dict[str, jax.Array]:
    numbers = eqx.filter(method, is_number)
    return {
        jax.tree_util.keystr(path, simple=True, separator="_"): jnp.asarray(value, dtype)
        for path, value in jax.tree.leaves_with_path(numbers)
    }
