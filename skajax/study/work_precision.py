"""Fixed steps against adaptive ones: what a small error costs, by solver, precision, time and scale.

Every run is compared with one reference, the same initial value problem solved in float64 to a
tight tolerance. What follows from the numbers is in ``recommend.py``.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from skajax._checks import as_array, is_whole, require, require_positive
from skajax._modes import enable_x64
from skajax._progress import each
from skajax._simulate import simulate
from skajax._types import Float, Inputs, ScalarLike, Weights
from skajax._version import versions
from skajax.methods import AbstractMethod, Adaptive
from skajax.network import Network, check_inputs, check_weights
from skajax.observables import DIAGNOSTICS
from skajax.study.errors import relative_error
from skajax.trajectory import Trajectory

__all__ = ["ADAPTIVE", "FIXED", "Solver", "work_precision"]

Solver: TypeAlias = diffrax.AbstractSolver[Any] | Callable[[float], AbstractMethod]
"""A Diffrax solver; or a function that makes a method of a number: rtol, or the step size dt."""

ADAPTIVE: Mapping[str, Solver] = MappingProxyType(
    {
        "Heun": diffrax.Heun(),
        "Bosh3": diffrax.Bosh3(),
        "Tsit5": diffrax.Tsit5(),
        "Dopri5": diffrax.Dopri5(),
        "Dopri8": diffrax.Dopri8(),
    }
)
"""Explicit Runge-Kutta methods with adaptive steps, of order 2, 3, 5, 5 and 8.

No implicit ones: a Newton step would solve with a Jacobian of all weights squared, and nothing in
the flow is stiff.
"""

FIXED: Mapping[str, Solver] = MappingProxyType(
    {"Euler": diffrax.Euler(), "Heun": diffrax.Heun(), "Tsit5": diffrax.Tsit5()}
)
"""The same with constant steps, of order 1, 2 and 5."""

TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
"""Relative tolerances rtol; atol is a hundredth."""

BUDGETS = (25, 50, 100, 200, 400, 800)
"""Evaluations of the flow that a method with constant steps may spend."""

REFERENCE = {"float32": 1e-9, "float64": 1e-11}
"""The rtol of the reference, by the finest precision that runs are in; its atol is a hundredth.

