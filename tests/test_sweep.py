"""Sweeps: every lane is its single run, none costs more, and none harms another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import skajax as ska
from skajax.sweeps import _plan

X = jax.random.uniform(jax.random.key(0), (10, 8))
NETWORK = ska.mlp([6, 4], scale=0.3)
WEIGHTS = NETWORK.init(jax.random.key(0), X)
FEW = {"observe": ("entropy", "tensor_net", "output_mean")}  # of layers, and of outputs


def start(seed):
    return NETWORK.init(jax.random.key(seed), X)


def assert_is_single(lane, run):
    """Bit for bit, and NaN beyond."""
    kept = len(run.t)
    np.testing.assert_array_equal(lane.t[:kept], run.t)
    for name in run.observables:
        want = np.asarray(getattr(run, name))
        got = lane[name].values
        np.testing.assert_array_equal(got[:kept, : want.shape[1]], want, name)
        assert np.isnan(got[kept:]).all() and np.isnan(got[:, want.shape[1] :]).all()
    assert lane.outcome.item() == str(run.outcome)
    assert int(lane.outcome_code) == int(run.outcome.code)
    assert int(lane.steps) == int(run.stats.steps)


def test_every_lane_is_its_single_run_and_makes_no_step_more():
    steps = (0.1, 0.02, 0.01)
    data = ska.sweep(
        NETWORK, start, X, lambda dt: ska.Published(dt), t1=0.5,
        over=ska.grid(dt=steps, seed=range(2)), at_once=1,
    )  # fmt: skip
    assert data.sizes == {"dt": 3, "seed": 2, "record": 49, "layer": 2, "output": 4}
    for dt in steps:
        for seed in range(2):
            run = ska.simulate(NETWORK, start(seed), X, ska.Published(dt), 0.5)
            assert_is_single(data.sel(dt=dt, seed=seed), run)
    assert int(data.steps.sum()) == 2 * (4 + 24 + 49)
    assert data.steps.values[:, 0].tolist() == [4, 24, 49]


def test_what_lanes_have_in_common_is_made_once(monkeypatch):
    made = []

    def count(name):
        function = getattr(_plan, name)
        monkeypatch.setattr(_plan, name, lambda *args: made.append(name) or function(*args))

    names = ["pose", "as_arrays", "numbers", "expected_knowledge"]
    for name in names:
        count(name)
    data = ska.sweep(
        NETWORK, start, X, lambda dt: ska.Euler(dt), steps=3,
        over=ska.grid(dt=[0.1, 0.05], seed=range(8)), **FEW,
    )  # fmt: skip
    assert data.sizes["seed"] == 8
    assert sorted(made) == sorted(2 * names)  # once for each method


def test_the_order_of_lanes_changes_nothing(compilations):
    sweep = lambda steps: ska.sweep(
        NETWORK, WEIGHTS, X, lambda dt: ska.Euler(dt), t1=0.5, over=ska.grid(dt=steps), **FEW
    )
    forward = sweep([0.1, 0.05])
    with compilations() as found:
        backward = sweep([0.05, 0.1])
    assert found == []  # lanes of one shape share their program
    xr.testing.assert_identical(backward.sel(dt=[0.1, 0.05]), forward)


def test_a_list_of_methods_is_an_axis():
    methods = [ska.Euler(0.1), ska.Adaptive(), ska.Published(0.1)]
    data = ska.sweep(NETWORK, WEIGHTS, X, methods, t1=0.5, **FEW)
    assert data["method"].values.tolist() == [method.name for method in methods]
    for n, method in enumerate(methods):
        run = ska.simulate(NETWORK, WEIGHTS, X, method, 0.5, **FEW)
        assert_is_single(data.isel(method=n), run)


def test_networks_and_data_of_different_shapes():
    network = lambda width, depth: ska.mlp([width] * depth)
    inputs = lambda width: X[: 2 * width]
    weights = lambda width, depth: network(width, depth).init(jax.random.key(0), inputs(width))
    data = ska.sweep(
        network, weights, inputs, ska.Euler(0.1), steps=3,
        over=ska.grid(width=[2, 5], depth=[1, 3]), **FEW,
    )  # fmt: skip
    assert data.sizes["layer"] == 3 and data.sizes["output"] == 5
    for width, depth in [(2, 1), (5, 3), (2, 3)]:
        run = ska.simulate(
            network(width, depth), weights(width, depth), inputs(width),
            ska.Euler(0.1), steps=3, **FEW,
        )  # fmt: skip
        assert_is_single(data.sel(width=width, depth=depth), run)


def test_failures_are_data_and_harm_no_other():
    def weights(lane):
        factor = {"nan": np.nan, "zero": 0.0}.get(lane, 1.0)
        return jax.tree.map(lambda w: w * jnp.float32(factor), WEIGHTS)

    method = lambda lane: {
        "diverges": ska.Euler(1e37),
        "too few": ska.Adaptive(max_steps=1),
    }.get(lane, ska.Adaptive())
    names = ["good", "nan", "diverges", "too few", "zero", "good too"]
    with pytest.warns(ska.sweeps.LanesFailed) as told:
        data = ska.sweep(NETWORK, weights, X, method, lambda lane: 1e38 if lane == "diverges" else 1.0,
                         over=ska.grid(lane=names), **FEW)  # fmt: skip
    (warning,) = map(str, (each.message for each in told))
    assert warning.startswith(
        "3 of 6 lanes did not come to their ends:\n  1 lane refused: Argument"
    )
    assert "; lane 1 (lane = nan)" in warning and "1 lane diverged" in warning
    told = dict(zip(names, data.outcome.values, strict=True))
    for lane in ("good", "zero", "good too"):
        assert told[lane].startswith("completed")
    assert told["nan"].startswith("refused: Argument weights must be finite")
    assert int(data.outcome_code.sel(lane="nan")) == -2
    assert told["diverges"].startswith("diverged") and "max_steps = 1" in told["too few"]
    xr.testing.assert_equal(
        data.entropy.sel(lane="good", drop=True), data.entropy.sel(lane="good too", drop=True)
    )
    assert np.isfinite(data.entropy.sel(lane="good")).all()


def test_a_rule_ends_each_lane_for_itself():
    rule = ska.stop.FlowConverged(0.6)
    data = ska.sweep(NETWORK, start, X, ska.Euler(0.02), t1=6.0, until=rule,
                     over=ska.grid(seed=range(3)), **FEW)  # fmt: skip
    ends = data.outcome_t.values
    assert len(set(ends)) == 3
    for seed in range(3):
        run = ska.simulate(NETWORK, start(seed), X, ska.Euler(0.02), 6.0, until=rule, **FEW)
        assert float(run.final.t) == ends[seed]


def test_the_result_goes_to_a_file_and_back(tmp_path):
    data = ska.sweep(NETWORK, start, X, ska.Euler(0.1), steps=3, over=ska.grid(seed=range(2)))
    data.to_netcdf(tmp_path / "sweep.nc", engine="h5netcdf")
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "sweep.nc", engine="h5netcdf"), data)


EULER = ska.Euler(0.1)
BAD = {
    "no axis": (lambda: ska.sweep(NETWORK, WEIGHTS, X, EULER, 0.5), "over", "at least one axis"),
    "no method": (lambda: ska.sweep(NETWORK, WEIGHTS, X, [], 0.5), "method", "at least one"),
    "unknown axis": (
        lambda: ska.sweep(NETWORK, lambda sead: WEIGHTS, X, EULER, 0.5, over=ska.grid(seed=[1])),
        "weights",
        "sead",
    ),
    "empty axis": (lambda: ska.grid(seed=[]), "seed", "at least one value"),
    "taken axis": (lambda: ska.grid(layer=[1]), "layer", "other than"),
    "twice": (
        lambda: ska.sweep(NETWORK, WEIGHTS, X, [EULER], 0.5, over=ska.grid(method=[1])),
        "over",
        "'method'",
    ),
    "all lanes": (
        lambda: ska.sweep(NETWORK, start, X, EULER, 0.55, over=ska.grid(seed=range(2))),
        "t1",
        "whole number of steps",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sweeps_are_refused(untyped, case):
    make, argument, word = BAD[case]
    with pytest.raises(ValueError, match=f"Argument {argument} must .*{word}"):
        make()
