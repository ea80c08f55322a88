"""The result of a run: observables over time, its end, its cost; to xarray and to disk."""

import copy
import dataclasses
import json
import math
import os
import pickle
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax import _described as described
from skajax import layers
from skajax._checks import as_number, require
from skajax._files import plain_attrs, read_netcdf, require_file, write_netcdf
from skajax._solution import Solution
from skajax._summary import Summarised, Summary, counted, lanes, numbered, per_layer
from skajax._types import ScalarLike, TimeSeries
from skajax._version import versions
from skajax.inputs import shape_of
from skajax.methods import Outcome, Path, Resume, Stats
from skajax.network import Network
from skajax.observables import BY_NAME, PAPER, Observable, Observables, catalogue
from skajax.observables import described as described_observables
from skajax.system import State

if TYPE_CHECKING:
    import xarray

__all__ = ["Aside", "Trajectory", "load"]

FORMATS = ("skajax trajectory 4", "skajax trajectory 3")
"""What is written, and what else is read."""
_TOLD = ("rtol", "atol")
"""Of a step-size controller's numbers those that a summary tells."""
_OUTCOME = ("code", "t", "step", "layer", "rule")


@jax.tree_util.register_pytree_node_class
class Aside:
    """What a run has beside its arrays: it belongs to this very run, as ``simulate`` returned it.

    A pytree without leaves. Of runs stacked, sliced or mapped over, none is the one that could be gone on
    with: what an operation on trees makes of this says so, in ``why``.
    """

    def __init__(
        self,
        path: Path | None = None,
        resume: Resume | None = None,
        why: str = "it was made inside jit",
    ) -> None:
        """Of an adaptive run, its steps; of any made outside of jit, what it takes to go on.

        ``why`` there is no ``resume``, where there is none.
        """
        self.path, self.resume, self.why = path, resume, why
        self.solution: Solution | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For the caller's pickle: all but what can be had again; what goes on, if it pickles.

        An optimiser of Optax's is made of functions within functions, which pickle refuses.
        """
        state = vars(self) | {"solution": None}
        if not _pickles(self.resume):
            state |= {"resume": None, "why": "it was pickled, and its method cannot be"}
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> "Aside":
        """Another of the same: in the same process nothing is lost."""
        copied = Aside(copy.deepcopy(self.path, memo), copy.deepcopy(self.resume, memo))
        copied.why = self.why
        return copied

    def tree_flatten(self) -> tuple[tuple[()], None]:
        """Nothing to see."""
        return (), None

    @classmethod
    def tree_unflatten(cls, _: None, __: tuple[()]) -> "Aside":
        """Nothing left but the reason."""
        return cls(why="it is what an operation on trees (jit, vmap, jax.tree.map) made of a run")


def _pickles(resume: Resume | None) -> bool:
    """Whether pickle takes it; arrays, of which there may be many, it does."""
    is_plain = lambda leaf: (
        isinstance(leaf, jax.Array | np.ndarray)
        and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )
    rest = jax.tree.map(lambda leaf: None if is_plain(leaf) else leaf, resume)
    try:
        pickle.dumps(rest)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


class Trajectory(Summarised, eqx.Module):
    """A run: what was observed at the times ``t``; every observable is an attribute, (times, ...).

    ``run.flow_norm`` and ``run["flow_norm"]`` are the same. A pytree: under ``jax.vmap`` every array has the
    mapped axes in front. A run that failed holds what was finite, and its ``outcome`` says why it ended;
    inside jit and vmap, where shapes are fixed, what comes after a failure is NaN, and ``outcome.step`` tells
    where that begins.

    >>> run.t.shape, run.entropy.shape, run.final.Z[-1].shape
    ((101,), (101, 2), (20, 10))
    """

    records: Observables
    """What was observed, by name: arrays with the times in front."""
    t: TimeSeries
    """Times of the records."""
    final: State
    """The state at the end, or the last finite one."""
    stats: Stats
    outcome: Outcome
    parameters: dict[str, Any]
    """The method's numbers: dt, or rtol, atol, ..."""
    aside: Aside = eqx.field(repr=False)
    method: str = eqx.field(static=True)
    observe: tuple[Observable, ...] = eqx.field(static=True)
    """The observables that were recorded."""
    _network_arrays: Any = eqx.field(repr=False)
    _network_rest: Any = eqx.field(static=True, repr=False)

    def __init__(
        self,
        *,
        records: Observables,
        t: TimeSeries,
        final: State,
        stats: Stats,
        outcome: Outcome,
        parameters: dict[str, Any],
        method: str,
        network: Network,
        observe: tuple[Observable, ...],
        aside: Aside | None = None,
    ) -> None:
        """The parts; a network's own arrays, if its layers have any, are leaves of the run too."""
        self.records, self.t, self.final, self.stats = records, t, final, stats
        self.outcome, self.parameters, self.method = outcome, parameters, method
        self.observe, self.aside = observe, Aside() if aside is None else aside
        self._network_arrays, self._network_rest = eqx.partition(network, eqx.is_array)

    def __getattr__(self, name: str) -> Any:
        records = None if name.startswith("__") else self.__dict__.get("records")
        if records is not None and name in records:
            return records[name]
        known = "" if records is None else f"; what was observed: {', '.join(records) or 'nothing'}"
        raise AttributeError(f"a run has no {name!r}{known}")

    def __getitem__(self, name: str) -> Any:
        return self.records[name]

    def replace(self, **parts: Any) -> "Trajectory":
        """The same run with other parts: fields, or records by their names."""
        known = ("t", "final", "stats", "outcome", "parameters", "method", "observe", "aside")
        fields = {name: getattr(self, name) for name in known}
        fields |= {name: parts.pop(name) for name in known if name in parts}
        records = Observables(self.records.values | parts)
        return Trajectory(records=records, network=self.network, **fields)

    @property
    def network(self) -> Network:
        """The network that ran."""
        return eqx.combine(self._network_arrays, self._network_rest)

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
        return self.records

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
            "it kept no weights over time" if self.resume is not None else self.aside.why,
        )
        assert self.path is not None and self.resume is not None
        if self.aside.solution is None:
            self.aside.solution = Solution(self.path, self.resume, self.observe)
        return self.aside.solution

    def at(self, t: ScalarLike) -> State:
        """The state (weights, Z, D) at any time of a dense run, by the solver's own interpolant.

        ``simulate(..., dense=True)`` keeps what it takes; 0 <= t <= ``final.t``, and outside of jit.
        At the ends of steps, ``path.t``, its error is the solver's own. Between them the interpolant may have
        a lower order than the steps: of Dopri8 with rtol=1e-12 some 16 times the tolerance.
        """
        solution, time = self.solution(), as_number(t)
        end = float(self.final.t)
        within = isinstance(time, float) and 0 <= time <= end * (1 + 1e-6)
        require(within, "t", f"lie within the run, [0, {end:.8g}]", f"it was {time!r}")
        return solution.state(min(time, end))

    def summary(self) -> Summary:
        """The method, the end, the cost; when each layer's flow was largest, and what entropy is left.

        ``> 0.5``: it was still rising at the end, t = 0.5; ``0 (start)``: it fell from the start.
        """
        told = {name.removeprefix("controller_"): value for name, value in self.parameters.items()}
        told = {
            name: value for name, value in told.items() if name in _TOLD or name in self.parameters
        }
        numbers = ", ".join(f"{name} = {_range(value)}" for name, value in told.items())
        method = (
            f"{self.method}: {numbers}, {self.t.dtype}"
            if numbers
            else f"{self.method}, {self.t.dtype}"
        )
        cost = self.stats.summary().sentences
        if np.ndim(self.t) > 1:
            shape = np.shape(self.t)[:-1]
            done = int(np.sum(np.asarray(self.outcome.completed)))
            ended = f"{lanes(shape)} of at most {np.shape(self.t)[-1]} records, {done} of them completed"
            return Summary((method, ended, *cost))
        ended = f"{counted(np.asarray(len(self.t)), 'record')}, {self.outcome}"
        rows = [numbered(len(self.network.rows))]
        unseen = ()
        if "flow_norm" in self.records and len(self.t) > 1:  # one record alone has no largest
            t = np.asarray(self.t)
            largest = np.argmax(np.asarray(self.flow_norm), axis=0)
            rows.append(("flow largest at t", *(_peak_time(t, k) for k in largest.tolist())))
            unseen = _unseen(t, largest)
        if "entropy" in self.records and len(self.t):
            H = np.asarray(self.entropy)
            left = np.divide(H[-1], H[0], out=np.full(H.shape[1], np.nan), where=H[0] > 0)
            rows.append(per_layer("entropy left", left, "{:.3g}"))
        return Summary((method, ended, *cost, *unseen), tuple(rows) if len(rows) > 1 else ())

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
        such as ``{"seed": 0}``, adds to them: numbers and text as they are, anything else as its
        text. The dataset is a copy: what is done to it changes nothing in the run.

        Raises ValueError if ``lanes`` does not name the vmapped axes, or an attribute has the name of
        one that describes the run.
        """
        import xarray as xr

        lanes = tuple(lanes)
        require(
            np.ndim(self.t) == len(lanes) + 1,
            "lanes",
            f"name each of the run's {np.ndim(self.t) - 1} vmapped axes",
            f"it was {lanes!r}",
        )
        told = _description(self)
        added = plain_attrs(attrs, told.keys() - {"device"})
        t = np.array(self.t)
        shared = t.reshape(math.prod(t.shape[:-1]), t.shape[-1])
        coords: dict[str, Any] = {"layer": np.arange(1, len(self.network.rows) + 1)}
        if (shared == shared[0]).all():
            coords["time"] = ("time", shared[0], {"long_name": "time", "units": "time"})
        else:
            coords["t"] = ((*lanes, "time"), t, {"long_name": "time", "units": "time"})
        variables: dict[str, Any] = {}
        for each in self.observe:
            axes = (*lanes, "time", *each.dims)
            variables[each.name] = (axes, np.array(self[each.name]), each.describe())
        single = scalars(self.outcome, self.parameters, self.stats)
        if final:
            single |= zip(
                described.leaf_names(self.final), jax.tree.leaves(self.final), strict=True
            )
        if self.path is not None and not lanes:
            about = {"long_name": "end of an accepted step", "units": "time"}
            variables["step_t"] = ("step", np.array(self.path.t), about)
            variables["step_rejected"] = ("step", np.append(0, self.path.rejected))
        for name, value in single.items():
            axes = [f"{name}_{axis}" for axis in range(np.ndim(value) - len(lanes))]
            variables[name] = ((*lanes, *axes), np.array(value))
        return xr.Dataset(variables, coords, told | added)

    def save(self, path: str | os.PathLike[str], *, attrs: Mapping[str, Any] | None = None) -> None:
        """Write the run, whole, to one self-describing NetCDF file; :func:`load` reads it back.

        A file of this name is replaced. Written to a temporary name beside it and renamed, so that ``path``
        never holds half a run. "~" is the home folder; ``attrs`` as for :meth:`to_dataset`.

        Raises ValueError if the folder is not there, or for ``attrs`` that do not fit; OSError, with
        nothing changed, if the file cannot be written.
        """
        require_file("path", path)
        dataset = self.to_dataset(
            lanes=[f"lane_{axis}" for axis in range(np.ndim(self.t) - 1)], final=True, attrs=attrs
        )
        write_netcdf(dataset, path)


Trajectory.__doc__ = f"""{Trajectory.__doc__}
    The paper's observables, each (times, layers) unless it says otherwise; sums are over samples and neurons,
    and time is the flow's:

{catalogue(PAPER)}
    """


def load(path: str | os.PathLike[str], *, network: Network | None = None) -> Trajectory:
    """Read a run that :meth:`Trajectory.save` wrote: the same arrays, dtypes and description.

    A layer that skajax does not have, a user's own, stands in the file by its ``repr`` alone. Without
    a ``network`` the records are the run's all the same; in ``run.network`` that layer can compute
    nothing, and its final weights are a dict of their arrays, by their names. With the ``network``
    that ran, they are the weights that it makes.

    Raises ValueError if the file is no whole run, or of another network; or a run in float64 where
    JAX cannot hold it.

    >>> run.save("run.nc")
    >>> again = ska.load("run.nc")
    >>> bool((again.entropy == run.entropy).all())
    True
    """
    require(
        network is None or isinstance(network, Network),
        "network",
        "be a Network, or None",
        lambda: f"it was {network!r}",
    )
    dataset = read_netcdf(path, "path", *FORMATS)
    precision = dataset.attrs.get("precision")
    require(
        precision != "float64" or jax.config.read("jax_enable_x64"),
        "path",
        "hold a run that fits the precision in use",
        "it was saved in float64 (jax.config.update('jax_enable_x64', True) lets JAX hold it)",
    )
    try:
        return _from_dataset(dataset, network)
    except (KeyError, AttributeError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"Argument path must hold a whole run, but {os.fspath(path)!r} could not be understood:"
            f" {error!r}."
        ) from error


def _from_dataset(dataset: "xarray.Dataset", network: Network | None) -> Trajectory:
    arrays = {str(name): jax.device_put(item.values) for name, item in dataset.items()}
    t = dataset.variables["t" if "t" in dataset.coords else "time"].values
    t = np.broadcast_to(t, arrays["steps"].shape + t.shape[-1:])
    argument = "path" if network is None else "network"
    network = described.network(dataset.attrs["network"], network)
    inputs = json.loads(dataset.attrs.get("inputs", "null"))
    observe = _observables(dataset)
    for each in observe:
        shape, axes = arrays[each.name].shape, ("time", *each.dims)
        require(
            shape[: t.ndim] == t.shape and len(shape) == t.ndim + len(each.dims),
            "path",
            f"hold {each.name} over ({', '.join(axes)}), the times of shape {t.shape}",
            f"its shape was {shape}",
        )
    run = Trajectory(
        records=Observables({each.name: arrays[each.name] for each in observe}),
        t=jax.device_put(t),
        final=described.final(arrays, network, inputs, argument),
        stats=Stats(
            arrays.get("evaluations"), arrays["steps"], arrays["rejected"], arrays.get("rank")
        ),
        outcome=Outcome(
            **{name: arrays[f"outcome_{name}"] for name in _OUTCOME},
            rules=tuple(json.loads(dataset.attrs["rules"])),
            note=dataset.attrs.get("outcome_note", ""),
        ),
        parameters={
            name.removeprefix("parameter_"): value
            for name, value in arrays.items()
            if name.startswith("parameter_")
        },
        aside=Aside(
            Path(arrays["step_t"], arrays["step_rejected"][1:]) if "step_t" in arrays else None,
            why="it was read from a file",
        ),
        method=dataset.attrs["method"],
        network=network,
        observe=observe,
    )
    return _unpaced(run) if dataset.attrs["format"] == FORMATS[1] else run


def _observables(dataset: "xarray.Dataset") -> tuple[Observable, ...]:
    """What a file has of observables: the paper's, and what it says of others."""
    if "observables" not in dataset.attrs:  # as files were before observables could be chosen
        return tuple(each for each in PAPER if each.name in dataset)
    found = []
    for name, told in json.loads(dataset.attrs["observables"]).items():
        known = BY_NAME.get(name)
        told["dims"] = tuple(told["dims"])
        found.append(Observable(name, _Unknown(name), **told) if known is None else known)
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class _Unknown:
    """The function of an observable that was read from a file, which has its values alone."""

    name: str

    def __call__(self, _: Any) -> Any:
        raise ValueError(
            f"Argument observe must hold observables with their functions, but {self.name!r} was read"
            " from a file, which has its values alone."
        )


