"""Time to a given error: skajax's adaptive solvers, Euler's method, torchdiffeq, eager PyTorch.

All solve the same equation, dW/dt = -∇H, from the same float32 weights on the same images, and are
held against one float64 solution at a tight tolerance. Each solver runs at the loosest tolerance
that reaches the error and whose next tighter one does too. Euler's number of steps for an error
follows from two measured runs, its time from its measured time per step.

PyTorch runs in a process of its own: the idle threads of two thread pools in one process disturb
each other. Rounds of both processes alternate, so that a disturbance from outside meets both.

    python benchmarks/solvers.py
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from results import report
from step import LN2, WIDTHS, torch_published

import skajax as ska
from skajax.study.errors import relative_error
from skajax.study.work_precision import enable_x64

T, LATE = 0.5, 10.0
TARGETS = (2e-3, 1e-4)
TOLERANCES = tuple(float(f"{10 ** (-n / 4):.2g}") for n in range(8, 21))
"""From 1e-2 to 1e-5, four a decade."""
EULER = (500, 1000)
"""Steps that Euler's order is measured with."""
PASSES = 100
"""Steps that eager PyTorch's time per step is measured with."""


class Row(NamedTuple):
    """One line of the table."""

    name: str
    setting: str
    evaluations: float
    seconds: float
    error: float


SOLVERS: dict[str, Callable[[float], ska.Adaptive]] = {
    "skajax, the default, Tsit5": lambda rtol: ska.Adaptive(rtol=rtol, atol=rtol / 100),
    "skajax, Dopri5": lambda rtol: ska.Adaptive(diffrax.Dopri5(), rtol=rtol, atol=rtol / 100),
    "skajax, Dopri8": lambda rtol: ska.Adaptive(diffrax.Dopri8(), rtol=rtol, atol=rtol / 100),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--torch-server", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.torch_server:
        serve(options.torch_server)
        return

    x, _ = ska.data.mnist_subset()
    x = jnp.asarray(x)
    network = ska.mlp(WIDTHS)
    weights = network.init(jax.random.key(0), x)
    simulate = partial(ska.simulate, network, weights, x)
    reference = tight(network, weights, x, T)
    error = lambda run: relative_error(run.final.weights, reference)

    jobs: dict[str, Callable[[], Any]] = {}
    costs: dict[str, tuple[str, str, float, float]] = {}  # name, setting, evaluations, error
    for name, make in SOLVERS.items():
        runs = {rtol: simulate(make(rtol), t1=T, save_at=[T]) for rtol in TOLERANCES}
        errors = {rtol: error(run) for rtol, run in runs.items()}
        for target in TARGETS:
            rtol = loosest(errors, target)
            if rtol is not None:
                key = f"{name} {target}"
                jobs[key] = partial(simulate, make(rtol), t1=T, save_at=[T])
                spent = float(runs[rtol].stats.evaluations)
                costs[key] = (name, f"rtol {rtol:g}", spent, errors[rtol])
    firsts = {
        "Euler, no records": lambda K: simulate(bare_euler(K), t1=T, save_at=[T]),
        "ska.Euler, every step recorded": lambda K: simulate(ska.Euler(T / K), steps=K),
        # Pass 0 only forwards, so that K + 1 passes make K updates.
        "ska.Published": lambda K: simulate(ska.Published(T / K), steps=K + 1),
    }
    order = {name: fit([error(run(K)) for K in EULER]) for name, run in firsts.items()}
    for name, run in firsts.items():
        jobs[name] = partial(run, EULER[0])
    reduced_network, reduced_weights, reduced_x = without_null_space(network, weights, x)
    solve = partial(ska.simulate, reduced_network, reduced_weights, reduced_x)
    for name, make in SOLVERS.items():
        jobs[f"overhead {name}"] = partial(solve, make(1e-4), t1=T, save_at=[T])
    count = jnp.asarray(50)
    jobs["50 evaluations"] = partial(
        evaluations, reduced_network, reduced_weights, reduced_x, count
    )

    with Torch(x, weights, reference) as torch:
        for key, (name, setting, spent, off) in torch.choose().items():
            costs[key] = (name, setting, spent, off)
        ends = {name: job() for name, job in jobs.items()}  # compiles
        seconds = dict.fromkeys(jobs, math.inf)
        for _ in range(options.rounds):
            for name, job in jobs.items():
                seconds[name] = min(seconds[name], timed(job))
            for name, taken in torch.round().items():
                seconds[name] = min(seconds.get(name, math.inf), taken)

    order["published rule, eager PyTorch"] = order["ska.Published"]
    order["Euler, eager PyTorch"] = order["Euler, no records"]
    settings = {"samples": x.shape[0], "widths": WIDTHS, "T": T, "rounds": options.rounds}
    for target in TARGETS:
        rows = [
            Row(name, setting, spent, seconds[key], off)
            for key, (name, setting, spent, off) in costs.items()
            if key.endswith(f" {target}")
        ]
        for name, (constant, p) in order.items():
            if name in seconds:
                steps = (constant / target) ** (1 / p)
                how = f"{steps:,.0f} steps, order {p:.2f}"
                taken = seconds[name] * steps / EULER[0]
                rows.append(Row(name, how, steps, taken, target))
        show(f"relative error of the weights at most {target:g}", rows, settings)
        own = rows[0]
        constant, p = order["Euler, no records"]
        steps = (constant / own.error) ** (1 / p)
        ratio = seconds["Euler, no records"] * steps / EULER[0] / own.seconds
        print(f"at {own.error:.1e}, the default's own error, Euler takes {steps:,.0f} steps")
        print(f"without records: {ratio:.0f} times the default's time")

    one = seconds["50 evaluations"] / 50
    overheads = []
    for name in SOLVERS:
        spent = int(ends[f"overhead {name}"].stats.evaluations)
        over = seconds[f"overhead {name}"] / (spent * one) - 1
        overheads.append({"": name, "evaluations": spent, "beyond them, %": 100 * over})
    late = simulate(ska.Adaptive(rtol=1e-4, atol=1e-6), t1=LATE, save_at=[LATE])
    accepted = int(late.stats.steps) - int(late.stats.rejected)
    report(
        "solvers", "a solve beyond its evaluations, rtol 1e-4", overheads, **settings,
        evaluation=f"{1e3 * one:.2f} ms",
    )  # fmt: skip
    row = {"": "the default", "accepted": accepted, "evaluations": int(late.stats.evaluations)}
    report("solvers", f"steps to T = {LATE:g}, rtol 1e-4", [row])


def show(title: str, rows: list[Row], settings: dict[str, Any]) -> None:
    table = [
        {
            "": row.name,
            "setting": row.setting,
            "evaluations": round(row.evaluations),
            "ms": 1e3 * row.seconds,
            "error": row.error,
            "ratio": row.seconds / rows[0].seconds,
        }
        for row in rows
    ]
    report("solvers", title, table, **settings)


def tight(network: Any, weights: Any, x: Any, t1: float) -> list[np.ndarray]:
    """The weights at t1, to about 1e-10: from the same numbers, in float64."""
    numbers = jax.tree.map(np.asarray, (weights, x))
    with enable_x64(True):
        double = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), numbers)
        method = ska.Adaptive(diffrax.Dopri8(), rtol=1e-11, atol=1e-13)
        run = ska.simulate(network, *double, method, t1=t1, save_at=[t1], throw=True)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(run.final.weights)]


