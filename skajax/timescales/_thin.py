"""How a network is thinned: which samples, modes and neurons stand for all."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import is_whole, require
from skajax._types import Array, Float, Inputs, Int, Key, PerLayer, Weights
from skajax.entropy import decision, hidden_growth
from skajax.layers import Dense, Paced
from skajax.network import Network
from skajax.timescales._reduced import Thin
from skajax.timescales._spectrum import Spectrum


@dataclasses.dataclass(frozen=True)
class Size:
    """How many of each are kept, at most. Where there are no more, nothing is left out.

    >>> small = ska.timescales.Size(samples=16, modes=8, neurons=8)  # for predict(..., size=small)
    """

    samples: int = 64
    modes: int = 16
    neurons: int = 32
    """Of each layer."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            require(is_whole(value), name, "be a whole number, at least 1", f"it was {value!r}")
            object.__setattr__(self, name, int(value))


def dense_layers(network: Network) -> tuple[Dense, ...]:
    """The network's layers as the dense sigmoid layers that they are, at whatever rate they learn."""
    require(isinstance(network, Network), "network", "be a Network", f"it was {network!r}")
    found = []
    for number, layer in enumerate(network.layers, start=1):
        dense = layer.layer if isinstance(layer, Paced) else layer
        # What a kernel x xᵀ + 1, and hidden layers that read D = σ(z), are known for.
        require(
            isinstance(dense, Dense) and dense.decision == "sigmoid",
            "network",
            "have dense layers with sigmoid decisions only (skajax.timescales.growth gives the growth"
            " rates of any layer)",
            f"layer {number} was {dense!r}",
        )
        found.append(dense)
    return tuple(found)


def pace(network: Network, dtype: jnp.dtype) -> PerLayer:
    """The rate r_l of each layer, dW/dt = -r_l ∇H."""
    rates = [layer.rate if isinstance(layer, Paced) else 1.0 for layer in network.layers]
    return jnp.asarray(rates, dtype)


class Stack(eqx.Module):
    """All that thinning asks of a network: its numbers are traced, so that networks share programs."""

    widths: tuple[int, ...] = eqx.field(static=True)
    scales: PerLayer
    """σ in W(0) ~ N(0, σ²)."""
    biases: PerLayer
    """b(0)."""
    pace: PerLayer
    """r in dW/dt = -r ∇H."""


def stack_of(network: Network, dtype: jnp.dtype) -> Stack:
    """The network's, of dense layers."""
    layers = dense_layers(network)
    return Stack(
        tuple(layer.width for layer in layers),
        jnp.asarray([layer.scale for layer in layers], dtype),
        jnp.asarray([layer.bias for layer in layers], dtype),
        pace(network, dtype),
    )


def drawn(stack: Stack, key: Key, x: Inputs, known: Spectrum, size: Size) -> Thin:
    """A thinned network whose weights are drawn as ``network.init`` draws them.

    Along the leading mode, which decides when a layer peaks, the neurons are spread evenly over the
    normal distribution's quantiles: one draw then is much nearer to the mean over all.
    """
    widths, scales = stack.widths, stack.scales
    rows, points = _samples(x, known, size)
    modes = points.shape[1]
    kept = [min(width, size.neurons) for width in widths]
    shapes = [*zip([modes, *kept[:-1]], kept, strict=True)]
    layers, tail_shape = len(kept), (len(points), kept[0])
    parts = _normals(key, [*shapes, *((n,) for n in kept), tail_shape], x.dtype)
    noises, orders, tail = parts[:layers], parts[layers:-1], parts[-1]
    spreads = [_quantiles(n, x.dtype)[jnp.argsort(o)] for n, o in zip(kept, orders, strict=True)]

    constant = known.directions[-1, :modes]
    first = scales[0] * _without_bias(noises[0].at[0].set(spreads[0]), constant)
    first = first + stack.biases[0] * constant[:, None]
    left_out = known.tail[rows] + (known.coordinates[rows, modes:] ** 2).sum(axis=1)
    offset = scales[0] * jnp.sqrt(left_out)[:, None] * tail
    weights, gains = [(first, jnp.zeros(kept[0], x.dtype))], [1.0]
    for number in range(1, len(widths)):
        noise, below = noises[number], kept[number - 1]
        centred = noise - noise.mean(axis=0, keepdims=True)
        W = centred + spreads[number][None, :] / math.sqrt(below)
        b = jnp.broadcast_to(stack.biases[number], (kept[number],))
        weights.append((scales[number] * W, b))
        gains.append(math.sqrt(widths[number - 1] / below))
    return _thin(stack, x, known, points, offset, weights, gains)


