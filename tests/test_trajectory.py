"""Results as labelled datasets, and as files that come back bit for bit."""

import dataclasses
import errno
import json
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference as ref
import xarray as xr

import skajax as ska
from skajax import _files
from skajax.observables import BY_NAME

FEW = ("entropy", "tensor_net", "output_mean")
METHODS = {
    "Euler": (ska.Euler(0.1), {"steps": 5}),
    "Published": (ska.Published(0.1), {"steps": 5}),
    "Descent": (ska.Descent(optax.adam(0.1)), {"steps": 5}),
    "Adaptive": (ska.Adaptive(rtol=1e-3), {"t1": 1.0, "save_at": np.array([0.5, 1.0])}),
}


@cache
def simulated(name="Euler", dtype=jnp.float32, scale=1.0, observe=FEW):
    method, span = METHODS[name]
    network, weights, x = ref.SMALL.arrays(dtype)
    return ska.simulate(network, weights, scale * x, method, observe=observe, **span)


def assert_same(got, want):
    """The same tree of the same bits."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, g), w in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
        where = jax.tree_util.keystr(path)
        g, w = np.asarray(g), np.asarray(w)
        assert g.dtype == w.dtype, where
        assert g.shape == w.shape, where
        assert g.tobytes() == w.tobytes(), where


# To xarray.


@pytest.mark.parametrize("name", ["Euler", "Published"])
def test_a_run_as_a_dataset(name):
    run = simulated(name, observe=None)
    data = run.to_dataset(attrs={"seed": 3})
    records = len(run.t)
    assert dict(data.sizes) == {"time": records, "layer": 2, "output": 3}
    np.testing.assert_array_equal(data.time, run.t)
    np.testing.assert_array_equal(data.layer, [1, 2])
    for observable, label in BY_NAME.items():
        variable = data[observable]
        last = "output" if observable == "output_mean" else "layer"
        assert variable.dims == ("time", last)
        assert variable.dtype == np.float32
        np.testing.assert_array_equal(variable, getattr(run, observable))
        assert variable.attrs["units"] == label.unit
        assert variable.attrs["long_name"] == label.label
    units = {
        n: data[n].attrs["units"] for n in ("entropy", "entropy_rate", "lagrangian", "flow_norm")
    }
    assert units == {
        "entropy": "bit",
        "entropy_rate": "bit/time",
        "lagrangian": "nat/time",
        "flow_norm": "1/time",
    }
    assert data.attrs["seed"] == 3
    assert data.attrs["method"] == name
    assert data.attrs["precision"] == "float32"
    assert data.attrs["outcome"] == str(run.outcome)
    assert data.attrs["skajax_version"] == ska.__version__
    assert data.attrs["jax_version"] == jax.__version__
    assert "cpu" in data.attrs["device"].lower()
    assert [layer["width"] for layer in json.loads(data.attrs["network"])] == [5, 3]
    np.testing.assert_allclose(data.parameter_dt, 0.1, rtol=1e-7)
    assert int(data.steps) == int(run.stats.steps)
    # By label, as one would in a notebook.
    picked = data.entropy.sel(layer=2).isel(time=-1)
    assert picked == run.entropy[-1, 1]


def test_a_dataset_with_the_final_state():
    run = simulated()
    data = run.to_dataset(final=True)
    np.testing.assert_array_equal(data["final_weights_0_W"], run.final.weights[0].W)
    np.testing.assert_array_equal(data["final_weights_1_b"], run.final.weights[1].b)
    np.testing.assert_array_equal(data["final_Z_1"], run.final.Z[1])
    assert "final_Z_1" not in run.to_dataset()


@cache
def vmapped(name):
    """Two by three runs."""
    method, span = METHODS[name]
    network, weights, x = ref.SMALL.arrays(jnp.float32)
    lanes = jax.tree.map(lambda w: jnp.stack([w, 2 * w]), weights)
    lanes = jax.tree.map(lambda w: jnp.stack([w, w, 3 * w]), lanes)
    one = jax.vmap(lambda w: ska.simulate(network, w, x, method, observe=FEW, **span))
    return jax.jit(jax.vmap(one))(lanes)


@cache
def stepping():
    """A run of each of two steps, in one program."""
    network, weights, x = ref.SMALL.arrays(jnp.float32)
    one = lambda dt: ska.simulate(network, weights, x, ska.Euler(dt), steps=5, observe=FEW)
    return jax.jit(jax.vmap(one))


def of_steps(dts):
    return stepping()(jnp.array(dts))


def test_a_batch_of_runs_as_a_dataset():
    runs = vmapped("Euler")
    data = runs.to_dataset(lanes=("scale", "seed"))
    assert dict(data.sizes) == {"scale": 3, "seed": 2, "time": 6, "layer": 2, "output": 3}
    assert data.entropy.dims == ("scale", "seed", "time", "layer")
    np.testing.assert_array_equal(data.entropy, runs.entropy)
    np.testing.assert_array_equal(data.time, runs.t[0, 0])  # shared by all lanes
    assert data.outcome_code.dims == ("scale", "seed")


def test_a_batch_of_runs_with_their_own_times():
    runs = of_steps([0.1, 0.2])
    data = runs.to_dataset(lanes=["dt"])
    assert data.t.dims == ("dt", "time")
    np.testing.assert_array_equal(data.t, runs.t)
    np.testing.assert_array_equal(data.parameter_dt, np.float32([0.1, 0.2]))


def test_lanes_must_be_named(untyped):
    for run, lanes in (
        (simulated(), ("seed",)),
        (vmapped("Euler"), ()),
        (vmapped("Euler"), ("a",)),
    ):
        with pytest.raises(ValueError) as error:
            run.to_dataset(lanes=lanes)
        assert str(error.value).startswith("Argument lanes must name each of the run's")
        assert repr(tuple(lanes)) in str(error.value)


# To disk and back.


@pytest.mark.parametrize("name", METHODS)
def test_a_saved_run_comes_back_bit_for_bit(name, tmp_path):
    run = simulated(name, observe=None if name == "Euler" else FEW)
    run.save(tmp_path / "run.nc", attrs={"seed": 1})
    back = ska.load(tmp_path / "run.nc")
    assert_same(back, run)
    assert back.network == run.network
    assert back.method == run.method
    assert str(back.outcome) == str(run.outcome)
    assert isinstance(back.final.weights[0], ska.DenseWeights)
    assert [path.name for path in tmp_path.iterdir()] == ["run.nc"]
    # Self-describing, for whoever has no skajax.
    with xr.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as data:
        assert data.attrs["seed"] == 1
        assert data.entropy.attrs["units"] == "bit"


def test_a_run_that_tells_no_evaluations_comes_back(tmp_path):
    run = simulated()
    run = run.replace(stats=dataclasses.replace(run.stats, evaluations=None))
    run.save(tmp_path / "run.nc")
    assert ska.load(tmp_path / "run.nc").stats.evaluations is None


def test_a_method_with_an_array_among_its_numbers_comes_back(tmp_path):
    # Such as diffrax.StepTo's times, or those of diffrax.ClipStepSizeController.
    ts = jnp.array([0.0, 0.5, 0.7])
    run = simulated()
    run = run.replace(parameters=run.parameters | {"controller_ts": ts})
    run.save(tmp_path / "run.nc")
    assert_same(ska.load(tmp_path / "run.nc"), run)
    runs = vmapped("Euler")
    ts = jnp.broadcast_to(ts, (3, 2, 3))
    runs = runs.replace(parameters=runs.parameters | {"controller_ts": ts})
    runs.save(tmp_path / "runs.nc")
    assert_same(ska.load(tmp_path / "runs.nc"), runs)


def test_a_float64_run_comes_back_bit_for_bit(tmp_path, x64):
    run = simulated("Euler", jnp.float64)
    assert run.entropy.dtype == jnp.float64
    run.save(tmp_path / "run.nc")
    assert_same(ska.load(tmp_path / "run.nc"), run)


@pytest.mark.parametrize("name", ["Euler", "Published"])
def test_a_batch_of_runs_comes_back_bit_for_bit(name, tmp_path):
    runs = vmapped(name)
    runs.save(tmp_path / "runs.nc")
    assert_same(ska.load(tmp_path / "runs.nc"), runs)


def test_a_batch_whose_lanes_have_their_own_times_comes_back(tmp_path):
    runs = of_steps([0.1, 1e37])
    assert np.isnan(runs.entropy[1, -1]).all()  # one lane diverged
    runs.save(tmp_path / "runs.nc")
    assert_same(ska.load(tmp_path / "runs.nc"), runs)


def test_a_continued_run_is_the_run(tmp_path):
    # What comes back is good to go on with: 5 steps and 5 more are 10.
    simulated("Euler").save(tmp_path / "run.nc")
    half = ska.load(tmp_path / "run.nc")
    network, weights, x = ref.SMALL.arrays(jnp.float32)
    span = {"method": ska.Euler(0.1), "observe": ()}
    more = ska.simulate(half.network, half.final.weights, x, steps=5, **span)
    whole = ska.simulate(network, weights, x, steps=10, **span)
    for got, want in zip(
        jax.tree.leaves(more.final.weights), jax.tree.leaves(whole.final.weights), strict=True
    ):
        np.testing.assert_array_equal(got, want)


@pytest.mark.filterwarnings("ignore:.*saturated")
def test_a_run_without_records_can_be_kept_too(tmp_path):
    run = simulated("Euler", scale=1e37, observe=("knowledge_norm", "output_mean"))
    assert len(run.t) == 0
    assert dict(run.to_dataset().sizes) == {"time": 0, "layer": 2, "output": 3}
    run.save(tmp_path / "run.nc")
    assert_same(ska.load(tmp_path / "run.nc"), run)


def test_a_run_on_the_host_can_be_kept_too(tmp_path):
    run = jax.device_get(simulated())
    run.save(tmp_path / "run.nc")
    assert_same(ska.load(tmp_path / "run.nc"), run)


def test_a_failure_while_writing_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "run.nc"
    simulated("Euler").save(path)
    before = path.read_bytes()

    def full(_):  # what was written by then is there
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_files.os, "fsync", full)
    for target in (path, tmp_path / "new.nc"):
        with pytest.raises(OSError, match="No space left"):
            simulated("Published").save(target)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.nc"]
    monkeypatch.undo()
    assert_same(ska.load(path), simulated("Euler"))


def test_saving_replaces(tmp_path):
    path = tmp_path / "run.nc"
    simulated("Euler").save(path)
    simulated("Published").save(str(path))
    assert_same(ska.load(str(path)), simulated("Published"))


def assert_named(path, *words):
    with pytest.raises(ValueError) as error:
        ska.load(path)
    message = str(error.value)
    assert message.startswith("Argument path must ")
    for word in words:
        assert word in message


def test_a_missing_file_is_named(tmp_path):
    assert_named(tmp_path / "none.nc", "none.nc")
    assert_named(tmp_path, str(tmp_path))


@pytest.mark.parametrize("kept", [0, 7, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_named(kept, tmp_path):
    path = tmp_path / "run.nc"
    simulated().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if kept > 1 else int(kept * len(whole))])
    assert_named(path, "run.nc")


def test_foreign_files_are_named(tmp_path):
    path = tmp_path / "other.nc"
    path.write_text("time,entropy\n0,1\n")
    assert_named(path, "other.nc")
    xr.Dataset({"entropy": ("time", np.ones(3))}).to_netcdf(path, engine="h5netcdf")
    assert_named(path, "format")


def test_a_file_of_ours_with_a_part_missing_is_named(tmp_path):
    path = tmp_path / "run.nc"
    simulated().save(path)
    data = xr.load_dataset(path, engine="h5netcdf")
    for name in ("entropy", "final_weights_0_W", "outcome_code", "steps"):
        data.drop_vars(name).to_netcdf(path, engine="h5netcdf")
        assert_named(path, name)
    data.attrs.pop("network")
    data.to_netcdf(path, engine="h5netcdf")
    assert_named(path, "network")


@dataclasses.dataclass(frozen=True)
class Own:
    """A user's own layer."""

    width: int

    def init(self, key, x):
        return ska.Dense(self.width).init(key, x)

    def knowledge(self, weights, x):
        return x @ weights.W + weights.b[None, :]


