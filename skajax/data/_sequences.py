"""Sequences, cut into windows, and what comes next at each of their times: a time series, and a text."""

import codecs
import contextlib
import importlib
import io
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Int32

from skajax._extras import take
from skajax.data._labelled import require_whole

Series: TypeAlias = Float32[np.ndarray, "samples times 1"]
Tokens: TypeAlias = Int32[np.ndarray, "samples times"]


def series(times: int = 32, *, every: int = 1) -> tuple[Series, Series]:
    """Sunspots from 1700 to 2008, a number a year, in windows, and each time's next value.

    Values are scaled by the largest, 190.2 in 1957, to [0, 1]; the Sun's cycle is of about 11 years. Needs
    the package statsmodels, and no network: ``pip install "skajax[series]"``.

    Args:
        times: Years of one window, 1 to 308.
        every: How many years after one window the next begins; 1 takes every window that there is.

    Returns:
        ``(x, y)``, both float32 of shape (samples, times, 1): window n is of the years 1700 + n * every and
        after, and y[:, t] is the value of the year after that of x[:, t]. Windows are in the order of
        time; there are (309 - times - 1) // every + 1. Targets of ``skajax.energies.SquaredError``.

    Raises:
        ValueError: ``times`` or ``every`` is none of these numbers.
        ImportError: statsmodels is missing.

    Source:
        Yearly mean sunspot numbers of the National Geophysical Data Center, by way of
        ``statsmodels.datasets.sunspots``; in the public domain, as that module says.

    >>> x, y = ska.data.series(times=16)
    >>> x.shape[1:]
    (16, 1)
    """
    sunspots = take("skajax.data.series", "series", "statsmodels.datasets.sunspots")
    values = np.asarray(sunspots.load_pandas().data["SUNACTIVITY"], np.float64)
    x, y = _windows((values / values.max()).astype(np.float32), times, every)
    return x[:, :, None], y[:, :, None]


def text(times: int = 32, *, every: int = 1) -> tuple[Tokens, Tokens, str]:
    """The Zen of Python, character by character, in windows, and each time's next character.

    856 characters that every Python has, as the module ``this``; needs no network.

    Args:
        times: Characters of one window, 1 to 855.
        every: How many characters after one window the next begins; 1 takes every window that there is.

    Returns:
        ``(x, y, vocabulary)``: x and y, int32 of shape (samples, times), whose token k stands for
        ``vocabulary[k]``, and y[:, t] is what follows x[:, t]. The vocabulary is a str: each character of
        the text once, in the order of their code points. Windows are in the order of the text; there are
        (856 - times - 1) // every + 1. Targets of ``skajax.energies.CrossEntropy``.

    Raises:
        ValueError: ``times`` or ``every`` is none of these numbers.

    Source:
        T. Peters, "The Zen of Python", PEP 20 (2004); in the public domain, as it says.

    >>> x, y, vocabulary = ska.data.text(times=8)
    >>> "".join(vocabulary[k] for k in x[0])
    'The Zen '
    """
    with contextlib.redirect_stdout(io.StringIO()):  # the module prints it
        zen = importlib.import_module("this")
    written = codecs.decode(zen.s, "rot13")
    vocabulary = "".join(sorted(set(written)))
    tokens = np.array([vocabulary.index(c) for c in written], np.int32)
    return *_windows(tokens, times, every), vocabulary


def _windows(values: np.ndarray, times: int, every: int) -> tuple[np.ndarray, np.ndarray]:
    """(samples, times) of what is there, and of what comes next: arrays of their own."""
    most = len(values) - 1
    require_whole("times", times, f"be a whole number from 1 to {most}", most=most)
    require_whole("every", every, "be a whole number, at least 1")
    both = np.lib.stride_tricks.sliding_window_view(values, times + 1)[::every]
    return both[:, :-1].copy(), both[:, 1:].copy()
