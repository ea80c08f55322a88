"""A sweep that is killed goes on: to the same dataset, and nothing runs twice but what was in flight."""

import os
import signal
import subprocess
import sys
import time

import numpy as np

from skajax.sweeps._store import Store

# More, by hand: SKAJAX_KILLS=20 SKAJAX_LANES=200 SKAJAX_LATEST=15.
KILLS = int(os.environ.get("SKAJAX_KILLS", "2"))
LATEST = float(os.environ.get("SKAJAX_LATEST", "3"))  # seconds
LANES = int(os.environ.get("SKAJAX_LANES", "20"))


def start(path, wait=None):
    """Lanes that a process begins to run until it is killed, or done, and whether it was killed."""
    command = [
        sys.executable,
        os.path.join(os.path.dirname(__file__), "killed_sweep.py"),
        path,
        str(LANES),
    ]
    here = os.path.dirname(os.path.dirname(__file__))
    environment = {**os.environ, "PYTHONPATH": here}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout.readline() == "ready\n"
        if wait is not None:
            time.sleep(wait)
            child.send_signal(signal.SIGKILL)
        lines = child.stdout.read().split("\n")[:-1]
    killed = child.returncode == -signal.SIGKILL
    assert killed or child.returncode == 0
    if not killed:
        lines = lines[: lines.index("done")]
    blocks = [[int(n) for n in line.split()[1:]] for line in lines if line.startswith("runs")]
    return blocks, killed


def test_killed_at_any_moment_it_goes_on_to_the_same_dataset(tmp_path):
    path, done, again, kills = tmp_path / "store", set(), [], 0
    for wait in [*np.random.default_rng(0).uniform(0.0, LATEST, KILLS), None]:
        blocks, killed = start(path, wait)
        lanes = [lane for block in blocks for lane in block]
        assert not done & set(lanes)  # what was there before is not run again
        assert len(set(lanes)) == len(lanes)
        now = Store.open(path).done() if (path / "sweep.json").exists() else set()
        assert done <= now  # nothing is lost
        if killed:
            # All but the last block, whose lanes were in flight.
            assert {lane for block in blocks[:-1] for lane in block} <= now
            again.append(len(set(lanes) - now))
            kills += 1
        done = now
    assert kills == KILLS and max(again) <= 3
    assert len(done) == LANES
    print(f"{kills} kills; lanes that ran again: {again}")
