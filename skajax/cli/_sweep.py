"""``python -m skajax sweep``: a sweep from a file, into a store that it goes on with."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import jax
import numpy as np

from skajax._checks import require
from skajax._files import write_netcdf
from skajax.cli._config import read
from skajax.cli._info import counted
from skajax.sweeps import LanesFailed, Plan
from skajax.sweeps._records import ENDED, MISSING, RAISED, reasons
from skajax.sweeps._store import Store

RESULT = "sweep.nc"
"""The whole sweep, once all lanes are done, as one labelled dataset."""


def sweep(
    config: str, out: str | None, devices: Literal["all"] | None, dry: bool, distributed: bool
) -> int:
    """Run what the file says, or say what it would take; 1 if not all lanes came to their ends.

    Or would not: those whose arguments are refused are known beforehand. Lanes of other processes, and
    those that have not been run, do not count.
    """
    import xarray as xr

    import skajax as ska

    require(out is not None or dry, "--out", "name a folder to write into", "it was left out")
    settings = read(config)
    if distributed:
        _join_others()
    with _precision(settings.dtype):
        arguments = settings.arguments()
        if dry:
            plan = ska.sweep(**arguments, store=out, devices=devices, dry=True)
            assert isinstance(plan, Plan)
            print(plan)
            return 1 if plan.refused else 0
        assert out is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LanesFailed)  # the closing lines tell
            data = ska.sweep(**arguments, store=out, devices=devices)
    assert isinstance(data, xr.Dataset)
    store = Store.open(out)
    codes, outcomes = (data[name].values.ravel() for name in ("outcome_code", "outcome"))
    where = "other processes have the rest"
    if MISSING not in codes:
        write_netcdf(data, os.path.join(out, RESULT))
        where = f"all of it in {os.path.join(out, RESULT)}"
    print(f"{out}: {counted(store.status())}; {where}")
    for line in reasons(codes, outcomes, store.manifest.named):
        print(f"  {line}")
    if RAISED in codes:
        print("the same command runs those again that raised errors")
    return 0 if np.isin(codes, (*ENDED, MISSING)).all() else 1


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
