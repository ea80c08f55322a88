"""An explorer: sliders and menus beside the figures of a run, as a page of its own or in a notebook.

:func:`serve` opens the page, ``skajax explore`` does it from the command line, and :func:`widget` is the same
in a notebook. Both need Panel: ``pip install "skajax[explore]"``.
"""

from typing import Any

from skajax._checks import is_whole, require
from skajax._extras import take
from skajax.explore._run import Runner, Seen, Theory, foresee, growing
from skajax.explore._settings import Problem, Settings

__all__ = [
    "Problem",
    "Runner",
    "Seen",
    "Settings",
    "Theory",
    "foresee",
    "growing",
    "serve",
    "widget",
]


def _panel() -> Any:
    """Panel, or an error that says how to have it."""
    return take("skajax.explore", "explore", "panel")


def widget(settings: Settings | None = None) -> Any:
    """The explorer as an object that a notebook shows, and Panel: the last line of a cell, for instance.

    ``settings``: where sliders and menus stand at first. Raises ImportError where Panel is missing.

    Example::

        import skajax as ska
        ska.explore.widget(ska.explore.Settings(data="digits", widths=(32, 10)))

    >>> ska.explore.widget()  # doctest: +SKIP
    """
    panel = _panel()
    if panel.state.curdoc is None:
        panel.extension(inline=True)  # what a notebook must load once: from here, and not from afar
    from skajax.explore._page import Explorer

    return Explorer(Settings() if settings is None else settings)


def serve(
    settings: Settings | None = None, *, port: int = 0, show: bool = True, wait: bool = True
) -> Any:
    """The explorer as a page on this machine, ``http://localhost:PORT``, that no other can reach.

    - ``settings``: where sliders and menus stand at first.
    - ``port``: 0 takes a free one. ``show``: open a browser.
    - ``wait``: stay until the process is interrupted. Else a thread serves, and is returned; its ``stop()``
      ends it.

    Raises ImportError where Panel is missing, and ValueError for a port that is none.

    Example::

        ska.explore.serve(port=5006)

    >>> ska.explore.serve()  # doctest: +SKIP
    """
    panel = _panel()
    fits = is_whole(port, 0) and port < 2**16
    require(fits, "port", "be a whole number, 0 to 65535", f"it was {port!r}")
    return panel.serve(
        {"/": lambda: widget(settings)}, port=port, address="localhost", show=show, title="skajax explorer",
        threaded=not wait, verbose=wait,
    )  # fmt: skip
