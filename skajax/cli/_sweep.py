"""``python -m skajax sweep``: a sweep from a file, into a store that it goes on with."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import jax
import numpy as np

from skajax._checks import require
from skajax._files import write_netcdf
from skajax.cli._config import read
from skajax.cli._info import counted
from skajax.methods._method import COMPLETED, STOPPED
from skajax.sweeps._store import Store

RESULT = "sweep.nc"
"""The whole sweep, once all lanes are done, as one labelled dataset."""


def sweep(
    config: str, out: str | None, devices: Literal["all"] | None, dry: bool, distributed: bool
) -> int:
    """Run what the file says, or say what it would take; 1 if no lane came to its end."""
    import xarray as xr

    import skajax as ska

    require(out is not None or dry, "--out", "name a folder to write into", "it was left out")
    settings = read(config)
    if distributed:
        _join_others()
    with _precision(settings.dtype):
        arguments = settings.arguments()
        if dry:
            print(ska.sweep(**arguments, store=out, devices=devices, dry=True))
            return 0
        assert out is not None
        try:
            data = ska.sweep(**arguments, store=out, devices=devices)
        except KeyboardInterrupt:
            print(f"\n{out}: stopped; the same command goes on from here")
            return 130
    assert isinstance(data, xr.Dataset)
    status = Store.open(out).status()
    where = "other processes have the rest"
    if status.done == status.lanes:
        write_netcdf(data, os.path.join(out, RESULT))
        where = f"all of it in {os.path.join(out, RESULT)}"
    print(f"{out}: {counted(status)}; {where}")
    return 0 if np.isin(data["outcome_code"].values, (COMPLETED, STOPPED)).any() else 1


def _join_others() -> None:
    """Become one of several processes, before JAX looks for devices."""
    try:
        jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            "Argument --distributed must be given where SLURM, MPI or a cluster of TPUs has started"
            f" the processes, but JAX could not find the others: {error}."
        ) from error


@contextmanager
def _precision(dtype: str) -> Iterator[None]:
    """Double precision, for as long as it is asked for."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", before or dtype == "float64")
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
