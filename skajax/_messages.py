"""What skajax says: of names that it does not know; and beside its results, warnings and notices."""

import difflib
import functools
import inspect
import logging
import warnings
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

LOGGER = logging.getLogger("skajax")


class SkajaxWarning(UserWarning):
    """A run that goes on, but is likely not what was meant.

    ``warnings.filterwarnings("ignore", category=ska.SkajaxWarning)`` switches these off.
    """


def warn(message: str, category: type[SkajaxWarning] = SkajaxWarning) -> None:
    """Warn, at the line of the caller's that called skajax."""
    frame, level = inspect.currentframe(), 1
    while frame and frame.f_back and _is_ours(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def nearest(given: Any, names: Iterable[str]) -> str:
    """``'entrpy'; did you mean 'entropy'?``: what was given, and the name that may have been meant."""
    near = difflib.get_close_matches(str(given), list(names), 1)
    return f"{given!r}" + (f"; did you mean {near[0]!r}?" if near else "")


@contextmanager
def unwarned() -> Generator[None, None, None]:
    """Without skajax's warnings: for studies that report of each run what they would tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkajaxWarning)
        yield


def _is_ours(module: str) -> bool:
    # Type checkers wrap functions, in modules of their own.
    return module.partition(".")[0] in ("skajax", "jaxtyping", "beartype", "contextlib")


@functools.cache
def tell_once(message: str) -> None:
    """A notice, once in a process; ``logging.getLogger("skajax").setLevel("ERROR")`` switches it off."""
    LOGGER.warning(message)
