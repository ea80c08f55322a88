"""The explorer's settings, its scripts and its runs: what is seen has the script's numbers, to the bit."""

import dataclasses
import re

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

import skajax as ska
from skajax.explore import Runner, Settings, _run, foresee, growing
from skajax.explore._settings import DATA, ENERGIES, LAYERS, SUPERVISED

SMALL = {"data": "iris", "samples": 10, "widths": (3,), "scale": 0.1, "t1": 2.0}
CASES = {
    "adaptive": {},
    "euler": {"method": "euler", "dt": 0.01},
    "published": {"method": "published", "dt": 0.02},
}


def executed(code, folder, monkeypatch):
    """The names that a script leaves behind."""
    monkeypatch.chdir(folder)
    names = {}
    exec(compile(code, "exported.py", "exec"), names)
    plt.close("all")
    return names


def same(a, b):
    assert a.records.values.keys() == b.records.values.keys()
    trees = [jax.tree.leaves((r.t, r.records, r.final)) for r in (a, b)]
    return all(np.array_equal(p, q) for p, q in zip(*trees, strict=True))


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_the_script_has_the_numbers_of_what_was_seen(changes, tmp_path, monkeypatch, capsys):
    settings = Settings(**SMALL | changes)
    runs = list(growing(settings.problem()))
    lengths = [len(run.t) for run in runs]
    assert len(runs) > 4 and lengths == sorted(set(lengths)) and lengths[-1] == settings.records
    simulated = lambda code: executed(code.split("\nforeseen")[0], tmp_path, monkeypatch)["run"]
    whole = simulated(settings.code())
    assert same(whole, runs[-1]) and same(ska.load(tmp_path / "run.nc"), whole)
    assert capsys.readouterr().out.startswith(type(settings.problem().method).__name__)
    part = simulated(settings.code(lengths[2]))
    assert same(part, runs[2]) and not same(part, whole)


def test_other_numbers_compile_nothing(compilations):
    list(growing(Settings(**SMALL).problem()))
    other = Settings(**SMALL | {"seed": 3, "t1": 1.5, "rtol": 1e-3}).problem()
    with compilations() as found:
        list(growing(other))
    assert found == []


TOGETHER = [
    (data, layer)
    for data, each in DATA.items()
    for layer in LAYERS
    if layer == "dense" or each.patch
]


@pytest.mark.parametrize(("data", "layer"), TOGETHER)
def test_every_kind_of_layers_reads_every_set_that_it_is_offered(data, layer):
    problem = Settings(data=data, layer=layer, samples=20, widths=(2, 10)).problem()
    x = problem.inputs
    assert 10 < len(x) <= 20
    Z = jax.eval_shape(lambda w: problem.network.trace(w, jax.numpy.asarray(x)), problem.weights).Z
    assert len(Z) == 2 and Z[-1].shape == (len(x), 10) and Z[0].shape[-1] == 2


@pytest.mark.parametrize("energy", ENERGIES)
def test_energies_have_what_they_need(energy):
    problem = Settings(**SMALL, energy=energy).problem()
    batch = problem.inputs if energy in SUPERVISED else ska.Batch(problem.inputs)
    value = problem.energy(problem.weights, problem.network.trace(problem.weights, batch.x), batch)
    if energy == "cross-entropy":  # of weights near 0: log 3
        assert float(value[-1]) == pytest.approx(np.log(3), abs=0.1)
    elif energy == "squared error":  # decisions near 1/2: 3 (1/2)² / 2
        assert float(value[-1]) == pytest.approx(3 / 8, abs=0.05)
    else:  # of each of 3 neurons h(0) = 1 bit
        assert float(value[-1]) == pytest.approx(3, abs=0.1)
        assert problem.energy.local == (energy == "entropy")


BAD = {
    "a set": ({"data": "cifar"}, r"data must be one of .*'mnist'.*it was 'cifar'"),
    "samples": ({"samples": 1}, "samples must be a whole number, 2 to 1797, but it was 1"),
    "widths": ({"widths": (3, 0)}, r"widths must be 1 to 8 whole numbers.*\(3, 0\)"),
    "scale": ({"scale": float("nan")}, "scale must be a number, 0 to 10, but it was nan"),
    "images": ({"layer": "recurrent"}, "layer must be 'dense' for iris, whose samples are no images"),
    "classes": ({"energy": "cross-entropy", "widths": (2,)}, "widths must end with 3 neurons or more"),
    "the rule": ({"method": "published", "energy": "squared error"}, "energy must be 'entropy' with"),
    "steps": ({"method": "euler", "dt": 0.3}, r"t1 must be a whole number of steps.*6\.6666667"),
    "many": ({"method": "euler", "dt": 1e-5}, "t1 must be a whole number of steps dt, from 2 to 100000"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), BAD.values(), ids=BAD)
def test_what_does_not_go_together_says_why(changes, words):
    with pytest.raises(ValueError, match=f"Argument {words}"):
        Settings(**SMALL | changes)


def test_growth_times_are_of_the_leading_mode():
    problem = Settings(**SMALL).problem()
    x = np.asarray(problem.inputs, float)
    rate = np.linalg.eigvalsh(x @ x.T + 1)[-1] / (4 * len(x) * np.log(2))
    theory = foresee(problem)
    np.testing.assert_allclose(theory.growth, [1 / rate], rtol=1e-5)
    assert 1 / rate < theory.peak[0] < 10 / rate
    # Of one layer there is nothing to cross: near z = 0 its modes are the same.
    others = foresee(Settings(**SMALL | {"energy": "entropy, global", "scale": 1e-3}).problem())
    np.testing.assert_allclose(others.growth, [1 / rate], rtol=1e-3)
    assert np.isnan(others.peak).all()


def test_a_runner_ends_with_all_or_with_what_there_is_when_cancelled(monkeypatch):
    settings = Settings(**SMALL)
    seen = Runner(settings).start().wait()
    assert seen.state == "done" and not seen.going and len(seen.run.t) == settings.records
    assert seen.theory.peak.shape == (1,) and seen.code() == settings.code()

    runner = Runner(settings)
    cut = lambda problem: (
        run for run in growing(problem) if not (len(run.t) > 20 and runner.cancel())
    )
    monkeypatch.setattr(_run, "growing", cut)
    seen = runner.start().wait()
    assert seen.state == "cancelled" and 1 < len(seen.run.t) <= 20
    assert f"np.linspace(0, 2.0, 201)[:{len(seen.run.t)}]" in seen.code()

    runner = Runner(settings)
    runner.cancel()
    seen = runner.start().wait()
    assert seen.state == "cancelled" and seen.run is None and seen.code() == settings.code()


def test_a_runner_says_what_went_wrong_and_what_is_doubtful(monkeypatch):
    seen = Runner(Settings(**SMALL | {"scale": 10.0})).start().wait()
    assert seen.state == "done" and "layer 1 begins saturated" in seen.words

    def failing(problem):
        raise MemoryError("no more")
        yield

    monkeypatch.setattr(_run, "growing", failing)
    seen = Runner(Settings(**SMALL)).start().wait()
    assert seen.state == "failed" and seen.words == "MemoryError: no more"


def test_settings_are_values(untyped):
    settings = Settings(**SMALL | {"widths": [np.int64(3)], "t1": np.float32(2)})
    assert settings == Settings(**SMALL) and hash(settings) == hash(Settings(**SMALL))
    assert dataclasses.replace(settings, seed=1).code() != settings.code()
    assert re.search(r"^method = ska.Adaptive\(rtol=0.0001, atol=1e-06\)$", settings.code(), re.M)
