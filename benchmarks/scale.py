"""Networks at scale, each simulated until its first flow peak: time, and memory beside what a plan says.

Each runs in a process of its own. Memory is the most that the run takes beyond what is held when it begins.

    python benchmarks/scale.py
"""

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from results import report

import skajax as ska


def convolutions() -> tuple[ska.Network, jax.Array, float]:
    """Two strided convolutions and a dense layer on the paper's 1000 images; the longest that it may take."""
    images, _ = ska.data.mnist_subset(per_class=100)
    conv = ska.layers.Conv
    layers = (
        conv(16, (3, 3), strides=2),
        conv(32, (3, 3), strides=2),
        ska.layers.Flatten(),
        ska.Dense(10),
    )
    return ska.Network(layers), jnp.asarray(images.reshape(-1, 28, 28, 1)), 0.3


def attention() -> tuple[ska.Network, jax.Array, float]:
    """Six blocks of self-attention and of two dense layers at every position, five million weights."""
    width, heads = 264, 8
    scale = width**-0.5 / 8
    dense = lambda wide, scale=scale: ska.Dense(wide, pointwise=True, scale=scale)
    block = (
        ska.layers.Residual(ska.layers.SelfAttention(width, heads, causal=True, scale=scale)),
        ska.layers.Residual((dense(4 * width), dense(width, scale / 2))),
    )
    network = ska.Network((dense(width, 0.1), *block * 6))
    return network, jax.random.normal(jax.random.key(1), (16, 32, 32)), 5.0


CASES: dict[str, Callable[[], tuple[ska.Network, jax.Array, float]]] = {
    "two convolutions, 1000 images 28 x 28": convolutions,
    "six attention blocks, 16 sequences of 32": attention,
}
"""Each a network, its inputs, and the time until which it is simulated at most."""


class FirstPeak(ska.stop.Rule):
    """The flow ‖Φ‖ of a layer has risen, and is below a ``share`` of its largest: by more than rounding."""

    share: float = 0.999

    def start(self, layers: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
        return jnp.full(layers, jnp.inf, dtype), jnp.zeros(layers, dtype)

    def needs(self) -> tuple[ska.Observable, ...]:
        return ska.observables.choose(["flow_norm"])

    def look(self, memory: Any, instant: ska.stop.Seen) -> tuple[Any, Any]:
        flow, (first, most) = instant.observables.flow_norm, memory
        fallen = (flow < self.share * most) & (first < self.share * most)
        verdict = ska.stop.Verdict(fallen.any(), jnp.argmax(fallen) + 1, jnp.asarray(0))
        return (jnp.where(jnp.isinf(first), flow, first), jnp.maximum(most, flow)), verdict


def run(case: str) -> dict[str, Any]:
    """Simulate until the flow of a first layer has fallen again."""
    network, x, t1 = CASES[case]()
    weights = network.init(jax.random.key(0), x)
    method, observe = ska.Adaptive(rtol=1e-3, atol=1e-5), ("entropy", "flow_norm")
    simulate = lambda t1, until: ska.simulate(
        network, weights, x, method, t1, observe=observe, save_at="end", until=until
    )
    at_once = FirstPeak(2.0)  # which compiles what a run's end takes, too
    compiling = timed(lambda: simulate(1e-6, at_once))[0]
    give_back()
    held()
    before = held()
    seconds, result = timed(lambda: simulate(t1, FirstPeak()))
    memory = held() - before
    plan = ska.sweep(  # its pilot runs to this time
        network, lambda lane: weights, x, method, 1e-6, over=ska.grid(lane=[0]), observe=observe,
        save_at="end", until=FirstPeak(), dry=True,
    )  # fmt: skip
    assert isinstance(plan, ska.sweeps.Plan)
    return {
        "weights": sum(leaf.size for leaf in jax.tree.leaves(weights)),
        "first peak at t": float(result.final.t) if bool(result.outcome.stopped) else None,
        "steps": int(result.stats.steps),
        "evaluations": int(result.stats.evaluations),
        "compiling and a first step, s": compiling,
        "to the peak, s": seconds,
        "memory, MB": memory / 1e6,
        "planned, MB": plan.device_bytes / 1e6,
    }


def timed(job: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = job()
    jax.block_until_ready(result.t)
    return time.perf_counter() - start, result


def held() -> int:
    """The most that this process has held since the last call, which starts a new count (on Linux)."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def give_back() -> None:
    """Have the allocator hand back what is free, of compiling too, lest a run take it unseen (on Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run(options.case)))
        return
    rows = []
    for case in CASES:
        command = [sys.executable, __file__, "--case", case]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append({"": case} | json.loads(done.stdout.splitlines()[-1]))
    report("scale", "networks at scale", rows, dtype="float32", rtol=1e-3)


if __name__ == "__main__":
    main()
