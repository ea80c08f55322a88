"""Files: where a path lies, NetCDF written whole or not at all, and read with a word on what is damaged."""

import io
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skajax._checks import require
from skajax._fingerprint import without_addresses
from skajax._interrupt import finishing

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

_LOST = ("coordinates", "CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST")
"""Attributes that xarray and HDF5 keep for themselves: they would not come back."""


def located(path: str | os.PathLike[str]) -> Path:
    """The path that a user gave, with the home folder in place of "~"."""
    return Path(os.path.expanduser(path))


def require_file(argument: str, path: str | os.PathLike[str], *endings: str) -> Path:
    """Refuse a path at which no file could be written, or of another ending; where it lies."""
    where = located(path)
    fits = not endings or where.suffix.lower() in endings
    must = f"name a file that ends in {', '.join(endings)}"
    require(fits, argument, must, f"it was {os.fspath(path)!r}")
    folder = where.absolute().parent
    require(
        folder.is_dir() and os.access(folder, os.W_OK) and not where.is_dir(),
        argument,
        "be a file in a folder that exists and can be written to",
        f"it was {os.fspath(path)!r}",
    )
    return where


def require_own(argument: str, read: Mapping[str, Path], path: Path, *beside: Path) -> None:
    """Refuse to write over a file that is ``read``, or that skajax has not written.

    ``path`` is a NetCDF file, and ``beside`` is what is written after it: skajax's if ``path`` is.
    """
    own = _is_own(path)
    for each in (path, *beside):
        for what, other in read.items():
            must = f"be another file than {what}, which it would overwrite"
            same = each.resolve() == other.resolve()
            require(not same, argument, must, f"it was {os.fspath(each)!r}")
        require(
            own or not each.exists() or each.stat().st_size == 0,
            argument,
            "overwrite nothing but what skajax has written",
            f"{os.fspath(each)!r} is something else (name another, or remove that one)",
        )


def _is_own(path: Path) -> bool:
    """Whether it is a NetCDF file that skajax has written."""
    import h5netcdf

    try:
        with h5netcdf.File(path, "r") as file:
            return str(file.attrs.get("format")).startswith("skajax ")
    except Exception:  # what is no such file makes the libraries fail in any way
        return False


def require_folder(argument: str, path: str | os.PathLike[str]) -> Path:
    """Refuse a path at which there is no folder, and none could be made; where it lies."""
    where = located(path)
    above = where.absolute()
    while not above.exists() and above != above.parent:
        above = above.parent
    require(
        above.is_dir() and os.access(above, os.W_OK),
        argument,
        "be a folder that can be written to",
        f"{os.fspath(path)!r} could not: {os.fspath(above)!r} is"
        + (" read-only" if above.is_dir() else " no folder"),
    )
    return where


def plain_attrs(attrs: Mapping[str, Any] | None, reserved: Iterable[str] = ()) -> dict[str, Any]:
    """Attributes as a file holds them: numbers, lists of numbers, text; of anything else, its text.

    Names that are ``reserved``, or that would not come back from a file, are refused.
    """
    attrs = {} if attrs is None else attrs
    require(isinstance(attrs, Mapping), "attrs", "be a dict", f"it was {attrs!r}")
    for name in attrs:
        free = isinstance(name, str) and name != "" and not name.startswith("_")
        require(
            free, "attrs", "have names that are text and begin with no '_'", f"one was {name!r}"
        )
        kept = [*reserved, *_LOST]
        require(name not in kept, "attrs", f"have other names than {kept}", f"one was {name!r}")
    return {name: _plain(name, value) for name, value in attrs.items()}


def _plain(name: str, value: Any) -> Any:
    """A number, a list of them, or text."""
    value = _native(value)
    numbers = value if isinstance(value, list) else [value]
    if numbers and all(map(_is_number, numbers)):
        return value
    if isinstance(value, dict | list):
        value = json.dumps(value, default=str)
    text = value if isinstance(value, str) else without_addresses(str(value))
    fits = "\0" not in text and text == text.encode(errors="ignore").decode()
    require(fits, "attrs", "hold text that a file can hold", f"{name!r} was {text!r}")
    return text


def _native(value: Any) -> Any:
    """Python's own, of whatever library's number, array or container it is."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _native(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_native(entry) for entry in value]
    if not hasattr(value, "__array__"):
        return value
    try:
        array = value if isinstance(value, np.ma.MaskedArray) else np.asarray(value)
    except (TypeError, ValueError):  # a PRNG key
        return str(value)
    return (array.astype(str) if array.dtype.kind in "mM" else array).tolist()


def _is_number(value: object) -> bool:
    """Whether it is one that a file has a type for."""
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return whole or isinstance(value, float)


def write_netcdf(data: "xarray.Dataset | xarray.DataTree", path: str | os.PathLike[str]) -> None:
    """Write to a temporary name beside ``path``, then rename: all of the file, or none."""
    write_whole(netcdf(data), path)


def netcdf(data: "xarray.Dataset | xarray.DataTree") -> memoryview:
    """The file's content, in memory: HDF5 itself, on a disk that is full, ends the process."""
    content = data.to_netcdf(engine="h5netcdf")
    assert isinstance(content, memoryview)
    return content


@finishing()
def write_whole(content: memoryview | bytes, path: str | os.PathLike[str]) -> None:
    """All of the content under this name, or what there was before, whatever stops the process.

    Raises OSError, with the name that was given.
    """
    where = located(path)
    # No two writers, of whatever process or thread, have this name; and none is too long.
    temporary = where.with_name(f".{where.name[:50]}.{secrets.token_hex(8)}.part")
    try:
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, where)
        finally:
            temporary.unlink(missing_ok=True)
        if os.name == "posix":  # the new name, too, is to outlast a power cut
            folder = os.open(where.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def image(figure: "Figure", format: str = "png") -> bytes:
    """The content of a figure's file."""
    content = io.BytesIO()
    figure.savefig(content, format=format, dpi=150)
    return content.getvalue()


@finishing()
def put(content: memoryview | bytes, path: str | os.PathLike[str]) -> None:
    """The same, in a folder that is made for it: an interrupted study leaves none that is empty."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_whole(content, path)


def read_netcdf(path: str | os.PathLike[str], argument: str, *forms: str) -> "xarray.Dataset":
    """The dataset of a file of one of these ``forms`` of skajax's; else a ValueError says what it is."""
    import xarray as xr

    where = located(path)
    require(where.is_file(), argument, "name a file", f"there was none at {os.fspath(path)!r}")
    try:
        dataset = xr.load_dataset(where, engine="h5netcdf")
    except (
        OSError, KeyError, RuntimeError, AttributeError, ValueError, TypeError, MemoryError,
    ) as error:  # fmt: skip
        # A damaged file makes the libraries below fail in any of these ways.
        raise ValueError(
            f"Argument {argument} must name a NetCDF file, but {os.fspath(path)!r} could not be"
            f" read: {error}."
        ) from error
    found = dataset.attrs.get("format")
    require(found in forms, argument, f"hold a {forms[0]!r}", f"its format was {found!r}")
    return dataset
