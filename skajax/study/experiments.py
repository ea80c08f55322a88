"""The paper's experiments, run: six step sizes by two rules, the ODE itself, and an ensemble."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from skajax import data
from skajax._messages import unwarned
from skajax._progress import Progress
from skajax._simulate import simulate
from skajax._types import Array, Float, Int, Weights
from skajax.landmarks import PAPER_DT
from skajax.methods import Adaptive, Euler, Published
from skajax.network import Network, mlp
from skajax.system import State, state
from skajax.timescales import TensorNet, tensor_net
from skajax.trajectory import Trajectory

__all__ = ["Evidence", "Snapshots", "gather"]

T = 0.5
"""The paper's characteristic time, η K."""

STEPS = (25, 50, 100, 150, 200, 500)
"""The paper's K, with η = T / K: 0.02, 0.01, 0.005, 0.00333 (printed as 0.0033), 0.0025, 0.001."""

LATE = 10.0
"""How far the ODE is followed to see what happens after T."""


OTHERS = 3
"""Initialisations beside the first that the published rule is run from at every step."""

EXPECTED = 6
"""Initialisations of which the reduced model is asked, for each that is run."""

INSTANTS = 10
"""Snapshots of a run, evenly spaced in (0, T], beside the one at t = 0."""


class Snapshots(NamedTuple):
    """Knowledge and decisions of every layer at a few times."""

    t: Float[np.ndarray, " instants"]
    Z: list[tuple[np.ndarray, ...]]
    D: list[tuple[np.ndarray, ...]]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All runs that the claims are held against. Runs by K have η = T / K."""

    network: Network
    x: Float[Array, "samples inputs"]
    y: Int[np.ndarray, " samples"]
    seeds: tuple[int, ...]
    weights: Weights
    """Of seed 0, for the single runs."""
    published: Mapping[int, Trajectory]
    others: tuple[Mapping[int, Trajectory], ...]
    """The published rule from seeds 1, 2, ..., as many as :data:`OTHERS` or as there are."""
    euler: Mapping[int, Trajectory]
    reference: Trajectory
    """The continuous limit: the adaptive solution at a tight tolerance."""
    adaptive: Mapping[float, Trajectory]
    """Adaptive solutions by relative tolerance, as a user would run them."""
    late: Trajectory
    """The continuous limit up to t = 10."""
    ensemble_weights: Weights
    ensemble_published: Trajectory
    """A lane a seed, by the published rule at η = 0.01, K = 50."""
    ensemble_reference: Trajectory
    """A lane a seed, in the continuous limit."""
    expected_net: TensorNet
    """What is expected of the Tensor Net's rate to T over initialisations: the reduced model's, drawn."""
    snapshots_published: Snapshots
    snapshots_continuous: Snapshots

    def lanes(self, ensemble: Trajectory) -> list[Trajectory]:
        """The ensemble's runs, one by one."""
        return [jax.tree.map(lambda a, n=lane: a[n], ensemble) for lane in range(len(self.seeds))]


RECORDS = 126
"""Records of a continuous run: every 0.004, so that a cubic spline through them is exact to 1e-6."""


def gather(*, seeds: int = 16) -> Evidence:
    """Run everything: the paper's network and images, ``seeds`` initialisations.

    >>> evidence = ska.study.gather(seeds=2)  # doctest: +SKIP
    """
    images, labels = _paper_images()
    x, network = jnp.asarray(images), _paper_network()
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    ensemble = jax.vmap(lambda key: network.init(key, x))(keys)
    weights = _lane(ensemble, 0)
    # Equally many save times, so that all continuous runs share one compiled program.
    times = np.linspace(0, T, RECORDS)
    late = np.concatenate([[0], np.geomspace(1e-3 * LATE, LATE, RECORDS - 1)])

    run = partial(simulate, network, weights, x)
    tight = Adaptive(diffrax.Tsit5(), rtol=1e-5, atol=1e-7)
    plan: dict[str, Callable[[], object]] = {
        "reference": lambda: run(tight, T, save_at=times),
        "adaptive": lambda: {
            rtol: run(Adaptive(diffrax.Tsit5(), rtol=rtol, atol=1e-2 * rtol), T, save_at=times)
            for rtol in (1e-3, 1e-4)
        },
        "late": lambda: run(tight, LATE, save_at=late),
        "published": lambda: {K: run(Published(T / K), steps=K) for K in STEPS},
        "others": lambda: tuple(
            {K: simulate(network, _lane(ensemble, n), x, Published(T / K), steps=K) for K in STEPS}
            for n in range(1, min(OTHERS + 1, seeds))
        ),
        "euler": lambda: {K: run(Euler(T / K), steps=K) for K in STEPS},
        "ensemble_published": lambda: _vmapped(network, x, ensemble),
        "ensemble_reference": lambda: _one_by_one(network, x, ensemble, times),
        "expected_net": lambda: tensor_net(network, None, x, t1=T, draws=EXPECTED * seeds),
        "snapshots_published": lambda: _snapshots_published(network, weights, x),
        "snapshots_continuous": lambda: _snapshots_continuous(network, weights, x),
    }
    results = {}
    with Progress("experiments", len(plan)) as progress:
        for name, experiment in plan.items():
            progress.now(f"experiment {name.replace('_', ' ')}")
            results[name] = _on_host(jax.block_until_ready(experiment()))
            progress.update()
    return Evidence(
        network=network,
        x=x,
        y=labels,
        seeds=tuple(range(seeds)),
        weights=weights,
        ensemble_weights=ensemble,
        **results,
    )


