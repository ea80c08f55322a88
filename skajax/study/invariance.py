"""Is learning the same at fixed η K? Every step size against the limit that all of them discretise.

A run of K steps η is a discretisation of dW/dt = -∇H over T = η K. If trajectories depended on η K
alone, the errors here would be 0; of a method of order 1 they fall in proportion to η.
"""

import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import diffrax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import Mesh

from skajax._checks import as_array, require, require_positive
from skajax._messages import unwarned
from skajax._simulate import simulate
from skajax._types import Array, Float, Inputs, Weights
from skajax._version import versions
from skajax.methods import Adaptive, Euler, Method, Published
from skajax.methods._outcome import Code
from skajax.network import Network
from skajax.observables import DIAGNOSTICS
from skajax.study.errors import CurveError, Numbers, curve_error, local_orders, order, step_for
from skajax.study.experiments import STEPS, T
from skajax.sweeps import grid, sweep
from skajax.trajectory import Trajectory

__all__ = ["METHODS", "PAIRS", "invariance"]

PAIRS = tuple((T / K, K) for K in STEPS)
"""The paper's pairs of η and K, at η K = 0.5."""

METHODS: Mapping[str, Callable[[float], Method]] = MappingProxyType(
    {"published": Published, "Euler": Euler}
)
"""The rule of the paper's figures, and the honest discretisation of its equation."""

NORMS = CurveError._fields
"""How a curve's distance is measured: "l2" and "max"."""

TRIES = 6
"""Runs that may be made to find the step for an accuracy."""

_LOOSER = 10.0
_RTOL = {"float32": 1e-6, "float64": 1e-11}


