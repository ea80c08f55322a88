"""Command line: ``python -m skajax``, and the executable ``skajax``; its commands are in skajax.cli."""

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from skajax import _interrupt
from skajax._progress import Progress, command_line

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from skajax.cli import Asked


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run one command; the exit status is 0 where all that it ran came to its end.

    It is 1 where a run, or some lanes of a sweep, failed or were refused; 2 where nothing could be run
    or read, because an argument does not fit or no lane can run; 130 after an interrupt.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given == ["--version"]:  # at once
        from skajax._version import __version__

        print(f"skajax {__version__}")
        return 0
    from cyclopts import CycloptsError

    from skajax.cli import parse

    try:
        asked = parse(given)
    except CycloptsError as error:
        name = " ".join(["skajax", *(error.command_chain or ())])
        return _complain(f"{name}: {error} Try {name} --help.")
    return 0 if asked is None else _run(asked)


def _run(asked: "Asked") -> int:
    """Run a command that was read, and end in one line whatever comes."""
    _interrupt.when_stopped(f"skajax {asked.name}: stopped; {asked.stopped}")
    try:
        with command_line(quiet=asked.quiet):
            with Progress(f"{asked.name}: loading JAX"):
                _load()
            with _saying(asked):
                status = asked.command(*asked.bound.args, **asked.bound.kwargs)
            print(end="", flush=True)
            return status
    except BrokenPipeError:
        return _close_output()
    except BaseException as error:
        # An interrupt may come as another exception out of what it met.
        if isinstance(error, KeyboardInterrupt) or _interrupt.status():
            _interrupt.tell()
            return _interrupt.status() or 130
        if not isinstance(error, ValueError | OSError | ImportError | MemoryError) and not _no_room(
            error
        ):
            raise
        from skajax.cli._words import as_typed

        if asked.verbose:
            import traceback

            traceback.print_exc()
        return _complain(f"skajax {asked.name}: {as_typed(error, asked.command)}")


def _complain(line: str) -> int:
    print(line, file=sys.stderr)
    return 2


def _no_room(error: BaseException) -> bool:
    """Whether JAX could not have as much memory as it was to take."""
    return type(error).__name__ == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" in str(error)


def _load() -> None:
    """Import the whole package, of which ``python -m skajax`` has but the beginning."""
    import importlib

    import skajax

    if not hasattr(skajax, "simulate"):
        importlib.reload(skajax)


@contextmanager
def _saying(asked: "Asked") -> "Generator[None, None, None]":
    """Warnings in one line each; if more is to be said, versions too, and what is logged."""
    import logging
    import warnings

    from skajax._version import versions

    def warned(message: Warning | str, *_: object, **__: object) -> None:
        print(f"skajax {asked.name}: warning: {message}", file=sys.stderr)

    logger, handler = logging.getLogger("skajax"), logging.StreamHandler()
    level = logger.level
    with warnings.catch_warnings():
        warnings.showwarning = warned
        if asked.verbose:
            print(
                ", ".join(f"{name} {value}" for name, value in versions().items()), file=sys.stderr
            )
            logger.addHandler(handler)
            logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


def _close_output() -> int:
    """Write no more where nobody reads, as under ``| head``; the exit status, which is no failure's."""
    import os

    # What is left in the buffer must have somewhere to go when the process ends.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return 0


def command() -> int:
    """The executable ``skajax``: the command line, whose interrupts end in one line."""
    return _interrupt.guarded(main)


if __name__ == "__main__":
    sys.exit(command())