def _normals(key: Key, shapes: list[tuple[int, ...]], dtype: jnp.dtype) -> list[Array]:
    """Standard normal numbers, in arrays of these shapes: drawn at once, which compiles much faster."""
    sizes = [math.prod(shape) for shape in shapes]
    parts = jnp.split(jax.random.normal(key, (sum(sizes),), dtype), np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def taken(stack: Stack, weights: Weights, x: Inputs, known: Spectrum, size: Size) -> Thin:
    """A thinned network made of given W and b: every so-manieth neuron, by its mean knowledge.

    Each neuron that stays has its own initial amplitude along the leading mode, that is in the first
    layer its weights' component there, and above it its mean knowledge: the one number that matters.
    """
    rows, points = _samples(x, known, size)
    modes = points.shape[1]
    some = jnp.concatenate([x[rows], jnp.ones((rows.shape[0], 1), x.dtype)], axis=1)
    thinned, gains, offset = [], [], None
    D_all = below = offset
    for number, w in enumerate(weights):
        if number == 0:
            W_all = jnp.concatenate([w.W, w.b[None, :]])
            Z_all = jnp.matmul(some, W_all, precision="highest")
            amplitude = known.directions[:, 0] @ W_all
            keep = _every(jnp.argsort(amplitude), size.neurons)
            matrix = jnp.matmul(known.directions[:, :modes].T, W_all[:, keep], precision="highest")
            b = jnp.zeros(keep.shape[0], x.dtype)
            seen = jnp.matmul(known.coordinates[rows, :modes], matrix, precision="highest")
            offset = Z_all[:, keep] - seen
            gains.append(1.0)
        else:
            assert D_all is not None and below is not None
            Z_all = jnp.matmul(D_all, w.W, precision="highest") + w.b[None, :]
            amplitude = Z_all.mean(axis=0)
            keep = _every(jnp.argsort(amplitude), size.neurons)
            gain = math.sqrt(stack.widths[number - 1] / below.shape[0])
            own, b = w.W[below][:, keep], w.b[keep]
            D_mean = gain * D_all[:, below].mean(axis=0)
            missing = amplitude[keep] - (D_mean @ own + b)
            matrix = own + missing[None, :] * D_mean[:, None] / (D_mean @ D_mean)
            gains.append(gain)
        thinned.append((matrix, b))
        D_all, below = decision(Z_all), keep
    assert offset is not None
    return _thin(stack, x, known, points, offset, thinned, gains)


def _thin(
    stack: Stack,
    x: Inputs,
    known: Spectrum,
    points: Array,
    offset: Array,
    weights: list[tuple[Array, Array]],
    gains: list[float],
) -> Thin:
    samples = x.shape[0] / points.shape[0]
    neurons = [n / W.shape[1] for n, (W, _) in zip(stack.widths, weights, strict=True)]
    hidden = [hidden_growth(n) for n in stack.widths[:-1]]
    leading = jnp.append(known.rates[0], jnp.asarray(hidden, x.dtype))
    return Thin(
        x=points,
        offset=offset,
        weights=tuple(weights),
        gains=jnp.asarray(gains, x.dtype),
        pace=stack.pace,
        norms=jnp.asarray([math.sqrt(samples * n) for n in neurons], x.dtype),
        rates=stack.pace * leading,
    )


def _samples(
    x: Inputs, known: Spectrum, size: Size
) -> tuple[Int[Array, " kept"], Float[Array, "kept modes"]]:
    """Samples spread evenly along the leading mode, and their coordinates."""
    modes = min(size.modes, known.rates.shape[0])
    rows = _every(jnp.argsort(known.modes[:, 0]), size.samples)
    points = known.coordinates[rows, :modes]
    if rows.shape[0] == x.shape[0]:
        return rows, points
    # Second moments over the samples kept are made those over all: growth is exact while |z| is small.
    moments = points.T @ points / points.shape[0]
    want = jnp.mean(known.coordinates[:, :modes] ** 2, axis=0)
    # Where fewer samples than modes are kept, or modes are 0, there is no more to match than there is.
    ridge = 1e-6 * moments[0, 0] * jnp.eye(modes, dtype=x.dtype)
    root = jnp.linalg.cholesky(moments + ridge)
    turned = jax.scipy.linalg.solve_triangular(root, points.T, lower=True).T
    return rows, turned * jnp.sqrt(want)[None, :]


def _every(order: Int[Array, " all"], most: int) -> Int[Array, " kept"]:
    """Evenly spaced ones of an order, the middles of equal groups."""
    count = order.shape[0]
    if count <= most:
        return jnp.arange(count)
    return order[((np.arange(most) + 0.5) * count / most).astype(int)]


def _quantiles(count: int, dtype: jnp.dtype) -> Array:
    """Of the standard normal distribution, with mean square 1."""
    from scipy.special import ndtri

    values = ndtri((np.arange(count) + 0.5) / count)
    size = math.sqrt(np.mean(values**2))
    return jnp.asarray(values / size if size > 0 else np.full(count, MEDIAN), dtype)


MEDIAN = 0.6745
"""Of the absolute value of a standard normal number."""


def _without_bias(W: Array, bias_row: Array) -> Array:
    """Vᵀ [W 0]: of covariance 1 - v vᵀ where v is V's row of the bias, from one of covariance 1."""
    square = bias_row @ bias_row
    share = (1 - jnp.sqrt(jnp.maximum(1 - square, 0))) / jnp.maximum(square, 1e-30)
    return W - share * bias_row[:, None] * (bias_row @ W)[None, :]
