"""A sweep that is killed goes on: to the same dataset, and nothing runs twice but what was in flight."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import killed_sweep
import numpy as np
import pytest
import xarray as xr

from skajax.sweeps._store import Store

HERE = Path(__file__).parent
# More, by hand: SKAJAX_KILLS=20 SKAJAX_LANES=200.
KILLS = int(os.environ.get("SKAJAX_KILLS", "1"))
LANES = int(os.environ.get("SKAJAX_LANES", "24"))
BLOCK = 3  # lanes at once


def killed(path, random):
    """What a process told, until it was killed at some moment."""
    command = [sys.executable, HERE / "killed_sweep.py", path, str(LANES)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        # While it starts, or within any block or its writing.
        last = random.integers(1, 2 + 2 * LANES // (BLOCK * (KILLS + 2)))
        told = [child.stdout.readline() for _ in range(last)]
        time.sleep(random.uniform(0, 0.3))
        child.send_signal(signal.SIGKILL)
        told += child.stdout.read().split("\n")[:-1]
    assert child.returncode == -signal.SIGKILL
    return told


@pytest.mark.filterwarnings("ignore::skajax.sweeps.LanesFailed")
def test_killed_at_any_moment_it_goes_on_to_the_same_dataset(tmp_path, monkeypatch):
    path, done, said = tmp_path / "store", set(), []
    random = np.random.default_rng(0)
    for kill in range(KILLS + 1):
        if kill < KILLS:
            told = killed(path, random)
        else:
            killed_sweep.tell_blocks(monkeypatch.setattr, said.append)
            data, told = killed_sweep.run(path, LANES), list(said)
        blocks = [[int(n) for n in line.split()[1:]] for line in told if line.startswith("runs")]
        lanes = {lane for block in blocks for lane in block}
        assert not done & lanes  # what was there before is not run again
        now = Store.open(path).done() if (path / "sweep.json").exists() else set()
        assert done <= now  # nothing is lost
        # Every block but the last: its lanes were in flight.
        assert {lane for block in blocks[:-1] for lane in block} <= now
        assert len(lanes - now) <= BLOCK * (kill < KILLS)
        done = now
    assert len(done) == LANES
    xr.testing.assert_identical(data, killed_sweep.run(None, LANES))
