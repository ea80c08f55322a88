"""A sweep with a store, for tests that kill it: tells which lanes it begins to run."""

import math
import sys

import jax

import skajax as ska
from skajax.sweeps import _runner, _sweep

NETWORK = ska.mlp([6, 4], scale=0.3)
X = jax.random.uniform(jax.random.key(0), (10, 8))


def run(store, lanes):
    """Lanes of different lengths, by threes; some are refused."""
    return ska.sweep(
        NETWORK,
        lambda seed: NETWORK.init(jax.random.key(seed), X),
        X,
        lambda dt: ska.Euler(dt),
        steps=lambda seed: 0 if seed == 3 else 5 + seed % 4,
        over=ska.grid(dt=[0.1, 0.05, 0.02, 0.01], seed=range(lanes // 4)),
        observe=("entropy",),
        at_once=3,
        store=store,
    )


def tell_blocks(replace, say):
    """Let it be told which block is begun. A block is a chunk: its last lane has all of it written."""
    begins = _runner.Runner.run

    def told(self, block):
        say(" ".join(["runs", *map(str, block)]))
        replace(_sweep, "INTERVAL", math.inf)
        *rows, last = begins(self, block)
        yield from rows
        replace(_sweep, "INTERVAL", 0.0)
        yield last

    replace(_runner.Runner, "run", told)


if __name__ == "__main__":
    say = lambda line: print(line, flush=True)
    tell_blocks(setattr, say)
    say("ready")
    run(sys.argv[1], int(sys.argv[2]))
    say("done")
