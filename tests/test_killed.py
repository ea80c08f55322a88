"""A sweep that is killed goes on: to the same dataset, and nothing runs twice but what was in flight."""

import os
import signal
import subprocess
import sys
import time

import numpy as np

from skajax.sweeps._store import Store

# More, by hand: SKAJAX_KILLS=20 SKAJAX_LANES=200.
KILLS = int(os.environ.get("SKAJAX_KILLS", "2"))
LANES = int(os.environ.get("SKAJAX_LANES", "24"))
BLOCK = 3  # lanes at once


def start(path, random=None):
    """The blocks of lanes that a process has begun to run, until it was done, or killed at some moment."""
    command = [sys.executable, os.path.join(os.path.dirname(__file__), "killed_sweep.py"), path]
    here = os.path.dirname(os.path.dirname(__file__))
    environment = {**os.environ, "PYTHONPATH": here}
    told = []
    with subprocess.Popen(
        [*command, str(LANES)], stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        if random is None:
            told = child.stdout.read().split("\n")
            told = told[: told.index("done")]
        else:
            # While it starts, or within any block or its writing.
            for _ in range(random.integers(1, 2 + 2 * LANES // (BLOCK * (KILLS + 1)))):
                told.append(child.stdout.readline())
            time.sleep(random.uniform(0, 0.3))
            child.send_signal(signal.SIGKILL)
            told += child.stdout.read().split("\n")[:-1]
    assert child.returncode == (0 if random is None else -signal.SIGKILL)
    return [[int(n) for n in line.split()[1:]] for line in told if line.startswith("runs")]


def test_killed_at_any_moment_it_goes_on_to_the_same_dataset(tmp_path):
    path, done, again = tmp_path / "store", set(), []
    random = np.random.default_rng(0)
    for kill in range(KILLS + 1):
        blocks = start(path, random if kill < KILLS else None)
        lanes = {lane for block in blocks for lane in block}
        assert not done & lanes  # what was there before is not run again
        now = Store.open(path).done() if (path / "sweep.json").exists() else set()
        assert done <= now  # nothing is lost
        # Every block but the last: its lanes were in flight.
        assert {lane for block in blocks[:-1] for lane in block} <= now
        again.append(len(lanes - now))
        print(
            f"start {kill}: {len(blocks)} blocks begun, {len(now)} lanes done, {again[-1]} in flight"
        )
        done = now
    assert len(done) == LANES and max(again) <= BLOCK and again[-1] == 0
