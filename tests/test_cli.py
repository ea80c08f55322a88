"""The command line, the README and the benchmark: what a new user types first."""

import re
import runpy
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

import skajax as ska
from skajax.__main__ import main

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


def test_a_bad_argument_is_explained(tmp_path, capsys):
    bad = ["run", "--out", str(tmp_path / "run.nc"), "--method", "euler", "--dt", "-1"]
    assert main(bad) == 2
    assert "Argument dt must be a time step, positive and finite" in capsys.readouterr().err
    assert not (tmp_path / "run.nc").exists()


def test_info_on_no_file_is_explained(tmp_path, capsys):
    assert main(["info", str(tmp_path / "none.nc")]) == 2
    assert "Argument path must name a file" in capsys.readouterr().err


def test_reproduce_needs_a_folder(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["reproduce"])
    assert "--out" in capsys.readouterr().err


def test_readme_snippets_run(tmp_path, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    names = {}
    for snippet in blocks("python"):
        exec(compile(snippet, "README.md", "exec"), names)
    assert names["runs"].flow_norm.shape == (8, 49, 4)
    assert names["run"].outcome.completed
    plt.close("all")


def test_readme_has_the_two_commands():
    job, tests = blocks("bash")
    assert "python -m skajax reproduce --out" in job
    assert "python -m pytest" in tests


def test_benchmark_runs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["step.py", "--passes", "3", "--rounds", "1"])
    runpy.run_path(str(ROOT / "benchmarks" / "step.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(r"^Published +\d", printed, flags=re.MULTILINE)
    assert re.search(r"^15 matrix products +\d", printed, flags=re.MULTILINE)
