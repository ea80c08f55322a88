"""Writes ``golden.npz``: the published network by every method, as skajax 0.x computed it.

Run it only to begin a new reference, by a version whose results are trusted:

    python tests/make_golden.py
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

import skajax as ska

FILE = pathlib.Path(__file__).with_name("golden.npz")
NAMES = (
    "entropy", "entropy_rate", "dissipation", "transport", "alignment", "knowledge_norm", "flow_norm",
    "weight_norm", "tensor_net_rate", "tensor_net", "tensor_net_rate_equation", "tensor_net_equation",
    "lagrangian", "output_mean",
)  # fmt: skip
METHODS = {
    "euler": (lambda: ska.Euler(0.05), {"steps": 10}),
    "published": (lambda: ska.Published(0.05), {"steps": 10}),
    "descent": (lambda: ska.Descent(optax.adam(0.005)), {"steps": 6}),
    "adaptive": (lambda: ska.Adaptive(), {"t1": 0.5, "save_at": np.linspace(0, 0.5, 6)}),
}


def published(dtype):
    """The paper's network, weights of seed 0 drawn by NumPy, and its images."""
    x, _ = ska.data.mnist_subset()
    rng = np.random.default_rng(0)
    sizes = (784, 256, 128, 64, 10)
    weights = tuple(
        ska.DenseWeights(
            jnp.asarray(0.01 * rng.normal(size=sizes[k : k + 2]), dtype),
            jnp.zeros(sizes[k + 1], dtype),
        )
        for k in range(4)
    )
    return ska.mlp(sizes[1:]), weights, jnp.asarray(x, dtype)


def runs(dtype):
    """By method and name: times and observables."""
    problem = published(dtype)
    for label, (method, asked) in METHODS.items():
        run = ska.simulate(*problem, method(), **asked)
        assert bool(run.outcome.completed)
        for name in ("t", *NAMES):
            yield f"{label}/{np.dtype(dtype).name}/{name}", np.asarray(getattr(run, name))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    found = dict([*runs(jnp.float32), *runs(jnp.float64)])
    np.savez_compressed(FILE, **found)