def _on_host(found: Any) -> Any:
    """Arrays as NumPy's; a run keeps the steps that its controller chose, which are beside them."""
    if isinstance(found, Trajectory):
        kept = jax.tree.map(np.asarray, found)
        kept.aside.path = found.path
        return kept
    is_run = lambda node: isinstance(node, Trajectory)
    return jax.tree.map(
        lambda a: _on_host(a) if is_run(a) else np.asarray(a), found, is_leaf=is_run
    )


def _paper_images() -> tuple[Float[np.ndarray, "samples inputs"], Int[np.ndarray, " samples"]]:
    return data.mnist_subset(per_class=100)


def _paper_network() -> Network:
    return mlp([256, 128, 64, 10])


def _lane(ensemble: Weights, n: int) -> Weights:
    return jax.tree.map(lambda w: w[n], ensemble)


def _vmapped(network: Network, x: Float[Array, "samples inputs"], weights: Weights) -> Trajectory:
    K = round(T / PAPER_DT)
    lane = lambda w: simulate(network, w, x, Published(PAPER_DT), steps=K)
    return jax.jit(jax.vmap(lane))(weights)


def _one_by_one(
    network: Network,
    x: Float[Array, "samples inputs"],
    weights: Weights,
    times: Float[np.ndarray, " times"],
) -> Trajectory:
    # A vmapped adaptive solve would run every lane until the slowest is done.
    method = Adaptive(diffrax.Tsit5(), rtol=1e-4, atol=1e-6)
    starts = [_lane(weights, n) for n in range(len(jax.tree.leaves(weights)[0]))]
    runs = [simulate(network, start, x, method, T, save_at=times) for start in starts]
    return jax.tree.map(lambda *lanes: np.stack(lanes), *runs)


def _snapshots_published(
    network: Network, weights: Weights, x: Float[Array, "samples inputs"]
) -> Snapshots:
    K = round(T / PAPER_DT)
    counts = np.linspace(0, K, INSTANTS + 1).astype(int)[1:]
    method = Published(PAPER_DT)
    ends = [
        simulate(network, weights, x, method, steps=int(k) + 1, observe=()).final for k in counts
    ]
    return _snapshots(network, weights, x, ends)


def _snapshots_continuous(
    network: Network, weights: Weights, x: Float[Array, "samples inputs"]
) -> Snapshots:
    # The flow knows no time, so that a run goes on from where the last one ended.
    ends, method = [], Euler(T / 500)
    for _ in range(INSTANTS):
        start = ends[-1].weights if ends else weights
        with unwarned():  # where it goes on, layers may well be saturated
            run = simulate(network, start, x, method, steps=500 // INSTANTS, observe=())
            ends.append(run.final)
    return _snapshots(network, weights, x, ends)


def _snapshots(
    network: Network, weights: Weights, x: Float[Array, "samples inputs"], ends: list[State]
) -> Snapshots:
    states = [state(network, weights, x), *ends]
    t = np.linspace(0, T, INSTANTS + 1)
    states = [jax.tree.map(np.asarray, s) for s in states]
    return Snapshots(t, [s.Z for s in states], [s.D for s in states])
