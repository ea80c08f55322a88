"""What a local flow costs, for each family of layers, against its own linear algebra.

The yardstick is written by hand: the layer's forward products and those of the gradient by its weights, on
the same shapes and by the same compiler, with z itself in the place of ∇_z H: no decision, no entropy.
What the entropy's gradient takes by itself stands beside it.

    python benchmarks/layers.py
"""

import argparse
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


CASES: dict[str, Case] = {
    "Dense, 784 to 256": Case(ska.Dense(256), (1000, 784), dense),
    "Dense, 64 to 10": Case(ska.Dense(10), (1000, 64), dense),
    "Conv, 1 to 16 channels": Case(ska.layers.Conv(16, (3, 3)), (1000, 28, 28, 1), conv(1)),
    "Conv, 1 to 16, strides 2": Case(
        ska.layers.Conv(16, (3, 3), strides=2), (1000, 28, 28, 1), conv(2)
    ),
    "Conv, 16 to 32, strides 2": Case(
        ska.layers.Conv(32, (3, 3), strides=2), (1000, 13, 13, 16), conv(2)
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
    knowledge = lambda w: case.layer.knowledge(w, x)
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
