"""A long run on disk, between two of its chunks: killed at any moment, it goes on from there."""

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import require
from skajax._files import read_netcdf, require_file, write_netcdf
from skajax._fingerprint import fingerprint, key_data
from skajax._version import versions

FORMAT = "skajax checkpoint 2"
INTERVAL = 10.0
"""Seconds between two writes, at least."""


class Checkpoint:
    """What a run carries and has recorded, in a NetCDF file; with no path, nowhere.

    The file belongs to one run: method, network, inputs, weights, stop rule and precision, told by a
    fingerprint of all of them. Not to its end: it serves a run to a later t1 as well.
    """

    def __init__(self, path: str | os.PathLike[str] | None, *identity: Any) -> None:
        """``identity`` is everything that the run's course depends on: any pytrees, and text."""
        require(
            path is None or isinstance(path, str | os.PathLike),
            "checkpoint",
            "be a file's path, or None",
            f"it was {path!r}",
        )
        self.path = None if path is None else require_file("checkpoint", path)
        self.given = "" if path is None else os.fspath(path)
        self.written = time.monotonic()
        if self.path is not None:
            self.fingerprint = fingerprint(*identity)

    def read(self, carried: Any, part: Callable[[], Any]) -> tuple[Any, Any] | None:
        """What was carried and recorded, as ``carried`` and ``part()`` have it; None if nothing yet."""
        if self.path is None or not self.path.exists():
            return None
        data = read_netcdf(self.given, "checkpoint", FORMAT)
        require(
            data.attrs.get("fingerprint") == self.fingerprint,
            "checkpoint",
            "be that of this very run (method, network, weights, x, save_at, until, precision)",
            f"{self.given!r} is of another; remove it, or name another file",
        )
        require(
            data.attrs.get("digest") == _digest(data),
            "checkpoint",
            "hold what was written",
            f"{self.given!r} is damaged; remove it, or name another file",
        )
        leaves, shape = jax.tree.flatten(carried)
        values = [_restore(data[f"carried_{n}"].values, leaf) for n, leaf in enumerate(leaves)]
        records, piece = jax.tree.flatten(part())
        records = [data[f"record_{n}"].values for n in range(len(records))]
        return shape.unflatten(values), piece.unflatten(records)

    def write(self, carried: Any, parts: list[Any], *, last: bool = False) -> None:
        """Replace the file, if the last time is long enough ago, or this is the ``last``."""
        if self.path is None or (not last and time.monotonic() < self.written + INTERVAL):
            return
        import xarray as xr

        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        arrays = {f"carried_{n}": key_data(leaf) for n, leaf in enumerate(jax.tree.leaves(carried))}
        arrays |= {f"record_{n}": leaf for n, leaf in enumerate(jax.tree.leaves(joined))}
        variables = {
            name: ([f"{name}_{axis}" for axis in range(np.ndim(array))], np.asarray(array))
            for name, array in arrays.items()
        }
        attrs = {"format": FORMAT, "fingerprint": self.fingerprint, **versions()}
        data = xr.Dataset(variables, attrs=attrs)
        data.attrs["digest"] = _digest(data)
        try:
            write_netcdf(data, self.given)
        except OSError as error:
            # The run is worth more than its safety copy.
            warnings.warn(f"checkpoint {self.given!r} not written: {error}", stacklevel=2)
        self.written = time.monotonic()


def _digest(data: Any) -> str:
    return fingerprint({str(name): data[name].values for name in sorted(data.variables, key=str)})


def _restore(value: np.ndarray, like: Any) -> Any:
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(value), impl=jax.random.key_impl(like))
    require(
        value.shape == like.shape,
        "checkpoint",
        f"fit this run (an array of {like.shape})",
        f"it held one of {value.shape}",
    )
    return jax.device_put(value.astype(like.dtype))
