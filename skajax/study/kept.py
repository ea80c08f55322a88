"""Results kept in a folder, one file a setting and part, so that a study goes on where it was killed."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import xarray as xr

from skajax._checks import require
from skajax._files import netcdf, put, read_netcdf, require_folder
from skajax._memory import make_room_for_programs
from skajax._version import versions
from skajax.study.settings import Setting

__all__ = ["check_settings", "described", "kept", "open_folder"]

FORMAT = "skajax setting 1"


@runtime_checkable
class Named(Protocol):
    """A dataclass of numbers and text, with a name that tells it from others: what a file is of."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str:
        """One word."""
        ...


def check_settings(settings: Sequence[Setting]) -> tuple[Setting, ...]:
    """The settings of a study, each once."""
    chosen = tuple(settings)
    fits = len(chosen) >= 1 and all(isinstance(one, Setting) for one in chosen)
    require(fits, "settings", "be at least one Setting", f"it was {settings!r}")
    names = [one.name for one in chosen]
    require(len({*names}) == len(names), "settings", "name each one once", f"they were {names}")
    return chosen


def open_folder(out: str | os.PathLike[str] | None) -> Path | None:
    """The folder, which is made when there is something to keep; None where nothing is to be kept."""
    if out is None:
        return None
    return require_folder("out", out)


def kept(
    folder: Path | None,
    part: str,
    setting: Named,
    numbers: Mapping[str, Any],
    make: Callable[[], xr.Dataset],
) -> xr.Dataset:
    """What the file of a setting holds, or what is made, and put there.

    A file that was made with other ``numbers`` is refused with a ValueError.
    """
    about = json.dumps({**dataclasses.asdict(setting), **numbers})
    path = None if folder is None else folder / part / f"{setting.name}.nc"
    if path is not None and path.exists():
        data = read_netcdf(path, "out", FORMAT)
        before = data.attrs.get("configuration")
        require(
            before == about,
            "out",
            "hold results of this very study (or be another folder)",
            f"{path.name} was made with {before}, and now it would be {about}",
        )
        return data
    make_room_for_programs()
    data = make().assign_attrs(format=FORMAT, configuration=about, **versions())
    if path is not None:
        put(netcdf(data), path)
    return data


def described(data: xr.Dataset, settings: Sequence[Setting]) -> xr.Dataset:
    """With what each setting is, along the axis ``setting``."""
    of = lambda read: ("setting", [read(one) for one in settings])
    return data.assign_coords(
        setting=[one.name for one in settings],
        data=of(lambda s: s.data),
        samples=of(lambda s: s.samples),
        widths=of(lambda s: "-".join(map(str, s.widths))),
        depth=of(lambda s: len(s.widths)),
        scale=of(lambda s: s.scale),
        input_scale=of(lambda s: s.input_scale),
    )
