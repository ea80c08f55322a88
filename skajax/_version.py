"""Which skajax this is, and what it stands on: every file that it writes says so."""

from importlib.metadata import version

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Versions of skajax and of what decides on its numbers, as attributes of a file."""
    others = {f"{name}_version": version(name) for name in ("jax", "diffrax", "numpy")}
    return {"skajax_version": __version__, **others}
