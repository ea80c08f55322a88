"""What is being done, told where it takes long: bars on a terminal and in a notebook, lines of a command.

A library call tells a pipe nothing. On a terminal, and for a command's lines, a thread of its own looks at
what is open: the main thread may be in XLA's compiler for a minute, and says beforehand what it is up to.
"""

import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, ParamSpec, TypeVar

from skajax._interrupt import check, finishing, interruptible

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

COMPILING = "compiling, first steps"
"""What goes on before the first steps are counted."""
DELAY = 0.5
"""Seconds before something is shown: what is over sooner needs no bar."""
REFRESH = 0.2
"""Seconds between two drawings."""
EVERY = 10.0
"""Seconds between two lines of a command, where there is no terminal."""


class _Shown:
    """What there is to show, and how; ``lock`` is held while it is looked at or changed."""

    lock = threading.Lock()  # in the main thread only where no interrupt can come between
    open: list["Progress"] = []  # noqa: RUF012 (one for the process)
    """What is being done, the outermost first."""
    watched: bool = False
    """Whether the thread runs that shows it."""
    command: bool = False
    """Whether a command line runs, ..."""
    quiet: bool = False
    """... which is to say nothing, ..."""
    began: float = 0.0
    spoke: float = 0.0
    """... or a line some time after this one."""


class Progress:
    """Something that takes its time: ``with Progress("Euler", 100) as progress: progress.update()``.

    ``total`` is how much there is to do. None for what is not counted: it is shown while nothing within it
    is. ``count`` says in words how much is done, ``begins`` what goes on before the first of it is.
    """

    def __init__(
        self,
        what: str,
        total: int | float | None = None,
        *,
        done: int | float = 0,
        count: str = "{n} of {total}",
        begins: str = "",
    ) -> None:
        """Nothing is shown yet."""
        self.what, self.total, self.done = what, total, done
        self.count, self.begins = count, begins
        self.thread = threading.get_ident()
        self.bar: Any = None

    def __enter__(self) -> "Progress":
        check()
        self.began, self.way = time.time(), _way()
        if self.way == "notebook" and self.total is not None:
            from tqdm.auto import tqdm

            self.bar = tqdm(**self._look(), disable=None, delay=1)
        elif self.way in ("terminal", "lines"):
            try:
                with finishing(), _Shown.lock:
                    _Shown.open.append(self)
                    if not _Shown.watched:
                        threading.Thread(target=_watch, name="skajax progress", daemon=True).start()
                        _Shown.watched = True
            except BaseException:  # an interrupt that was put off
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.way in ("terminal", "lines"):
            with finishing(), _Shown.lock:
                if self in _Shown.open:
                    _Shown.open.remove(self)
                self.hide()
        else:
            self.hide()

    def update(self, n: int | float = 1) -> None:
        """So much more is done."""
        check()
        self.done, self.begins = self.done + n, ""
        if self.way == "notebook" and self.bar is not None:
            self.bar.set_description_str(self.what, refresh=False)
            self.bar.update(n)

    def now(self, what: str) -> None:
        """Say what is being done from here on."""
        check()
        self.what = what
        if self.way == "notebook" and self.bar is not None:
            self.bar.set_description_str(what)

    @property
    def words(self) -> str:
        """What is being done."""
        return f"{self.what} ({self.begins})" if self.begins else self.what

    @property
    def line(self) -> str:
        """What is being done, and how much of it is."""
        if self.total is None:
            return self.words
        return f"{self.words}: {self.count.format(n=self.done, total=self.total)}"

    def draw(self) -> None:
        """Show it on the terminal as it is now."""
        from tqdm import tqdm

        if self.bar is None:
            self.bar = tqdm(**(self._look() | _size()), file=sys.stderr)
            self.bar.start_t = self.began
        self.bar.n = self.done
        self.bar.set_description_str(self.words, refresh=False)
        self.bar.refresh()

    def hide(self) -> None:
        """Take it off the screen."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _look(self) -> dict[str, Any]:
        form = "{desc} [{elapsed}]"
        if self.total is not None:
            form = "{desc}: {percentage:3.0f}%|{bar}| " + self.count + " [{elapsed}<{remaining}]"
        return {
            "total": self.total, "initial": self.done, "desc": self.words, "bar_format": form,
            "leave": False,
        }  # fmt: skip


def each(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items, one after the other; each is done when the next one is asked for."""
    with Progress(what, total) as progress:
        for item in items:
            yield item
            progress.update()


def told(what: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function say what it is doing, and an interrupt end it; see :func:`interruptible`."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            with Progress(what):
                return function(*args, **kwargs)

        return interruptible(wrapped)

    return decorate


@contextmanager
def command_line(*, quiet: bool) -> Generator[None, None, None]:
    """For as long as a command runs: a line now and then where there is no terminal; or nothing at all."""
    before = _Shown.command, _Shown.quiet
    _Shown.command, _Shown.quiet = True, quiet
    _Shown.began = _Shown.spoke = time.monotonic()
    try:
        yield
    finally:
        _Shown.command, _Shown.quiet = before


def is_quiet() -> bool:
    """Whether a command is to say nothing but its result."""
    return _Shown.quiet


def _way() -> Literal["notebook", "terminal", "lines", "none"]:
    """How this process can be told of anything."""
    if _Shown.quiet:
        return "none"
    if _in_notebook():  # a bar is part of a cell's output, and other threads have no cell
        return "notebook" if threading.current_thread() is threading.main_thread() else "none"
    try:
        if sys.stderr.isatty():
            return "terminal"
    except (AttributeError, ValueError):
        return "none"  # there is no stderr, or it is closed
    return "lines" if _Shown.command else "none"


def _size() -> dict[str, Any]:
    """What a bar must be told of a terminal that does not know its own size."""
    try:
        known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except OSError:
        known = False
    return {} if known else {"ncols": 80, "nrows": 24}


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    shell = None if shell is None else shell.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def _watch() -> None:
    """Show what is open, until nothing is."""
    while True:
        time.sleep(REFRESH)
        with _Shown.lock:
            if not _Shown.open:
                _Shown.watched = False
                return
            with suppress(AttributeError, OSError, ValueError):  # stderr has been closed since
                _show()


def _show() -> None:
    """Draw, or say, what is open, but for what is not counted and holds something else."""
    inner = {progress.thread: progress for progress in _Shown.open}
    words = []
    for progress in _Shown.open:
        seen = progress.total is not None or inner[progress.thread] is progress
        if not seen:
            progress.hide()
        elif progress.way == "lines":
            words.append(progress.line)
        elif time.time() >= progress.began + DELAY:
            progress.draw()
    now = time.monotonic()
    if words and now >= _Shown.spoke + EVERY:
        _Shown.spoke = now
        print(f"{now - _Shown.began:.0f} s: {'; '.join(words)}", file=sys.stderr, flush=True)
