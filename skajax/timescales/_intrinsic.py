"""Which times are intrinsic: how far each definition's spread over seeds, scales, batches, steps."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from skajax._checks import require

if TYPE_CHECKING:
    import xarray


VAGUE = 0.1
"""A definition may be undefined in so many of the lanes, and be compared on the others."""


def spread(data: "xarray.Dataset", over: str) -> "xarray.Dataset":
    """How far measured times spread along one axis of lanes: median, quartiles, relative spread.

    Main arguments: what :func:`measure` gave, concatenated along lanes (``xarray.concat``, or of a
    vmapped batch), and the name of the axis. Of each definition and layer, over the lanes that have a time:
    ``median``, ``lower`` and ``upper`` quartile, ``relative`` = (upper - lower) / median, and
    ``full`` = (largest - smallest) / median; ``defined`` and ``undefined`` count lanes with and
    without. NaN with fewer than two defined. Other axes of lanes stay.

    >>> import xarray
    >>> starts = [network.init(jax.random.key(n), x) for n in range(3)]
    >>> runs = [ska.simulate(network, start, x, ska.Adaptive(), t1=6.0) for start in starts]
    >>> found = xarray.concat([ska.timescales.measure(each) for each in runs], "seed")
    >>> ska.timescales.spread(found, "seed").relative.dims
    ('definition', 'layer')
    """
    import xarray as xr

    _check(data, over)
    times = data["time"]
    defined = times.notnull().sum(over)
    enough = defined >= 2
    # An empty slice would warn: it holds zeros instead, and is blanked below.
    filled = times.where(defined > 0, 0.0)
    lower, median, upper = (
        filled.quantile(q, over).drop_vars("quantile") for q in (0.25, 0.5, 0.75)
    )
    width = filled.max(over) - filled.min(over)
    safe = median.where(median > 0)
    found = {
        "median": median,
        "lower": lower,
        "upper": upper,
        "relative": (upper - lower) / safe,
        "full": width / safe,
    }
    found = {name: values.where(enough) for name, values in found.items()}
    counts = {"defined": defined, "undefined": data.sizes[over] - defined}
    return xr.Dataset(found | counts, attrs={"over": over, "lanes": data.sizes[over]})


def rank(axes: "Mapping[str, xarray.Dataset]") -> "xarray.Dataset":
    """Definitions by how little they spread: the most intrinsic first.

    ``axes`` maps an axis of lanes to the times measured along it, such as ``{"seed": data,
    "scale": other}``; the datasets share their definitions. Over (definition, axis): ``relative``, the
    median over layers (and over any other axes of lanes) of :func:`spread`'s, ``full`` likewise, the
    share ``undefined``, and the ``rank`` on that axis, from 1. Over (definition,): ``worst``, the largest
    spread over all axes, by which definitions are ordered: it compares what is, and so depends on how far
    the axes reach. A definition that more than a tenth of the lanes leave undefined comes after all others
    on that axis, because what is left of it is a choice.

    >>> import xarray
    >>> starts = [network.init(jax.random.key(n), x) for n in range(3)]
    >>> runs = [ska.simulate(network, start, x, ska.Adaptive(), t1=6.0) for start in starts]
    >>> found = xarray.concat([ska.timescales.measure(each) for each in runs], "seed")
    >>> ska.timescales.rank({"seed": found}).sizes["axis"]
    1
    """
    import xarray as xr

    require(len(axes) >= 1, "axes", "name at least one axis", "it was empty")
    columns = []
    for axis, data in axes.items():
        found = spread(data, axis)
        rest = [dim for dim in found["relative"].dims if dim != "definition"]
        lanes = found["defined"] + found["undefined"]
        columns.append(
            xr.Dataset(
                {
                    "relative": _middle(found["relative"], rest),
                    "full": _middle(found["full"], rest),
                    "undefined": (found["undefined"] / lanes).mean(rest),
                }
            )
        )
    names = [list(column["definition"].values) for column in columns]
    same = all(each == names[0] for each in names)
    require(same, "axes", "share their definitions", f"they were {names}")
    table = xr.concat(columns, "axis", coords="minimal", compat="override")
    table = table.assign_coords(axis=list(axes)).transpose("definition", "axis")
    vague = table["undefined"].values > VAGUE
    spreads = np.where(np.isnan(table["relative"].values), np.inf, table["relative"].values)
    order = np.lexsort((spreads, vague), axis=0)
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.arange(1, len(order) + 1)[:, None], axis=0)
    worst = spreads.max(axis=1)
    table = table.assign(
        rank=(("definition", "axis"), places),
        worst=("definition", np.where(np.isinf(worst), np.nan, worst)),
    )
    return table.isel(definition=np.lexsort((worst, vague.any(axis=1))))


def _middle(values: "xarray.DataArray", rest: list[Any]) -> "xarray.DataArray":
    """The median of what is no NaN; NaN of nothing, without a warning."""
    known = values.notnull().sum(rest) > 0
    return values.where(known, 0.0).median(rest).where(known)


def _check(data: Any, over: str) -> None:
    import xarray as xr

    fits = isinstance(data, xr.Dataset) and "time" in data and "definition" in data["time"].dims
    require(fits, "data", "be a Dataset of measured times", f"it was {type(data).__name__}")
    taken = ("definition", "layer")
    lanes = [str(dim) for dim in data["time"].dims if dim not in taken]
    require(over in lanes, "over", f"be an axis of lanes, {lanes}", f"it was {over!r}")