class Parts(NamedTuple):
    """Weights of a structure of their own."""

    W: Any
    deep: dict[str, Any]


class Plain:
    """Another, without a repr of its own, or anything that a file could hold."""

    def __init__(self):
        self.kernel = np.eye(4, dtype=np.float32)

    def init(self, key, x):
        return Parts(ska.Dense(4).init(key, x).W, {"in/side": jnp.ones((x.shape[1],))})

    def knowledge(self, weights, x):
        return x @ weights.W @ self.kernel + (x @ weights.deep["in/side"])[:, None]


NETWORKS = {
    "own": ska.Network((Own(4),)),
    "a class without a repr": ska.Network((Plain(), Own(3))),
    "own below ours": ska.Network((Plain(), ska.Dense(3))),
    "own above ours": ska.Network((ska.Dense(3), Plain(), ska.Paced(ska.Dense(2), 2.0))),
    "ours, with own within": ska.Network((ska.Paced(type("Dense", (ska.Dense,), {})(3)),)),
}


@pytest.mark.filterwarnings("ignore:.*saturated")
@pytest.mark.parametrize(
    "case",
    [
        "own",
        pytest.param("a class without a repr", marks=pytest.mark.thorough),
        pytest.param("own below ours", marks=pytest.mark.thorough),
        "own above ours",
        "ours, with own within",
    ],
)
def test_a_layer_that_load_cannot_know_costs_no_record(case, tmp_path):
    network, x = NETWORKS[case], jax.random.uniform(jax.random.key(1), (5, 6))
    run = ska.simulate(
        network, network.init(jax.random.key(0), x), x, ska.Euler(0.1), steps=2, observe=FEW
    )
    assert "0x" not in run.to_dataset().attrs["network"]
    path = tmp_path / "run.nc"
    run.save(path)
    assert_same(ska.load(path, network=network), run)
    back = ska.load(path)
    assert_same(back.observables, run.observables)
    assert_same((back.t, back.stats, back.final.Z), (run.t, run.stats, run.final.Z))
    assert_same(jax.tree.leaves(back.final), jax.tree.leaves(run.final))
    with pytest.raises(ValueError, match=r"Argument network must .* load\(path, network=...\)"):
        back.network.init(jax.random.key(0), x)
    back.save(tmp_path / "again.nc")
    assert_same(ska.load(tmp_path / "again.nc", network=network), run)


