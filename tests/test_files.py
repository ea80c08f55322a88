"""What is written: by any path, under names that no other writer has, with attributes of any kind."""

import errno
import json
import os
import pathlib
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import skajax as ska
from skajax import _files
from skajax.methods import _checkpoint, _fixed
from skajax.sweeps._store import Store

X = jax.random.uniform(jax.random.key(0), (6, 5))
NETWORK = ska.mlp([4, 3], scale=0.3)
WEIGHTS = NETWORK.init(jax.random.key(0), X)
OBSERVE = ("entropy", "tensor_net", "output_mean")


def run(weights=WEIGHTS, **options):
    asked = {"steps": 3, "observe": OBSERVE} | options
    return ska.simulate(NETWORK, weights, X, ska.Euler(0.1), **asked)


def sweep(store):
    weights = lambda seed: NETWORK.init(jax.random.key(seed), X)
    return ska.sweep(
        NETWORK, weights, X, ska.Euler(0.1), steps=2, over={"seed": range(2)}, store=store,
        observe=OBSERVE,
    )  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and another to work in."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    assert os.listdir(tmp_path / "here") == []


# Attributes.


RESERVED = (
    "format",
    "method",
    "network",
    "precision",
    "outcome",
    "rules",
    "skajax_version",
    "inputs",
)
LOST = ("coordinates", "NAME", "_NCProperties", "", 3)


@pytest.mark.parametrize("name", [*RESERVED, *LOST])
def test_names_that_a_run_has_itself_are_refused_before_anything_is_written(
    untyped, name, tmp_path
):
    for act in (
        lambda: run().save(tmp_path / "run.nc", attrs={name: "baseline"}),
        lambda: run().to_dataset(attrs={name: "baseline"}),
    ):
        with pytest.raises(ValueError, match=f"Argument attrs must have .*{name}"):
            act()
    assert os.listdir(tmp_path) == []


VALUES = {
    "text": ("η", "η"),
    "whole": (3, 3),
    "true": (True, "True"),
    "none": (None, "None"),
    "path": (pathlib.Path("data") / "x", os.path.join("data", "x")),
    "of NumPy": (np.float32(0.5), 0.5),
    "truth of NumPy": (np.True_, "True"),
    "of JAX": (jnp.float32(0.5), 0.5),
    "bfloat16": (jnp.bfloat16(0.5), 0.5),
    "float16": (np.float16(0.5), 0.5),
    "0-d": (np.array(7), 7),
    "of xarray": (xr.DataArray(0.25), 0.25),
    "list": ([1, 2.5], [1.0, 2.5]),
    "array": (jnp.arange(3), [0, 1, 2]),
    "list of arrays": ([np.array(1.0), jnp.float32(2)], [1.0, 2.0]),
    "big": (2**70, str(2**70)),
    "list of big": ([2**70], f"[{2**70}]"),
    "complex": (1 + 2j, "(1+2j)"),
    "fraction": (Fraction(1, 3), "1/3"),
    "dict": ({"lr": 0.1, 3: (np.int64(1), None)}, '{"lr": 0.1, "3": [1, null]}'),
    "nested": ([[1, 2], ["a", jnp.float32(0.5)]], '[[1, 2], ["a", 0.5]]'),
    "empty": ((), "[]"),
    "names": (["a", "b"], '["a", "b"]'),
    "masked": (np.ma.array([1, 2], mask=[False, True]), "[1, null]"),
    "time": (np.datetime64("2020-01-02"), "2020-01-02"),
    "key": (jax.random.key(0), str(jax.random.key(0))),
}


def test_values_of_any_kind_are_numbers_or_text(tmp_path):
    given = {name.replace(" ", "-"): value for name, (value, _) in VALUES.items()}
    run().save(tmp_path / "run.nc", attrs={**given, "object": object()})
    ska.load(tmp_path / "run.nc")
    found = xr.load_dataset(tmp_path / "run.nc", engine="h5netcdf").attrs
    told = run().to_dataset(attrs=given).attrs
    for name, (_, want) in VALUES.items():
        for got in (found[name.replace(" ", "-")], told[name.replace(" ", "-")]):
            assert np.asarray(got).tolist() == want, name
    assert found["object"] == "<object object>"
    with Store(tmp_path / "store", {}, {"n": [1]}, attrs=given) as store:
        pass
    assert Store.open(store.path).manifest.attrs == {
        name.replace(" ", "-"): want for name, (_, want) in VALUES.items()
    }


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_no_file_holds_is_refused(text, tmp_path):
    with pytest.raises(
        ValueError, match=r"Argument attrs must hold text that a file can hold, .*'note'"
    ):
        run().save(tmp_path / "run.nc", attrs={"note": text})
    assert os.listdir(tmp_path) == []


