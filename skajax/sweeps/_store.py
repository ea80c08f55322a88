"""A sweep's lanes in a folder: killed at any moment, it goes on with those that are missing.

``sweep.json`` says which sweep it is, argument by argument. ``chunks/`` holds finished lanes, in files
of any lanes in any order: what is done is what is in them. A chunk is written whole or not at all;
its name carries the digest of its content, so that damage is noticed. Each process of a sweep has a
lock and chunks of its own, all in the one folder.

Files of NetCDF, and not Zarr's folders of one file an array and chunk: a rename makes a whole chunk
appear at once, with all its arrays; a chunk is read by anything that reads NetCDF; and it is the
format of every other file that skajax writes, with no dependency more. Zarr's strength, arrays too
large for memory that many write a part of, is not what lanes of different lengths need.
"""

import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from skajax._checks import require
from skajax._files import located, netcdf, write_whole
from skajax._interrupt import finishing
from skajax.methods._outcome import ENDED, Code
from skajax.sweeps._lock import Lock
from skajax.sweeps._manifest import Described, Manifest
from skajax.sweeps._records import reason

if TYPE_CHECKING:
    import xarray

_MANIFEST = "sweep.json"
_OWN = ("sweep", "seconds", "variables", "coords")
"""Attributes that a chunk has for itself."""


class Status(NamedTuple):
    """What a store holds, in numbers of lanes."""

    lanes: int
    done: int
    """All that need not run again, those that failed and were refused among them."""
    failed: int
    refused: int
    seconds: float
    """What the lanes that are done took, added up over all processes."""
    chunks: int


class _Chunk(NamedTuple):
    """What is known of a chunk without its arrays."""

    lanes: np.ndarray
    codes: np.ndarray
    outcomes: np.ndarray
    seconds: float


