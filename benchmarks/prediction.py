"""What it costs to predict when layers learn, against the simulations that tell it.

The paper's network and images, the spectrum known. Simulations are of the same time span, with as many
records: adaptive ones, and the published rule at its finest step. Processor time is of all threads.

    python benchmarks/prediction.py
"""

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from results import report
from step import WIDTHS

import skajax as ska
from skajax import timescales


class Cost(NamedTuple):
    wall: float
    processor: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds

    x, _ = ska.data.mnist_subset()
    x = jnp.asarray(x)
    network = ska.mlp(WIDTHS)
    weights = network.init(jax.random.key(0), x)
    known = timescales.spectrum(x, timescales.Size().modes)
    predicted = timescales.predict(network, weights, x, spectrum=known)
    t = np.asarray(predicted.t)
    end = float(t[-1])
    simulate = lambda method, **more: ska.simulate(network, weights, x, method, end, **more)

    jobs: dict[str, Callable[[], object]] = {
        "spectrum": lambda: timescales.spectrum(x, timescales.Size().modes),
        "predict, weights given": lambda: timescales.predict(network, weights, x, spectrum=known),
        "predict, one draw": lambda: timescales.predict(network, None, x, spectrum=known),
        "predict, four draws": lambda: timescales.predict(
            network, None, x, spectrum=known, draws=4
        ),
        "Adaptive, rtol 1e-3": lambda: simulate(ska.Adaptive(rtol=1e-3, atol=1e-5), save_at=t),
        "Adaptive, rtol 1e-4": lambda: simulate(ska.Adaptive(), save_at=t),
        "Published, dt = 0.001": lambda: simulate(ska.Published(end / round(1000 * end))),
    }
    first = {name: timed(job).wall for name, job in jobs.items()}
    costs: dict[str, list[Cost]] = {name: [] for name in jobs}
    for number in range(rounds):
        for name, job in jobs.items():
            # The long ones are steady enough.
            if number < 3 or name.startswith("predict"):
                costs[name].append(timed(job))

    base = min(cost.wall for cost in costs["Adaptive, rtol 1e-4"])
    rows = [
        {
            "": name,
            "best, ms": 1e3 * min(cost.wall for cost in found),
            "median, ms": 1e3 * float(np.median([cost.wall for cost in found])),
            "processor, ms": 1e3 * min(cost.processor for cost in found),
            "of Adaptive 1e-4, %": 100 * min(cost.wall for cost in found) / base,
            "first call, s": first[name],
        }
        for name, found in costs.items()
    ]
    report(
        "prediction", "predictions and simulations", rows, samples=x.shape[0], widths=WIDTHS,
        end=round(end, 2), records=len(t), share=f"{predicted.share:.2%} of an evaluation",
    )  # fmt: skip


def timed(job: Callable[[], object]) -> Cost:
    wall, processor = time.perf_counter(), time.process_time()
    made = job()
    if isinstance(made, ska.Trajectory):
        made = made.final  # a whole run holds more than arrays
    jax.block_until_ready(made)
    return Cost(time.perf_counter() - wall, time.process_time() - processor)


if __name__ == "__main__":
    main()
