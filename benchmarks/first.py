"""What the first result of a process costs: importing, compiling and simulating, against Diffrax alone.

The paper's network and images to T = 0.5 by Tsit5 at skajax's default tolerances, each time in a new process.
Diffrax alone solves the same equation, written out below, and keeps the weights' norms at as many times.
Where it says so, JAX has kept the compiled programs of an earlier process (``JAX_COMPILATION_CACHE_DIR``).

    python benchmarks/first.py
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

T, RECORDS, RTOL = 0.5, 101, 1e-4
WIDTHS = (256, 128, 64, 10)  # nothing of skajax is imported before its time is taken
Arrays = dict[str, np.ndarray]


def diffrax_alone() -> Callable[[Arrays], Any]:
    import diffrax
    import jax
    import jax.numpy as jnp

    def flow(t: Any, weights: Any, x: Any) -> Any:
        velocity = []
        for W, b in weights:
            z = x @ W + b
            D = jax.nn.sigmoid(z)
            pull = z * D * (1 - D) / (jnp.log(2.0) * len(z))
            velocity.append((x.T @ pull, pull.sum(axis=0)))
            x = D
        return velocity

    @jax.jit
    def solve(weights: Any, x: Any) -> Any:
        norms = lambda t, weights, x: jnp.stack([jnp.linalg.norm(W) for W, _ in weights])
        return diffrax.diffeqsolve(
            diffrax.ODETerm(flow), diffrax.Tsit5(), 0.0, T, None, weights, x,
            stepsize_controller=diffrax.PIDController(RTOL, RTOL / 100),
            saveat=diffrax.SaveAt(ts=jnp.linspace(0, T, RECORDS), fn=norms),
        ).ys  # fmt: skip

    def job(arrays: Arrays) -> Any:
        pairs = [(arrays[f"W{n}"], arrays[f"b{n}"]) for n in range(len(WIDTHS))]
        return solve(pairs, arrays["x"])

    return job


def skajax(**options: Any) -> Callable[[], Callable[[Arrays], Any]]:
    def importing() -> Callable[[Arrays], Any]:
        import jax

        import skajax as ska

        def job(arrays: Arrays) -> Any:
            network, x = ska.mlp(WIDTHS), arrays["x"]
            like = jax.eval_shape(network.init, jax.random.key(0), x)
            leaves = [arrays[f"{name}{n}"] for n in range(len(WIDTHS)) for name in "Wb"]
            weights = jax.tree.unflatten(jax.tree.structure(like), leaves)
            method = ska.Adaptive(rtol=RTOL, atol=RTOL / 100)
            run = ska.simulate(network, weights, x, method, t1=T, **options)
            return run.records, run.final.weights

        return job

    return importing


JOBS: dict[str, Callable[[], Callable[[Arrays], Any]]] = {
    "Diffrax alone, norms": diffrax_alone,
    "skajax, norms": skajax(observe=("weight_norm",)),
    "skajax, the default: all observables": skajax(),
}
CACHE = "JAX_COMPILATION_CACHE_DIR"
BEFORE = ", compiled by an earlier process"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--job", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(first(*options.job)))
        return

    from results import report

    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder))
        found: dict[str, list[dict[str, float]]] = {}
        for number in range(options.rounds + 1):
            for name in JOBS:
                cold = run(name, file)
                warm = run(name, file, Path(folder) / "compiled")
                if number:  # the first round fills the cache, and the system's of files
                    found.setdefault(name, []).append(cold)
                    found.setdefault(name + BEFORE, []).append(warm)
    median = lambda name, what: statistics.median(each[what] for each in found[name])
    base = "Diffrax alone, norms"
    rows = [
        {
            "": name,
            "importing, s": median(name, "importing"),
            "first result, s": median(name, "first"),
            "over Diffrax": median(name, "first") / median(base, "first"),
            "processor, s": median(name, "processor"),
            "second result, s": median(name, "second"),
        }
        for name in sorted(found, key=lambda name: name.endswith(BEFORE))
    ]
    report(
        "first", "the first result of a process", rows, samples=1000, widths=WIDTHS, end=T,
        records=RECORDS, rtol=RTOL, rounds=options.rounds,
    )  # fmt: skip


def write(folder: Path) -> Path:
    """Images and weights, for processes that do not import skajax."""
    import jax

    import skajax as ska

    x, _ = ska.data.mnist_subset()
    weights = ska.mlp(WIDTHS).init(jax.random.key(0), x)
    arrays = {
        f"{name}{n}": np.asarray(a)
        for n, layer in enumerate(weights)
        for name, a in zip("Wb", layer, strict=True)
    }
    np.savez(folder / "start.npz", x=np.asarray(x), **arrays)
    return folder / "start.npz"


def run(name: str, file: Path, compiled: Path | None = None) -> dict[str, float]:
    """A job in a process of its own, which keeps compiled programs in a folder, or nowhere."""
    environment = {key: value for key, value in os.environ.items() if key != CACHE}
    told = subprocess.run(
        [sys.executable, __file__, "--job", name, str(file)],
        env=environment if compiled is None else environment | {CACHE: str(compiled)},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(told.stdout)


def first(name: str, file: str) -> dict[str, float]:
    """Seconds of importing, of the first and the second result; and the first one's of all threads."""
    arrays = dict(np.load(file))
    start = time.perf_counter()
    job = JOBS[name]()
    import jax

    jax.devices()
    imported, processor = time.perf_counter(), time.process_time()
    jax.block_until_ready(job(arrays))
    done, used = time.perf_counter(), time.process_time()
    jax.block_until_ready(job(arrays))
    return {
        "importing": imported - start,
        "first": done - imported,
        "processor": used - processor,
        "second": time.perf_counter() - done,
    }


if __name__ == "__main__":
    main()