class Store:
    """The lanes of one sweep, in a folder; ``with Store(...) as store`` to write, ``Store.open`` to read.

    Lanes are numbered along the product of the axes, the last one fastest. Several processes write
    into one store, each with its number ``process`` of ``processes`` and lanes of its own
    (``lane % processes == process``, say: of all lanes, not of those that are missing when it
    starts). A chunk that is damaged is an error, wherever the store is looked at.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        arguments: Mapping[str, Described],
        axes: Mapping[str, Iterable[Any]],
        *,
        process: int = 0,
        processes: int = 1,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Nothing is touched yet. ``arguments`` are all that decides on the lanes' results.

        ``axes``: the labels of each, numbers or text. ``attrs`` tell about the sweep, and decide nothing.
        """
        require(0 <= process < processes, "process", f"be below {processes}", f"it was {process}")
        self._begin(path, Manifest(axes, arguments, attrs or {}))
        self._name = f"{process}of{processes}"

    def _begin(self, path: str | os.PathLike[str], manifest: Manifest) -> None:
        self.path, self.given = located(path), os.fspath(path)
        self.manifest = manifest
        self.lanes = manifest.lanes
        self._seen: dict[str, _Chunk] = {}
        self._held: ExitStack | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Store":
        """The store in a folder, whichever sweep's it is, for reading."""
        store = cls.__new__(cls)
        store._begin(path, Manifest.read(located(path) / _MANIFEST))
        return store

    def __enter__(self) -> "Store":
        """Make the folder, or check that it is this sweep's; lock out every other writer."""
        try:
            with finishing(), ExitStack() as stack:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._locks.mkdir(exist_ok=True)
                # One at a time looks at who else writes, and at what the folder holds.
                with Lock(self._locks / "door"):
                    self._lock_out(stack)
                    self._settle()
                self._held = stack.pop_all()
        except OSError as error:
            raise ValueError(
                f"Argument store must be a folder that can be written to, but {self.given!r}"
                f" could not: {error}."
            ) from error
        except KeyboardInterrupt:
            self.__exit__()
            raise
        return self

    @finishing()
    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def write(self, lanes: "xarray.Dataset", *, seconds: float = 0.0) -> None:
        """Add lanes that are done: a Dataset over ``lane``, with their numbers as its coordinate.

        Every variable has the dimension ``lane`` in front; ``outcome_code`` and ``outcome`` tell of each
        why it ended. ``seconds`` is how long they took. On return they are on the disk.

        Raises OSError if they could not be written; lanes written before are safe then.
        """
        require(self._held is not None, "store", "be entered before it is written to", "it was not")
        numbers = lanes["lane"].values
        own = set(numbers.tolist())
        require(
            len(own) == len(numbers) >= 1 and own <= set(range(self.lanes)),
            "lanes",
            f"be different ones, of 0 to {self.lanes - 1}",
            f"they were {numbers.tolist()}",
        )
        again = sorted(own & self.done())
        require(not again, "lanes", "be new ones", f"the store holds {again} already")
        attrs = {
            "sweep": self.manifest.digest,
            "seconds": float(seconds),
            "variables": json.dumps({n: (v.dims, v.attrs) for n, v in lanes.variables.items()}),
            "coords": json.dumps(list(lanes.coords)),
        }
        count = f"{len(own)} {'lane' if len(own) == 1 else 'lanes'}"
        content = netcdf(lanes.assign_attrs(attrs))
        name = f"{numbers.min():06d}-{self._name}-{_digest(content)}.nc"
        try:
            write_whole(content, self._folder / name)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{count} could not be written to {self.given!r}: {error.strerror}."
                f" All {len(self.done())} lanes before them are safe: make room, and start the same"
                " sweep again",
            ) from error

    def ahead(self) -> set[int]:
        """The lanes that are done, before the store is entered; nothing is locked, made or written."""
        if not (self.path / _MANIFEST).exists():
            return set()
        self._compare()
        return self.done()

    def done(self) -> set[int]:
        """The lanes that need not run again, those of all processes; one that raised an error does."""
        return {lane for lane, (code, _) in self._outcomes().items() if code != Code.RAISED}

    def missing(self) -> list[int]:
        """The lanes that are not done, in order."""
        done = self.done()
        return [lane for lane in range(self.lanes) if lane not in done]

    def read(self) -> "xarray.Dataset":
        """All lanes that are done, in order, along ``lane``; NaN where one is shorter than another."""
        import xarray as xr

        parts, taken = [], np.zeros(self.lanes, bool)
        done = np.isin(np.arange(self.lanes), list(self.done()))
        for name in self._look():
            part = _parsed(self._content(name))
            lanes, ran = part["lane"].values, part["outcome_code"].values != Code.RAISED
            if (taken[lanes] & ran).any():
                # The same lane comes to the same numbers, whoever ran it.
                warnings.warn(f"{self.given!r}: {name} has lanes twice", stacklevel=2)
            # One that raised an error may have run another time.
            fresh = ~taken[lanes] & (ran | ~done[lanes])
            taken[lanes[fresh]] = True
            if fresh.any():
                parts.append(part.isel(lane=fresh))
        if not parts:
            return xr.Dataset(coords={"lane": np.zeros(0, int)})
        # Axes without labels can be joined too, by position.
        sizes = {dim: size for part in parts for dim, size in part.sizes.items()}
        bare = [dim for dim in sizes if not any(dim in part.coords for part in parts)]
        parts = [
            part.assign_coords({d: np.arange(part.sizes[d]) for d in bare if d in part.dims})
            for part in parts
        ]
        attrs = _merged([part.attrs for part in parts])
        # Of coordinates that are no index, such as times, concat asks that all parts have them.
        coords = {name for part in parts for name in part.coords if name not in part.dims}
        data = xr.concat(
            [part.reset_coords() for part in parts],
            "lane",
            data_vars="all",
            coords="minimal",
            join="outer",
            combine_attrs="drop_conflicts",
        ).set_coords(coords)
        text = {name: item.astype(str) for name, item in data.items() if item.dtype == object}
        data = data.assign(text).drop_vars(bare).drop_encoding().sortby("lane")
        data.attrs = attrs
        return data

    def status(self) -> Status:
        """How much of the sweep is there."""
        chunks, outcomes = self._look().values(), self._outcomes()
        refused = sum(code == Code.REFUSED for code, _ in outcomes.values())
        return Status(
            self.lanes,
            len(self.done()),
            len(self.failures()) - refused,
            refused,
            sum(chunk.seconds for chunk in chunks),
            len(chunks),
        )

    def failures(self) -> dict[int, str]:
        """Of each lane that failed or was refused, the reason."""
        outcomes = self._outcomes().items()
        return {lane: reason(why) for lane, (code, why) in outcomes if code not in ENDED}

    def _outcomes(self) -> dict[int, tuple[int, str]]:
        """Of each lane that is done, in order, why it ended."""
        found: dict[int, tuple[int, str]] = {}
        for chunk in self._look().values():
            for lane, code, why in zip(chunk.lanes, chunk.codes, chunk.outcomes, strict=True):
                if code != Code.RAISED or int(lane) not in found:
                    found[int(lane)] = int(code), why
        return dict(sorted(found.items()))

    @property
    def _folder(self) -> Path:
        return self.path / "chunks"

    @property
    def _locks(self) -> Path:
        return self.path / ".locks"

    def _lock_out(self, stack: ExitStack) -> None:
        """Take this process's lock; clear up after those that are gone."""
        mine = self._locks / self._name
        of = self._name.partition("of")[2]
        for path in {mine, *self._locks.glob("*of*")}:
            if path != mine and path.name.endswith(f"of{of}"):
                continue  # another process of the same sweep
            lock = Lock(path)
            require(
                lock.take(),
                "store",
                "be a folder that no other sweep is writing to",
                f"process {path.name.replace('of', ' of ')} is, in {self.given!r}; wait for its end",
            )
            for part in self._folder.glob(f".*-{path.name}-*.part"):
                part.unlink(missing_ok=True)
            if path == mine:
                stack.callback(lock.release)
            else:
                lock.release()
        for part in self.path.glob(f".{_MANIFEST}.*.part"):
            part.unlink(missing_ok=True)

    def _settle(self) -> None:
        """Write what sweep it is, or compare."""
        file = self.path / _MANIFEST
        if not file.exists():
            self.manifest.write(file)
        self._compare()
        self._look()
        # It is better known now than after the first lanes, if nothing can be written.
        probe = self._folder / f".probe-{self._name}-.part"
        probe.write_bytes(b"")
        probe.unlink()

    def _compare(self) -> None:
        """Refuse to be another sweep's."""
        there = Manifest.read(self.path / _MANIFEST)
        changes = there.changes(self.manifest)
        require(
            not changes,
            "store",
            "be the folder of this very sweep",
            f"{self.given!r} holds another: {'; '.join(changes)}. Name another folder, or remove"
            " that one",
        )
        self.manifest.digest = there.digest

    def _look(self) -> dict[str, _Chunk]:
        """Every chunk that is there now, by name."""
        names = sorted(path.name for path in self._folder.glob("*.nc"))
        damaged = []
        for name in names:
            if name not in self._seen:
                content = (self._folder / name).read_bytes()
                try:
                    self._seen[name] = self._summary(name, content)
                except (OSError, KeyError, RuntimeError, ValueError, TypeError):
                    damaged.append(name)
        self._require_whole(damaged)
        return {name: self._seen[name] for name in names}

    def _summary(self, name: str, content: bytes) -> _Chunk:
        """Of a chunk of this sweep that is whole; of any other, an error."""
        import h5py

        with h5py.File(io.BytesIO(content)) as opened:
            file: Any = opened
            if not _is_whole(name, content) or file.attrs["sweep"] != self.manifest.digest:
                raise ValueError(name)
            lanes, codes = file["lane"][:], file["outcome_code"][:]
            return _Chunk(lanes, codes, file["outcome"].asstr()[:], file.attrs["seconds"].item())

    def _content(self, name: str) -> bytes:
        """A chunk's, which may have been damaged since it was first looked at."""
        content = (self._folder / name).read_bytes()
        self._require_whole([] if _is_whole(name, content) else [name])
        return content

    def _require_whole(self, damaged: list[str]) -> None:
        require(
            not damaged,
            "store",
            "hold whole chunks of this sweep",
            f"{', '.join(str(self._folder / name) for name in damaged)} is damaged, or of another sweep."
            " Remove it: its lanes alone will run again",
        )