def bare_euler(K: int) -> ska.Adaptive:
    return ska.Adaptive(
        diffrax.Euler(), controller=diffrax.ConstantStepSize(), dt0=T / K, max_steps=K + 1
    )


def fit(errors: list[float]) -> tuple[float, float]:
    """C and p of error = C / steps^p, from two runs."""
    p = math.log(errors[0] / errors[1]) / math.log(EULER[1] / EULER[0])
    return errors[1] * EULER[1] ** p, p


def loosest(errors: dict[float, float], target: float) -> float | None:
    """The loosest tolerance that reaches the target, as does the next tighter one."""
    ranked = sorted(errors, reverse=True)
    for rtol, tighter in zip(ranked, [*ranked[1:], ranked[-1]], strict=True):
        if errors[rtol] <= target and errors[tighter] <= target:
            return rtol
    return None


def without_null_space(network: Any, weights: Any, x: jax.Array) -> tuple[Any, Any, jax.Array]:
    """The same problem on the row space of x: nothing is left that a solver could leave out."""
    _, sizes, rows = np.linalg.svd(np.asarray(x, float), full_matrices=False)
    Q = rows[sizes > 1e-6 * sizes[0]].T
    first = weights[0]._replace(W=jnp.asarray(Q.T @ np.asarray(weights[0].W, float), x.dtype))
    return network, (first, *weights[1:]), jnp.asarray(np.asarray(x, float) @ Q, x.dtype)


