"""The result of a run: observables over time, its end, its cost; to xarray and to disk."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax import layers
from skajax._checks import require
from skajax._files import read_netcdf, write_netcdf
from skajax._solution import Solution
from skajax._types import ScalarLike, TimeSeries
from skajax._version import versions
from skajax.flow import State
from skajax.methods import Outcome, Path, Resume, Stats
from skajax.network import Network
from skajax.observables import LABELS, Observables

if TYPE_CHECKING:
    import xarray

_FORMAT = "skajax trajectory 3"
_OUTCOME = ("code", "t", "step", "layer", "rule")


@jax.tree_util.register_pytree_node_class
class Aside:
    """What a run has beside its arrays: it belongs to this very run, as ``simulate`` returned it.

    A pytree without leaves, that comes out of any operation on trees empty: of runs stacked,
    sliced or mapped over, none is the one that could be gone on with.
    """

    def __init__(self, path: Path | None = None, resume: Resume | None = None) -> None:
        """Of an adaptive run, its steps; of any made outside of jit, what it takes to go on."""
        self.path, self.resume = path, resume
        self.solution: Solution | None = None

    def tree_flatten(self) -> tuple[tuple[()], None]:
        """Nothing to see."""
        return (), None

    @classmethod
    def tree_unflatten(cls, _: None, __: tuple[()]) -> "Aside":
        """Nothing left."""
        return cls()


class Trajectory(Observables):
    """A run: every observable at the times ``t``, with shapes (times,) and (times, layers).

    A pytree: under ``jax.vmap`` every array has the mapped axes in front. A run that failed holds
    what was finite, and its ``outcome`` says why it ended; inside jit and vmap, where shapes are
    fixed, what comes after a failure is NaN, and ``outcome.step`` tells where that begins.
    """

    t: TimeSeries = eqx.field(kw_only=True)
    """Times of the records."""
    final: State = eqx.field(kw_only=True)
    """The state at the end, or the last finite one."""
    stats: Stats = eqx.field(kw_only=True)
    outcome: Outcome = eqx.field(kw_only=True)
    parameters: dict[str, Any] = eqx.field(kw_only=True)
    """The method's numbers: dt, or rtol, atol, ..."""
    aside: Aside = eqx.field(kw_only=True, default_factory=lambda: Aside(), repr=False)
    method: str = eqx.field(kw_only=True, static=True)
    network: Network = eqx.field(kw_only=True, static=True)

    @property
    def path(self) -> Path | None:
        """The accepted steps of an adaptive run as ``simulate`` returned it, or ``load`` read it."""
        return self.aside.path

    @property
    def resume(self) -> Resume | None:
        """What :func:`skajax.extend` goes on from, of a run as ``simulate`` returned it."""
        return self.aside.resume

    @property
    def observables(self) -> Observables:
        """The records alone."""
        return Observables(**{name: getattr(self, name) for name in LABELS})

    @property
    def dense(self) -> bool:
        """Whether the run is a function of time (``simulate(..., dense=True)``), not only records."""
        path = self.path
        return path is not None and path.weights is not None and self.resume is not None

    def solution(self) -> Solution:
        """The dense run as a function of time."""
        require(
            self.dense and np.ndim(self.t) == 1 and self.path is not None,
            "run",
            "be dense: simulate(..., Adaptive(...), dense=True)",
            "it kept no weights over time, or was read from a file, or through a tree operation",
        )
        assert self.path is not None and self.resume is not None
        if self.aside.solution is None:
            self.aside.solution = Solution(self.path, self.resume)
        return self.aside.solution

    def at(self, t: ScalarLike) -> State:
        """The state (weights, Z, D) at any time of a dense run, by the solver's own interpolant.

        ``simulate(..., dense=True)`` keeps what it takes; 0 <= t <= ``final.t``, and outside of jit.
        Its error is of the order of the tolerances.
        """
        solution, time = self.solution(), float(t)
        end = float(self.final.t)
        within = 0 <= time <= end * (1 + 1e-6)
        require(within, "t", f"lie within the run, [0, {end:.8g}]", f"it was {time!r}")
        return solution.state(min(time, end))

    def to_dataset(
        self,
        *,
        lanes: Sequence[str] = (),
        final: bool = False,
        attrs: Mapping[str, Any] | None = None,
    ) -> "xarray.Dataset":
        """A labelled xarray.Dataset of the run, or of a batch of runs made by ``jax.vmap``.

        Dimensions ``time``, ``layer`` (from 1) and ``output`` (from 0), preceded by the names in
        ``lanes``, one for each vmapped axis. ``final=True`` adds the final weights, Z and D.
        The attributes describe the run (versions, device, precision, network, method); ``attrs``,
        such as ``{"seed": 0}``, adds to them.
        """
        import xarray as xr

        lanes = tuple(lanes)
        require(
            np.ndim(self.t) == len(lanes) + 1,
            "lanes",
            f"name each of the run's {np.ndim(self.t) - 1} vmapped axes",
            f"it was {lanes!r}",
        )
        t = np.asarray(self.t)
        shared = t.reshape(math.prod(t.shape[:-1]), t.shape[-1])
        coords: dict[str, Any] = {"layer": np.arange(1, self.entropy.shape[-1] + 1)}
        if (shared == shared[0]).all():
            coords["time"] = ("time", shared[0], {"long_name": "time", "units": "time"})
        else:
            coords["t"] = ((*lanes, "time"), t, {"long_name": "time", "units": "time"})
        variables: dict[str, Any] = {}
        for name, label in LABELS.items():
            last = "output" if name == "output_mean" else "layer"
            described = {"long_name": label.text, "units": label.unit}
            variables[name] = ((*lanes, "time", last), np.asarray(getattr(self, name)), described)
        single = scalars(self.outcome, self.parameters, self.stats)
        if final:
            for path, leaf in jax.tree.leaves_with_path(self.final):
                name = _leaf_name(path)
                single[name] = leaf
        if self.path is not None and not lanes:
            described = {"long_name": "end of an accepted step", "units": "time"}
            variables["step_t"] = ("step", np.asarray(self.path.t), described)
            variables["step_rejected"] = ("step", np.append(0, np.asarray(self.path.rejected)))
        for name, value in single.items():
            axes = [f"{name}_{axis}" for axis in range(np.ndim(value) - len(lanes))]
            variables[name] = ((*lanes, *axes), np.asarray(value))
        return xr.Dataset(variables, coords, _description(self) | dict(attrs or {}))

    def save(self, path: str | os.PathLike[str], *, attrs: Mapping[str, Any] | None = None) -> None:
        """Write the run, whole, to one self-describing NetCDF file; :func:`load` reads it back.

        Written to a temporary name beside it and renamed, so that ``path`` never holds half a run.
        """
        dataset = self.to_dataset(
            lanes=[f"lane_{axis}" for axis in range(np.ndim(self.t) - 1)], final=True, attrs=attrs
        )
        write_netcdf(dataset, path)