For float32 the error of the reference itself, in weights and records, is a few hundredths of ε at most.
"""


def work_precision(
    network: Network,
    weights: Weights,
    x: Inputs,
    *,
    t1: ScalarLike | Sequence[ScalarLike] = (0.5, 2.0, 10.0),
    scales: Sequence[ScalarLike] = (1.0,),
    precisions: Sequence[str] = ("float32", "float64"),
    solvers: Mapping[str, Solver] = ADAPTIVE,
    tolerances: Sequence[float] = TOLERANCES,
    fixed: Mapping[str, Solver] = FIXED,
    budgets: Sequence[int] = BUDGETS,
    records: int = 11,
    rounds: int = 3,
) -> xr.Dataset:
    """What error each solver leaves, and what it costs: in evaluations, seconds and compilation.

    Main arguments: a network, its weights and a batch, as for :func:`skajax.simulate`.

    - ``t1``: end times T. ``scales``: factors on the initial weights and biases.
    - ``solvers`` run with adaptive steps at each of ``tolerances``, ``fixed`` ones with constant
      steps that spend about each of ``budgets`` evaluations. Both map labels to Diffrax solvers, or
      to functions that make a method: of rtol, or of dt. A solver alone gets skajax's defaults.
    - ``records``: how many times, evenly spaced in [0, T], observables are compared at; 0: none.
    - ``rounds``: how often each run is timed, after the first; 0: not at all.

    Returns a dataset over (scale, T, precision, solver, level), level being the place of a setting
    in ``tolerances`` or ``budgets``; the label of a method with constant steps ends in ", fixed".

    - ``error``: ‖W - W_ref‖ / ‖W_ref‖ at T, over all weights and biases of all layers together.
    - ``observable_error``, also over ``observable``: √(Σ (f - g)² / Σ g²), the sums over times and
      layers (for ``output_mean``, neurons). Between steps, f is on the solver's interpolant.
    - ``evaluations`` of the flow, ``steps`` tried and ``rejected``.
    - ``seconds``: of a run that records only its end; the best of the rounds.
    - ``compile_seconds``, over (precision, solver): the first call, which makes the records, less the
      best later one. About 0 for what this process had compiled before.

    A run that does not complete, or a reference smaller than any number, leaves NaN. All runs and
    the reference start from the same numbers: the weights, rounded to float32. The reference is Dopri8 in
    float64, at rtol 1e-11, or at 1e-9 where all runs are in float32. float64 is switched on for the runs
    that need it and nowhere else.

    Raises ValueError for arguments that do not fit, and RunFailed where the reference does not
    complete.

    >>> data = ska.study.work_precision(network, weights, x)  # doctest: +SKIP
    """
    ends = numbers("t1", t1 if isinstance(t1, Sequence) else (t1,), "an end time")
    scales = numbers("scales", scales, "a factor")
    tolerances = numbers("tolerances", tolerances, "a relative tolerance")
    precisions = tuple(precisions)
    require(
        len(precisions) >= 1 and set(precisions) <= {"float32", "float64"},
        "precisions",
        "hold 'float32', 'float64' or both",
        f"it was {precisions!r}",
    )
    budgets = tuple(_whole("budgets", budget, 1) for budget in budgets)
    records, rounds = _whole("records", records, 0), _whole("rounds", rounds, 0)
    field = _contestants(solvers, tolerances, fixed, budgets)
    x = as_array("x", x)
    check_inputs(x)
    weights = jax.tree.map(lambda leaf: as_array("weights", leaf), weights)
    check_weights(network, weights, x)
    inputs, start = jax.tree.map(lambda a: np.asarray(a, np.float32), (x, weights))

    rtol = min(REFERENCE[precision] for precision in precisions)
    data = _empty(ends, scales, precisions, field, records, rtol)
    cases = [(s, T, p) for s in scales for T in ends for p in precisions]
    references: dict[tuple[float, float], Trajectory] = {}
    for scale, T, precision in each(cases, "work and precision", len(cases)):
        scaled = jax.tree.map(lambda w, s=scale: w * np.float32(s), start)
        problem = _Problem(network, scaled, inputs, T, records)
        if (scale, T) not in references:
            tight = Adaptive(diffrax.Dopri8(), rtol=rtol, atol=rtol / 100)
            references[scale, T] = problem.recorded(tight, "float64", throw=True)
        place = {"scale": scale, "T": T, "precision": precision}
        _fill(data, place, problem, field, references[scale, T], rounds)
    return data


class _Contestant(NamedTuple):
    """A solver, and the methods it makes for an end time: one a level."""

    label: str
    kind: str
    settings: tuple[float, ...]
    make: Callable[[float, float], AbstractMethod]  # of a setting and T


def _contestants(
    solvers: Mapping[str, Solver],
    tolerances: tuple[float, ...],
    fixed: Mapping[str, Solver],
    budgets: tuple[int, ...],
) -> list[_Contestant]:
    require(
        len(solvers) + len(fixed) >= 1, "solvers", "name at least one, or else fixed", "none was"
    )
    require(not solvers or len(tolerances) >= 1, "tolerances", "hold at least one", "it was empty")
    require(not fixed or len(budgets) >= 1, "budgets", "hold at least one", "it was empty")
    for argument, given in {"solvers": solvers, "fixed": fixed}.items():
        for label, solver in given.items():
            require(
                isinstance(solver, diffrax.AbstractSolver) or callable(solver),
                f"{argument}[{label!r}]",
                "be a Diffrax solver, or a function that makes a method",
                f"it was {solver!r}",
            )
    return [
        *(
            _Contestant(label, "adaptive", tolerances, _adaptive(solver))
            for label, solver in solvers.items()
        ),
        *(
            _Contestant(f"{label}, fixed", "fixed", tuple(map(float, budgets)), _constant(solver))
            for label, solver in fixed.items()
        ),
    ]


def _adaptive(solver: Solver) -> Callable[[float, float], AbstractMethod]:
    if isinstance(solver, diffrax.AbstractSolver):
        return lambda rtol, T: Adaptive(solver, rtol=rtol, atol=rtol / 100)
    return lambda rtol, T: solver(rtol)


def _constant(solver: Solver) -> Callable[[float, float], AbstractMethod]:
    if not isinstance(solver, diffrax.AbstractSolver):
        return lambda budget, T: solver(T / int(budget))
    tableau = getattr(solver, "tableau", None)
    stages = 1
    if isinstance(tableau, diffrax.ButcherTableau):
        stages = tableau.num_stages - tableau.fsal

    def method(budget: float, T: float) -> AbstractMethod:
        steps = max(1, round(budget) // stages)
        controller = diffrax.ConstantStepSize()
        # One more than is needed: the end may lie a rounding beyond the last step.
        return Adaptive(
            solver, controller=controller, dt0=T / steps, max_steps=max(4096, steps + 1)
        )

    return method


class _Problem(NamedTuple):
    """One initial value problem, on the host in float32."""

    network: Network
    weights: Weights | Any
    x: Float[np.ndarray, "samples inputs"]
    T: float
    records: int

    def solve(
        self, method: AbstractMethod, precision: str, save_at: Any = None, *, throw: bool = False
    ) -> Trajectory:
        """The run, its records and weights on the host."""
        with enable_x64(precision == "float64"):
            weights, x = jax.tree.map(lambda a: jnp.asarray(a, precision), (self.weights, self.x))
            only_steps = not isinstance(method, Adaptive)  # Euler and its like record every step
            save_at = None if only_steps else ([self.T] if save_at is None else save_at)
            run = simulate(
                self.network, weights, x, method, self.T, save_at=save_at, throw=throw,
                observe=DIAGNOSTICS if self.records else (),  # the same program for all runs
            )  # fmt: skip
            return jax.tree.map(np.asarray, run)

    def recorded(
        self, method: AbstractMethod, precision: str, *, throw: bool = False
    ) -> Trajectory:
        """The same, with the observables at the times they are compared at."""
        times = np.linspace(0, self.T, self.records) if self.records > 1 else [self.T]
        return self.solve(method, precision, times, throw=throw)


def _empty(
    ends: tuple[float, ...],
    scales: tuple[float, ...],
    precisions: tuple[str, ...],
    field: list[_Contestant],
    records: int,
    reference_rtol: float,
) -> xr.Dataset:
    levels = max(len(c.settings) for c in field)
    settings = np.full((len(field), levels), np.nan)
    for row, contestant in enumerate(field):
        settings[row, : len(contestant.settings)] = contestant.settings
    dims = ("scale", "T", "precision", "solver", "level")
    shape = (len(scales), len(ends), len(precisions), len(field), levels)
    units = {
        "error": ("relative error of the weights", "1"),
        "evaluations": ("evaluations of the flow", "1"),
        "steps": ("steps tried", "1"),
        "rejected": ("steps rejected", "1"),
        "seconds": ("time of a run", "s"),
    }
    variables: dict[str, Any] = {
        name: (dims, np.full(shape, np.nan), {"long_name": text, "units": unit})
        for name, (text, unit) in units.items()
    }
    variables["compile_seconds"] = (
        ("precision", "solver"),
        np.full((len(precisions), len(field)), np.nan),
        {"long_name": "time of the first run beyond that of a later one", "units": "s"},
    )
    coords: dict[str, Any] = {
        "scale": ("scale", list(scales), {"long_name": "factor on the initial weights"}),
        "T": ("T", list(ends), {"long_name": "end time", "units": "time"}),
        "precision": list(precisions),
        "solver": [c.label for c in field],
        "level": np.arange(levels),
        "kind": ("solver", [c.kind for c in field]),
        "setting": (
            ("solver", "level"),
            settings,
            {"long_name": "rtol; with constant steps, evaluations that may be spent"},
        ),
    }
    if records:
        coords["observable"] = list(DIAGNOSTICS)
        variables["observable_error"] = (
            (*dims, "observable"),
            np.full((*shape, len(DIAGNOSTICS)), np.nan),
            {"long_name": "relative L2 error over times and layers", "units": "1"},
        )
    device = ", ".join(sorted({d.device_kind for d in jax.devices()}))
    reference = f"Dopri8, float64, rtol {reference_rtol:g}"
    return xr.Dataset(variables, coords, {"reference": reference, "device": device, **versions()})


def _fill(
    data: xr.Dataset,
    place: dict[str, Any],
    problem: _Problem,
    field: list[_Contestant],
    reference: Trajectory,
    rounds: int,
) -> None:
    """Run every contestant at every level, and write down what it came to."""
    precision = place["precision"]
    entries = [
        ({**place, "solver": c.label, "level": level}, c.make(setting, problem.T))
        for c in field
        for level, setting in enumerate(c.settings)
    ]
    finished = []
    for at, method in entries:
        first, run = _timed(lambda m=method: problem.recorded(m, precision))
        if not bool(run.outcome.completed):
            continue
        finished.append((at, method, first))
        data["error"].loc[at] = relative_error(run.final.weights, reference.final.weights)
        for name in ("evaluations", "steps", "rejected"):
            count = getattr(run.stats, name)
            data[name].loc[at] = np.nan if count is None else int(count)
        for name in DIAGNOSTICS if problem.records else ():
            off = _series_error(run, reference, name)
            data["observable_error"].loc[{**at, "observable": name}] = off
    best = [math.inf] * len(finished)
    for _ in range(rounds):  # interleaved, so that a disturbance meets them all
        for index, (_, method, _) in enumerate(finished):
            seconds, _ = _timed(lambda m=method: problem.solve(m, precision))
            best[index] = min(best[index], seconds)
    for (at, _, first), least in zip(finished, best, strict=True):
        if rounds == 0:
            break
        data["seconds"].loc[at] = least
        kind = {"precision": precision, "solver": at["solver"]}
        if np.isnan(data["compile_seconds"].loc[kind]):  # the first run of its program
            data["compile_seconds"].loc[kind] = max(first - least, 0.0)


def _timed(job: Callable[[], Trajectory]) -> tuple[float, Trajectory]:
    start = time.perf_counter()
    run = job()  # on the host when it returns
    return time.perf_counter() - start, run


def _series_error(run: Trajectory, reference: Trajectory, observable: str) -> float:
    f, g = (np.asarray(getattr(r, observable), float) for r in (run, reference))
    if len(f) != len(g):  # a method that records every step: take those at the reference's times
        f = np.stack([np.interp(reference.t, run.t, column) for column in f.T], axis=-1)
    return relative_error(f, g)


def numbers(argument: str, values: Any, what: str) -> tuple[float, ...]:
    """Positive numbers, each once, as floats."""
    values = tuple(values)
    for value in values:
        require_positive(argument, value, what)
    found = tuple(float(value) for value in values)
    require(len(set(found)) == len(found), argument, "name each number once", f"it was {found}")
    return found


def _whole(argument: str, value: Any, least: int) -> int:
    require(
        is_whole(value, least),
        argument,
        f"be a whole number, at least {least}",
        f"it was {value!r}",
    )
    return int(value)
