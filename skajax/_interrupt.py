"""Ctrl-C at any moment: what is being written is finished first, and nothing swallows the wish to stop.

Python raises KeyboardInterrupt wherever the main thread happens to be. In the middle of a file it would
leave a part of it: :func:`finishing` puts it off. In a callback of the garbage collector, where Python
ignores what is raised, it would be lost: :func:`interruptible` raises it again. And where it ends the
process, XLA may still compile in a thread of its own, which then meets freed memory: the command line
(:func:`guarded`) leaves without taking the interpreter down.

Nothing heavy may be imported here: the command line is interruptible before it imports JAX.
"""

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 5.0
"""Seconds in which an interrupted command comes to its end by itself, before it is ended."""


class _Deferral:
    """Signals put off until something is finished. Of three in a row the last is not put off."""

    def __init__(self) -> None:
        self.active = True
        self.waiting: list[tuple[int, Any]] = []
        self.handlers: dict[int, Any] = {}

    def receive(self, signum: int, frame: Any) -> None:
        self.waiting.append((signum, frame))
        if not self.active or len(self.waiting) > 2:
            self.handlers[signum](signum, frame)

    def begin(self) -> None:
        for signum in SIGNALS:
            handler = signal.getsignal(signum)
            if callable(handler):  # neither ignored nor the system's
                self.handlers[signum] = handler
                signal.signal(signum, self.receive)

    def end(self) -> None:
        # A signal that comes from here on is passed on at once, and may raise at any of these lines.
        self.active = False
        waiting, self.waiting = self.waiting, []
        try:
            for signum, handler in self.handlers.items():
                if signal.getsignal(signum) == self.receive:
                    signal.signal(signum, handler)
        finally:
            for signum, frame in waiting:
                self.handlers[signum](signum, frame)


class _State:
    """What has happened to this process. The watching thread reads all of it, and writes the last two."""

    deferral: _Deferral | None = None
    inside: bool = False
    """Whether an interruptible function runs."""
    raised: bool = False
    """Whether KeyboardInterrupt was raised in it, or in the command line."""
    keeping: int = 0
    """In how many blocks an exception is needed to end the command line."""
    finished: bool = False
    """Whether the command line has done what it was to do."""
    asked: int = 0
    """The signal that asked the command line to stop."""
    line: str = "skajax: stopped"
    """What is to be said then, once."""


_state = _State()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def finishing() -> Generator[None, None, None]:
    """A block (or, as a decorator, a function) that an interrupt does not stop: it is raised at its end."""
    if _state.deferral is not None or not _in_main_thread():
        yield
        return
    deferral = _Deferral()
    _state.deferral = deferral
    try:
        deferral.begin()
        yield
    finally:
        _state.deferral = None
        deferral.end()


def interruptible(function: Callable[P, R]) -> Callable[P, R]:
    """Make a KeyboardInterrupt leave the function, even where something in it ignores the exception.

    Callbacks of the garbage collector and finalisers do, and code in C may make another exception of it.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        handler = signal.getsignal(signal.SIGINT)
        # The command line's own handler is told of already.
        if handler is _stop or not callable(handler) or _state.inside or not _in_main_thread():
            return function(*args, **kwargs)

        def note(signum: int, frame: Any) -> None:
            try:
                handler(signum, frame)
            except KeyboardInterrupt:
                _state.raised = True
                raise

        _state.inside, _state.raised = True, False
        try:
            signal.signal(signal.SIGINT, note)
            result = function(*args, **kwargs)
            check()
            return result
        except Exception as error:
            if _state.raised:
                raise KeyboardInterrupt from error
            raise
        finally:
            _state.inside = _state.raised = False
            if signal.getsignal(signal.SIGINT) is note:
                signal.signal(signal.SIGINT, handler)

    return wrapped


def check() -> None:
    """Raise KeyboardInterrupt where one was raised and ignored; long loops call this now and then."""
    if _state.raised and _in_main_thread():
        raise KeyboardInterrupt


@contextmanager
def keeping() -> Generator[None, None, None]:
    """A block that has something to keep when it ends: in it, an interrupted command ends by an exception.

    Elsewhere it ends at once. An exception would come out of imports with words of their own.
    """
    _state.keeping += 1
    try:
        yield
    finally:
        _state.keeping -= 1


def status() -> int:
    """The exit status of an interrupted command line, 128 and the signal; 0 if there was no interrupt."""
    return 128 + _state.asked if _state.asked else 0


def when_stopped(line: str) -> None:
    """What an interrupted command line says in the end."""
    _state.line = line


def tell() -> None:
    """Say it."""
    with suppress(AttributeError, OSError, RuntimeError, ValueError):  # nobody listens
        # On a terminal there are the ^C that was typed, and perhaps bars.
        clear = "\r\x1b[J" if sys.stderr.isatty() else ""
        line, _state.line = _state.line, ""
        sys.stderr.write(f"{clear}{line}\n" if line else "")


def guarded(main: Callable[[], int]) -> int:
    """Run a command line. Interrupted, it ends within seconds: what is being written is finished, no more.

    A second interrupt ends it at once, when the file that is being written is whole; a third does not
    wait for that either.
    """
    try:
        for signum in SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:  # as with nohup
                signal.signal(signum, _stop)
        sys.unraisablehook = _ignored
        _watch()
        found = main()
        if not _state.asked or found != status():  # all is done: the interpreter goes down in peace
            _state.finished = True
            for signum in SIGNALS:
                signal.signal(signum, signal.SIG_IGN)
            return found
    except BaseException:
        if not _state.asked:
            raise
    _leave()


def _stop(signum: int, frame: Any) -> None:
    _state.asked = _state.asked or signum
    if not _state.keeping:
        _leave()
    # Once: a second exception would meet the first one's way out. The watching thread hears of it too.
    if not _state.raised:
        _state.raised = True
        raise KeyboardInterrupt


def _ignored(unraisable: Any) -> None:
    """Raise an interrupt again that came in a callback, where Python ignores what is raised and prints it."""
    if _state.asked and unraisable.exc_type is KeyboardInterrupt:
        _raise_soon()
    else:
        sys.__unraisablehook__(unraisable)


def _raise_soon() -> None:
    threading.Timer(0.02, _raise_again).start()  # by when the callback is over


def _raise_again() -> None:
    import ctypes

    if _state.deferral is not None:  # something is being written, and is finished first
        _raise_soon()
        return
    main = ctypes.c_ulong(threading.main_thread().ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(main, ctypes.py_object(KeyboardInterrupt))


def _leave() -> NoReturn:
    tell()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, RuntimeError, ValueError):
            stream.flush()
    os._exit(status())


def _watch() -> None:
    """Start a thread that ends the process where the main thread does not.

    It hears of a signal at once, while the main thread may be in code that runs no Python.
    """
    import socket

    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)

    def watch(theirs: socket.socket) -> None:
        count, until = 0, float("inf")
        while True:
            ours.settimeout(0.05 if count else None)
            try:
                received = [n for n in ours.recv(64) if n in SIGNALS]
            except TimeoutError:
                received = []
            now = time.monotonic()
            for signum in received:
                count += 1
                _state.asked = _state.asked or signum
                until = min(until, now + GRACE) if count == 1 else now
            if _state.finished:
                return
            if count > 2 or (now >= until and _state.deferral is None):
                tell()
                os._exit(status())

    threading.Thread(target=watch, args=(theirs,), name="skajax interrupts", daemon=True).start()
