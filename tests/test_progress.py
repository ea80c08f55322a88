"""What is being done is told: on a terminal within a second, in a pipe by commands only, now and then."""

import io
import os
import sys
import threading
import time
from types import SimpleNamespace

import jax
import pytest

import skajax as ska
from skajax import _progress
from skajax._progress import Progress, command_line, each, told

NETWORK = ska.mlp([6, 4], scale=0.3)
X = jax.random.uniform(jax.random.key(0), (10, 8))


@pytest.fixture
def soon(monkeypatch):
    """Everything at once, for tests that do not wait."""
    monkeypatch.setattr(_progress, "DELAY", 0.0)
    monkeypatch.setattr(_progress, "REFRESH", 0.01)
    monkeypatch.setattr(_progress, "EVERY", 0.0)


def listen(monkeypatch, stream):
    """Let it be the module's stderr; the process's own is pytest's, anew in every phase of a test."""
    monkeypatch.setattr(_progress, "sys", SimpleNamespace(stderr=stream, modules=sys.modules))


@pytest.fixture
def pipe(monkeypatch):
    stream = io.StringIO()
    listen(monkeypatch, stream)
    return stream


@pytest.fixture
def terminal(monkeypatch):
    """What is written to a terminal, so far."""
    pty = pytest.importorskip("pty")
    outer, inner = pty.openpty()
    os.set_blocking(outer, False)
    written = bytearray()

    def read():
        try:
            while part := os.read(outer, 4096):
                written.extend(part)
        except BlockingIOError:
            pass
        return written.decode(errors="replace")

    with open(inner, "w", closefd=True) as stream:
        listen(monkeypatch, stream)
        yield read
        quiet_again()
        monkeypatch.undo()
    os.close(outer)


def quiet_again():
    """Wait until the thread that shows things has seen that there are none."""
    until = time.monotonic() + 30
    while _progress._Shown.watched:
        assert time.monotonic() < until
        time.sleep(0.01)


def wait_for(words, read):
    until = time.monotonic() + 30
    while words not in read():
        assert time.monotonic() < until, read()
        time.sleep(0.01)


def test_a_terminal_is_told_before_anything_is_counted(terminal):
    with Progress("Euler", 100, count="{n} of {total} steps", begins="compiling, first steps"):
        start = time.monotonic()
        wait_for("Euler (compiling, first steps):   0%", terminal)
        assert time.monotonic() - start >= _progress.DELAY - _progress.REFRESH


def test_a_terminal_is_told_how_far_it_is(terminal, soon):
    with Progress("Euler", 100, count="{n} of {total} steps", begins="compiling") as progress:
        progress.update(25)
        wait_for("Euler:  25%", terminal)
        wait_for("25 of 100 steps", terminal)


def test_what_is_not_counted_is_shown_until_something_in_it_is(terminal, soon):
    with Progress("sweep: preparing"):
        wait_for("sweep: preparing [", terminal)
        with Progress("lanes", 3):
            wait_for("lanes:   0%", terminal)
            before = terminal().count("sweep: preparing")
            time.sleep(0.1)
            assert terminal().count("sweep: preparing") == before


def test_what_is_over_soon_is_not_shown(terminal):
    with Progress("Euler", 100) as progress:
        progress.update()
    quiet_again()
    assert terminal() == ""


def test_a_library_call_tells_a_pipe_nothing(pipe, soon):
    weights = NETWORK.init(jax.random.key(0), X)
    ska.simulate(NETWORK, weights, X, ska.Euler(0.1), steps=5)
    with Progress("lanes", 3):
        time.sleep(0.1)
    assert pipe.getvalue() == ""


def test_a_command_tells_a_pipe_now_and_then(pipe, soon):
    with command_line(quiet=False), Progress("reproduce"), Progress("experiments", 9) as progress:
        progress.update()
        with Progress("Adaptive", 0.5, count="t = {n:.4g} of {total:.4g}"):
            wait_for("0 s: experiments: 1 of 9; Adaptive: t = 0 of 0.5\n", pipe.getvalue)
    quiet_again()
    assert "reproduce" not in pipe.getvalue()


def test_a_quiet_command_tells_nothing(pipe, terminal, soon):
    with command_line(quiet=True), Progress("lanes", 3):
        time.sleep(0.1)
    assert pipe.getvalue() == terminal() == ""


@pytest.mark.parametrize("closed", [False, True])
def test_without_stderr_a_run_runs(closed, soon, monkeypatch):
    stream = io.StringIO() if closed else None
    if stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    weights = NETWORK.init(jax.random.key(0), X)
    with command_line(quiet=False), Progress("lanes", 3):
        run = ska.simulate(NETWORK, weights, X, ska.Euler(0.1), steps=5)
    assert run.outcome.completed


def test_loops_and_functions_are_told(pipe, soon):
    @told("counting")
    def count():
        return [
            wait_for(f"items: {n} of 2", pipe.getvalue) or n for n in each(range(2), "items", 2)
        ]

    with command_line(quiet=False):
        assert count() == [0, 1]
    assert count.__name__ == "count"


def test_in_a_notebook_only_the_main_thread_has_a_cell_for_its_bars(monkeypatch):
    monkeypatch.setattr(_progress, "_in_notebook", lambda: True)
    found = []
    other = threading.Thread(target=lambda: found.append(_progress._way()))
    other.start()
    other.join()
    assert (_progress._way(), found) == ("notebook", ["none"])
