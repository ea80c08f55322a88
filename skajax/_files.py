"""NetCDF files: written whole or not at all, and read with a kind word where they are damaged."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from skajax._checks import require

if TYPE_CHECKING:
    import xarray


def write_netcdf(data: "xarray.Dataset | xarray.DataTree", path: str | os.PathLike[str]) -> None:
    """Write to a temporary name beside ``path``, then rename: all of the file, or none."""
    write_whole(netcdf(data), path)


def netcdf(data: "xarray.Dataset | xarray.DataTree") -> memoryview:
    """The file's content, in memory: HDF5 itself, on a disk that is full, ends the process."""
    content = data.to_netcdf(engine="h5netcdf")
    assert isinstance(content, memoryview)
    return content


def write_whole(content: memoryview | bytes, path: str | os.PathLike[str]) -> None:
    """All of the content under this name, or what there was before, whatever stops the process."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the new name, too, is to outlast a power cut
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_netcdf(path: str | os.PathLike[str], argument: str, form: str) -> "xarray.Dataset":
    """The dataset of a file that holds this ``form`` of skajax's; else a ValueError says what it is."""
    import xarray as xr

    require(Path(path).is_file(), argument, "name a file", f"there was none at {os.fspath(path)!r}")
    try:
        dataset = xr.load_dataset(path, engine="h5netcdf")
    except (OSError, KeyError, RuntimeError, AttributeError, ValueError, TypeError) as error:
        # A damaged file makes the libraries below fail in any of these ways.
        raise ValueError(
            f"Argument {argument} must name a NetCDF file, but {os.fspath(path)!r} could not be"
            f" read: {error}."
        ) from error
    found = dataset.attrs.get("format")
    require(found == form, argument, f"hold a {form!r}", f"its format was {found!r}")
    return dataset
