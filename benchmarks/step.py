"""What a step costs, with every observable recorded, and with none.

Against yardsticks in the same run: the matrix products that the step cannot do without, on the same
shapes and by the same compiler; a bare loop of the flow; and the published rule in eager PyTorch.

    python benchmarks/step.py
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from results import report

import skajax as ska

WIDTHS = (256, 128, 64, 10)
LN2 = math.log(2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    # So many that what a run costs beside its steps hardly counts.
    parser.add_argument("--passes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    passes = options.passes

    x, _ = ska.data.mnist_subset()
    x = jnp.asarray(x)
    network = ska.mlp(WIDTHS)
    weights = network.init(jax.random.key(0), x)
    simulate = partial(ska.simulate, network, weights, x)

    jobs: dict[str, Callable[[], object]] = {
        "8 matrix products": partial(products, x, weights, passes, tangents=False),
        "15 matrix products": partial(products, x, weights, passes, tangents=True),
        "Published": lambda: simulate(ska.Published(0.01), steps=passes).entropy,
        "Euler": lambda: simulate(ska.Euler(0.01), steps=passes - 1).entropy,
        "a bare loop of the flow": partial(flows, network, x, weights, passes),
        "Euler, nothing recorded": lambda: (
            simulate(ska.Euler(0.01), steps=passes - 1, observe=(), reduction="off").t
        ),
    }
    try:
        import torch
    except ImportError:
        print("without PyTorch: pip install torch, for the comparison with it")
    else:
        jobs["Published, eager PyTorch"] = partial(torch_published, torch, x, weights, passes)

    first, times = measure(jobs, options.rounds)
    # The best round of each: the one that the machine disturbed least.
    per_pass = {name: 1e3 * min(t) / passes for name, t in times.items()}
    base = dict.fromkeys(("Euler", "15 matrix products"), "15 matrix products")
    bare = {"Euler, nothing recorded": "a bare loop of the flow"}
    torch_ms = per_pass.get("Published, eager PyTorch")
    rows = [
        {
            "": name,
            "ms a pass": ms,
            "over its products": ms / per_pass[base.get(name, "8 matrix products")],
            "over the bare loop": ms / per_pass[bare[name]] if name in bare else None,
            "over PyTorch": ms / torch_ms if torch_ms else None,
            "first call, s": first[name],
        }
        for name, ms in per_pass.items()
    ]
    report(
        "step", "a step", rows, samples=x.shape[0], inputs=x.shape[1], widths=WIDTHS,
        dtype="float32", passes=passes, rounds=options.rounds,
    )  # fmt: skip


SHORTEST = 0.1
"""Seconds that a sample lasts at least: shorter ones say more of the machine than of the job."""


def measure(
    jobs: dict[str, Callable[[], object]], rounds: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """First-call seconds (with the compilation), and seconds a call in each later, interleaved round.

    A sample is as many calls as take :data:`SHORTEST`.
    """
    first, calls, times = {}, {}, {name: [] for name in jobs}
    for name, job in jobs.items():
        first[name] = timed(job)
        calls[name] = math.ceil(SHORTEST / timed(job))
    for _ in range(rounds):
        for name, job in jobs.items():
            times[name].append(timed(job, calls[name]))
    return first, times


def timed(job: Callable[[], object], calls: int = 1) -> float:
    """Seconds that a call takes, as a mean over so many in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(job())
    return (time.perf_counter() - start) / calls


@partial(jax.jit, static_argnames=("passes", "tangents"))
def products(x: jax.Array, weights: tuple, passes: int, *, tangents: bool) -> list[jax.Array]:
    """A step's matrix products and nothing else: x W and xᵀ g, and for tangents x Ẇ and ẋ W."""
    widths = [w.W.shape[1] for w in weights]
    inputs = [x, *(jnp.ones((x.shape[0], n), x.dtype) for n in widths[:-1])]

    def one_pass(_: int, W: list[jax.Array]) -> list[jax.Array]:
        Z = [a @ w for a, w in zip(inputs, W, strict=True)]
        gradients = [1e-6 * (a.T @ z) for a, z in zip(inputs, Z, strict=True)]
        if tangents:
            moved = [a @ g for a, g in zip(inputs, gradients, strict=True)]
            carried = [z @ w for z, w in zip(moved[:-1], W[1:], strict=True)]
            # Every product must reach the result, or the compiler drops it.
            seen = sum(jnp.sum(m[0]) for m in moved) + sum(jnp.sum(c[0]) for c in carried)
            gradients = [g + 1e-30 * seen for g in gradients]
        return gradients

    return jax.lax.fori_loop(0, passes, one_pass, [w.W for w in weights])


@partial(jax.jit, static_argnames=("network", "passes"))
def flows(network: ska.Network, x: jax.Array, weights: tuple, passes: int) -> tuple:
    """Euler's method and nothing else."""
    step = lambda _, w: jax.tree.map(lambda a, v: a + 0.01 * v, w, ska.flow(network, w, x))
    return jax.lax.fori_loop(0, passes, step, weights)


def torch_published(
    torch: object, x: jax.Array, weights: tuple, passes: int, dt: float = 0.01
) -> object:
    """The published rule and its diagnostics, as one would write them in eager PyTorch."""
    X = torch.from_numpy(np.array(x))
    W = [torch.from_numpy(np.array(w.W)) for w in weights]
    b = [torch.from_numpy(np.array(w.b)) for w in weights]
    Z_old, D_old, records = [], [], []
    for k in range(passes):
        Z, D, inputs = [], [], X
        for w, bias in zip(W, b, strict=True):
            Z.append(inputs @ w + bias)
            D.append(torch.sigmoid(Z[-1]))
            inputs = D[-1]
        if k > 0:
            lower = [X, *D_old[:-1]]
            for layer in range(len(W)):
                z, d = Z[layer], D[layer]
                dZ, dD, slope = z - Z_old[layer], d - D_old[layer], d * (1 - d)
                gradient = -(1 / LN2) * z * slope
                records.append(
                    (
                        -(1 / LN2) * (z * dD).sum().item() / dt,
                        torch.nn.functional.cosine_similarity(
                            z.flatten(), dD.flatten(), dim=0
                        ).item(),
                        z.norm().item(),
                        dZ.norm().item() / dt,
                        W[layer].norm().item(),
                        ((d + gradient) * dZ).sum().item() / dt,
                        -(z * slope * dZ).sum().item() / dt,
                        (-(d * torch.log2(d) + (1 - d) * torch.log2(1 - d))).nansum().item(),
                    )
                )
                g = -(1 / LN2) * (z * slope + dD)
                W[layer] -= dt * lower[layer].T @ g / X.shape[0]
                b[layer] -= dt * g.mean(dim=0)
            records.append(D[-1].mean(dim=0))
        Z_old, D_old = Z, D
    return None


if __name__ == "__main__":
    main()
