"""Many runs, one call: lanes over methods, step sizes, seeds, networks, data; one labelled result."""

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
from tqdm.auto import tqdm

from skajax._checks import require
from skajax._types import Inputs, SaveTimes, ScalarLike, Weights
from skajax._version import versions
from skajax.methods import Method
from skajax.methods._method import INVALID
from skajax.network import Network
from skajax.simulate import simulate
from skajax.stop import Rule
from skajax.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray

__all__ = ["grid", "sweep"]


def grid(**axes: Iterable[Any]) -> dict[str, tuple[Any, ...]]:
    """Named axes, whose product are the lanes of a sweep: ``grid(dt=[0.01, 0.001], seed=range(8))``."""
    values = {name: tuple(axis) for name, axis in axes.items()}
    for name, axis in values.items():
        require(len(axis) >= 1, name, "hold at least one value", "it was empty")
        taken = {"record", "layer", "output"}
        require(name not in taken, name, f"be an axis other than {sorted(taken)}", "it was one")
    return values


def sweep(
    network: Network | Callable[..., Network],
    weights: Weights | Callable[..., Weights],
    x: Inputs | Callable[..., Inputs],
    method: Method | Sequence[Method] | Callable[..., Method],
    t1: ScalarLike | Callable[..., ScalarLike] | None = None,
    *,
    steps: int | Callable[..., int] | None = None,
    over: Mapping[str, Sequence[Any]] | None = None,
    save_at: SaveTimes | Literal["steps", "end"] | None = None,
    until: Rule | None = None,
    reduction: Literal["auto", "full", "off"] = "auto",
) -> "xarray.Dataset":
    """Every combination of the axes ``over``, simulated: :func:`skajax.simulate`, lane by lane.

    Each argument is either the same for all lanes, or a function of axes, by their names:

        sweep(
            network,
            lambda seed: network.init(jax.random.key(seed), x),
            x,
            lambda dt: Published(dt),
            t1=0.5,
            over=grid(dt=[0.02, 0.01], seed=range(16)),
        )

    A list of methods is an axis by itself, ``method``. Lanes make as many steps as their own runs do,
    and none more: they follow one another through the programs of single runs, which are compiled
    once for all lanes of a shape, so that a lane *is* its single run, bit for bit. On one
    processor that keeps busy with one lane, nothing is gained by more at a time; for accelerators,
    ``jax.vmap`` over :func:`skajax.simulate` runs lanes of equal length together.

    Returns a Dataset with the axes in front, then ``record`` and ``layer`` (or ``output``). Lanes have
    their own times, the coordinate ``t``; where one has fewer records (or layers) than another,
    NaN follows. Failures are data: ``outcome`` tells for every lane why it ended, ``outcome_code`` and
    the statistics as in a run's own dataset; a lane whose arguments are refused, weights that are not
    finite, say, has the code -2 and its reason, and harms no other.

    Raises ValueError if a function names no axis, or all lanes are refused.
    """
    import xarray as xr

    axes = dict(grid(**over)) if over is not None else {}
    if isinstance(method, Sequence):
        require("method" not in axes, "over", "leave out 'method'", "methods were given as a list")
        methods = list(method)
        require(len(methods) >= 1, "method", "hold at least one method", "it was empty")
        axes = {"method": tuple(range(len(methods)))} | axes
        choose = lambda method: methods[method]
    else:
        methods, choose = [], method
    require(len(axes) >= 1, "over", "name at least one axis, or method be a list", "it was empty")
    given = {
        "network": network, "weights": weights, "x": x, "method": choose, "t1": t1, "steps": steps,
    }  # fmt: skip
    needs = [_parameters(name, value, axes) for name, value in given.items()]

    lanes = list(itertools.product(*axes.values()))
    found, refused = [], []
    for values in tqdm(lanes, desc="lanes", disable=None, delay=1, leave=False):
        place = dict(zip(axes, values, strict=True))
        try:
            lane = {
                name: value if axis is None else value(**{n: place[n] for n in axis})
                for (name, value), axis in zip(given.items(), needs, strict=True)
            }
            run = simulate(
                lane["network"], lane["weights"], lane["x"], lane["method"], lane["t1"],
                steps=lane["steps"], save_at=save_at, until=until, reduction=reduction,
            )  # fmt: skip
            found.append(_lane(run))
        except ValueError as error:
            refused.append(error)
            found.append(xr.Dataset({"outcome_code": INVALID, "outcome": f"refused: {error}"}))
    if len(refused) == len(lanes):
        raise refused[0]
    return _assemble(found, axes, [each.name for each in methods])


def _parameters(name: str, value: Any, axes: Mapping[str, Sequence[Any]]) -> tuple[str, ...] | None:
    """The axes that an argument is a function of; None for one that is the same in all lanes."""
    if not inspect.isfunction(value):
        return None
    wanted = tuple(inspect.signature(value).parameters)
    known = len(wanted) >= 1 and set(wanted) <= set(axes)
    require(known, name, f"be a function of axes, {list(axes)}", f"its parameters were {wanted}")
    return wanted


def _lane(run: Trajectory) -> "xarray.Dataset":
    """A run's dataset on its records, which other lanes have at other times."""
    data = run.to_dataset()
    data = data.drop_dims([dim for dim in data.dims if dim == "step"])
    t = ("record", np.asarray(run.t), dict(data["time"].attrs))
    data = data.rename_dims(time="record").drop_vars("time").assign(t=t)
    places = {dim: np.arange(data.sizes[dim]) for dim in ("record", "output")}
    return data.assign(outcome=str(run.outcome)).assign_coords(places).drop_attrs(deep=False)


def _assemble(
    found: list["xarray.Dataset"], axes: Mapping[str, Sequence[Any]], methods: list[str]
) -> "xarray.Dataset":
    import pandas as pd
    import xarray as xr

    data = xr.concat(found, "_lane", data_vars="all", coords="minimal", join="outer")
    index = pd.MultiIndex.from_product(
        [range(len(values)) for values in axes.values()], names=list(axes)
    )
    data = data.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "_lane")).unstack(
        "_lane"
    )
    data = data.transpose(*axes, "record", "layer", "output", ...)
    labels = {
        name: methods if name == "method" and methods else _labels(values)
        for name, values in axes.items()
    }
    device = ", ".join(sorted({device.device_kind for device in jax.devices()}))
    attrs = {"format": "skajax sweep 1", "device": device, **versions()}
    return data.assign_coords(labels).set_coords("t").assign_attrs(attrs)


def _labels(values: Sequence[Any]) -> list[Any]:
    """Numbers and names as they are; of anything else, its text."""
    plain = all(isinstance(value, int | float | str | np.number) for value in values)
    return list(values) if plain else [str(value) for value in values]
