"""A pipeline in hardware: one layer on each device, and one exchange between neighbours a tick.

:class:`skajax.Pipelined` says what is computed. Here layer l has a device of its own, which holds the layer's
weights and what it reads, runs the layer's own program, and hands its decisions to the device of layer
l + 1. No device waits for another but for these, none sees another's weights, and nothing comes back.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from skajax._checks import as_array, require
from skajax._modes import working
from skajax._types import Array, Float, Inputs, Scalar, Weights
from skajax.inputs import Batch
from skajax.layers._layer import reads_integers
from skajax.layers._routing import Route
from skajax.methods import Pipelined
from skajax.methods._fixed import checked_steps
from skajax.network import Network, check_inputs, check_weights
from skajax.system import System

__all__ = ["LAYERS", "Ended", "simulate"]

LAYERS = "layers"
"""The axis of a mesh over which layers are divided."""


class Ended(NamedTuple):
    """What a pipeline comes to."""

    weights: Weights
    """After the last tick."""
    entropy: Float[Array, "steps layers"]
    """H of each layer's own knowledge at every tick, bits, summed over samples and neurons: of what the layer
    reads, with the pipeline's lag."""


@working()
def simulate(
    network: Network,
    weights: Weights,
    x: Inputs,
    method: Pipelined,
    *,
    steps: int,
    devices: Mesh | None = None,
) -> Ended:
    """Run :class:`skajax.Pipelined` with layer l on device l: dW/dt = -r ∇_W H of each layer, all at once.

    - ``network``: a :class:`skajax.Network` of L layers; stages below a layer are on its device. No
      residuals or branches, whose arrays would have to pass by layers.
    - ``weights``, ``x``: as for :func:`skajax.simulate`, x of floating-point numbers.
    - ``method``: ``Pipelined(dt)``.
    - ``steps``: ticks that move the weights. Before them are L - 1 that only fill the pipeline.
    - ``devices``: a mesh whose one axis is "layers" and has L devices; by default the first L there are.

    Every device holds as many numbers as the layer with the most weights has, and as many as the widest layer
    reads; what is exchanged is as long as the longest decisions that a layer above reads. The program
    has one collective, a permutation between neighbours, once a tick.

    Returns :class:`Ended`: ``weights`` and ``entropy``. They are those of ``simulate(..., Pipelined(dt),
    steps=steps, reduction="off")`` on one device, to the last bit where the compiler adds alike.

    Raises ValueError for arguments that do not fit, and for too few devices.

    >>> x = jnp.ones((5, 3))
    >>> network = ska.mlp([2])  # one layer, so that one device will do
    >>> weights = network.init(jax.random.key(0), x)
    >>> ended = ska.pipeline.simulate(network, weights, x, ska.Pipelined(0.01), steps=10)
    >>> ended.entropy.shape
    (10, 1)
    """
    require(isinstance(network, Network), "network", "be a Network", f"it was {network!r}")
    require(
        not any(isinstance(item, Route) for item in network.layers),
        "network",
        "be without Residual and Merge, whose arrays would pass by layers",
        f"it was {network!r}",
    )
    require(
        isinstance(method, Pipelined),
        "method",
        "be Pipelined(dt)",
        f"it was {type(method).__name__}",
    )
    x = as_array("x", x)
    require(
        not reads_integers(network.layers[0]),
        "network",
        "read floating-point numbers",
        f"{type(network.layers[0]).__name__} reads integers",
    )
    check_inputs(x, network)
    weights = jax.tree.map(lambda leaf: as_array("weights", leaf), weights)
    check_weights(network, weights, x)
    mesh = _mesh(devices, len(network.rows))
    layers = _layers(network, weights, x)
    divided, whole = (NamedSharding(mesh, spec) for spec in (P(LAYERS), P()))
    rows = lambda arrays: jax.device_put(_rows(arrays), divided)
    flat, back = zip(*(ravel_pytree(layer.weights) for layer in layers), strict=True)
    reads = [x.ravel(), *(np.zeros(math.prod(layer.reads), x.dtype) for layer in layers[1:])]
    parts = tuple(layer._replace(weights=_shapes(layer.weights)) for layer in layers)
    dt = jax.device_put(jnp.asarray(method.dt, x.dtype), whole)
    ended = ticks(parts, mesh, checked_steps(steps), rows(flat), rows(reads), dt)
    after, entropy = jax.device_put(jax.device_get(ended))  # from many devices to the usual one
    own = [make(row[: f.size]) for make, row, f in zip(back, after, flat, strict=True)]
    return Ended(tuple(w for layer in own for w in layer), entropy)