def load(path: str | os.PathLike[str]) -> Trajectory:
    """Read a run that :meth:`Trajectory.save` wrote: the same arrays, dtypes and description."""
    dataset = read_netcdf(path, "path", _FORMAT)
    precision = dataset.attrs.get("precision")
    require(
        precision != "float64" or jax.config.read("jax_enable_x64"),
        "path",
        "hold a run that fits the precision in use",
        "it was saved in float64 (jax.config.update('jax_enable_x64', True) lets JAX hold it)",
    )
    try:
        return _from_dataset(dataset)
    except (KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"Argument path must hold a whole run of layers that skajax has, but {os.fspath(path)!r}"
            f" could not be understood: {error!r}."
        ) from error


def _from_dataset(dataset: "xarray.Dataset") -> Trajectory:
    arrays = {str(name): jax.device_put(item.values) for name, item in dataset.items()}
    t = dataset["t" if "t" in dataset.coords else "time"].values
    t = np.broadcast_to(t, arrays["steps"].shape + t.shape[-1:])
    network = _network(dataset.attrs["network"])
    return Trajectory(
        **{name: arrays[name] for name in LABELS},
        t=jax.device_put(t),
        final=_final(arrays, network),
        stats=Stats(
            arrays.get("evaluations"), arrays["steps"], arrays["rejected"], arrays.get("rank")
        ),
        outcome=Outcome(
            **{name: arrays[f"outcome_{name}"] for name in _OUTCOME},
            rules=tuple(json.loads(dataset.attrs["rules"])),
        ),
        parameters={
            name.removeprefix("parameter_"): value
            for name, value in arrays.items()
            if name.startswith("parameter_")
        },
        aside=Aside(
            Path(arrays["step_t"], arrays["step_rejected"][1:]) if "step_t" in arrays else None
        ),
        method=dataset.attrs["method"],
        network=network,
    )


def scalars(outcome: Outcome, parameters: Mapping[str, Any], stats: Stats) -> dict[str, Any]:
    """What a file holds of a run beside its records, by the names it has there."""
    named = {f"outcome_{name}": getattr(outcome, name) for name in _OUTCOME}
    named |= {f"parameter_{name}": value for name, value in parameters.items()}
    return named | {name: value for name, value in vars(stats).items() if value is not None}


def _description(run: Trajectory) -> dict[str, str]:
    return {
        "format": _FORMAT,
        "method": run.method,
        "network": json.dumps([_told(layer) for layer in run.network.layers]),
        "precision": str(run.entropy.dtype),
        **_devices(run.t),
        "outcome": str(run.outcome),
        "rules": json.dumps(run.outcome.rules),
        **versions(),
    }


def _devices(array: jax.Array | np.ndarray) -> dict[str, str]:
    if not isinstance(array, jax.Array):
        return {}  # a copy on the host does not remember where it was computed
    return {"device": ", ".join(sorted({device.device_kind for device in array.devices()}))}


def _network(description: str) -> Network:
    return Network(tuple(_layer(entry) for entry in json.loads(description)))


def _told(value: Any) -> Any:
    """A layer, perhaps with another in it, as JSON has it."""
    if not dataclasses.is_dataclass(value):
        return value
    return {"type": type(value).__name__} | {name: _told(v) for name, v in vars(value).items()}


def _layer(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    fields = {name: _layer(value) for name, value in entry.items() if name != "type"}
    return getattr(layers, entry["type"])(**fields)


def _leaf_name(path: tuple[Any, ...]) -> str:
    return "final_" + jax.tree_util.keystr(path, simple=True, separator="_")


def _final(arrays: Mapping[str, jax.Array], network: Network) -> State:
    # The network tells the weights' structure, whatever its inputs, and the file their values.
    one = jax.ShapeDtypeStruct((1, 1), jnp.float32)
    weights = jax.eval_shape(network.init, jax.random.key(0), one)
    each = (one,) * len(network.layers)
    structure: Any = State(one, weights, each, each)  # pyright: ignore[reportArgumentType]
    return jax.tree.map_with_path(lambda path, _: arrays[_leaf_name(path)], structure)