def test_another_network_is_not_taken_for_the_files(untyped, tmp_path):
    path, network = tmp_path / "run.nc", NETWORKS["own above ours"]
    x = jnp.ones((5, 6))
    start = network.init(jax.random.key(0), x)
    ska.simulate(network, start, x, ska.Euler(0.1), steps=2, observe=()).save(path)
    first, second, third = network.layers
    for other in (
        (first, second),
        (first, second, ska.Dense(2)),
        (first, Own(4), third),
        (first, object, third),
    ):
        with pytest.raises(ValueError, match=r"Argument (network|layers) must"):
            ska.load(path, network=ska.Network(other))
    with pytest.raises(ValueError, match="Argument network must be a Network, or None"):
        ska.load(path, network="Own")


def test_a_file_of_a_layer_as_it_was_told_before_is_read(tmp_path):
    x = jnp.ones((5, 6))
    run = ska.simulate(NETWORKS["own"], NETWORKS["own"].init(jax.random.key(0), x), x,
                       ska.Euler(0.1), steps=2, observe=FEW)  # fmt: skip
    run.save(tmp_path / "run.nc")
    data = xr.load_dataset(tmp_path / "run.nc", engine="h5netcdf")
    del data.attrs["inputs"]
    data.attrs["network"] = '[{"type": "Own", "width": 4}]'
    data.to_netcdf(tmp_path / "old.nc", engine="h5netcdf")
    assert_same(ska.load(tmp_path / "old.nc").observables, run.observables)
    assert_same(ska.load(tmp_path / "old.nc", network=NETWORKS["own"]), run)


def test_a_float64_file_is_not_shortened_silently(tmp_path, x64):
    simulated("Euler", jnp.float64).save(tmp_path / "run.nc")
    jax.config.update("jax_enable_x64", False)
    assert_named(tmp_path / "run.nc", "float64", "jax_enable_x64")


def test_a_network_of_layers_within_layers_comes_back(tmp_path):
    x = jnp.ones((3, 4))
    network = ska.Network((ska.Paced(ska.Dense(5, scale=0.2), 2.0), ska.Dense(2)))
    start = network.init(jax.random.key(0), x)
    run = ska.simulate(network, start, x, ska.Euler(0.1), steps=2, observe=())
    run.save(tmp_path / "run.nc")
    assert ska.load(tmp_path / "run.nc").network == network