class _Layer(NamedTuple):
    """What one device has: a layer, with the stages below it."""

    network: Network
    weights: Any
    """Or their shapes."""
    reads: tuple[int, ...]
    """The shape of what it is given: X of the first, else the decisions of the layer below."""
    sends: int
    """How many numbers it decides."""


def _layers(network: Network, weights: Weights, x: Array) -> list[_Layer]:
    ends = [*(place + 1 for place in network.rows[:-1]), len(network.layers)]
    found, reads = [], x.shape
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        part = Network(network.running().layers[start:end])
        below = jax.ShapeDtypeStruct(reads, x.dtype)
        decided = jax.eval_shape(part.forward, weights[start:end], below)[1][-1]
        found.append(_Layer(part, weights[start:end], reads, decided.size))
        reads = decided.shape
    return found


def _mesh(devices: Mesh | None, layers: int) -> Mesh:
    if devices is None:
        there = jax.devices()
        require(
            len(there) >= layers,
            "devices",
            f"be at least {layers}, one for each layer",
            f"there were {len(there)} (XLA_FLAGS=--xla_force_host_platform_device_count={layers}"
            " makes as many of one CPU)",
        )
        return Mesh(np.asarray(there[:layers]), (LAYERS,))
    require(
        isinstance(devices, Mesh) and devices.axis_names == (LAYERS,) and devices.size == layers,
        "devices",
        f"be a mesh with one axis, {LAYERS!r}, of {layers} devices, one for each layer",
        f"it was {devices!r}",
    )
    return devices


def _shapes(weights: Any) -> Any:
    return jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, w.dtype), weights)


def _rows(arrays: Sequence[Any]) -> Float[np.ndarray, "layers longest"]:
    """Arrays of different lengths as rows of a matrix, filled up with zeros."""
    longest = max(a.size for a in arrays)
    return np.stack([np.pad(np.asarray(a), (0, longest - a.size)) for a in arrays])


@eqx.filter_jit
def ticks(
    layers: tuple[_Layer, ...], mesh: Mesh, steps: int, weights: Array, reads: Array, dt: Scalar
) -> tuple[Array, Array]:
    """All ticks, as one program of all devices: the weights after them, and the entropies at each."""
    fill = len(layers) - 1
    sent = max((layer.sends for layer in layers[:-1]), default=0)
    neighbours = [(n, n + 1) for n in range(fill)]

    def on_a_device(weights: Array, reads: Array, dt: Scalar) -> tuple[Array, Array]:
        mine = lax.axis_index(LAYERS)
        works = [_work(layer, weights.shape[1], sent) for layer in layers]

        def tick(now: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], Array]:
            weights, reads = now
            weights, decided, entropy = lax.switch(mine, works, weights, reads, dt, k >= fill)
            if sent:
                received = lax.ppermute(decided, LAYERS, neighbours)
                above = jnp.pad(received, (0, reads.size - sent))
                reads = jnp.where(mine == 0, reads, above)
            return (weights, reads), entropy

        (after, _), entropy = lax.scan(tick, (weights[0], reads[0]), jnp.arange(fill + steps))
        return after[None], entropy[fill:, None]

    return jax.shard_map(
        on_a_device,
        mesh=mesh,
        in_specs=(P(LAYERS), P(LAYERS), P()),
        out_specs=(P(LAYERS), P(None, LAYERS)),
    )(weights, reads, dt)


def _work(layer: _Layer, longest: int, sent: int) -> Any:
    """A tick of one layer, between rows that are as long as every layer's."""
    like = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), layer.weights)
    flat, unravel = ravel_pytree(like)
    size, count = flat.size, math.prod(layer.reads)

    def work(weights: Array, reads: Array, dt: Scalar, learns: Array) -> tuple[Array, Array, Array]:
        own = unravel(weights[:size])
        system = System(layer.network, Batch(reads[:count].reshape(layer.reads)))
        velocity = system.flow(0.0, own)
        moved = jax.tree.map(lambda w, v: jnp.where(learns, w + dt * v, w), own, velocity)
        trace = system.trace(0.0, own)
        after = jnp.pad(ravel_pytree(moved)[0], (0, longest - size))
        decided = trace.D[-1].ravel()[:sent]
        return after, jnp.pad(decided, (0, sent - decided.size)), trace.entropies[0]

    return work
