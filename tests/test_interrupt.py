"""Ctrl-C at any moment: files are whole, what was finished is kept, one line, and exit status 130."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

import skajax as ska
from skajax import _files, _interrupt
from skajax._interrupt import finishing, interruptible
from skajax.sweeps import _runner
from skajax.sweeps._store import Store

ROOT = Path(__file__).parent.parent
NETWORK = ska.mlp([6, 4], scale=0.3)
X = jax.random.uniform(jax.random.key(0), (10, 8))

SWEEP = """
[data]
per_class = 3
[network]
widths = [6, 10]
[method]
name = "adaptive"
[run]
t1 = 5.0
[grid]
seed = { start = 0, stop = 399, num = 400 }
"""


def interrupt():
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def default_handler():
    """Python's own, in which pytest may run or not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_what_is_being_finished_is_finished_before_an_interrupt():
    done = []

    @finishing()
    def write():
        with finishing():
            interrupt()
            done.append("inner")
        interrupt()
        done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert done == ["inner", "outer"]


def test_the_third_interrupt_does_not_wait():
    done = []

    @finishing()
    def write():
        interrupt()
        interrupt()
        done.append(2)
        interrupt()
        done.append(3)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert done == [2]


def test_a_handler_of_the_users_is_called_and_decides():
    called = []
    signal.signal(signal.SIGINT, lambda *_: called.append(len(called)))
    with finishing():
        interrupt()
        assert not called
    assert called == [0]
    interruptible(interrupt)()
    assert called == [0, 1]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_other_threads_finish_nothing_and_hinder_nothing():
    done = []
    thread = threading.Thread(target=lambda: done.append(finishing()(lambda: 1)()))
    thread.start()
    thread.join()
    assert done == [1]


class Ignores:
    """Python ignores what a finaliser raises, and what callbacks of the garbage collector raise."""

    def __del__(self):
        interrupt()


ignored = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@ignored
@pytest.mark.parametrize("ends", ["in time", "with another error"])
def test_an_interrupt_that_something_ignores_is_raised_nevertheless(ends):
    done = []

    @interruptible
    def run():
        Ignores()
        done.append("went on")
        if ends != "in time":
            raise OSError

    with pytest.raises(KeyboardInterrupt):
        run()
    assert done == ["went on"]
    interruptible(lambda: done.append("healthy"))()
    assert done == ["went on", "healthy"]


@ignored
def test_a_run_ends_soon_after_an_interrupt_that_something_ignores(monkeypatch):
    weights = NETWORK.init(jax.random.key(0), X)
    before = ska.simulate(NETWORK, weights, X, ska.Euler(0.01), steps=3)
    chunks = []

    class Counted(ska.Euler):
        def count_steps(self, t1, steps):
            chunks.append(steps)
            Ignores()
            return super().count_steps(t1, steps)

    with pytest.raises(KeyboardInterrupt):
        ska.simulate(NETWORK, weights, X, Counted(0.01), steps=10**7)
    assert len(chunks) == 1
    after = ska.simulate(NETWORK, weights, X, ska.Euler(0.01), steps=3)
    np.testing.assert_array_equal(before.entropy, after.entropy)


def wait(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.001)


class Dying:
    """Something whose finaliser swallows an interrupt."""

    def __del__(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize("writing", [False, True])
def test_an_interrupt_that_a_callback_swallows_is_raised_again(writing, monkeypatch, capsys):
    monkeypatch.setattr(_interrupt._state, "asked", signal.SIGINT)
    monkeypatch.setattr(sys, "unraisablehook", _interrupt._ignored)
    finished = []

    def lose():
        with finishing() if writing else nullcontext():
            Dying()
            wait(0.2 if writing else 10)
            finished.append(True)
        wait(10)

    with pytest.raises(KeyboardInterrupt):
        lose()
    assert finished == [True] * writing
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("times", [1, 2])
def test_a_file_is_whole_or_not_there(times, tmp_path, monkeypatch):
    sync = os.fsync

    def interrupted(file):
        for _ in range(times):
            interrupt()
        sync(file)

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _files.write_whole(b"all of it", tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"all of it"


def swept(store):
    """A sweep of six lanes."""
    return ska.sweep(
        NETWORK, lambda seed: NETWORK.init(jax.random.key(seed), X), X, ska.Euler(0.1), steps=4,
        over=ska.grid(seed=range(6)), store=store, at_once=1,
    )  # fmt: skip


def test_an_interrupted_sweep_keeps_what_was_finished_and_goes_on(tmp_path, monkeypatch):
    row = _runner.row

    def interrupted(lane, *parts, **options):
        if lane == 4:
            interrupt()
        return row(lane, *parts, **options)

    monkeypatch.setattr(_runner, "row", interrupted)
    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path / "store")
    monkeypatch.undo()
    assert Store.open(tmp_path / "store").done() == {0, 1, 2, 3}
    assert not list(tmp_path.rglob("*.part"))
    # In the same process: nothing is still locked, and the numbers are those of a sweep in one go.
    xr.testing.assert_identical(swept(tmp_path / "store"), swept(tmp_path / "other"))


def test_a_store_that_is_interrupted_while_it_opens_is_free_again(tmp_path, monkeypatch):
    settle = Store._settle
    monkeypatch.setattr(Store, "_settle", lambda store: (interrupt(), settle(store)))
    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path / "store")
    monkeypatch.undo()
    assert (tmp_path / "store" / "sweep.json").exists()
    assert len(swept(tmp_path / "store").seed) == 6


def command(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "skajax", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def stopped(child, signum=signal.SIGINT):
    """What a command has said when it was interrupted."""
    child.send_signal(signum)
    printed, told = child.communicate(timeout=60)
    assert (printed, child.returncode) == ("", 128 + signum)
    (line,) = [line for line in told.splitlines() if " s: " not in line]  # how far it was
    return line


def wait_for(seen, child):
    until = time.monotonic() + 120
    while not seen():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def loads(library, child):
    """Whether a process has begun to import one that is written in C."""
    return lambda: library in Path(f"/proc/{child.pid}/maps").read_text()


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@linux
@pytest.mark.parametrize("moment", ["importing", "beginning", "computing"])
def test_an_interrupted_sweep_says_so_in_one_line(moment, tmp_path):
    (tmp_path / "sweep.toml").write_text(SWEEP)
    out = tmp_path / "out"
    child = command("sweep", tmp_path / "sweep.toml", "--out", out)
    seen = {
        "importing": loads("numpy", child),
        "beginning": (out / "sweep.json").exists,
        "computing": lambda: list(out.glob("chunks/*.nc")),
    }[moment]
    wait_for(seen, child)
    signum = signal.SIGTERM if moment == "beginning" else signal.SIGINT
    line = stopped(child, signum)
    assert line == "skajax sweep: stopped; the same command goes on from here"
    assert not list(tmp_path.rglob("*.part"))
    if moment != "importing":
        assert len(Store.open(out).done()) == Store.open(out).status().done < 400


@linux
@pytest.mark.parametrize("name", ["reproduce", "run"])
def test_other_commands_leave_nothing_unfinished(name, tmp_path):
    child = command(name, "--out", tmp_path / "out")
    wait_for(loads("jaxlib", child), child)
    time.sleep(1.0)  # somewhere in its imports, or its first programs
    assert stopped(child) == f"skajax {name}: stopped; no file is unfinished"
    assert not list(tmp_path.iterdir())