def _unpaced(run: Trajectory) -> Trajectory:
    """A run of a file in which paced layers still had the weights V = W / √r."""
    roots = [
        math.sqrt(layer.rate) if isinstance(layer, layers.Paced) else 1.0
        for layer in run.network.layers
    ]
    weights = tuple(
        w if root == 1 else jax.tree.map(lambda leaf, r=root: r * leaf, w)
        for w, root in zip(run.final.weights, roots, strict=True)
    )
    norm = run.weight_norm * jnp.asarray(roots, run.weight_norm.dtype)
    return run.replace(final=run.final._replace(weights=weights), weight_norm=norm)


def _range(value: Any) -> str:
    """A number; of many lanes, from the least to the most."""
    low, high = float(np.min(value)), float(np.max(value))
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"


def _peak_time(t: np.ndarray, k: int) -> str:
    """When a layer's flow was largest; at an edge of the run, only on which side of it the peak may lie."""
    if 0 < k < len(t) - 1:
        return f"{t[k]:.4g}"
    return f"> {t[k]:.4g}" if k else f"{t[k]:.4g} (start)"


def _unseen(t: np.ndarray, largest: np.ndarray) -> tuple[str, ...]:
    """A sentence where no layer's flow has its largest value within the run."""
    if ((largest > 0) & (largest < len(t) - 1)).any():
        return ()
    told = "no layer's flow has peaked within the run"
    if (largest > 0).any():
        told += ": a later t1 shows when (skajax.timescales.predict foresees it)"
    return (told,)