@partial(jax.jit, static_argnums=0)
def evaluations(network: Any, weights: Any, x: jax.Array, count: jax.Array) -> Any:
    """So many evaluations of the flow, each of other weights, and nothing else."""

    def once(_: int, w: Any) -> Any:
        return jax.tree.map(lambda a, v: a + 1e-6 * v, w, ska.flow(network, w, x))

    return jax.lax.fori_loop(0, count, once, weights)


def timed(job: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(jax.tree.leaves(job()))
    return time.perf_counter() - start


class Torch:
    """PyTorch in a process of its own, which answers a line with a line of JSON."""

    def __init__(self, x: jax.Array, weights: Any, reference: list[np.ndarray]) -> None:
        self.arrays = {"x": np.asarray(x)}
        for layer, w in enumerate(weights):
            self.arrays |= {f"W{layer}": np.asarray(w.W), f"b{layer}": np.asarray(w.b)}
        self.arrays |= {f"r{n}": leaf for n, leaf in enumerate(reference)}

    def __enter__(self) -> "Torch":
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "problem.npz"
        np.savez(path, **self.arrays)
        command = [sys.executable, __file__, "--torch-server", str(path)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate("")
        self.folder.cleanup()

    def ask(self, question: str) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(question + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {}
        return json.loads(self.process.stdout.readline() or "{}")

    def choose(self) -> dict[str, Any]:
        return self.ask("choose")

    def round(self) -> dict[str, float]:
        return self.ask("round")


def serve(path: str) -> None:
    """The other process: choose tolerances, then time a round whenever asked."""
    try:
        import torch
    except ImportError:
        print("without PyTorch: pip install torch, for the comparison with it", file=sys.stderr)
        return
    try:
        from torchdiffeq import odeint
    except ImportError:
        hint = "without torchdiffeq: pip install torchdiffeq, for the comparison with it"
        print(hint, file=sys.stderr)
        odeint = None
    problem = np.load(path)
    layers = range(len(WIDTHS))
    start = [problem[f"{kind}{layer}"] for layer in layers for kind in "Wb"]
    reference = [problem[f"r{n}"] for n in range(len(start))]
    X = torch.from_numpy(problem["x"])
    y0 = tuple(torch.from_numpy(leaf) for leaf in start)
    count = 0

    def flow(_: Any, y: tuple) -> tuple:
        nonlocal count
        count += 1
        rates, inputs = [], X
        for W, b in zip(y[::2], y[1::2], strict=True):
            z = torch.addmm(b, inputs, W)
            d = torch.sigmoid(z)
            g = z * d * (1 - d) / (LN2 * X.shape[0])
            rates += [inputs.T @ g, g.sum(dim=0)]
            inputs = d
        return tuple(rates)

    def solve(method: str, rtol: float) -> list[np.ndarray]:
        with torch.no_grad():
            times = torch.tensor([0.0, T])
            out = odeint(flow, y0, times, method=method, rtol=rtol, atol=rtol / 100)
        return [leaf[-1].numpy() for leaf in out]

    def euler() -> None:
        with torch.no_grad():
            y, dt = y0, T / EULER[0]
            for _ in range(PASSES):
                y = tuple(w + dt * v for w, v in zip(y, flow(0.0, y), strict=True))

    class Layer(NamedTuple):
        W: np.ndarray
        b: np.ndarray

    weights = [Layer(problem[f"W{layer}"], problem[f"b{layer}"]) for layer in layers]
    jobs: dict[str, Callable[[], Any]] = {
        "published rule, eager PyTorch": lambda: torch_published(
            torch, problem["x"], weights, PASSES
        ),
        "Euler, eager PyTorch": euler,
    }
    fixed = tuple(jobs)
    for line in sys.stdin:
        if line.strip() == "choose":
            answer: dict[str, Any] = {}
            for method in ("dopri5", "dopri8") if odeint else ():
                errors, spent = {}, {}
                for rtol in TOLERANCES:
                    count = 0
                    errors[rtol] = relative_error(solve(method, rtol), reference)
                    spent[rtol] = count
                for target in TARGETS:
                    rtol = loosest(errors, target)
                    if rtol is not None:
                        key, name = f"{method} {target}", f"torchdiffeq, {method}"
                        answer[key] = (name, f"rtol {rtol:g}", spent[rtol], errors[rtol])
                        jobs[key] = partial(solve, method, rtol)
        else:
            answer = {name: timed_here(job) for name, job in jobs.items()}
            for name in fixed:  # to the steps of the other process's
                answer[name] *= EULER[0] / PASSES
        print(json.dumps(answer), flush=True)


def timed_here(job: Callable[[], Any]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
