"""Commands with the user's own data, options in a file's place, studies, and what skajax has written."""

import importlib
import json
import re
import socket
import subprocess
import sys
import typing
import warnings
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import skajax as ska
from skajax import energies, stop
from skajax.__main__ import main
from skajax.cli import COMMANDS, STUDIES, parse
from skajax.cli._config import read
from skajax.cli._plot import OF_A_RUN, Figure
from skajax.cli._tables import PARTS, RULES
from skajax.cli._words import as_typed

PAGE = Path(__file__).parent.parent / "docs" / "howto" / "command_line.md"
VALUES = np.array([[1.0, 2.0], [3.0, 6.0], [5.0, 4.0]])
SMALL = ["--widths", "3", "--method", "euler", "--dt", "0.1", "--steps", "2", "--quiet"]


def data(**options):
    """Inputs and targets, as options alone ask for them."""
    config = read(None, {"method": "adaptive", **options})
    return config.data(config.at({}))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The same three samples in every kind of file."""
    monkeypatch.chdir(tmp_path)
    classes = np.array(["b", "a", "b"])
    np.save("x.npy", VALUES)
    np.savez("x.npz", x=VALUES, y=np.array([2, 0, 1]), other=-VALUES)
    frame = pd.DataFrame({"p": VALUES[:, 0], "kind": classes, "q": VALUES[:, 1]})
    frame.to_csv("x.csv", index=False)
    frame[["p", "q"]].to_csv("x.tsv", index=False, header=False, sep="\t")
    xr.Dataset({"x": (("n", "k"), VALUES), "y": ("n", [0.5, 1.5, 2.5])}).to_netcdf(
        "x.nc", engine="h5netcdf"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("options", "x", "y"),
    [
        ({"data": "x.npy"}, VALUES, None),
        ({"data": "x.npz"}, VALUES, None),
        ({"data": "x.npz", "array": "other", "targets": "y"}, -VALUES, [2, 0, 1]),
        ({"data": "x.csv", "targets": "kind"}, VALUES, [1, 0, 1]),  # a is 0, b is 1
        ({"data": "x.csv", "array": ["q", "p"]}, VALUES[:, ::-1], None),
        ({"data": "x.csv", "array": "q"}, VALUES[:, 1:], None),
        ({"data": "x.tsv"}, VALUES, None),
        ({"data": "x.nc", "targets": "y"}, VALUES, [0.5, 1.5, 2.5]),
        ({"data": "x.npy", "samples": 2}, VALUES[:2], None),
        ({"data": "x.npy", "scaling": 2.0}, VALUES / 2, None),
        ({"data": "x.npy", "scaling": "range"}, [[0, 0], [0.5, 1], [1, 0.5]], None),
        # deviations: of 1, 3, 5 and of 2, 6, 4 they are the root of 8/3
        ({"data": "x.npy", "scaling": "standard"}, np.array([[-2, -2], [0, 2], [2, 0]]) / np.sqrt(8 / 3),
         None),
    ],
)  # fmt: skip
def test_files_of_the_user(files, options, x, y):
    got, targets = data(**options)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, x, rtol=1e-6, atol=1e-7)
    if y is None:
        assert targets is None
    else:
        np.testing.assert_array_equal(targets, y)
        assert targets.dtype == (np.int32 if isinstance(y[0], int) else np.float32)


def test_a_feature_that_is_the_same_in_all_samples_is_not_divided(files):
    np.save("same.npy", np.array([[7.0, 1.0], [7.0, 3.0]]))
    for scaling in ("range", "standard"):
        x, _ = data(data="same.npy", scaling=scaling)
        np.testing.assert_array_equal(x[:, 0], 0)


@pytest.mark.parametrize(
    ("table", "want"),
    [
        ("name = 'mnist'\nper_class = 2", lambda: ska.data.mnist(2, "flat")),
        ("per_class = 1\nlayout = 'patches'\nsize = 14", lambda: ska.data.mnist(1, "patches", size=14)),
        ("per_class = 1\nlayout = 'image'\nflatten = true", lambda: ska.data.mnist(1, "flat")),
        ("name = 'digits'\nlayout = 'rows'", lambda: ska.data.sklearn("digits", "rows")),
        ("name = 'iris'", lambda: ska.data.sklearn("iris")),
        ("name = 'graph'\ngraph = 'southern_women'", lambda: ska.data.graph("southern_women")),
        ("name = 'series'\ntimes = 8\nevery = 20", lambda: ska.data.series(8, every=20)),
        ("name = 'text'\ntimes = 8\nevery = 100", lambda: ska.data.text(8, every=100)),
        ("name = 'known_spectrum'\nvalues = [2, 1]\nsamples = 5\ninputs = 3\nseed = 4",
         lambda: (ska.data.known_spectrum([2.0, 1.0], 5, 3, seed=4), None)),
    ],
)  # fmt: skip
def test_sets_of_skajax(tmp_path, table, want):
    path = tmp_path / "set.toml"
    path.write_text(f"[data]\n{table}\n[method]\nname = 'adaptive'", encoding="utf-8")
    config = read(path)
    x, y = config.data(config.at({}))
    want_x, want_y, *_ = want()
    np.testing.assert_array_equal(x, want_x)
    assert x.dtype == want_x.dtype
    np.testing.assert_array_equal(y, want_y)


def test_a_set_of_tensorflow_datasets_gets_its_own_words(monkeypatch):
    asked = []

    def found(name, **options):
        asked.append((name, options))
        return np.ones((2, 4), np.float32), np.zeros(2, np.int32)

    monkeypatch.setattr(ska.data, "tfds", found)
    config = read(None, {"method": "adaptive", "data": "tfds", "set": "mnist", "per_class": 1})
    config.data(config.at({}))
    told = {"split": "train", "per_class": 1, "data_dir": None}
    assert asked == [("mnist", told)]


def test_options_take_the_place_of_a_files_settings(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        "[network]\nwidths = [5, 2]\nseed = 5\n[method]\nname = 'adaptive'\nrtol = 1e-3\n"
        "[data]\nper_class = 1\n[run]\nt1 = 2.0",
        encoding="utf-8",
    )
    options = {"method": "euler", "dt": 0.5, "seed": 0, "widths": [4]}
    made = read(path, options).arguments()
    network = ska.mlp([4])
    assert made["network"] == network and made["method"] == ska.Euler(0.5) and made["t1"] == 2.0
    want = network.init(jax.random.key(0), made["x"])
    np.testing.assert_array_equal(made["weights"][0].W, want[0].W)
    made = read(path, {"data": "iris"}).arguments()
    np.testing.assert_array_equal(made["x"], ska.data.sklearn("iris")[0])
    with pytest.raises(ValueError, match=r"Argument --dt must be a positive number, but it was -1"):
        read(path, {**options, "dt": -1.0})
    with pytest.raises(
        ValueError, match=r"Argument --rtol must be left out with euler \(it belongs"
    ):
        read(path, {**options, "rtol": 1e-3})


def test_what_only_a_file_can_say_is_told():
    for name, key in (("tfds", "set"), ("known_spectrum", "values")):
        with pytest.raises(
            ValueError, match=rf"data\.{key} must be given, .* a TOML file can have it"
        ):
            read(None, {"data": name, "method": "adaptive"})


def test_options_of_seed_0_are_given(tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text("[network]\nseed = 5\n[method]\nname='euler'\ndt=0.1\n[run]\nsteps=2\n")
    out = str(tmp_path / "run.nc")
    assert main(["run", str(path), "--out", out, "--seed", "0", "--data", "iris", *SMALL]) == 0
    with xr.open_dataset(out, engine="h5netcdf") as run:
        assert run.attrs["seed"] == 0 and json.loads(run.attrs["data"])["name"] == "iris"


def test_an_energy_with_targets_and_double_precision(tmp_path, capsys):
    out = str(tmp_path / "run.nc")
    options = ["--data", "iris", "--energy", "CrossEntropy", "--dtype", "float64"]
    assert main(["run", "--out", out, *options, *SMALL]) == 0
    with jax.enable_x64(True):
        x, y = ska.data.sklearn("iris")
        x, network = x.astype("float64"), ska.mlp([3])
        want = ska.simulate(
            network, network.init(jax.random.key(0), x), ska.Batch(x, y), ska.Euler(0.1), steps=2,
            energy=ska.energies.CrossEntropy(),
        )  # fmt: skip
        np.testing.assert_array_equal(ska.load(out).energy, want.energy)
    capsys.readouterr()
    assert main(["info", out]) == 0  # also where JAX is in single precision
    assert "float64" in capsys.readouterr().out
    assert main(["plot", out, "--out", str(tmp_path / "run.svg")]) == 0


def test_layers_and_sums_of_energies_from_a_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        """
[data]
per_class = 1
layout = "image"
[network]
layers = [
  { layer = "Conv", channels = 2, window = [5, 5], strides = 2, scale = 0.1 },
  { layer = "Flatten" },
  { layer = "Dense", width = 10, decision = "softmax" },
]
[method]
name = "adaptive"
[[energy]]
name = "CrossEntropy"
[[energy]]
name = "WeightDecay"
factor = 0.1
[run]
observe = ["energy"]
""",
        encoding="utf-8",
    )
    made = read(path).arguments()
    conv = ska.layers.Conv(2, (5, 5), strides=2, scale=0.1)
    dense = ska.Dense(10, decision="softmax")
    assert made["network"] == ska.Network((conv, ska.layers.Flatten(), dense))
    energy = ska.energies.CrossEntropy() + 0.1 * ska.energies.WeightDecay()
    assert made["energy"].terms == energy.terms and made["observe"] == ["energy"]
    assert isinstance(made["x"], ska.Batch) and made["x"].x.shape == (10, 28, 28, 1)


def test_a_graphs_edges_by_its_name(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        "[data]\nname = 'graph'\n[network]\nlayers = [{ layer = 'GraphConv', width = 2, edges = 'karate' }]\n"
        "[method]\nname = 'adaptive'\n",
        encoding="utf-8",
    )
    made = read(path).arguments()
    (layer,) = made["network"].layers
    want = ska.layers.GraphConv(2, ska.data.graph("karate")[2])
    np.testing.assert_array_equal(layer.senders, want.senders)
    assert made["weights"][0].W.shape == (34, 2)


def test_lists_of_names_are_whole():
    def public(module, base, *without):
        classes = (getattr(module, name) for name in module.__all__)
        own = {c.__name__ for c in classes if isinstance(c, type) and issubclass(c, base)}
        return own - {base.__name__, *without}

    assert set(RULES) == public(stop, stop.Rule)
    assert set(PARTS) == public(energies, energies.AbstractEnergy, "Energy", "Sum")
    figures = set(typing.get_args(Figure))
    # The rest are of dense runs, which files are not, or of numbers and graphs.
    rest = {"STYLE", "animate", "attention", "maps", "convergence", "costs", "graph"}
    assert figures >= set(OF_A_RUN) and figures == set(ska.plot.__all__) - rest


# Studies.


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("architectures --quick", {"quick": True}),
        ("rules --seeds 3 4", {"quick": False, "seeds": [3, 4]}),
        ("families --quick --seeds 0", {"quick": True, "seeds": [0]}),
        ("schedules --fractions 0.5 0.25 --accuracy 0.1",
         {"quick": False, "fractions": [0.5, 0.25], "accuracy": 0.1}),
        ("tensor-net --quick --seeds 20", {"quick": True, "seeds": 20}),
    ],
)  # fmt: skip
def test_studies_with_data_of_their_own_get_their_arguments(line, given, monkeypatch, capsys):
    kind, *options = line.split()
    name = kind.replace("-", "_")
    asked = []
    monkeypatch.setattr(ska.study, name, lambda out, **more: asked.append((out, more)))
    assert main(["study", kind, "--out", "there", *options]) == 0
    assert asked == [("there", given)] and f"{name}.md" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("invariance --accuracy 0.1 --judge entropy --seeds 1 2",
         {"accuracy": 0.1, "judge": "entropy", "seeds": [1, 2]}),
        ("separation --times 0 1 --scales 2 --test 0.5", {"times": [0, 1], "scales": [2], "test": 0.5}),
        ("work-precision --t1 1 --tolerances 0.1 --rounds 0", {"t1": [1], "tolerances": [0.1], "rounds": 0}),
    ],
)  # fmt: skip
def test_studies_of_the_users_data(line, given, monkeypatch, capsys, tmp_path):
    kind, *options = line.split()
    name = kind.replace("-", "_")
    found, asked = xr.Dataset({"a": ("layer", [1.0])}), []

    def study(network, weights, x, *targets, **more):
        asked.append(more)
        assert network == ska.mlp([4, 3]) and x.shape == (150, 4)
        first = weights(0) if callable(weights) else weights
        want = network.init(jax.random.key(0), x)[0].W
        np.testing.assert_array_equal(first[0].W, want)
        return found

    monkeypatch.setattr(ska.study, name, study)
    monkeypatch.setattr(ska.study, "cost_table", lambda data: "table")
    monkeypatch.setattr(ska.study, "invariance_table", lambda data: "table")
    monkeypatch.setattr("skajax.cli._study.drawn", lambda data, figure: b"drawn")
    out = tmp_path / "out"
    problem = ["--data", "iris", "--widths", "4", "3"]
    assert main(["study", kind, "--out", str(out), *problem, *options]) == 0
    assert asked == [given]
    assert {file.name for file in out.iterdir()} == {f"{name}.{end}" for end in ("nc", "md", "png")}
    assert (out / f"{name}.png").read_bytes() == b"drawn"
    capsys.readouterr()
    assert main(["info", str(out)]) == 0
    assert f"skajax {name} 1" in capsys.readouterr().out


def test_every_study_is_a_command():
    commands = {command.__name__ for command in STUDIES}
    alone = {"recommend", "reproduce"}  # read off a study; a command of its own
    own = lambda name: getattr(getattr(ska.study, name), "__module__", "") == f"skajax.study.{name}"
    named = {n for n in ska.study.__all__ if own(n) and not n.endswith("_table")}
    assert commands == named - alone


def test_a_study_that_runs(tmp_path, capsys):
    out = tmp_path / "out"
    line = ["separation", "--out", str(out), "--data", "iris", "--widths", "3", "--times", "0", "1"]
    assert main(["study", *line, "--scales", "1", "--quiet"]) == 0
    kept = xr.load_dataset(out / "separation.nc", engine="h5netcdf")
    x, y = ska.data.sklearn("iris")
    fisher = kept.inputs.sel(metric="fisher").item()
    assert fisher == pytest.approx(ska.study.fisher_ratio(x, y), rel=1e-6)
    figure = str(tmp_path / "figure.png")
    assert main(["plot", str(out), "--out", figure]) == 0
    assert "separation of" in capsys.readouterr().out
    assert main(["plot", str(out), "--out", figure, "--figure", "heatmap"]) == 2
    assert "FILE must hold what the figure 'heatmap' is of (run)" in capsys.readouterr().err
    kept.attrs["format"] = "skajax experiments 1"  # of which reproduce has drawn its own
    drawn = str(tmp_path / "runs.nc")
    kept.to_netcdf(drawn, engine="h5netcdf")
    assert main(["plot", drawn, "--out", figure]) == 2
    said = capsys.readouterr().err
    assert "FILE must hold what has a figure of its own (run, sweep, architectures," in said
    assert "runs.nc' is of the kind 'experiments'" in said


def test_a_first_line_of_numbers_is_a_sample(files):
    rows = np.array([[5.1, 5.1], [4.9, 3.0]])
    Path("same.csv").write_text("5.1,5.1\n4.9,3.0\n")  # pandas would name the columns 5.1 and 5.1.1
    np.testing.assert_allclose(data(data="same.csv")[0], rows, rtol=1e-6)
    Path("counted.csv").write_text("0,1,kind\n5.1,5.1,a\n4.9,3.0,b\n")
    x, y = data(data="counted.csv", targets="kind")
    np.testing.assert_allclose(x, rows, rtol=1e-6)
    np.testing.assert_array_equal(y, [0, 1])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--data x.npy --energy CrossEntropy", "--targets must name the targets that CrossEntropy"),
        ("--data cube.npy", "--data must be of shape (samples, inputs) for a dense layer, but its"
         " shape was (2, 3, 3) (--flatten)"),
        ("--data two.npz", "--array must be one of 'a', 'b', but it was left out"),
        ("--data text", "--data must hold numbers of shape (samples, inputs), as dense layers"),
        ("--data iris --method adaptive --dt 0.1",
         "--dt must be left out with adaptive (it belongs to published, euler, pipelined), but it was 0.1."),
        ("--data iris --samples 10", "--samples must be left out with iris (it belongs to a file)"),
        ("--data mnits", "'series', 'text', but it was 'mnits'; did you mean 'mnist'?"),
        ("--data none.csv", "--data must name a file, but there was none at 'none.csv'."),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_what_was_typed(line, words, files, capsys):
    np.save("cube.npy", np.ones((2, 3, 3)))
    np.savez("two.npz", a=VALUES, b=VALUES)
    assert main(["run", "--out", "new.nc", *line.split()]) == 2
    said = capsys.readouterr().err
    assert f"skajax run: Argument --{words.removeprefix('--')}" in said or words in said, said
    assert "TOML file can have it" not in said and "tfds" not in said


def test_a_separation_asks_for_its_classes(files, capsys):
    assert main(["study", "separation", "--out", "new", "--data", "x.npy", "--widths", "3"]) == 2
    assert "Argument --targets must name the classes" in capsys.readouterr().err


def test_a_grid_names_the_seed_that_is_none(files):
    Path("grid.toml").write_text(
        "[method]\nname = 'adaptive'\n[grid]\nseed = { start = 0, stop = 2, num = 4 }\n"
    )
    with pytest.raises(ValueError, match=r"grid\.seed must .* whole number, .* one was 0\.666"):
        read("grid.toml")


# What would be overwritten.


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run --out x.npy --data x.npy", "--out must name a file that ends in .nc"),
        ("run --out x.csv --data x.csv", "--out must name a file that ends in .nc"),
        ("run --out ./x.nc --data x.nc", "--out must be another file than the data's file"),
        ("run --out new.nc --checkpoint new.nc", "--out must be another file than --checkpoint"),
        ("run --out x.nc", "--out must overwrite nothing but what skajax has written"),
        ("run run.toml --out x.nc", "--out must be another file than the data's file"),
        ("run run.nc --out run.nc", "--out must be another file than CONFIG"),
        ("sweep grid.toml --out lanes", "--out must be another file than the data's file"),
        ("study separation --out lanes --data lanes/separation.nc --targets y", "the data's file"),
        ("study separation --out lanes --data iris", "--out must overwrite nothing but"),
        ("study rules --out lanes", "--out must overwrite nothing but what skajax has written"),
    ],
)
def test_nothing_of_the_users_is_overwritten(line, words, files, capsys):
    table = "[data]\nfile = '{}'\n[method]\nname = 'euler'\ndt = 0.1\n[run]\nsteps = 2\n"
    Path("run.toml").write_text(table.format("x.nc"))
    Path("run.nc").write_text(table.format("x.npy"))
    Path("grid.toml").write_text(table.format("lanes/sweep.nc") + "[grid]\nseed = [0, 1]\n")
    Path("lanes").mkdir()
    for name in ("lanes/sweep.nc", "lanes/separation.nc"):
        Path(name).write_bytes(Path("x.nc").read_bytes())
    Path("lanes/rules.md").write_text("mine")
    before = {path: path.read_bytes() for path in files.rglob("*.*")}
    assert main([*line.split(), "--quiet"]) == 2
    assert words in capsys.readouterr().err
    assert {path: path.read_bytes() for path in files.rglob("*.*")} == before


def test_a_run_takes_the_place_of_a_run(files, capsys):
    for seed in (0, 1):
        line = ["run", "--out", "new.nc", "--data", "x.npy", "--seed", str(seed), *SMALL]
        assert main(line) == 0
        with xr.open_dataset("new.nc", engine="h5netcdf") as run:
            assert run.attrs["seed"] == seed


# What has been written.


def simulated(**options):
    """The run of ``run --data x.npy`` with the options ``SMALL``."""
    x, network = VALUES.astype(np.float32), ska.mlp([3])
    weights = network.init(jax.random.key(0), x)
    return ska.simulate(network, weights, x, ska.Euler(0.1), steps=2, **options)


def test_info_knows_checkpoints_reproductions_and_unfinished_studies(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = simulated(checkpoint="point.nc")
    assert main(["info", "point.nc"]) == 0
    assert "point.nc: a checkpoint; 2 records;" in capsys.readouterr().out

    Path("out").mkdir()
    claim = {"number": 7, "verdict": "confirmed", "title": "It peaks"}
    told = {"setting": {"quick": True}, "claims": [claim, {**claim, "number": 8}]}
    Path("out/claims.json").write_text(json.dumps(told))
    title = xr.Dataset(attrs={"format": "skajax experiments 1"})
    tree = xr.DataTree.from_dict({"/": title, "euler/K5": run.to_dataset()})
    tree.to_netcdf("out/runs.nc", engine="h5netcdf")
    assert main(["info", "out"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^  7  confirmed +It peaks$", printed, re.MULTILINE)
    assert "quick: True" in printed and "2 confirmed" in printed
    assert main(["info", "out/runs.nc"]) == 0
    assert "/euler/K5: {" in capsys.readouterr().out

    Path("half/measured").mkdir(parents=True)
    run.save("half/measured/one.nc")
    assert main(["info", "half"]) == 0
    assert "not finished; the same command goes on" in capsys.readouterr().out


def test_two_files_of_one_name_are_told_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = simulated()
    names = []
    compare = ska.plot.comparison
    monkeypatch.setattr(
        ska.plot, "comparison", lambda runs, **more: names.append([*runs]) or compare(runs, **more)
    )
    for folder in ("a", "b"):
        Path(folder).mkdir()
        run.save(f"{folder}/run.nc")
    assert main(["plot", "a/run.nc", "b/run.nc", "--out", "both.png"]) == 0
    assert names == [["a/run.nc", "b/run.nc"]]


# What is said.


def test_a_run_whose_flow_has_no_peak_yet_says_so(files, capsys):
    line = ["run", "--out", "new.nc", "--data", "x.npy", *SMALL]
    for options, hints in ((line[:-1], True), (line, False), ([*line[:-3], "--t1", "20"], False)):
        assert main(options) == 0
        said = capsys.readouterr().out
        assert ("no layer's flow has peaked by t = 0.2: try a later --t1;" in said) == hints
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main([*line[:-1], "--scale", "30"]) == 0
    said = capsys.readouterr()
    assert "begins saturated" in said.err  # flows fall from the start: no later end has a peak
    assert "no layer's flow has peaked" not in said.out


def test_a_port_in_use_is_told(capsys, monkeypatch):
    def serve(port, show):
        with socket.create_server(("localhost", port)):
            raise AssertionError

    monkeypatch.setattr(ska.explore, "serve", serve)
    with socket.create_server(("localhost", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["explore", "--no-show", "--port", port]) == 2
    must = f"Argument --port must be free, or 0, which takes a free one, but {port} is in use."
    assert must in capsys.readouterr().err


def test_a_run_warns_in_one_line_and_verbose_tells_more(tmp_path, monkeypatch, capsys, recwarn):
    monkeypatch.chdir(tmp_path)
    import warnings

    warnings.simplefilter("always")
    line = ["run", "--out", "run.nc", "--data", "iris", "--scale", "50", *SMALL]
    assert main(line) == 0
    said = capsys.readouterr().err
    (told,) = said.splitlines()
    assert told.startswith("skajax run: warning: ") and "saturated" in told
    assert main(["info", "none.nc", "--verbose"]) == 2
    said = capsys.readouterr().err
    assert f"skajax_version {ska.__version__}" in said and "Traceback" in said


def every_command():
    return [*COMMANDS, *STUDIES]


def examples(text):
    return [line.strip() for line in text.splitlines() if re.match(r" *(srun )?skajax \w", line)]


@pytest.mark.parametrize("command", every_command(), ids=lambda command: command.__name__)
def test_every_command_has_help_with_examples_that_can_be_read(command, capsys):
    study = ["study"] if command in STUDIES else []
    name = command.__name__.replace("_", "-")
    assert main([*study, name, "--help"]) == 0
    printed = capsys.readouterr().out
    found = examples(command.__doc__)
    assert found and all(line in printed for line in found)
    for line in found:
        assert parse(line.partition("skajax ")[2].split()).command is command


def test_the_page_of_the_documentation_has_commands_that_can_be_read():
    found = examples(PAGE.read_text(encoding="utf-8"))
    assert {line.split()[1] for line in found} >= {c.__name__ for c in COMMANDS} | {"study"}
    for line in found:
        arguments = line.partition("#")[0].partition("skajax ")[2].split()
        if not arguments[0].startswith("-") and "--help" not in arguments:
            assert parse(arguments) is not None


def test_the_page_of_the_documentation_has_tables_that_can_be_read(tmp_path):
    found = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.M)
    assert found
    for text in found:
        path = tmp_path / "run.toml"
        path.write_text(text, encoding="utf-8")
        read(path)


def test_help_is_quick():
    program = (
        "import sys; sys.argv = ['skajax', 'run', '--help']; from skajax.__main__ import main; main();"
        "print([name for name in ('jax', 'numpy', 'pydantic', 'xarray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_words_for_other_arguments():
    info = importlib.import_module("skajax.cli._info").info
    run = importlib.import_module("skajax.cli._run").run
    error = ValueError("Argument path must be\n whole.")
    assert as_typed(error, info) == "Argument PATH must be whole."
    assert as_typed(error, run) == "Argument --out must be whole."
    assert as_typed(MemoryError(), run) == "MemoryError"
