"""What a device makes of skajax: its speed beside the device's own, and what its products do to the numbers.

Four tables: the device's rate of plain matrix products; the share of it that Euler's method reaches on
the paper's network, alone and in blocks of lanes, with nothing and with everything recorded; the drift of
a float32 run at each precision of products (``ska.check_precision``); and the order at which fixed steps
come to the continuous limit (``ska.study.invariance``), which must not depend on the device.

    python benchmarks/accelerator.py
"""

import argparse
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from results import report
from step import WIDTHS, measure

import skajax as ska

PRECISIONS = ("default", "high", "highest")
PAIRS = ((0.02, 25), (0.01, 50), (0.005, 100), (0.0025, 200))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=4096, help="of the square matrices multiplied")
    parser.add_argument("--lanes", type=int, nargs="+", default=[8, 64])
    options = parser.parse_args()

    images, _ = ska.data.mnist_subset()
    x = jnp.asarray(images)
    rates = products(options.size, options.rounds)
    runs(x, rates["highest"], options.lanes, options.rounds)
    drift(x)
    orders(x)


def products(size: int, rounds: int) -> dict[str, float]:
    """Floating-point operations a second of one large product, at each precision."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul, static_argnames="precision")
    jobs = {name: partial(product, a, a, precision=name) for name in PRECISIONS}
    _, times = measure(jobs, rounds)
    rates = {name: 2 * size**3 / min(t) for name, t in times.items()}
    rows = [{"precision": name, "TFLOP/s": rate / 1e12} for name, rate in rates.items()]
    report("accelerator", "plain matrix products", rows, size=size, dtype="float32", rounds=rounds)
    return rates


def runs(x: jax.Array, rate: float, lanes: list[int], rounds: int, steps: int = 50) -> None:
    """Euler's method, 50 steps: seconds a lane, and its flow's share of the rate of plain products."""
    network = ska.mlp(WIDTHS)
    starts = lambda count: jax.vmap(lambda key: network.init(key, x))(
        jax.random.split(jax.random.key(1), count)
    )
    # Of a flow alone: forward products and those of the gradient, two operations each.
    work = 2 * steps * ska.summary(network, x).total("flow")
    for name, observe in (("nothing", ()), ("everything", None)):
        rows = []
        for count in (1, *lanes):

            def run(weights: Any, observe: Any = observe) -> Any:
                done = ska.simulate(
                    network, weights, x, ska.Euler(0.01), steps=steps, observe=observe
                )
                return done.final.weights, done.records

            program = jax.jit(jax.vmap(run))
            first, times = measure({"": partial(program, starts(count))}, rounds)
            best = min(times[""])
            rows.append({
                "lanes at once": count, "seconds": best, "lanes a second": count / best,
                "share of the products' rate": count * work / best / rate, "first call, s": first[""],
            })  # fmt: skip
        report(
            "accelerator", f"runs of 50 Euler steps, {name} recorded", rows, samples=x.shape[0],
            inputs=x.shape[1], widths=WIDTHS, dtype="float32", precision="highest", rounds=rounds,
        )  # fmt: skip


def drift(x: jax.Array) -> None:
    """Each precision against float64, layer by layer."""
    found = ska.check_precision(ska.mlp(WIDTHS), x)
    number = lambda cell: float(cell) if cell.notnull() else None  # where a flow has no peak
    rows = [
        {"precision": precision, "layer": layer}
        | {
            name: number(found[name].sel(precision=precision, layer=layer))
            for name in ("drift", "peak_shift", "entropy_error")
        }
        for precision in PRECISIONS
        for layer in found.layer.values.tolist()
    ]
    report(
        "accelerator", "float32 against float64", rows, samples=x.shape[0], widths=WIDTHS,
        t1=found.t1, steps=found.steps,
    )  # fmt: skip


def orders(x: jax.Array) -> None:
    """Of the entropy rate: each step's relative distance from the limit, and its order."""
    network = ska.mlp(WIDTHS)
    found = ska.study.invariance(network, network.init(jax.random.key(0), x), x, PAIRS)
    found = found.sel(seed=0, norm="l2", observable="entropy_rate")
    rows = [
        {"rule": rule, "layer": layer}
        | {
            f"error, η = {eta:g}": float(found.error.sel(rule=rule, layer=layer)[n])
            for n, (eta, _) in enumerate(PAIRS)
        }
        | {"order": float(found.order.sel(rule=rule, layer=layer))}
        for rule in found.rule.values.tolist()
        for layer in found.layer.values.tolist()
    ]
    report("accelerator", "distance to the continuous limit", rows, widths=WIDTHS)


if __name__ == "__main__":
    main()
