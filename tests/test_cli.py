"""The command line, the README and the benchmark: what a new user types first."""

import json
import re
import runpy
import subprocess
import sys
import typing
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import skajax as ska
from skajax.__main__ import main
from skajax.cli._config import read
from skajax.cli._info import duration
from skajax.cli._plot import OF_A_RUN, STUDIES, Figure
from skajax.sweeps._manifest import Described
from skajax.sweeps._store import Store

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def test_run_writes_a_run_that_info_reads(tmp_path, capsys):
    path = tmp_path / "run.nc"
    small = ["--widths", "8", "3", "--per-class", "2", "--t1", "0.2", "--seed", "3"]
    assert main(["run", "--out", str(path), "--method", "published", *small]) == 0
    assert "completed: reached t = 0.19" in capsys.readouterr().out
    run = ska.load(path)
    assert run.method == "Published"
    assert run.entropy.shape == (19, 2)
    assert main(["info", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "Published" in printed
    assert "layer 2: flow" in printed


@pytest.mark.parametrize("method", ["euler", "adaptive"])
def test_run_knows_every_method(method, tmp_path):
    out = ["run", "--out", str(tmp_path / "run.nc"), "--method", method]
    assert main([*out, "--widths", "3", "--per-class", "1", "--t1", "0.1"]) == 0
    assert ska.load(tmp_path / "run.nc").method.lower().startswith(method)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two runs, and a sweep."""
    folder = tmp_path_factory.mktemp("runs")
    x = jax.random.uniform(jax.random.key(0), (6, 5))
    network = ska.mlp([4, 3], scale=0.3)
    start = lambda seed: network.init(jax.random.key(seed), x)
    for seed in (0, 1):
        run = ska.simulate(network, start(seed), x, ska.Euler(0.1), steps=8)
        run.save(folder / f"seed{seed}.nc")
    for name, method, axes in (
        ("lanes", ska.Euler(0.1), ska.grid(seed=range(4))),
        ("steps", lambda dt: ska.Euler(dt), ska.grid(dt=[0.1, 0.2], seed=[0, 1])),
    ):
        ska.sweep(network, start, x, method, steps=8, over=axes, store=folder / name)
    return folder


@pytest.mark.parametrize(
    ("names", "options", "what"),
    [
        (["seed0.nc"], [], "history"),
        (["seed0.nc", "seed1.nc"], ["--observable", "entropy"], "comparison"),
        (["lanes"], [], "ensemble"),
        (["seed1.nc"], ["--figure", "heatmap", "--observable", "tensor_net_rate"], "heatmap"),
        (["seed1.nc"], ["--figure", "phase_portrait"], "phase_portrait"),
    ],
)
def test_plot_draws_what_a_file_holds(names, options, what, files, tmp_path, capsys):
    out = tmp_path / "figure.png"
    paths = [str(files / name) for name in names]
    assert main(["plot", *paths, "--out", str(out), *options]) == 0
    assert f"{what} of" in capsys.readouterr().out
    assert out.read_bytes().startswith(b"\x89PNG")
    assert not plt.get_fignums()


def test_every_figure_of_a_run_is_drawn_and_what_is_of_a_sweep_too(
    files, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "figure.png"
    monkeypatch.setattr("skajax._files.image", lambda figure, kind: kind.encode())
    for figure in set(typing.get_args(Figure)) - set(STUDIES.values()):
        for name in ("seed0.nc", "lanes"):
            run = name == "seed0.nc"
            # Steps are an adaptive run's, and a Tensor Net's phases of one that recorded its parts.
            none = figure in ("step_sizes", "net_phases") or (run and figure == "ensemble")
            status = main(["plot", str(files / name), "--out", str(out), "--figure", figure])
            drawn = not none if run else figure not in OF_A_RUN
            assert status == (0 if drawn else 2), (figure, name, capsys.readouterr().err)
            assert out.exists() == drawn
            out.unlink(missing_ok=True)


def test_plot_selects_lanes(files, tmp_path, capsys, monkeypatch):
    lanes, out = str(files / "steps"), str(tmp_path / "figure.png")
    assert main(["plot", lanes, "--out", out]) == 2
    assert "of a sweep over dt, choose one: --select dt=...)" in capsys.readouterr().err
    drawn = []
    monkeypatch.setattr(ska.plot, "ensemble", lambda data, **_: drawn.append(data) or plt.gca())
    assert main(["plot", lanes, "--out", out, "--select", "dt=1e-1", "--select", "seed=1"]) == 0
    (data,) = drawn
    np.testing.assert_array_equal(
        data.entropy, ska.load_sweep(lanes).sel(dt=[0.1], seed=[1]).entropy
    )
    for choice, why in (
        (
            "dt=0.3",
            r"--select must name a value of dt \(2 values, 0.1, 0.2\), .* nearest is dt=0.2\.",
        ),
        ("dt=small", "--select must name a value of dt .* it was 'small'"),
        ("layer=1", r"--select must be an axis \(dt, seed\) and one of its values"),
        ("dt", "must name a value"),
    ):
        assert main(["plot", lanes, "--out", out, "--select", choice]) == 2
        assert re.search(why, capsys.readouterr().err)
    assert main(["plot", str(files / "seed0.nc"), "--out", out, "--select", "dt=0.1"]) == 2
    assert "Argument --select must be left out with a run" in capsys.readouterr().err


def test_plot_explains_what_it_cannot_draw(files, tmp_path, capsys):
    run, out = str(files / "seed0.nc"), str(tmp_path / "figure.png")
    for arguments, why in (
        ([run, "--out", str(tmp_path / "figure.txt")], "Argument --out must name a file that ends"),
        ([run, run, "--out", out, "--figure", "heatmap"], "Argument FILE must be one file"),
        ([run, "--out", out, "--observable", "nothing"], "nothing"),
        ([str(tmp_path / "none.nc"), "--out", out], "Argument FILE must"),
    ):
        assert main(["plot", *arguments]) == 2
        assert why in capsys.readouterr().err
        assert not list(tmp_path.iterdir())


def test_study_runs_the_study(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(ska.study, "rules", lambda out, quick: asked.append((out, quick)))
    assert main(["study", "rules", "--out", "there", "--quick"]) == 0
    assert asked == [("there", True)] and "rules.md" in capsys.readouterr().out


def test_version_and_the_executable(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"skajax {ska.__version__}\n"
    script = "import sys; sys.argv = ['skajax', '--version']; from skajax.__main__ import command; command()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == f"skajax {ska.__version__}\n"


def test_a_bad_argument_is_explained(tmp_path, capsys):
    bad = ["run", "--out", str(tmp_path / "run.nc"), "--method", "euler", "--dt", "-1"]
    assert main(bad) == 2
    assert "Argument --dt must be a positive number, but it was -1.0." in capsys.readouterr().err
    assert not (tmp_path / "run.nc").exists()


def test_info_on_no_file_is_explained(tmp_path, capsys):
    assert main(["info", str(tmp_path / "none.nc")]) == 2
    assert "Argument PATH must name a file" in capsys.readouterr().err


def test_reproduce_needs_a_folder(capsys):
    assert main(["reproduce"]) == 2
    assert "--out" in capsys.readouterr().err


def test_readme_is_short():
    assert len(README.splitlines()) <= 120


def test_readme_has_the_two_commands():
    job, tests = blocks("bash")
    assert "python -m skajax reproduce --out" in job
    assert "python -m pytest" in tests


def test_benchmark_runs(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["step.py", "--passes", "3", "--rounds", "1"])
    monkeypatch.setenv("SKAJAX_RESULTS", str(tmp_path))
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    runpy.run_path(str(ROOT / "benchmarks" / "step.py"), run_name="__main__")
    printed = capsys.readouterr().out
    (kept,) = tmp_path.glob("step_*.json")
    names = [row[""] for row in json.loads(kept.read_text())["a step"]["rows"]]
    always = ["8 matrix products", "15 matrix products", "Published", "Euler"]
    bare = ["a bare loop of the flow", "Euler, nothing recorded"]
    assert sorted(set(names) - {"Published, eager PyTorch"}) == sorted(always + bare)
    assert re.search(r"^Published +\d", printed, flags=re.MULTILINE)
    assert re.search(r"^15 matrix products +\d", printed, flags=re.MULTILINE)


SWEEP = """
[data]
per_class = 1
[network]
widths = [4, 3]
scale = 0.03
[method]
name = "published"
[run]
t1 = 0.4
[grid]
dt = [0.1, 0.05, 0.03]    # 0.4 is no multiple of 0.03
seed = { start = 0, stop = 1, num = 2 }
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(SWEEP, encoding="utf-8")
    return path


def test_sweep_goes_on_and_info_tells(config, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert main(["sweep", str(config), "--out", str(out)]) == 1
    printed = capsys.readouterr().out
    assert "6 of 6 lanes done, 2 refused" in printed
    reason = (
        r"\n  2 lanes refused: Argument t1 must .*; lane 4 \(dt = 0.03, seed = 0\), lane 5 \(dt"
    )
    assert re.search(reason, printed)
    data = xr.load_dataset(out / "sweep.nc", engine="h5netcdf")
    x, _ = ska.data.mnist_subset(1)
    network = ska.mlp([4, 3], scale=0.03)
    weights = network.init(jax.random.key(1), x)
    run = ska.simulate(network, weights, x, ska.Published(0.05), t1=0.4)
    lane = data.sel(dt=0.05, seed=1)
    np.testing.assert_allclose(lane.entropy[: len(run.t)], run.entropy, rtol=1e-6)
    chunks = {path: path.read_bytes() for path in (out / "chunks").iterdir()}

    assert main(["sweep", str(config), "--out", str(out)]) == 1
    assert {path: path.read_bytes() for path in (out / "chunks").iterdir()} == chunks
    again = xr.load_dataset(out / "sweep.nc", engine="h5netcdf")
    xr.testing.assert_identical(again, data)
    with pytest.warns(ska.sweeps.LanesFailed, match="2 of 6 lanes"):
        xr.testing.assert_identical(again, ska.sweep(**read(config).arguments()))

    capsys.readouterr()
    assert main(["info", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "6 of 6 lanes done, 2 refused" in printed and "missing" not in printed
    assert "axis dt: 3 values, 0.1, 0.05, 0.03" in printed
    assert re.search(r"dt = 0.03, seed = 1\): refused: Argument t1 must", printed)
    assert main(["info", str(out / "sweep.nc")]) == 0
    assert "4 completed, 2 refused" in capsys.readouterr().out

    config.write_text(SWEEP.replace("scale = 0.03", "scale = 0.02"), encoding="utf-8")
    assert main(["sweep", str(config), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert "holds another" in told and "0.03" in told and "0.02" in told
    assert {path: path.read_bytes() for path in (out / "chunks").iterdir()} == chunks


def test_a_sweep_in_double_precision_leaves_the_precision_as_it_was(config, tmp_path):
    text = ONE_LANE.replace("t1 = 0.4", 't1 = 0.4\ndtype = "float64"')
    config.write_text(text, encoding="utf-8")
    assert main(["sweep", str(config), "--out", str(tmp_path / "out")]) == 0
    data = xr.load_dataset(tmp_path / "out" / "sweep.nc", engine="h5netcdf")
    assert data.entropy.dtype == np.float64
    assert not jax.config.read("jax_enable_x64")


def test_a_dry_sweep_runs_nothing(config, tmp_path, capsys):
    assert main(["sweep", str(config), "--dry"]) == 1
    printed = capsys.readouterr().out
    assert "to run, of 6; 0 done, 2 refused" in printed
    assert "2 refused, ValueError: Argument t1 must be a whole number of steps" in printed
    config.write_text(SWEEP.replace(", 0.03]", "]"), encoding="utf-8")
    assert main(["sweep", str(config), "--out", str(tmp_path / "out"), "--dry"]) == 0
    assert not (tmp_path / "out").exists()


def test_a_sweep_that_is_stopped_says_how_to_go_on(config, tmp_path, capsys, monkeypatch):
    def stopped(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ska, "sweep", stopped)
    assert main(["sweep", str(config), "--out", str(tmp_path / "out")]) == 130
    told = capsys.readouterr().err
    assert told == "skajax sweep: stopped; the same command goes on from here\n"


def test_a_sweep_of_several_processes_finds_the_others_first(config, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda: asked.append("others"))
    plan = ska.sweeps.Plan(6, {}, 0, (), 1)
    monkeypatch.setattr(ska, "sweep", lambda **_: asked.append("sweep") or plan)
    assert main(["sweep", str(config), "--dry", "--distributed"]) == 0
    assert asked == ["others", "sweep"]

    def alone():
        raise RuntimeError("no coordinator")

    monkeypatch.setattr(jax.distributed, "initialize", alone)
    assert main(["sweep", str(config), "--dry", "--distributed"]) == 2
    told = capsys.readouterr().err
    assert "Argument --distributed must be given where SLURM" in told and "no coordinator" in told


def test_the_sweep_of_the_documentation_runs(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "concepts" / "sweeps.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    Path("sweep.toml").write_text(example, encoding="utf-8")
    assert main(["sweep", "sweep.toml", "--out", "out"]) == 0
    assert "32 of 32 lanes done;" in capsys.readouterr().out
    assert ska.load_sweep("out").flow_norm.sizes == {"dt": 2, "seed": 16, "record": 49, "layer": 3}


def test_bad_sweeps_are_explained(config, tmp_path, capsys):
    assert main(["sweep", str(config)]) == 2
    assert "Argument --out must name a folder" in capsys.readouterr().err
    assert main(["sweep", str(tmp_path / "none.toml"), "--dry"]) == 2
    assert "Argument CONFIG must name a file" in capsys.readouterr().err
    config.write_text(SWEEP.replace("widths", "widht"), encoding="utf-8")
    assert main(["sweep", str(config), "--dry"]) == 2
    assert "did you mean 'width'" in capsys.readouterr().err
    assert main(["info", str(tmp_path)]) == 2
    assert (
        "Argument PATH must be a file or a folder that skajax has written"
        in capsys.readouterr().err
    )


def test_info_tells_what_is_missing_and_what_failed(tmp_path, capsys):
    axes = {"seed": range(100)}
    lanes = [*range(40), 50, 98]
    data = xr.Dataset(
        {
            "outcome_code": ("lane", [1] * 25 + [0] * 17),
            "outcome": ("lane", ["diverged: layer 1"] * 25 + ["completed"] * 17),
        },
        {"lane": lanes},
    )
    with Store(tmp_path, {"x": Described("a", "f32[3,2]")}, axes, attrs={"device": "cpu"}) as store:
        store.write(data, seconds=3700.0)
    assert main(["info", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "42 of 100 lanes done, 25 failed; 1 h 01 min of computing, 1 chunk" in printed
    assert "axis seed: 100 values, 0, 1, 2, ..., 99" in printed and "x: f32[3,2]" in printed
    assert "device: cpu" in printed
    assert "missing: lanes 40-49, 51-97, 99;" in printed
    assert "lane 19 (seed = 19): diverged: layer 1" in printed
    assert "lane 20 " not in printed and "and 5 more that failed" in printed


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.1234, "0.123 s"), (61.0, "1 min 01 s"), (3599.7, "1 h 00 min")]
)
def test_seconds_for_people(seconds, words):
    assert duration(seconds) == words


# Exit statuses, and what the user typed.

ONE_LANE = SWEEP.replace("dt = [0.1, 0.05, 0.03]", "dt = [0.1]").replace("num = 2", "num = 1")


def test_lanes_that_come_to_their_ends_are_no_failure(config, tmp_path, capsys):
    config.write_text(ONE_LANE.replace("stop = 1", "stop = 0"), encoding="utf-8")
    assert main(["sweep", str(config), "--out", str(tmp_path / "out")]) == 0
    assert "1 of 1 lanes done;" in capsys.readouterr().out


def test_lanes_that_fail_are_told(config, tmp_path, capsys):
    text = ONE_LANE.replace('"published"', '"adaptive"').replace("dt =", "max_steps =")
    text = text.replace("max_steps = 0.1", "max_steps = 3").replace("[0.1]", "[1, 4000]")
    config.write_text(text.replace("max_steps = 3\n", "", 1), encoding="utf-8")
    assert main(["sweep", str(config), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().out
    assert "2 of 2 lanes done, 1 failed" in printed
    assert re.search(
        r"\n  1 lane stopped at t = .*max_steps = 1 .*; lane 0 \(max_steps = 1", printed
    )


def test_no_lane_at_all_is_an_error(config, tmp_path, capsys):
    config.write_text(SWEEP.replace("0.1, 0.05, 0.03", "0.03"), encoding="utf-8")
    for _ in range(2):
        assert main(["sweep", str(config), "--out", str(tmp_path / "out")]) == 2
        assert "Argument t1 must be a whole number of steps" in capsys.readouterr().err


def test_lanes_that_raise_run_again(config, tmp_path, capsys, monkeypatch):
    from skajax.cli import _config

    make, out = _config.Config.weights, tmp_path / "out"

    def fails(self, at):
        if at.network.seed == 1:
            raise OSError("disk gone")
        return make(self, at)

    config.write_text(SWEEP.replace("0.1, 0.05, 0.03", "0.1"), encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(_config.Config, "weights", fails)
        assert main(["sweep", str(config), "--out", str(out)]) == 1
    printed = capsys.readouterr().out
    assert (
        "1 of 2 lanes done, 1 failed" in printed and "the same command runs those again" in printed
    )
    assert "1 lane raised OSError: disk gone; lane 1 (dt = 0.1, seed = 1)" in printed
    assert main(["info", str(out)]) == 0
    assert "lane 1 (dt = 0.1, seed = 1): raised OSError: disk gone\n" in capsys.readouterr().out
    assert main(["sweep", str(config), "--out", str(out)]) == 0
    assert "2 of 2 lanes done;" in capsys.readouterr().out
    assert (xr.load_dataset(out / "sweep.nc", engine="h5netcdf").outcome_code == 0).all()


def test_a_folder_that_is_not_there_is_found_out_before_the_run(
    tmp_path, capsys, monkeypatch, config
):
    def runs(*_, **__):
        raise AssertionError

    monkeypatch.setattr(ska, "simulate", runs)
    out = str(tmp_path / "none" / "run.nc")
    assert main(["run", "--out", out]) == 2
    assert (
        f"Argument --out must be a file in a folder that exists and can be written to, but it was {out!r}"
        in (capsys.readouterr().err)
    )
    for command in (["sweep", str(config)], ["reproduce"]):
        assert main([*command, "--out", str(config / "below")]) == 2
        told = capsys.readouterr().err
        assert (
            f"Argument --out must be a folder that can be written to, but {str(config / 'below')!r}"
            in told
        )


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch, capsys, config):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "inputs.npz", x=np.ones((3, 2)))
    config.write_text(ONE_LANE.replace("per_class = 1", 'file = "~/inputs.npz"'), encoding="utf-8")
    small = ["--widths", "3", "--per-class", "1", "--t1", "0.1"]
    assert main(["run", "--out=~/run.nc", *small]) == 0
    assert main(["info", "~/run.nc"]) == 0
    assert main(["sweep", "~/sweep.toml", "--out=~/out"]) == 0
    assert main(["info", "~/out"]) == main(["info", "~/out/sweep.nc"]) == 0
    assert "~/out: a sweep; 1 of 1 lanes done" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "inputs.npz",
        "out",
        "run.nc",
        "sweep.toml",
    ]


@pytest.mark.parametrize("lines", [1, 3000])
def test_a_reader_that_has_gone_is_no_error(lines):
    code = "import sys; from skajax import __main__ as m; from skajax.cli import app\n" + (
        "@app.command\ndef lines():\n"
        f"    print('line\\n' * {lines}, end='')\n"
        "    return 0\n"
        "sys.stdin.read(); sys.exit(m.main(['lines']))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    child.stdout.close()
    child.stdin.close()
    assert (child.stderr.read(), child.wait()) == (b"", 0)
    child.stderr.close()


def test_the_executable_runs_what_the_module_runs(files, tmp_path):
    # What an installer writes as the script ``skajax``.
    script = tmp_path / "skajax"
    script.write_text("import sys\nfrom skajax.__main__ import command\nsys.exit(command())\n")
    ended = subprocess.run(
        [sys.executable, script, "info", files / "seed0.nc"], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "Euler" in ended.stdout and "completed" in ended.stdout