def scalars(outcome: Outcome, parameters: Mapping[str, Any], stats: Stats) -> dict[str, Any]:
    """What a file holds of a run beside its records, by the names it has there."""
    named = {f"outcome_{name}": getattr(outcome, name) for name in _OUTCOME}
    named |= {f"parameter_{name}": value for name, value in parameters.items()}
    return named | {name: value for name, value in vars(stats).items() if value is not None}


def _description(run: Trajectory) -> dict[str, str]:
    return {
        "format": FORMATS[0],
        "method": run.method,
        "network": described.told(run.network),
        "precision": str(run.t.dtype),
        "observables": json.dumps(described_observables(run.observe)),
        **_devices(run.t),
        "outcome": str(run.outcome),
        "rules": json.dumps(run.outcome.rules),
        "outcome_note": run.outcome.note,
        **_inputs(run.resume),
        **versions(),
    }


def _inputs(resume: Resume | None) -> dict[str, str]:
    """The shape of one sample, where the run still knows it."""
    if resume is None:
        return {}
    space = resume.system.space
    batch = shape_of(resume.system.inputs)
    return {"inputs": json.dumps(batch.x.shape[1:] if space is None else [space.inputs])}


def _devices(array: jax.Array | np.ndarray) -> dict[str, str]:
    if not isinstance(array, jax.Array):
        return {}  # a copy on the host does not remember where it was computed
    return {"device": ", ".join(sorted({device.device_kind for device in array.devices()}))}
