"""What a sweep costs: against its lanes one by one, against a plain vmap, against eager PyTorch.

Three sweeps: the paper's six pairs of η and K at η K = 0.5, whose lanes have different lengths and
1,025 passes in all; many seeds at K = 50; and many seeds of a small network, which one lane does not
keep a processor busy with. Then, in processes of their own, the same sweep on 1, 2, 4 and 8
virtual devices of one processor (do they agree, and does any lane ask another: nothing about speed), and
the memory of a lane, predicted and measured.

    python benchmarks/sweeps.py
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import Mesh
from results import report
from step import WIDTHS, measure, torch_published

import skajax as ska

T, STEPS = 0.5, (25, 50, 100, 150, 200, 500)
SMALL, FEW = (16, 10), 5
"""Widths of a small network, and its images of each class."""
PARTS = ("pairs", "seeds", "small", "devices", "memory")
DEVICES = (1, 2, 4, 8)
COLLECTIVE = re.compile(
    r" (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?\("
)
BLOCKS = (8, 32)
"""Lanes at once, whose peaks of memory tell what one more takes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--child", choices=[*CHILDREN], help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child](options.size)))
        return

    big, small = problem(WIDTHS, 100), problem(SMALL, FEW)
    parts: dict[str, Callable[[], None]] = {
        "pairs": lambda: pairs(big, options.rounds),
        "seeds": lambda: seeds(big, options.seeds, options.rounds),
        "small": lambda: seeds(small, options.seeds, options.rounds),
        "devices": devices,
        "memory": memory,
    }
    for part in options.only:
        parts[part]()


class Case(NamedTuple):
    """A network on the images."""

    network: ska.Network
    x: jax.Array

    def start(self, seed: int) -> tuple:
        return self.network.init(jax.random.key(seed), self.x)

    @property
    def name(self) -> str:
        layers = [w.W.shape[1] for w in self.start(0)]
        return f"{self.x.shape[0]} x {self.x.shape[1]} inputs, widths {tuple(layers)}"


def problem(widths: tuple[int, ...], per_class: int) -> Case:
    x, _ = ska.data.mnist_subset(per_class=per_class)
    return Case(ska.mlp(widths), jnp.asarray(x))


def pairs(case: Case, rounds: int) -> None:
    """The six pairs, by the published rule, from one initialisation."""
    network, x = case
    weights = jax.block_until_ready(case.start(0))
    run = partial(ska.simulate, network, weights, x)
    sweep = lambda **options: ska.sweep(
        network, weights, x, lambda K: ska.Published(T / K), steps=lambda K: K,
        over=ska.grid(K=STEPS), **options,
    )  # fmt: skip
    longest = max(STEPS)
    naive = jax.jit(jax.vmap(lambda dt: run(ska.Published(dt), steps=longest).entropy))
    dts = jnp.asarray([T / K for K in STEPS], x.dtype)
    jobs: dict[str, Callable[[], object]] = {
        "single runs, back to back": lambda: [
            jax.block_until_ready(run(ska.Published(T / K), steps=K).entropy) for K in STEPS
        ],
        "ska.sweep": sweep,
        "vmap, all to the longest": lambda: naive(dts),
    }
    torch = partial_torch(x)
    if torch is not None:
        jobs["eager PyTorch, back to back"] = lambda: [torch(weights, K, T / K) for K in STEPS]
    plan = sweep(dry=True)
    assert isinstance(plan, ska.sweeps.Plan)
    table(
        f"six pairs at T = {T}: {case.name}", plan.lane_steps, jobs, rounds,
        {"vmap, all to the longest": longest * len(STEPS)},
    )  # fmt: skip


