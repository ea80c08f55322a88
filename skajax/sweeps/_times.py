"""Lanes of different steps on one axis of time."""

from typing import TYPE_CHECKING

import numpy as np

from skajax._checks import require
from skajax._types import SaveTimes

if TYPE_CHECKING:
    import xarray

INSTANTS = 101


def on_times(data: "xarray.Dataset", times: SaveTimes | None = None) -> "xarray.Dataset":
    """A sweep's observables at common ``times``: the dimension ``time`` in place of ``record``.

    Between a lane's records lies the cubic spline through them (of lower degree through fewer than
    four), whose error is of the fourth order in their spacing; beyond its first and last there is
    NaN: nothing is extrapolated. ``times`` (default: 101, evenly spaced, up to the last time that
    all lanes which have records reach) increase.

    >>> draw = lambda seed: network.init(jax.random.key(seed), x)
    >>> found = ska.sweep(network, draw, x, ska.Euler(0.05), 1.0, over=ska.grid(seed=range(3)))
    >>> ska.on_times(found, jnp.linspace(0, 1, 5)).sizes["time"]
    5
    """
    import xarray as xr

    require("record" in data.dims and "t" in data.coords, "data", "be a sweep's dataset",
            f"it had the dimensions {list(data.dims)} and the coordinates {list(data.coords)}")  # fmt: skip
    lanes = [dim for dim in data["t"].dims if dim != "record"]
    t = data["t"].transpose(*lanes, "record").values.reshape(-1, data.sizes["record"])
    if times is None:
        ends = np.nanmax(np.where(np.isfinite(t), t, -np.inf), axis=1)
        require(bool((ends > -np.inf).any()), "data", "hold records", "no lane had any")
        times = np.linspace(0.0, ends[ends > -np.inf].min(), INSTANTS)
    wanted = np.asarray(times, float)
    rising = wanted.ndim == 1 and wanted.size >= 1 and bool((np.diff(wanted) > 0).all())
    require(rising, "times", "be at least one time, and increase", f"it was {times!r}")
    moved = {}
    for name, item in data.data_vars.items():
        if "record" not in item.dims:
            moved[name] = item
            continue
        after = [dim for dim in item.dims if dim not in (*lanes, "record")]
        values = item.transpose(*lanes, "record", *after).values
        shape = values.shape[len(lanes) + 1 :]
        rows = values.reshape(len(t), t.shape[1], -1)
        there = [_spline(*pair, wanted) for pair in zip(t, rows, strict=True)]
        result = np.stack(there).reshape(*values.shape[: len(lanes)], len(wanted), *shape)
        moved[name] = xr.Variable((*lanes, "time", *after), result.astype(values.dtype), item.attrs)
    coords = {name: coord for name, coord in data.coords.items() if "record" not in coord.dims} | {
        "time": ("time", wanted, data["t"].attrs)
    }
    return xr.Dataset(moved, coords, data.attrs)


def _spline(t: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """One lane's values (records, numbers) at the wanted times."""
    from scipy.interpolate import make_interp_spline

    found = np.full((len(wanted), values.shape[1]), np.nan)
    kept = np.isfinite(t)
    t = t[kept].astype(float)
    # The last record of a run in float32 is a rounding away from where it was to end.
    near = 4 * np.finfo(np.float32).eps * np.abs(t).max(initial=0.0)
    inside = (wanted >= t.min(initial=np.inf) - near) & (wanted <= t.max(initial=-np.inf) + near)
    if not inside.any():
        return found
    columns = values[kept].astype(float)
    whole = np.isfinite(columns).all(axis=0)
    degree = min(3, len(t) - 1)
    if degree == 0:
        found[np.ix_(inside, whole)] = columns[0, whole]
    elif whole.any():
        spline = make_interp_spline(t, columns[:, whole], k=degree)
        found[np.ix_(inside, whole)] = spline(np.clip(wanted[inside], t[0], t[-1]))
    return found
