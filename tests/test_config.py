"""Sweeps from TOML files: what each key comes to, and a kind word for each that fits nowhere."""

import inspect
import re

import diffrax
import jax
import numpy as np
import optax
import pytest
import xarray as xr

import skajax as ska
from skajax.cli._config import read

X, _ = ska.data.mnist_subset(1)


def written(tmp_path, text):
    path = tmp_path / "sweep.toml"
    path.write_text(text, encoding="utf-8")
    return path


def arguments(tmp_path, text):
    return read(written(tmp_path, text)).arguments()


def at(argument, **place):
    """An argument in one lane, as a sweep would ask for it."""
    if not inspect.isfunction(argument):
        return argument
    return argument(**{name: place[name] for name in inspect.signature(argument).parameters})


BASE = """
[data]
per_class = 1
[network]
widths = [4, 3]
[method]
name = "euler"
dt = 0.1
[run]
steps = 3
"""


def test_layers_within_layers(tmp_path):
    text = BASE.replace(
        "widths = [4, 3]",
        """layers = [
  { layer = "Dense", width = 4 },
  { layer = "Residual", stack = [{ layer = "Dense", width = 6 }, { layer = "Dense", width = 4 }] },
  { layer = "Merge", kind = "concatenate", branches = [[], [{ layer = "Dense", width = 2 }]] },
]""",
    )
    dense, layers = ska.Dense, ska.layers
    block = layers.Residual((dense(6), dense(4)))
    wide = layers.Merge(((), (dense(2),)), kind="concatenate")
    assert arguments(tmp_path, text)["network"] == ska.Network((dense(4), block, wide))


def test_a_layer_within_a_layer_is_checked(tmp_path):
    inner = '{ layer = "Residual", stack = [{ layer = "Dens", width = 4 }] }'
    with pytest.raises(ValueError, match=r"'Dens'; did you mean 'Dense'\?"):
        arguments(tmp_path, BASE.replace("widths = [4, 3]", f"layers = [{inner}]"))


def test_a_layer_within_any_other_has_a_rate_of_its_own(tmp_path):
    inner = '{ layer = "Dense", width = 4, rate = 0.5 }'
    layers = f'[{inner}, {{ layer = "Residual", stack = [{inner}] }}]'
    made = arguments(tmp_path, BASE.replace("widths = [4, 3]", f"layers = {layers}"))
    slow = ska.Paced(ska.Dense(4), 0.5)
    assert made["network"] == ska.Network((slow, ska.layers.Residual((slow,))))


def test_rules_within_rules(tmp_path):
    text = """until = { rule = "AllOf", rules = [
  { rule = "FlowConverged", fraction = 0.2 },
  { rule = "AnyOf", rules = [{ rule = "StructureStart" }, { rule = "ResidenceTime", time = 2 }] },
] }"""
    flow, start, residence = (
        ska.stop.FlowConverged(0.2),
        ska.stop.StructureStart(),
        ska.stop.ResidenceTime(2),
    )
    made = arguments(tmp_path, BASE.replace("steps = 3", text))["until"]
    assert made.names() == (flow & (start | residence)).names()


def test_a_sweep_from_a_file_is_that_of_its_words(tmp_path):
    text = BASE + "[grid]\ndt = [0.1, 0.05]\nseed = { start = 0, stop = 2, num = 3 }\n"
    got = ska.sweep(**arguments(tmp_path, text))
    network = ska.mlp([4, 3])
    want = ska.sweep(
        network,
        lambda seed: network.init(jax.random.key(seed), X),
        X,
        lambda dt: ska.Euler(dt),
        steps=3,
        over=ska.grid(dt=[0.1, 0.05], seed=range(3)),
    )
    xr.testing.assert_identical(got, want)


def test_what_no_axis_touches_is_the_same_in_all_lanes(tmp_path):
    made = arguments(tmp_path, BASE + "[grid]\ndt = [0.1]")
    assert made["network"] == ska.mlp([4, 3]) and made["steps"] == 3 and made["t1"] is None
    np.testing.assert_array_equal(made["x"], X)
    assert inspect.signature(made["method"]).parameters.keys() == {"dt"}
    want = ska.mlp([4, 3]).init(jax.random.key(0), X)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), made["weights"], want))


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ("[3, 1, 2]", (3, 1, 2)),
        ("{ start = 2, stop = 8, num = 4 }", (2, 4, 6, 8)),
        ("{ start = 1, stop = 2, num = 3 }", None),  # 1.5 is no seed
        ("{ start = 1, stop = 100, num = 3, spacing = 'log' }", (1, 10, 100)),
    ],
)
def test_whole_numbers_stay_whole(tmp_path, given, values):
    path = written(tmp_path, BASE + f"[grid]\nseed = {given}")
    if values is None:
        with pytest.raises(ValueError, match=r"grid\.seed must have values that are each a whole"):
            read(path)
        return
    assert read(path).axes == {"seed": values}
    assert all(type(value) is int for value in read(path).axes["seed"])