# Paths.


def test_a_tilde_is_the_home_folder_everywhere(home):
    run().save("~/run.nc")
    assert len(ska.load("~/run.nc").t) == 4
    run(checkpoint="~/run.ckpt")
    run(checkpoint=pathlib.Path("~/run.ckpt"))
    sweep("~/lanes")
    assert ska.load_sweep("~/lanes").sizes["seed"] == 2
    assert sorted(os.listdir(home)) == ["lanes", "run.ckpt", "run.nc"]


@pytest.mark.parametrize("path", ["none/run.nc", "~/none/run.nc", "~"])
def test_a_folder_that_is_not_there_is_named_as_it_was_given(home, path):
    told = "must be a file in a folder that exists and can be written to, but it was"
    for act, argument in (
        (lambda: run().save(path), "path"),
        (lambda: run(checkpoint=path), "checkpoint"),
        (lambda: ska.extend(run(), steps=5, checkpoint=path), "checkpoint"),
    ):
        with pytest.raises(ValueError, match=f"Argument {argument} {told} '{path}'"):
            act()


def test_a_checkpoint_that_cannot_be_is_found_out_before_the_run(monkeypatch):
    monkeypatch.setattr(_fixed, "_steps", None)  # no step could be made
    with pytest.raises(ValueError, match="Argument checkpoint must"):
        run(checkpoint="none/run.ckpt")


def test_a_store_that_cannot_be_is_found_out_before_anything_is_made(tmp_path):
    (tmp_path / "file").touch()
    made = []
    with pytest.raises(ValueError, match="Argument store must be a folder that can be written to"):
        ska.sweep(
            NETWORK, lambda seed: made.append(seed), X, ska.Euler(0.1), steps=2,
            over={"seed": range(2)}, store=tmp_path / "file" / "lanes",
        )  # fmt: skip
    assert made == []


def test_an_error_while_writing_names_the_path_that_was_given(home, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(OSError) as error:
        run().save("~/run.nc")
    assert error.value.errno == errno.ENOSPC and error.value.filename == "~/run.nc"
    with pytest.warns(UserWarning, match=r"'~/run.ckpt' not written"):
        run(checkpoint="~/run.ckpt")
    assert os.listdir(home) == []


def test_a_name_as_long_as_names_may_be(tmp_path):
    path = tmp_path / ("é" * 126 + ".nc")
    run().save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


# Many writers.


def test_threads_that_write_one_file_leave_one_of_theirs(tmp_path):
    path, contents = tmp_path / "file", [b"a" * 4_000_000, b"b" * 400_000]

    def write(content):
        for _ in range(20):
            _files.write_whole(content, path)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, [*contents, *contents]))
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_threads_that_share_a_checkpoint_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(_checkpoint, "INTERVAL", 0.0)
    want = run(steps=20)
    go = lambda _: run(steps=20, checkpoint=tmp_path / "run.ckpt")
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(go, range(16)):
            np.testing.assert_array_equal(got.entropy, want.entropy)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.ckpt"]


# What is handed out.


@pytest.mark.parametrize("of", ["a run", "a dense run", "lanes", "a sweep", "a store"])
def test_a_dataset_is_the_callers_own(of, tmp_path):
    one = run()
    if of == "a dense run":
        one = ska.simulate(NETWORK, WEIGHTS, X, ska.Adaptive(), 0.2, dense=True, observe=OBSERVE)
    if of == "lanes":
        one = jax.jit(jax.vmap(lambda w: run(weights=w, steps=2)))(
            jax.tree.map(lambda w: jnp.stack([w, w]), WEIGHTS)
        )
    before = jax.tree.map(np.array, one)
    if of in ("a sweep", "a store"):
        data = sweep(tmp_path / "lanes" if of == "a store" else None)
    else:
        data = one.to_dataset(final=True, lanes=["lane"] if of == "lanes" else [])
    for name, item in data.variables.items():
        if name not in data.indexes and item.dtype.kind in "fiu":
            item.values[...] = 7
            assert (data[name] == 7).all()
    data["entropy"] -= data.entropy
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(np.all(a == b)), before, one))
    json.dumps(dict(data.attrs))
