"""``skajax sweep``: a sweep from a file, into a store that it goes on with."""

from typing import Literal

RESULT = "sweep.nc"
"""The whole sweep, once all lanes are done, as one labelled dataset."""


def sweep(
    config: str,
    /,
    *,
    out: str | None = None,
    devices: Literal["all"] | None = None,
    dry: bool = False,
    distributed: bool = False,
) -> int:
    """Many runs, as a TOML file says, into a folder.

    Killed at any moment, the same command goes on with what is missing. The status is 1 if some lanes failed
    (with --dry, if some could not run), and 0 if others are left to other processes.

    For example:

        skajax sweep sweep.toml --dry
        skajax sweep sweep.toml --out lanes
        srun skajax sweep sweep.toml --out lanes --distributed --devices all

    Args:
        config: A TOML file with tables data, network, method, energy, run and grid.
        out: Folder to write into, and to go on from.
        devices: Divide the lanes among all devices, instead of using one.
        dry: Only say what it would take.
        distributed: This process is one of several that SLURM, MPI or a cluster of TPUs has started.
    """
    import os
    import warnings

    import numpy as np
    import xarray as xr

    import skajax as ska
    from skajax._checks import require
    from skajax._files import located, require_own, write_netcdf
    from skajax.cli._config import precision, read
    from skajax.cli._info import counted
    from skajax.methods._outcome import ENDED, Code
    from skajax.sweeps import LanesFailed, Plan
    from skajax.sweeps._records import reasons
    from skajax.sweeps._store import Store

    require(out is not None or dry, "out", "name a folder to write into", "it was left out")
    settings = read(config)
    require(len(settings.axes) >= 1, "grid", "name at least one axis", f"{config!r} has none")
    if out is not None:
        require_own("out", settings.files(), located(out) / RESULT)
    if distributed:
        _join_others()
    with precision(settings.dtype):
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
    if Code.MISSING not in codes:
        write_netcdf(data, os.path.join(out, RESULT))
        where = f"all of it in {os.path.join(out, RESULT)}"
    print(f"{out}: {counted(store.status())}; {where}")
    for line in reasons(codes, outcomes, store.manifest.named):
        print(f"  {line}")
    if Code.RAISED in codes:
        print("the same command runs those again that raised errors")
    return 0 if np.isin(codes, (*ENDED, Code.MISSING)).all() else 1


def _join_others() -> None:
    """Become one of several processes, before JAX looks for devices."""
    import jax

    try:
        jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            "Argument --distributed must be given where SLURM, MPI or a cluster of TPUs has started"
            f" the processes, but JAX could not find the others: {error}."
        ) from error