def _is_whole(name: str, content: bytes) -> bool:
    return name.endswith(f"-{_digest(content)}.nc")


def _parsed(content: bytes) -> "xarray.Dataset":
    """A chunk as xarray reads it, in a small part of the time: a long sweep has very many."""
    import h5py
    import xarray as xr

    with h5py.File(io.BytesIO(content)) as opened:
        file: Any = opened
        attrs = {name: value for name, value in file.attrs.items() if isinstance(value, str)}
        variables = {
            name: (
                axes,
                (file[name].asstr() if file[name].dtype == object else file[name])[...],
                told,
            )
            for name, (axes, told) in json.loads(attrs.pop("variables")).items()
        }
    coords = json.loads(attrs.pop("coords"))
    return xr.Dataset(variables, attrs=attrs).set_coords(coords)


def _merged(attrs: list[dict[str, Any]]) -> dict[str, Any]:
    """Attributes of chunks that may have been written by different versions and devices."""
    names = {name: None for each in attrs for name in each if name not in _OWN}
    values = {
        name: {str(each[name]): each[name] for each in attrs if name in each} for name in names
    }
    return {
        name: next(iter(found.values())) if len(found) == 1 else ", ".join(sorted(found))
        for name, found in values.items()
    }


def _digest(content: memoryview | bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