def invariance(
    network: Network,
    weights: Weights | Callable[[int], Weights],
    x: Inputs,
    pairs: Sequence[tuple[float, int]] = PAIRS,
    *,
    methods: Mapping[str, Callable[[float], Method]] = METHODS,
    seeds: Sequence[int] = (0,),
    accuracy: float = 0.01,
    judge: str = "entropy_rate",
    most: int = 5000,
    rtol: float | None = None,
    devices: Literal["all"] | Mesh | None = None,
    store: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """The error of every pair (η, K) against the continuous limit, its order, and the step for an accuracy.

    Main arguments: a network, its weights and a batch, as for :func:`skajax.simulate`; and ``pairs``
    of a step size η and a number of steps K. For an ensemble ``weights`` is a function of the seed,
    such as ``lambda seed: network.init(jax.random.key(seed), x)``, and ``seeds`` are those to run.

    - ``methods`` map labels, of the axis ``rule``, to functions that make a method of η.
    - ``accuracy``: a relative error (0.01 is 1 %) that the observable ``judge`` is to have at most, in
      every layer and for every seed. The step that the errors lead to is run, and made finer until
      its measured error is small enough, or would take more than ``most`` steps.
    - ``rtol`` of the reference: by default 1e-6 by Tsit5 for float32 inputs, 1e-11 by Dopri8 for float64;
      its atol is a hundredth.
    - ``devices`` and ``store`` of the runs at all pairs, as for :func:`skajax.sweep`.

    Errors are taken over a run's own records up to T, the least of all η K, without those that have
    no flow, as pass 1 of the published rule. The reference is solved once for each seed and recorded
    at the very times of all records. With f the run's observable and g the reference's, the ``norm``

    - "l2" is √(Σ (f - g)² / Σ g²), the sums over the records;
    - "max" is max |f - g| / max |g|.

    Of ``output_mean``, both are over the output neurons too, and stand under the last layer. Returns a
    dataset over rule, seed, pair (by falling η, the coordinate ``dt``, beside ``K``), norm, observable and
    layer:

    - ``error``; NaN where a run did not complete, or all of g is 0;
    - ``order``: the slope of log error over log η over all pairs, by least squares;
    - ``local_order``: the same from each pair to the next finer one, NaN for the first;
    - ``needed_dt``: the largest η that meets ``accuracy``, by the straight lines through the errors in
      logarithms, beyond the pairs by the last two of them: a prediction;
    - ``reference_error``, without rule and pair: the reference's distance from the same solution at
      ten times its tolerances, which is mostly the latter's error: an upper estimate of its own;
    - ``verified_dt``, ``verified_K`` and ``verified_error``, over rule: the coarsest run tried that
      meets ``accuracy`` for ``judge``, for the seed that needs the finest step, and its measured error
      (l2, of the worst layer); NaN if none met it;
    - ``outcome`` of every run.

    Raises ValueError for arguments that do not fit, and RunFailed where the reference does not complete.

    >>> found = ska.study.invariance(network, weights, x, pairs=[(0.05, 5), (0.025, 10)])  # doctest: +SKIP
    """
    pairs = _checked(pairs, methods, seeds)
    require(judge in DIAGNOSTICS, "judge", f"be one of {list(DIAGNOSTICS)}", f"it was {judge!r}")
    require_positive("accuracy", accuracy, "a relative error")
    start: Callable[[int], Weights] = weights if callable(weights) else lambda seed: weights
    require(
        callable(weights) or len(seeds) == 1,
        "weights",
        "be a function of the seed where there are several seeds",
        f"there were {len(seeds)}",
    )
    if rtol is not None:
        require_positive("rtol", rtol, "a relative tolerance")
    x = as_array("x", x)
    makers, end = list(methods.values()), min(eta * K for eta, K in pairs)
    with unwarned():  # runs that diverge are among what is measured
        runs = sweep(
            network,
            lambda seed: start(seed),
            x,
            lambda method, pair: makers[method](pairs[pair][0]),
            steps=lambda pair: pairs[pair][1],
            over=grid(method=range(len(makers)), seed=seeds, pair=range(len(pairs))),
            devices=devices,
            store=store,
        )
    assert isinstance(runs, xr.Dataset)
    runs = runs.transpose("method", "seed", "pair", ...)
    lanes = {
        (m, s, p): _of_sweep(runs.isel(method=m, seed=s, pair=p), end)
        for m, s, p in np.ndindex(len(makers), len(seeds), len(pairs))
    }
    times = np.concatenate([lane.t for lane in lanes.values()])
    times = _distinct(times, float(jnp.finfo(x.dtype).eps))
    limit = _Limit(network, x, _RTOL[str(x.dtype)] if rtol is None else rtol, times)

    data = _empty(list(methods), seeds, pairs, len(network.layers))
    data["outcome"] = (("rule", "seed", "pair"), runs["outcome"].values)
    completed = runs["outcome_code"].values == Code.COMPLETED
    for s, seed in enumerate(seeds):
        best = limit.solve(start(seed))
        rough = limit.solve(start(seed), looser=_LOOSER)
        data["reference_error"][s] = _errors(rough, best)
        for place, lane in lanes.items():
            if place[1] == s and completed[place]:
                data["error"][place] = _errors(lane, best)
    _derive(data, accuracy)
    search = _Search(limit, judge, accuracy, end, most)
    for m, make in enumerate(makers):
        worst = data["error"].sel(norm="l2", observable=judge)[m].max("layer").values
        finest = [step_for(data["dt"].values, errors, accuracy) for errors in worst]
        if np.isfinite(finest).any():
            s = int(np.nanargmin(finest))
            found = search.run(make, start(seeds[s]), data["dt"].values, worst[s])
            for name, value in zip(("K", "dt", "error"), found, strict=True):
                data[f"verified_{name}"][m] = value
    about = {"judge": judge, "T": end, "reference": limit.method().name, **versions()}
    return data.assign_coords(accuracy=accuracy).assign_attrs(about)


class _Records(NamedTuple):
    """Observables at times, (records, layers) each."""

    t: Float[np.ndarray, " records"]
    curves: dict[str, Float[np.ndarray, "records _"]]

    def before(self, end: float) -> "_Records":
        """Those up to the end that have a flow."""
        used = (self.t <= end * (1 + 1e-6)) & (self.curves["flow_norm"] > 0).all(axis=-1)
        return _Records(self.t[used], {name: curve[used] for name, curve in self.curves.items()})


def _of_run(run: Trajectory, end: float) -> _Records:
    curves = {name: np.asarray(getattr(run, name), float) for name in DIAGNOSTICS}
    return _Records(np.asarray(run.t, float), curves).before(end)


def _of_sweep(lane: xr.Dataset, end: float) -> _Records:
    curves = {name: np.asarray(lane[name].values, float) for name in DIAGNOSTICS}
    return _Records(np.asarray(lane["t"].values, float), curves).before(end)


class _Limit(NamedTuple):
    """The continuous limit of one network on one batch."""

    network: Network
    x: Array
    rtol: float
    times: Float[np.ndarray, " times"]
    """Of all pairs' records."""

    def method(self, looser: float = 1.0) -> Adaptive:
        """Tolerances, so many times as large."""
        solver = diffrax.Dopri8() if self.x.dtype == jnp.float64 else diffrax.Tsit5()
        rtol = looser * self.rtol
        return Adaptive(solver, rtol=rtol, atol=rtol / 100, max_steps=100_000)

    def solve(self, weights: Weights, *, also: Numbers = (), looser: float = 1.0) -> _Records:
        """Recorded at the pairs' times, or at others as well.

        In place of as many of the pairs' where there are enough: a program is compiled for a
        number of records.
        """
        times = np.unique(np.asarray(also, float))
        spare = max(len(self.times) - len(times), 1)
        times = np.union1d(times, np.setdiff1d(self.times, times)[-spare:])
        method, end = self.method(looser), float(times[-1])
        save_at = times.astype(self.x.dtype)
        run = simulate(self.network, weights, self.x, method, end, save_at=save_at, throw=True)
        return _Records(times, {n: np.asarray(getattr(run, n), float) for n in DIAGNOSTICS})


def _distinct(times: Float[np.ndarray, " _"], eps: float) -> Float[np.ndarray, " _"]:
    """Each time once: multiples of different steps meet, but for their rounding."""
    times = np.unique(times)
    some = len(times) > 0 and float(times[-1]) > 0
    require(some, "pairs", "give records that have a flow", "none did")
    return times[np.diff(times, prepend=-math.inf) > 8 * eps * times[-1]]


def _errors(run: _Records, limit: _Records) -> Float[np.ndarray, "norms observables layers"]:
    """On the run's own times, which are among the limit's."""
    after = np.searchsorted(limit.t, run.t).clip(1, len(limit.t) - 1)
    at = after - (run.t - limit.t[after - 1] < limit.t[after] - run.t)
    found = np.full((len(NORMS), len(DIAGNOSTICS), run.curves["flow_norm"].shape[1]), np.nan)
    for place, (name, f) in enumerate(run.curves.items()):
        g = limit.curves[name][at]
        if name == "output_mean":  # the neurons are one layer's
            found[:, place, -1] = np.ravel(curve_error(f.reshape(-1, 1), g.reshape(-1, 1)))
        else:
            found[:, place] = curve_error(f, g)
    return found


def _derive(data: xr.Dataset, accuracy: float) -> None:
    """Orders, and the step for the accuracy."""
    dts, each = data["dt"].values, data["error"].transpose("pair", ...)
    errors = each.values.reshape(len(dts), -1)
    rest = each.dims[1:]
    found = {
        "order": [order(dts, column) for column in errors.T],
        "needed_dt": [step_for(dts, column, accuracy) for column in errors.T],
    }
    for name, values in found.items():
        data[name].values = np.reshape(values, [data.sizes[dim] for dim in rest])
    local = np.stack([local_orders(dts, column) for column in errors.T], axis=-1)
    shaped = xr.DataArray(local.reshape(each.shape), dims=each.dims)
    data["local_order"].values = shaped.transpose(*data["local_order"].dims).values


class _Search(NamedTuple):
    """For the step that meets an accuracy, by runs."""

    limit: _Limit
    judge: str
    accuracy: float
    end: float
    most: int

    def run(
        self,
        make: Callable[[float], Method],
        weights: Weights,
        dts: Float[np.ndarray, " pairs"],
        errors: Float[np.ndarray, " pairs"],
    ) -> tuple[float, float, float]:
        """K, dt and the error measured; NaN where no run met the accuracy."""
        tried: dict[int, float] = {}
        for _ in range(TRIES):
            dt = step_for(dts, errors, self.accuracy)
            if not dt > self.end / self.most:
                break
            least = max(math.ceil(self.end / dt - 1e-9), 3)
            K = next(K for K in itertools.count(least) if K not in tried)
            tried[K] = self.measure(make, weights, K)
            if tried[K] <= self.accuracy:
                return float(K), self.end / K, tried[K]
            dts, errors = np.append(dts, self.end / K), np.append(errors, tried[K])
        return math.nan, math.nan, math.nan

    def measure(self, make: Callable[[float], Method], weights: Weights, K: int) -> float:
        """The error of a run of K steps, in its worst layer."""
        method = make(self.end / K)
        run = _of_run(
            simulate(self.limit.network, weights, self.limit.x, method, steps=K), self.end
        )
        errors = _errors(run, self.limit.solve(weights, also=run.t))
        return float(np.nanmax(errors[NORMS.index("l2"), list(DIAGNOSTICS).index(self.judge)]))


def _checked(
    pairs: Sequence[tuple[float, int]], methods: Mapping[str, Any], seeds: Sequence[int]
) -> list[tuple[float, int]]:
    """The pairs by falling η."""
    for eta, K in pairs:
        require_positive("pairs", eta, "pairs of a step size η and a number of steps K")
        whole = isinstance(K, int | np.integer) and not isinstance(K, bool) and K >= 2
        require(whole, "pairs", "have whole K, at least 2", f"one was {K!r}")
    etas = {float(eta) for eta, _ in pairs}
    require(
        len(etas) == len(pairs) >= 2,
        "pairs",
        "hold two or more pairs, each with its own η",
        f"it was {list(pairs)}",
    )
    require(len(methods) >= 1, "methods", "name at least one", "it was empty")
    for label, make in methods.items():
        argument = f"methods[{label!r}]"
        require(
            callable(make), argument, "be a function that makes a method of η", f"it was {make!r}"
        )
    require(
        len(set(seeds)) == len(seeds) >= 1,
        "seeds",
        "hold at least one seed, each once",
        f"it was {seeds!r}",
    )
    return sorted(((float(eta), int(K)) for eta, K in pairs), reverse=True)


def _empty(
    methods: list[str], seeds: Sequence[int], pairs: list[tuple[float, int]], layers: int
) -> xr.Dataset:
    sizes = {
        "rule": len(methods),
        "seed": len(seeds),
        "pair": len(pairs),
        "norm": len(NORMS),
        "observable": len(DIAGNOSTICS),
        "layer": layers,
    }
    beside_pair = tuple(dim for dim in sizes if dim != "pair")
    after = ("norm", "observable", "layer")
    described = {
        "error": (tuple(sizes), "relative distance from the continuous limit", "1"),
        "order": (beside_pair, "observed order of convergence", "1"),
        "local_order": (tuple(sizes), "order from the pair before", "1"),
        "needed_dt": (beside_pair, "largest step that meets the accuracy, predicted", "time"),
        "reference_error": (("seed", *after), "upper estimate of the reference's error", "1"),
        "verified_dt": (("rule",), "step of a run that meets the accuracy", "time"),
        "verified_K": (("rule",), "its number of steps", "1"),
        "verified_error": (("rule",), "its error", "1"),
    }
    variables: dict[str, Any] = {
        name: (
            dims,
            np.full([sizes[dim] for dim in dims], np.nan),
            {"long_name": text, "units": unit},
        )
        for name, (dims, text, unit) in described.items()
    }
    coords: dict[str, Any] = {
        "rule": methods,
        "seed": list(seeds),
        "dt": ("pair", [eta for eta, _ in pairs], {"long_name": "step size", "units": "time"}),
        "K": ("pair", [K for _, K in pairs], {"long_name": "number of steps", "units": "1"}),
        "norm": list(NORMS),
        "observable": list(DIAGNOSTICS),
        "layer": np.arange(1, layers + 1),
    }
    return xr.Dataset(variables, coords)
