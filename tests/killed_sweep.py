"""A sweep with a store, for tests that kill it: tells which lanes it begins to run, and checks its end."""

import math
import sys

import jax
import xarray as xr

import skajax as ska
from skajax.sweeps import _runner, _sweep

LANES = int(sys.argv[2])
NETWORK = ska.mlp([6, 4], scale=0.3)
X = jax.random.uniform(jax.random.key(0), (10, 8))


def say(*words):
    print(*words, flush=True)


def run(store):
    """Lanes of different lengths, by threes; some are refused."""
    return ska.sweep(
        NETWORK,
        lambda seed: NETWORK.init(jax.random.key(seed), X),
        X,
        lambda dt: ska.Euler(dt),
        steps=lambda seed: 0 if seed == 3 else 5 + seed % 4,
        over=ska.grid(dt=[0.1, 0.05, 0.02, 0.01], seed=range(LANES // 4)),
        at_once=3,
        store=store,
    )


if __name__ == "__main__":
    begins = _runner.Runner.run

    def told(self, block):
        """A block is a chunk: its last lane has all of it written."""
        say("runs", *block)
        _sweep.INTERVAL = math.inf
        *rows, last = begins(self, block)
        yield from rows
        _sweep.INTERVAL = 0.0
        yield last

    _runner.Runner.run = told
    say("ready")
    run(sys.argv[1])
    say("done")
    xr.testing.assert_identical(run(sys.argv[1]), run(None))
