"""What a local flow costs, for each family of layers, against its own linear algebra.

The yardstick is written by hand: the layer's forward products and those of the gradient by its weights, on
the same shapes and by the same compiler, with z itself in the place of ∇_z H: no decision, no entropy.
What the entropy's gradient takes by itself stands beside it.

    python benchmarks/layers.py
"""

import argparse
import functools
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from results import report
from step import measure

import skajax as ska
from skajax.entropy import entropy_gradient


class Case(NamedTuple):
    """One layer, the shape of what it reads, and its linear algebra alone: (weights, x) to gradients."""

    layer: Any
    shape: tuple[int, ...]
    primitives: Callable[[Any, jax.Array], Any]


def dense(weights: Any, x: jax.Array) -> Any:
    """Of a pointwise layer, over samples and positions as one axis."""
    x = x.reshape(-1, x.shape[-1])
    z = jnp.matmul(x, weights.W, precision="highest") + weights.b
    return jnp.matmul(x.T, z, precision="highest"), z.sum(0)


def conv(stride: int) -> Callable[[Any, jax.Array], Any]:
    """A convolution, and the convolution of x with z that its gradient is."""

    def primitives(weights: Any, x: jax.Array) -> Any:
        forward = lambda W: jax.lax.conv_general_dilated(
            x, W, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )  # fmt: skip
        z = forward(weights.W) + weights.b
        # Samples are what is summed over: x as (channels, height, width, samples), z as a window that is
        # dilated by the stride; rows that no window reaches are cut off.
        reach = lambda size, window: size - (size - window) % stride
        rows, columns = map(reach, x.shape[1:3], weights.W.shape[:2])
        return jax.lax.conv_general_dilated(
            x[:, :rows, :columns], z, (1, 1), "VALID", rhs_dilation=(stride, stride),
            dimension_numbers=("CHWN", "IHWO", "HWNC"), precision="highest",
        ), z.sum((0, 1, 2))  # fmt: skip

    return primitives


def recurrent(weights: Any, x: jax.Array) -> Any:
    """The scan forward, and three sums over samples and times."""
    product = lambda a, b: jnp.matmul(a, b, precision="highest")

    def tick(D: jax.Array, x: jax.Array) -> tuple[jax.Array, Any]:
        z = product(x, weights.W) + product(D, weights.V) + weights.b
        return jax.nn.sigmoid(z), (D, z)

    start = jnp.full((x.shape[0], weights.b.size), 0.5, x.dtype)
    _, (D, z) = jax.lax.scan(tick, start, jnp.moveaxis(x, 1, 0))
    flat = lambda a: a.reshape(-1, a.shape[-1])
    behind = flat(jnp.moveaxis(x, 1, 0)).T
    return product(behind, flat(z)), product(flat(D).T, flat(z)), z.sum((0, 1))


def attention(heads: int) -> Callable[[Any, jax.Array], Any]:
    """Maps and products forward, and what its four gradients cannot do without."""

    def primitives(weights: Any, x: jax.Array) -> Any:
        Q, K, V, O, b = weights  # noqa: E741
        einsum = functools.partial(jnp.einsum, precision="highest")
        split = lambda a: a.reshape(*a.shape[:2], heads, -1)
        q, k, v = (split(einsum("btf,fw->btw", x, W)) for W in (Q, K, V))
        root = q.shape[-1] ** -0.5
        A = jax.nn.softmax(einsum("bthd,bshd->bhts", q, k) * root)
        a = einsum("bhts,bshd->bthd", A, v).reshape(*x.shape[:2], -1)
        z = einsum("btv,vw->btw", a, O) + b
        over = lambda given, g: einsum("btf,btw->fw", given, g.reshape(*x.shape[:2], -1))
        ga = split(einsum("btw,vw->btv", z, O))
        gA = einsum("bthd,bshd->bhts", ga, v)
        gS = A * (gA - jnp.sum(A * gA, axis=-1, keepdims=True)) * root
        return (
            over(x, einsum("bhts,bshd->bthd", gS, k)), over(x, einsum("bhts,bthd->bshd", gS, q)),
            over(x, einsum("bhts,bthd->bshd", A, ga)), over(a, z), z.sum((0, 1)),
        )  # fmt: skip

    return primitives