def seeds(case: Case, count: int, rounds: int) -> None:
    """Many seeds by the published rule at K = 50."""
    network, x = case
    K = 50
    starts = [jax.block_until_ready(case.start(seed)) for seed in range(count)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    run = lambda weights: ska.simulate(network, weights, x, ska.Published(T / K), steps=K)
    # All that a sweep returns: what nobody asks for, jit leaves out.
    together = jax.jit(jax.vmap(lambda weights: run(weights).records))
    jobs: dict[str, Callable[[], object]] = {
        "single runs, back to back": lambda: [jax.block_until_ready(run(w).records) for w in starts],
        "ska.sweep": lambda: ska.sweep(
            network, lambda seed: starts[seed], x, ska.Published(T / K), steps=K,
            over=ska.grid(seed=range(count)),
        ),
        "vmap of all": lambda: together(stacked),
    }  # fmt: skip
    torch, few = partial_torch(x), max(count // 8, 1)
    scale = {}
    if torch is not None:
        name = f"eager PyTorch, {few} of them"
        jobs[name] = lambda: [torch(w, K, T / K) for w in starts[:few]]
        scale[name] = count / few
    table(f"{count} seeds, K = {K}: {case.name}", count * K, jobs, rounds, {}, scale)


def partial_torch(x: jax.Array) -> Callable[[tuple, int, float], object] | None:
    try:
        import torch
    except ImportError:
        print("without PyTorch: pip install torch, for the comparison with it")
        return None
    return lambda weights, K, dt: torch_published(torch, x, weights, K, dt)


def table(
    title: str,
    lane_steps: int,
    jobs: dict[str, Callable[[], object]],
    rounds: int,
    made: dict[str, int],
    scale: dict[str, float] | None = None,
) -> None:
    """Best times; ``made`` are lane-steps where more are made than asked for."""
    first, times = measure(jobs, rounds)
    best = {name: min(t) * (scale or {}).get(name, 1.0) for name, t in times.items()}
    one = best["single runs, back to back"]
    rows = [
        {
            "": name,
            "lane-steps": made.get(name, lane_steps),
            "seconds": seconds,
            "asked for, /s": lane_steps / seconds,
            "over single runs": seconds / one,
            "compiling, s": max(first[name] - min(times[name]), 0.0),
        }
        for name, seconds in best.items()
    ]
    report("sweeps", title, rows, dtype="float32", rounds=rounds)


def devices() -> None:
    """One sweep on so many devices: its distance from the same on one, and its collectives."""
    rows = []
    for count in DEVICES:
        found = [child(kind, count, count) for kind in ("lanes", "samples")]
        (off, none), (_, some) = [(answer["difference"], dumped) for answer, dumped in found]
        rows.append(
            {
                "virtual devices": count,
                "largest relative difference": off,
                "collectives, lanes divided": none,
                "collectives, samples divided": some,
            }
        )
    report("sweeps", "16 seeds over devices, against single runs", rows)


def memory() -> None:
    """What a lane takes: by the plan, and by the peaks of two processes."""
    found = [child("memory", size, 1)[0] for size in BLOCKS]
    per_lane = {
        name: (found[1][name] - found[0][name]) / (BLOCKS[1] - BLOCKS[0]) / 1e6
        for name in ("planned", "peak")
    }
    planned, measured = per_lane["planned"], per_lane["peak"]
    grown = measured > 0
    row = {
        "": "published rule",
        "planned, MB": planned,
        "measured, MB": measured if grown else None,
        "ratio": planned / measured if grown else None,
    }
    report("sweeps", "memory of a lane", [row], widths=WIDTHS, blocks=BLOCKS)


def child(kind: str, size: int, count: int) -> tuple[dict[str, Any], int]:
    """The answer of a process with so many devices, and the collectives in its programs with a loop."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [
            f"--xla_force_host_platform_device_count={count}",
            f"--xla_dump_to={folder}",
            "--xla_dump_hlo_as_text",
        ]
        command = [sys.executable, __file__, "--child", kind, "--size", str(size)]
        environment = {**os.environ, "XLA_FLAGS": " ".join(flags)}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        programs = Path(folder).glob("*after_optimizations.txt")
        texts = [program.read_text() for program in programs]
        found = sum(len(COLLECTIVE.findall(text)) for text in texts if " while(" in text)
    return json.loads(done.stdout.splitlines()[-1]), found


def divided(axis: str, count: int) -> dict[str, Any]:
    """In a child: lanes or samples over devices, against single runs."""
    case = problem(SMALL, 8)
    mesh = Mesh(np.asarray(jax.devices()[:count]), (axis,))
    data = ska.sweep(
        case.network, lambda seed: case.start(seed), case.x, ska.Published(0.01), steps=50,
        over=ska.grid(seed=range(16)), devices=mesh, at_once=4 if axis == "lanes" else 1,
    )  # fmt: skip
    assert isinstance(data, xr.Dataset)
    worst = 0.0
    for seed in range(16):
        run = ska.simulate(
            case.network, case.start(seed), case.x, ska.Published(0.01), steps=50, reduction="off"
        )
        for name in ("entropy", "knowledge_norm", "flow_norm"):
            want = np.asarray(getattr(run, name), float)
            off = np.abs(data[name].sel(seed=seed).values - want).max() / np.abs(want).max()
            worst = max(worst, float(off))
    return {"difference": worst}


def peak(size: int) -> dict[str, Any]:
    """In a child: a block of so many lanes, its planned bytes and the process's peak."""
    case = problem(WIDTHS, 100)
    sweep = partial(
        ska.sweep, case.network, lambda seed: case.start(seed), case.x, ska.Published(0.01), steps=4,
        over=ska.grid(seed=range(size)), at_once=size,
    )  # fmt: skip
    jax.block_until_ready(case.start(0))
    sweep()
    most = peak_bytes()
    plan = sweep(dry=True)
    assert isinstance(plan, ska.sweeps.Plan)
    return {"planned": plan.device_bytes, "peak": most}


def peak_bytes() -> int:
    """The most that this process has held so far: on the device, or where that is a CPU, resident."""
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    try:
        # Of this program alone. Linux lets ru_maxrss begin at what the parent held when it started it.
        status = Path("/proc/self/status").read_text()
        return 1024 * int(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[0])
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


CHILDREN: dict[str, Callable[[int], dict[str, Any]]] = {
    "lanes": partial(divided, "lanes"),
    "samples": partial(divided, "samples"),
    "memory": peak,
}


if __name__ == "__main__":
    main()
