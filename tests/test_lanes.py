"""A sweep's edges: axes of any kind of values, arguments of any kind of function, lanes that raise errors."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import skajax as ska
from skajax._messages import tell_once
from skajax.observables import NAMES
from skajax.sweeps import LanesFailed, _plan, _runner
from skajax.sweeps._grid import labels
from skajax.sweeps._store import Store

X = jax.random.uniform(jax.random.key(0), (10, 8))
NETWORK = ska.mlp([6, 4], scale=0.3)
WEIGHTS = NETWORK.init(jax.random.key(0), X)
EULER = ska.Euler(0.1)


def start(seed):
    return NETWORK.init(jax.random.key(seed), X)


def sweep(weights=start, method=EULER, over=None, **options):
    over = {"seed": range(3)} if over is None else over
    usual = {"steps": 3, "at_once": 1, "observe": ("entropy",)}
    return ska.sweep(NETWORK, weights, X, method, over=over, **usual | options)


def single(weights, method=EULER):
    """The entropy of a run by itself."""
    return ska.simulate(NETWORK, weights, X, method, steps=3, observe=("entropy",)).entropy


# Axes.

NUMBERS = {
    "list": lambda v: list(v),
    "NumPy": lambda v: np.array(v),
    "big-endian": lambda v: np.array(v, ">f8"),
    "arrays of no axes": lambda v: [np.array(value) for value in v],
    "JAX": lambda v: jnp.array(v),
    "a list of JAX's": lambda v: [jnp.float32(value) for value in v],
    "xarray": lambda v: xr.DataArray(list(v), dims="dt"),
    "pandas": lambda v: pd.Series(v),
    "an index": lambda v: pd.Index(v),
    "a generator": lambda v: (value for value in v),
    "masked, without a mask": lambda v: np.ma.array(v),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_any_library_are_numbers(kind):
    data = sweep(WEIGHTS, lambda dt: ska.Euler(dt), over=ska.grid(dt=NUMBERS[kind]([0.25, 0.1])))
    assert data.dt.dtype.kind == "f"
    np.testing.assert_allclose(data.entropy.sel(dt=0.1), single(WEIGHTS), rtol=1e-6)


LABELLED = {
    "whole": ([np.int8(1), 2], [1, 2]),
    "truths": ([True, np.False_], [True, False]),
    "truths of JAX": (jnp.array([True, False]), [True, False]),
    "mixed numbers": ([1, np.float64(0.5), jnp.int32(2)], [1.0, 0.5, 2.0]),
    "numbers and names": ([0.5, "auto"], ["0.5", "auto"]),
    "names": (np.array(["a", "b"]), ["a", "b"]),
    "short floats": ([jnp.bfloat16(0.5), np.float16(0.25)], [0.5, 0.25]),
    "long floats": (np.array([0.5], np.longdouble), [0.5]),
    "large": ([2**70, 1], [str(2**70), "1"]),
    "complex": ([1j], ["1j"]),
    "times": (np.array(["2020-01-02"], "M8[D]"), ["2020-01-02"]),
    "none": ([None, 0.5], ["None", "0.5"]),
    "lists": ([[4, 3], [2]], ["[4, 3]", "[2]"]),
}


@pytest.mark.parametrize("case", LABELLED)
def test_labels(case, tmp_path):
    given, want = LABELLED[case]
    axis = ska.grid(axis=given)["axis"]
    assert labels(axis).tolist() == want and labels(axis).dtype.kind in "biufU"
    weights = lambda axis: WEIGHTS
    data = sweep(weights, over={"axis": axis}, steps=1)
    assert data["axis"].values.tolist() == want
    kept = sweep(weights, over={"axis": axis}, steps=1, store=tmp_path)
    xr.testing.assert_identical(kept, data)
    assert ska.load_sweep(tmp_path)["axis"].dtype == data["axis"].dtype


def test_keys_are_an_axis():
    keys = jax.random.split(jax.random.key(0), 2)
    data = sweep(lambda key: NETWORK.init(key, X), over=ska.grid(key=keys))
    np.testing.assert_allclose(data.entropy[1], single(NETWORK.init(keys[1], X)), rtol=1e-6)


NO_AXES = {
    "text": "euler",
    "bytes": b"euler",
    "number": 0.01,
    "array of no axes": np.array(0.01),
    "none": None,
    "dict": {"a": 1},
    "set": {1, 2},
    "frame": pd.DataFrame({"a": [1]}),
}


@pytest.mark.parametrize("case", NO_AXES)
def test_what_is_no_axis_is_refused_by_name(untyped, case):
    for act in (lambda over: ska.grid(**over), lambda over: sweep(over=over)):
        with pytest.raises(ValueError, match="Argument rule must be a list of values"):
            act({"rule": NO_AXES[case]})


def test_masked_values_are_refused():
    with pytest.raises(ValueError, match="Argument dt must have no masked values, but it had 1"):
        ska.grid(dt=np.ma.array([0.1, 0.2], mask=[False, True]))


@pytest.mark.parametrize("over", [["seed"], {3: [1]}])
def test_axes_have_names(untyped, over):
    with pytest.raises(ValueError, match="Argument over must be axes by their names"):
        sweep(over=over)


@pytest.mark.parametrize(
    "over", [{"seed": [0], "scale": [1, 2]}, {"scale": [1]}, {"seed": [0], "a": [1], "b": [2]}]
)
def test_an_axis_that_nothing_reads_is_refused_by_name(over):
    unread = [name for name in over if name != "seed"]
    weights = start if "seed" in over else WEIGHTS
    words = (
        "Argument over must have axes that an argument is a function of, but nothing depends on "
    )
    with pytest.raises(ValueError, match=words + ", ".join(map(repr, unread))):
        sweep(weights, over=over)


def test_no_axis_has_a_name_that_results_have():
    data = sweep(final=True, observe=None)
    own = {*data.variables, *data.dims, *ska.sweeps.on_times(data).dims} - {"seed"}
    assert {*NAMES, "t", "time", "record", "layer", "output", "outcome", "parameter_dt"} <= own
    for name in own:
        make = eval(f"lambda {name}: WEIGHTS", {"WEIGHTS": WEIGHTS})
        if name == "steps":
            assert sweep(make, over={name: [5, 7]})["steps"].values.tolist() == [5, 7]
            continue
        with pytest.raises(ValueError, match=f"Argument {name} must be an axis other than"):
            sweep(make, over={name: [5, 7]})


# Functions.


class Starts:
    """Callable, with a method that is, too."""

    def __call__(self, seed):
        return start(seed)

    def bound(self, seed):
        return start(seed)

    @staticmethod
    def static(seed):
        return start(seed)


@functools.wraps(start)
def wrapped(*args, **kwargs):
    return start(*args, **kwargs)


FUNCTIONS = {
    "partial": functools.partial(lambda factor, seed: start(seed + factor), 0),
    "partial by name": functools.partial(lambda factor, seed: start(seed + factor), factor=0),
    "bound": Starts().bound,
    "static": Starts.static,
    "object": Starts(),
    "jitted": jax.jit(start),
    "cached": functools.cache(start),
    "wrapped": wrapped,
    "by place": lambda seed, /: start(seed),
    "by place, with more": lambda more=0, seed=1, /: start(seed + more),
    "by name": lambda *, seed: start(seed),
    "of all axes": lambda **axes: start(axes["seed"]),
    "with a default": lambda seed=7, more=0: start(seed + more),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_anything_that_can_be_called_is_a_function(kind):
    data = sweep(FUNCTIONS[kind])
    for seed in (0, 2):
        np.testing.assert_allclose(data.entropy.sel(seed=seed), single(start(seed)), rtol=1e-6)


def test_classes_are_functions_too():
    data = sweep(WEIGHTS, ska.Euler, over=ska.grid(dt=[0.2, 0.1]))
    np.testing.assert_allclose(data.entropy.sel(dt=0.1), single(WEIGHTS), rtol=1e-6)
    over = ska.grid(dt=[0.1], x=[1, 0.5])
    data = sweep(WEIGHTS, ska.Euler, steps=None, t1=float, over=over)
    assert np.isfinite(data.t).sum("record").values.tolist() == [[11, 6]]


def test_a_function_without_a_signature_is_refused_by_name():
    with pytest.raises(ValueError, match=r"Argument steps must be a function of axes, .*'seed'"):
        sweep(steps=max)


# Lanes that raise errors.

ERRORS = {
    "OSError": OSError(5, "disk gone"),
    "TypeError": TypeError("no number"),
    "of JAX": jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
    "text that no file holds": RuntimeError("a\0b \ud800"),
    "MemoryError": MemoryError(),
}


@pytest.mark.parametrize(
    ("kind", "stored"),
    [*((kind, False) for kind in ERRORS), ("OSError", True), ("text that no file holds", True)],
)
def test_an_error_in_a_function_loses_its_lane_alone(kind, stored, tmp_path):
    def weights(seed):
        if seed == 2:
            raise ERRORS[kind]
        return start(seed)

    name = type(ERRORS[kind]).__name__
    over = ska.grid(dt=[0.1, 0.2], seed=[1, 2, 3])
    options = {"store": tmp_path} if stored else {}
    with pytest.warns(LanesFailed, match=rf"2 of 6 .*\n  2 lanes raised {name}.*; lane 1 \(dt = 0.1, "
                      r"seed = 2\), lane 4 \(dt = 0.2, seed = 2\)"):  # fmt: skip
        data = sweep(weights, ska.Euler, over=over, **options)
    assert (data.outcome_code.sel(seed=[1, 3]) == 0).all()
    assert (data.outcome_code.sel(seed=2) == -4).all()
    told = data.outcome.sel(dt=0.2, seed=2).item()
    assert told.startswith(f"raised {name}: ") and told.endswith(", in lane 4 (dt = 0.2, seed = 2)")
    one = single(start(3), ska.Euler(0.2))
    np.testing.assert_allclose(data.entropy.sel(dt=0.2, seed=3), one, rtol=1e-6)
    if stored:
        status = Store.open(tmp_path).status()
        assert (status.done, status.failed, status.refused) == (4, 2, 0)
        # Whatever it was, it may be over; lanes that are done do not run again.
        done = sorted(path.name for path in (tmp_path / "chunks").iterdir())
        want = sweep(start, ska.Euler, over=over)
        xr.testing.assert_identical(
            again := sweep(start, ska.Euler, over=over, store=tmp_path), want
        )
        assert Store.open(tmp_path).status()[:4] == (6, 6, 0, 0)
        assert set(done) < {path.name for path in (tmp_path / "chunks").iterdir()}
        xr.testing.assert_identical(ska.load_sweep(tmp_path), again)


def test_an_error_on_the_way_back_costs_nothing_that_is_done(tmp_path):
    sweep(store=tmp_path)

    def fails(seed):
        if seed == 1:
            raise OSError("gone")
        return start(seed)

    xr.testing.assert_identical(sweep(fails, store=tmp_path), sweep())
    with pytest.raises(ValueError, match=r"weights is .* now with other values"):
        sweep(lambda seed: start(seed + 1), store=tmp_path)


def test_of_an_axis_that_grew_nothing_else_is_said_to_differ(tmp_path):
    over = {"seed": range(2)}
    sweep(over=over, store=tmp_path)
    grown = {"seed": range(3)}
    with pytest.raises(ValueError) as error:
        sweep(over=grown, store=tmp_path)
    told = str(error.value)
    assert "another: axis seed was [0, 1], and is [0, 1, 2]. Name another folder" in told
    with pytest.raises(ValueError, match=r"is \[0, 1, 2\]; method was Euler.* Name"):
        sweep(method=ska.Euler(0.2), over=grown, store=tmp_path)


def test_what_ends_the_process_ends_the_sweep():
    for error in (KeyboardInterrupt, SystemExit):

        def weights(seed, error=error):
            raise error

        with pytest.raises(error):
            sweep(weights)


@pytest.mark.filterwarnings("ignore:.*saturated")
@pytest.mark.parametrize("at_once", [1, 4])
def test_an_error_while_a_lane_runs_loses_it_alone(at_once, monkeypatch, caplog):
    evolve, together = ska.Euler.evolve, _runner.evolve_together

    def full(self, problem, weights, request):
        if float(weights[0].b[0]) == 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return evolve(self, problem, weights, request)

    def full_together(lanes, *args, **options):
        if any(float(lane.weights[0].b[0]) == 2 for lane in lanes):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return together(lanes, *args, **options)

    monkeypatch.setattr(ska.Euler, "evolve", full)
    monkeypatch.setattr(_runner, "evolve_together", full_together)
    tell_once.cache_clear()  # so that it is told here, whatever ran before
    biased = lambda bias: ska.mlp([6, 4], bias=float(bias)).init(jax.random.key(0), X)
    with pytest.warns(LanesFailed, match=r"1 lane raised JaxRuntimeError.*; lane 2 \(bias = 2\)"):
        data = sweep(biased, over={"bias": range(4)}, at_once=at_once)
    assert data.outcome_code.values.tolist() == [0, 0, -4, 0]
    told = (
        "4 lanes run one by one, because together they failed with JaxRuntimeError" in caplog.text
    )
    assert told == (at_once == 4)


def test_a_network_that_cannot_be_planned_loses_its_lanes_alone(monkeypatch):
    name = _plan._name

    def fails(spec):
        if len(spec.network.layers) == 2:
            raise TypeError("no such shape")
        return name(spec)

    monkeypatch.setattr(_plan, "_name", fails)
    network = lambda depth: ska.mlp([3] * depth)
    with pytest.warns(LanesFailed, match=r"1 lane raised TypeError.*; lane 1 \(depth = 2\)"):
        data = ska.sweep(
            network, lambda depth: network(depth).init(jax.random.key(0), X), X, EULER, steps=2,
            over=ska.grid(depth=[1, 2, 3]), observe=("entropy",), at_once=1,
        )  # fmt: skip
    assert data.outcome_code.values.tolist() == [0, -4, 0]


@pytest.mark.parametrize("stored", [False, True])
def test_no_lane_at_all_is_an_error_whenever_that_shows(stored, tmp_path, monkeypatch):
    options = {"store": tmp_path} if stored else {}
    nan = lambda seed: jax.tree.map(lambda w: w * jnp.float32(np.nan), WEIGHTS)
    for _ in range(2):  # the second finds them refused in the store
        with pytest.raises(ValueError, match="weights must be finite"):
            sweep(nan, **options)

    def fails(*_):
        raise TypeError("no such method")

    monkeypatch.setattr(ska.Euler, "evolve", fails)
    with pytest.raises(
        ValueError, match=r"Argument over must .* TypeError: no such method, in lane 0"
    ):
        sweep(at_once=1)


def test_reasons_are_grouped_and_counted():
    with pytest.warns(LanesFailed) as told:
        sweep(
            start, ska.Euler, t1=0.4, steps=None, over=ska.grid(dt=[0.1, 0.03, 0.07], seed=range(3))
        )
    first, second = str(told[0].message).split("\n")
    assert first == "6 of 9 lanes did not come to their ends:"
    assert second.startswith("  6 lanes refused: Argument t1 must be a whole number of steps")
    assert second.endswith("lane 5 (dt = 0.03, seed = 2), 3 more")
    plan = str(
        sweep(
            start, ska.Euler, t1=0.4, steps=None, dry=True, over={"dt": [0.1, 0.03], "seed": [1, 2]}
        )
    )
    assert "2 refused, ValueError: Argument t1 must be" in plan


def test_a_sweep_without_failures_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep()