NODES = 2000
EDGES = np.random.default_rng(0).integers(0, NODES, (8000, 2))
GRAPH = ska.layers.GraphConv(64, EDGES, NODES, kind="mean")


def graph(weights: Any, x: jax.Array) -> Any:
    """Means over the neighbours, and the dense layer's products of these."""
    none = jnp.zeros_like(x)
    degrees = jnp.maximum(GRAPH.incoming.astype(x.dtype), 1)[:, None]
    return dense(weights, none.at[GRAPH.receivers].add(x[GRAPH.senders]) / degrees)


CASES: dict[str, Case] = {
    "Dense, 784 to 256": Case(ska.Dense(256), (1000, 784), dense),
    "Dense, 64 to 10": Case(ska.Dense(10), (1000, 64), dense),
    "Dense at each of 32 steps, 264 to 1056": Case(
        ska.Dense(1056, pointwise=True, scale=0.1), (16, 32, 264), dense
    ),
    "Conv, 1 to 16 channels": Case(ska.layers.Conv(16, (3, 3)), (1000, 28, 28, 1), conv(1)),
    "Conv, 1 to 16, strides 2": Case(
        ska.layers.Conv(16, (3, 3), strides=2), (1000, 28, 28, 1), conv(2)
    ),
    "Conv, 16 to 32, strides 2": Case(
        ska.layers.Conv(32, (3, 3), strides=2), (1000, 13, 13, 16), conv(2)
    ),
    "Recurrent, 28 steps, 28 to 64": Case(
        ska.layers.Recurrent(64, scale=0.1), (200, 28, 28), recurrent
    ),
    "GraphConv, 2000 nodes, 64 to 64": Case(GRAPH, (NODES, 64), graph),
    "SelfAttention, 32 steps, 128, 8 heads": Case(
        ska.layers.SelfAttention(128, 8, scale=0.1), (64, 32, 128), attention(8)
    ),
}
"""A family of layers is one entry more."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    rows = []
    for name, case in CASES.items():
        first, times = measure(jobs_of(case), options.rounds)
        flow, alone, gradient = (median(times[job]) for job in ("flow", "primitives", "∇_z H"))
        rows.append({
            "": name, "flow, ms": 1e3 * flow, "primitives, ms": 1e3 * alone, "ratio": flow / alone,
            "∇_z H alone, ms": 1e3 * gradient, "first call, s": first["flow"],
        })  # fmt: skip
    report("layers", "a local flow", rows, dtype="float32", rounds=options.rounds)


def jobs_of(case: Case) -> dict[str, Callable[[], Any]]:
    """The flow; the primitives, after they were found to be the layer's own; and ∇_z H of its z."""
    x = jax.random.uniform(jax.random.key(0), case.shape)
    network = ska.Network((case.layer,))
    weights = network.init(jax.random.key(1), x)
    primitives = jax.jit(case.primitives)
    (given,) = network.trace(weights, x).inputs
    knowledge = lambda w: case.layer.knowledge(w, given)
    z, pull = jax.vjp(knowledge, weights[0])
    pairs = zip(jax.tree.leaves(pull(z)), jax.tree.leaves(primitives(weights[0], x)), strict=True)
    for own, mine in pairs:
        scale = float(jnp.abs(own).max())
        np.testing.assert_allclose(mine / scale, own / scale, atol=1e-4)
    flow = jax.jit(lambda w, x: ska.flow(network, w, x))
    gradient = jax.jit(entropy_gradient)
    return {
        "flow": lambda: flow(weights, x),
        "primitives": lambda: primitives(weights[0], x),
        "∇_z H": lambda: gradient(z),
    }


if __name__ == "__main__":
    main()
