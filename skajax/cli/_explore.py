"""``skajax explore``: a page with sliders and menus beside a run."""


def explore(*, port: int = 0, no_show: bool = False) -> int:
    """Sliders and menus beside the figures of a run, in the browser, until it is interrupted.

    For example:

        skajax explore
        skajax explore --port 5006 --no-show

    Args:
        port: Of the page, on this machine alone; 0 takes a free one.
        no_show: Open no browser.
    """
    import errno

    from skajax._interrupt import status
    from skajax.explore import serve

    try:
        serve(port=port, show=not no_show)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise ValueError(
            f"Argument port must be free, or 0, which takes a free one, but {port} is in use."
        ) from error
    return status()  # a thread may still compile: the command line leaves it behind
