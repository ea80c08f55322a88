"""How long to train, and in what steps, before training: T, dt and K from the reduced model."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import as_number, require, require_positive
from skajax._types import Array, Bool, Float, Inputs, Key, PerLayer, Scalar, TimeSeries, Weights
from skajax.network import Network
from skajax.timescales._predict import asked, require_known, thinned
from skajax.timescales._reduced import Thin, end_of_euler, solve
from skajax.timescales._spectrum import Spectrum
from skajax.timescales._thin import Size

RECORDS = 128
LONGER = 4.0
"""How much later is looked, time and again, for the entropy to have fallen far enough."""
ATTEMPTS = 8
COARSEST = 0.25
"""dt is at most so much of the fastest growth time, where Euler's error is still of first order."""


class Schedule(NamedTuple):
    """A recommended run: ``ska.simulate(network, weights, x, ska.Euler(s.dt), steps=s.K)``."""

    T: Scalar
    """When the entropy of all layers together is the wanted fraction of its value at the start."""
    dt: Scalar
    """Euler's step for the wanted accuracy; T / K."""
    K: int
    """How many."""
    reached: Bool[Array, ""]
    """False where the entropy was above the fraction for as long as was looked; T is then that long."""
    error_per_dt: Scalar
    """‖ΔZ‖ / ‖Z‖ at T of the worst layer, by Euler's method, over dt as dt → 0."""
    entropy_fraction: PerLayer
    """What each layer has left of its own at T."""


def schedule(
    network: Network,
    x: Inputs,
    entropy_fraction: float = 0.5,
    *,
    accuracy: float = 0.02,
    weights: Weights | None = None,
    spectrum: Spectrum | None = None,
    key: Key | None = None,
    draws: int = 4,
    size: Size | None = None,
) -> Schedule:
    """T, dt and K for a network and data, before training (the paper's section 2.6.2).

        Σ_l H^(l)(T) = f Σ_l H^(l)(0),    dt = accuracy / c,    ‖Z_dt(T) - Z(T)‖ / ‖Z(T)‖ = c dt + O(dt²),

    on the thinned network of :func:`predict`, whose arguments ``weights``, ``spectrum``, ``key``, ``draws``
    and ``size`` are. f is ``entropy_fraction``. c is Euler's method's, of the worst layer, by backward
    error analysis: its steps follow dW/dt = F - (dt/2) F'F to second order, F the flow, so that c
    is the derivative of that equation's solution in dt. dt is never above 1/4 of the fastest growth time.

    **It fails** where :func:`predict` does, and for small f: entropy falls as slowly as ln t / t at
    last, by the few samples and neurons that are still undecided, of which the thinned network has fewer.

    Works outside of jit, vmap and grad. Returns a :class:`Schedule`. That the entropy never falls so
    far is no error: ``reached`` is False.
    Raises ValueError for arguments that do not fit: their names, what they must be, what they were.

    >>> print(ska.timescales.schedule(network, x, entropy_fraction=0.5))  # doctest: +SKIP
    """
    entropy_fraction = as_number(entropy_fraction)
    fits = isinstance(entropy_fraction, float) and 0 < entropy_fraction < 1
    require(fits, "entropy_fraction", "lie inside (0, 1)", f"it was {entropy_fraction!r}")
    accuracy = require_positive("accuracy", accuracy, "a relative error")
    require_known(x, weights)
    question = asked(network, weights, x, spectrum, key, draws, size)
    thins, dtype = thinned(question), question.x.dtype

    t, entropy = _fallen(thins, entropy_fraction)
    left = entropy.sum(axis=1)
    below = np.flatnonzero(left <= entropy_fraction * left[0])
    reached = below.size > 0
    T = _crossing(t, left, entropy_fraction * left[0], int(below[0])) if reached else float(t[-1])
    each = [np.interp(T, t, column) / column[0] for column in entropy.T]
    per_dt = float(jnp.max(_error_per_dt(thins, jnp.asarray(T, dtype))))
    within = accuracy / per_dt if per_dt > 0 else math.inf  # nothing moves: no step is too long
    dt = min(within, COARSEST / float(jnp.max(thins.rates)), T)
    K = math.ceil(T / dt - 1e-9)
    number = lambda value: jnp.asarray(value, dtype)
    return Schedule(
        T=number(T),
        dt=number(T / K),
        K=K,
        reached=jnp.asarray(reached),
        error_per_dt=number(per_dt),
        entropy_fraction=number(np.array(each)),
    )


def _fallen(thins: Thin, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Times and each layer's entropy, until all together have the fraction, or for as long as is looked."""
    longest, tries = 16 / jnp.min(thins.rates), 1
    while True:
        times, entropy = _entropy(thins, longest)
        t, found = np.asarray(times, float), np.asarray(entropy, float)
        if found[-1].sum() <= fraction * found[0].sum() or tries == ATTEMPTS:
            return t, found
        longest, tries = LONGER * longest, tries + 1


@eqx.filter_jit
def _entropy(thins: Thin, longest: Scalar) -> tuple[TimeSeries, Float[Array, "times layers"]]:
    """Each layer's entropy, from 0 on at times that grow by a factor."""
    first = jnp.minimum(0.1 / jnp.max(thins.rates), longest / 2)
    later = jnp.geomspace(first, longest, RECORDS - 1, dtype=longest.dtype)
    times = jnp.concatenate([jnp.zeros(1, longest.dtype), later])
    return times, jax.vmap(lambda thin: solve(thin, times).entropy)(thins).mean(axis=0)


def _crossing(t: np.ndarray, series: np.ndarray, goal: float, after: int) -> float:
    """When a falling series is at its goal: between two records, straight in both logarithms."""
    k = max(after, 1)
    if k == 1:
        return float(np.interp(-goal, -series[:2], t[:2]))
    logs = np.log(series[[k, k - 1]])
    return float(np.exp(np.interp(math.log(goal), logs, np.log(t[[k, k - 1]]))))


@eqx.filter_jit
def _error_per_dt(thins: Thin, T: Scalar) -> PerLayer:
    """Of each layer, ‖∂Z/∂h‖ / ‖Z‖ at T along dW/dt = F - (h/2) F'F, at h = 0."""

    def relative(thin: Thin) -> PerLayer:
        zero = jnp.zeros((), T.dtype)
        Z, slope = jax.jvp(lambda h: end_of_euler(thin, T, h), (zero,), (jnp.ones_like(zero),))
        norms = [(jnp.linalg.norm(d), jnp.linalg.norm(z)) for z, d in zip(Z, slope, strict=True)]
        # A layer without knowledge, as of inputs that are all 0, has no error either.
        return jnp.stack([d / jnp.where(z > 0, z, 1) for d, z in norms])

    return jnp.sqrt(jnp.mean(jax.vmap(relative)(thins) ** 2, axis=0))