def test_numbers_are_spaced(tmp_path):
    text = (
        BASE
        + """[grid]
    scale = { start = 1e-3, stop = 1, num = 4, spacing = "log" }
    dt = { start = 0.1, stop = 0.3, num = 3 }"""
    )
    axes = read(written(tmp_path, text)).axes
    np.testing.assert_allclose(axes["scale"], [1e-3, 1e-2, 1e-1, 1], rtol=1e-12)
    np.testing.assert_allclose(axes["dt"], [0.1, 0.2, 0.3], rtol=1e-12)


METHODS = {
    "published": ("dt = 0.1", ska.Published(0.1)),
    "pipelined": ("dt = 0.1", ska.Pipelined(0.1)),
    "euler": ("dt = 1", ska.Euler(1)),
    "adaptive": ("", ska.Adaptive()),
    "adaptive ": (
        "solver = 'Dopri8'\nrtol = 1e-3\natol = 1e-5\ndt0 = 0.01\nmax_steps = 50",
        ska.Adaptive(diffrax.Dopri8(), rtol=1e-3, atol=1e-5, dt0=0.01, max_steps=50),
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods(tmp_path, name):
    numbers, want = METHODS[name]
    text = f"[method]\nname = '{name.strip()}'\n{numbers}\n[grid]\nseed = [1]\n"
    got = arguments(tmp_path, text)["method"]
    assert jax.tree.structure(got) == jax.tree.structure(want)
    assert jax.tree.leaves(got) == jax.tree.leaves(want)


def test_an_optimiser_with_its_options(tmp_path):
    text = BASE.replace('name = "euler"\ndt = 0.1', 'name = "descent"\noptimiser = "adam"')
    text = text.replace("[run]", "[method.options]\nb1 = 0.5\n[run]") + (
        "[grid]\nlearning_rate = [0.1, 0.01]"
    )
    made = arguments(tmp_path, text)
    weights = ska.mlp([4, 3]).init(jax.random.key(0), X)
    for rate in (0.1, 0.01):
        run = ska.simulate(
            ska.mlp([4, 3]), weights, X, at(made["method"], learning_rate=rate), steps=3
        )
        want = ska.simulate(
            ska.mlp([4, 3]), weights, X, ska.Descent(optax.adam(rate, b1=0.5)), steps=3
        )
        np.testing.assert_allclose(run.t, rate * np.arange(4), rtol=1e-6)  # not as measured
        np.testing.assert_allclose(run.entropy, want.entropy, rtol=1e-4)
        np.testing.assert_allclose(run.weight_norm, want.weight_norm, rtol=1e-4)


def test_methods_are_an_axis_whose_numbers_each_takes_its_own(tmp_path):
    text = """
    [method]
    dt = 0.1
    rtol = 1e-3
    [run]
    t1 = 0.5
    [grid]
    method = ["euler", "published", "adaptive"]
    solver = ["Tsit5", "Bosh3"]
    """
    make = arguments(tmp_path, text)["method"]
    assert at(make, method="euler", solver="Tsit5") == ska.Euler(0.1)
    assert at(make, method="published", solver="Bosh3") == ska.Published(0.1)
    assert isinstance(at(make, method="adaptive", solver="Bosh3").solver, diffrax.Bosh3)
    assert at(make, method="adaptive", solver="Bosh3").controller.rtol == 1e-3


def test_networks_of_any_shape(tmp_path):
    base = BASE.replace("[4, 3]", "[4, 6, 3]")
    for key, want in {
        "widths = [[5], [4, 3, 2]]": [[5], [4, 3, 2]],
        "width = [7, 8]": [[7, 7, 3], [8, 8, 3]],
        "depth = [1, 3]": [[4, 3], [4, 4, 4, 3]],
    }.items():
        made = arguments(tmp_path, base + f"[grid]\n{key}\nscale = [0.1, 0.2]\nseed = [0, 5]")
        axis = key.partition(" ")[0]
        for value, widths in zip(made["over"][axis], want, strict=True):
            place = {axis: value, "scale": 0.2, "seed": 5}
            network = at(made["network"], **place)
            assert network == ska.mlp(widths, scale=0.2)
            weights = at(made["weights"], **place)
            np.testing.assert_array_equal(weights[-1].W, network.init(jax.random.key(5), X)[-1].W)
    made = arguments(tmp_path, base + "[grid]\nwidth = [7]\ndepth = [2]")
    assert at(made["network"], width=7, depth=2) == ska.mlp([7, 7, 3])
    made = arguments(tmp_path, base + "[grid]\nscale = [[0.1, 0.2, 0.3]]\nbias = [1]")
    assert at(made["network"], scale=[0.1, 0.2, 0.3], bias=1) == ska.mlp(
        [4, 6, 3], scale=[0.1, 0.2, 0.3], bias=1.0
    )


def test_inputs_from_a_file_beside_it(tmp_path):
    images = np.arange(12.0).reshape(6, 2)
    np.savez(tmp_path / "inputs.npz", x=images, other=images[::-1])
    np.save(tmp_path / "inputs.npy", images.astype(int))
    for data, want in {
        'file = "inputs.npz"': images,
        'file = "inputs.npz"\narray = "other"': images[::-1],
        'file = "inputs.npy"\nsamples = 4': images[:4],
    }.items():
        text = BASE.replace("per_class = 1", data) + "[grid]\nseed = [0]"
        x = arguments(tmp_path, text)["x"]
        np.testing.assert_array_equal(x, want)
        assert x.dtype == np.float32
    text = BASE.replace("per_class = 1", 'file = "inputs.npz"') + "[grid]\nsamples = [2, 3]"
    made = arguments(tmp_path, text)
    assert at(made["x"], samples=3).shape == (3, 2)
    assert at(made["weights"], samples=3)[0].W.shape == (2, 4)
    made = arguments(tmp_path, BASE.replace("per_class = 1", "") + "[grid]\nper_class = [2, 3]")
    assert at(made["x"], per_class=3).shape == (30, 784)


def test_what_a_run_records_and_where_it_ends(tmp_path):
    tail = "\n[grid]\nseed = [0]\n"
    run = """
    t1 = 0.5
    save_at = { start = 0.0, stop = 0.5, num = 3 }
    until = [{ rule = "FlowConverged", fraction = 0.2 }, { rule = "StructureStart" }]
    reduction = "off"
    dtype = "float64"
    """
    config = read(written(tmp_path, BASE.replace("steps = 3", run) + tail))
    made = config.arguments()
    assert config.dtype == "float64" and made["x"].dtype == np.float64
    assert made["t1"] == 0.5 and made["steps"] is None and made["reduction"] == "off"
    np.testing.assert_array_equal(made["save_at"], [0, 0.25, 0.5])
    both = ska.stop.FlowConverged(0.2) | ska.stop.StructureStart()
    assert made["until"].names() == both.names()
    one = BASE.replace("steps = 3", 'until = { rule = "ResidenceTime", time = 2 }\nsave_at = "end"')
    made = arguments(tmp_path, one + "[grid]\nt1 = [1, 2.5]")
    assert made["until"].names() == ska.stop.ResidenceTime(2).names()
    assert made["save_at"] == "end" and at(made["t1"], t1=2.5) == 2.5


GRID = "\n[grid]\nseed = [0]\n"


@pytest.mark.parametrize("axis", [False, True])
@pytest.mark.parametrize("value", ["-0.1", "0", "0.0", "true", "nan", "-inf", "'0.1'"])
@pytest.mark.parametrize(
    "key",
    [
        "dt",
        "rtol",
        "atol",
        "dt0",
        "max_steps",
        "learning_rate",
        "t1",
        "steps",
        "per_class",
        "scale",
    ],
)
def test_numbers_that_cannot_be_are_refused_when_the_file_is_read(tmp_path, key, value, axis):
    if key == "scale" and value in ("0", "0.0"):
        return
    table = {"t1": "run", "steps": "run", "per_class": "data", "scale": "network"}.get(
        key, "method"
    )
    name = {"learning_rate": "descent", "dt": "euler"}.get(key, "adaptive")
    tables = {
        "data": "per_class = 1", "network": "widths = [4, 3]", "run": "",
        "method": f"name = '{name}'\n" + "optimiser = 'sgd'" * (name == "descent"),
        "grid": "seed = [0]",
    }  # fmt: skip
    if key == "per_class":
        tables["data"] = ""
    tables["grid" if axis else table] += f"\n{key} = {f'[{value}]' if axis else value}\n"
    text = "\n".join(f"[{table}]\n{entries}" for table, entries in tables.items())
    where = "grid" if axis else table
    with pytest.raises(ValueError, match=rf"Argument {where}\.{key} must .* number.*sweep\.toml"):
        read(written(tmp_path, text))


BAD = {
    "no file": (None, "config must name a file"),
    "no TOML": ("[data", "config must name a TOML file, but .*sweep.toml.*end of document"),
    "unknown table": (BASE + GRID + "[gird]\n", "gird must be .*did you mean 'grid'"),
    "no table": ("data = 3\n" + GRID, "data must be a table"),
    "unknown key": (
        BASE.replace("widths", "widht") + GRID,
        r"network\.widht must be one of what network takes, .*'widths'.*did you mean 'width'",
    ),
    "unknown axis": (BASE + "[grid]\nsead = [1]", r"grid\.sead must be .*did you mean 'seed'"),
    "no such axis": (
        BASE + '[grid]\ndtype = ["float32"]',
        r"grid\.dtype must be one of the axes 'widths', .*it was 'dtype'",
    ),
    "empty axis": (BASE + "[grid]\nseed = []", r"grid\.seed must be a list of values"),
    "one value": (BASE + "[grid]\nseed = 3", r"grid\.seed must be a list .*it was 3"),
    "type in axis": (
        BASE + '[grid]\ndt = [0.1, "x"]',
        r"grid\.dt .*each a positive number, but in .*sweep\.toml' one was 'x'",
    ),
    "infinite": (BASE + "[grid]\ndt = [inf]", r"grid\.dt .*each a positive number"),
    "no stop": (
        BASE + "[grid]\ndt = { start = 1 }",
        r"grid\.dt\.stop must be given, .*it was left out",
    ),
    "log of 0": (
        BASE + "[grid]\ndt = { start = 0, stop = 1, num = 3, spacing = 'log' }",
        r"grid\.dt\.spacing must be 'linear', or, between positive",
    ),
    "spacing": (
        BASE + "[grid]\ndt = { start = 1, stop = 2, num = 3, spacing = 'even' }",
        r"grid\.dt\.spacing must be",
    ),
    "range key": (
        BASE + "[grid]\ndt = { start = 1, stop = 2, number = 3 }",
        r"grid\.dt\.number must be .*did you mean 'num'",
    ),
    "widths": (BASE.replace("[4, 3]", "4") + GRID, r"network\.widths must be a list of whole"),
    "truth": (BASE.replace("steps = 3", "steps = true") + GRID, r"run\.steps must be a whole"),
    "text": (
        BASE.replace("dt = 0.1", 'dt = "0.1"') + GRID,
        r"method\.dt must be a positive number, .*'0.1'",
    ),
    "reduction": (
        BASE.replace("steps = 3", "reduction = 'on'") + GRID,
        r"run\.reduction must be one of 'auto', 'full', 'off'",
    ),
    "method": (BASE.replace("euler", "eular") + GRID, r"method\.name must be one of 'published'"),
    "no method": (BASE.replace('name = "euler"', "") + GRID, r"method\.name must be given"),
    "no dt": (BASE.replace("dt = 0.1", "") + GRID, r"method\.dt must be given, .*it was left out"),
    "no rate": (
        BASE.replace('"euler"\ndt = 0.1', '"descent"\noptimiser = "adam"') + GRID,
        r"method\.learning_rate must be given",
    ),
    "rtol of euler": (
        BASE.replace("dt = 0.1", "dt = 0.1\nrtol = 1e-3") + GRID,
        r"method\.rtol must be one of what euler takes, 'name', 'dt', ",
    ),
    "solver": (
        BASE.replace('"euler"\ndt = 0.1', '"adaptive"\nsolver = "Euler9"') + GRID,
        r"method\.solver must be a name in diffrax, but in .*'Euler9'",
    ),
    "optimiser": (
        BASE.replace('"euler"\ndt = 0.1', '"descent"\noptimiser = "Adam9"\nlearning_rate = 1')
        + GRID,
        r"method\.optimiser must be a name in optax",
    ),
    "options": (
        BASE.replace(
            '"euler"\ndt = 0.1', '"descent"\noptimiser = "sgd"\nlearning_rate = 1'
        ).replace("[run]", "[method.options]\nbeta = 1\n[run]")
        + GRID,
        r"method\.options must be options of optax.sgd, .*beta",
    ),
    "rule": (
        BASE.replace("steps = 3", "until = { rule = 'Never' }") + GRID,
        r"run\.until\.rule must be one of .*FlowConverged.*'Never'",
    ),
    "rule's number": (
        BASE.replace("steps = 3", "until = { rule = 'FlowConverged', rate = 1 }") + GRID,
        r"run\.until\.rate must be one of what FlowConverged takes, 'fraction'",
    ),
    "rule's value": (
        BASE.replace("steps = 3", "until = { rule = 'FlowConverged', fraction = -1 }") + GRID,
        r"run\.until\.fraction must be a fraction .*positive.*it was -1",
    ),
    "rule without a number": (
        BASE.replace("steps = 3", "until = { rule = 'ResidenceTime' }") + GRID,
        r"run\.until must have what ResidenceTime takes, .*'time'",
    ),
    "no rules": (
        BASE.replace("steps = 3", "until = { rule = 'AllOf', rules = [] }") + GRID,
        r"run\.until\.rules must be at least one stop rule",
    ),
    "a rule within a rule": (
        BASE.replace("steps = 3", "until = { rule = 'AllOf', rules = [{ rule = 'Never' }] }")
        + GRID,
        r"run\.until\.rule must be one of .*FlowConverged.*'Never'",
    ),
    "no rules of a word": (
        BASE.replace("steps = 3", "until = { rule = 'AnyOf', rules = 'FlowConverged' }") + GRID,
        r"run\.until\.rules must be at least one stop rule, .*'FlowConverged'",
    ),
    "a layer's rate": (
        BASE.replace("widths = [4, 3]", "layers = [{ layer = 'Dense', width = 3, rate = -1 }]")
        + GRID,
        r"network\.layers\[0\]\.rate must be a positive, finite number, .*it was -1",
    ),
    "a stage's rate": (
        BASE.replace(
            "widths = [4, 3]",
            "layers = [{ layer = 'Dense', width = 3 }, { layer = 'Flatten', rate = 2 }]",
        )
        + GRID,
        r"network\.layers\[1\]\.rate must be given to layers alone, .*Flatten\(\) is a stage",
    ),
    "negative times": (
        BASE.replace("steps = 3", "save_at = [-1, 2]") + GRID,
        r"run\.save_at must have values that are each a number, at least 0, .* one was -1",
    ),
    "times that fall": (
        BASE.replace("steps = 3", "save_at = [1, 0.5]") + GRID,
        r"run\.save_at must increase",
    ),
    "precision": (
        BASE.replace("[method]", "precision = 'low'\n[method]") + GRID,
        r"network\.precision must be one of 'default', 'high', 'highest'",
    ),
    "save_at": (
        BASE.replace("steps = 3", "save_at = 0.5") + GRID,
        r"run\.save_at must be 'steps', 'end', a list",
    ),
    "images and file": (
        BASE.replace("per_class = 1", "per_class = 1\nfile = 'x.npz'") + GRID,
        r"data\.per_class must be one of what file takes, ",
    ),
    "samples of images": (
        BASE + "[grid]\nsamples = [3]",
        r"grid\.samples must be one of what mnist takes, ",
    ),
    "no such file": (
        BASE.replace("per_class = 1", "file = 'none.npz'") + GRID,
        r"data\.file must name a file, .* there was none at '.*none\.npz'\.",
    ),
    "two widths": (
        BASE + "[grid]\nwidths = [[1]]\nwidth = [1]",
        r"grid\.width must be left out beside grid\.widths",
    ),
}


MADE = ("solver", "optimiser", "options", "no such file")
"""What shows only when it is asked for."""


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_named_with_its_file(tmp_path, case, untyped):
    text, words = BAD[case]
    path = tmp_path / "sweep.toml" if text is None else written(tmp_path, text)
    with pytest.raises(ValueError, match="Argument " + words) as error:
        read(path).arguments() if case in MADE else read(path)
    assert re.search(r"sweep\.toml|none\.npz", str(error.value))


def test_arrays_that_are_no_inputs(tmp_path):
    np.savez(tmp_path / "bad.npz", x=np.ones(3), words=np.array([["a"]]))
    (tmp_path / "no.npz").write_bytes(b"none")
    for data, words in {
        "file = 'bad.npz'": r"file must hold numbers of shape \(samples, inputs, \.\.\.\)",
        "file = 'bad.npz'\narray = 'words'": "file must hold numbers",
        "file = 'bad.npz'\narray = 'y'": "array must be one of 'x', 'words', .*it was 'y'",
        "file = 'no.npz'": "file must .*no.npz' nothing could be read",
    }.items():
        text = BASE.replace("per_class = 1", data) + GRID
        with pytest.raises(ValueError, match=r"Argument data\." + words):
            arguments(tmp_path, text)
