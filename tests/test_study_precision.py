"""The study of precision: its errors from a NumPy program, where it stalls, and what it keeps."""

import sys

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
import reference as ref
from scipy.integrate import solve_ivp

import skajax as ska
from skajax.study import Setting


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("precision")


@pytest.fixture(scope="module")
def data(out):
    return ska.study.precision(out, quick=True)


def test_it_has_the_dims_that_are_said(data):
    assert data["error"].dims == ("number", "seed", "dt", "observable", "layer")
    assert data["peak"].dims == ("number", "seed", "dt", "layer")
    assert data["stalling_dt"].dims == ("number", "seed", "layer")
    assert data["exact_peak"].dims == ("seed", "layer")
    np.testing.assert_array_equal(data["dt"], [1 / 32, 1 / 128])
    assert not np.isnan(data[["error", "left", "peak", "rests"]].to_array()).any()


def test_the_error_of_float32_is_that_of_eulers_steps(data):
    """Both in NumPy float64: the exact run by DOP853, and Euler's."""
    setting = Setting("mnist", 30, (16, 10))
    x = setting.inputs()[:30]
    weights = ref.to_numpy(setting.network().init(jax.random.key(0), x))
    x = x.astype(float)
    norms = lambda w: [np.linalg.norm(z) for z in ref.forward(w, x)[0]]
    rate = lambda t, flat: ref.flat(ref.flow(ref.unflat(flat, weights), x))
    times = np.linspace(0, 1, 33)
    solved = solve_ivp(rate, (0, 1), ref.flat(weights), "DOP853", times, rtol=1e-8, atol=1e-10)
    exact = np.array([norms(ref.unflat(w, weights)) for w in solved.y.T])
    euler = []
    for _ in times:
        euler.append(norms(weights))
        pairs = zip(weights, ref.flow(weights, x), strict=True)
        weights = [(W + V / 32, b + v / 32) for (W, b), (V, v) in pairs]
    off = np.sqrt(((euler - exact) ** 2).sum(0) / (exact**2).sum(0))
    got = data["error"].sel(number="float32", observable="knowledge_norm", dt=1 / 32, seed=0)
    np.testing.assert_allclose(got, off, rtol=1e-3)


def test_below_the_stalling_step_nothing_moves(data):
    of = data.sel(number="fixed8_weights_nearest", seed=0)
    assert (of["stalling_dt"] > 1 / 32).all()
    np.testing.assert_array_equal(of["rests"], 1)
    np.testing.assert_array_equal(of["last_move"], 0)
    assert (of["error"].sel(observable="knowledge_norm") > 0.8).all()


def test_stochastic_rounding_and_more_digits_move(data):
    of = data.sel(number=["fixed8_weights_stochastic", "bfloat16_nearest", "float32"], seed=0)
    assert (of["rests"].sel(layer=1, dt=1 / 32) < 0.2).all()
    assert (of["last_move"].sel(layer=1) > 0.9).all()
    stall = data["stalling_dt"].sel(seed=0)
    assert stall.sel(number=["fixed8_weights_stochastic", "float32"]).isnull().all()
    assert (stall.sel(number="bfloat16_nearest") < 1 / 128).all()
    assert (abs(of["left"].sel(dt=1 / 128)) < 0.1).all()


def test_the_table_and_the_figure(data, out):
    text = ska.study.precision_table(data)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4 and len({line.count("|") for line in lines}) == 1
    assert "weights of 8 bits, stochastic" in text and "bfloat16" in text
    assert (out / "precision.md").read_text() == text
    for name in ("precision.nc", "precision.png"):
        assert (out / name).stat().st_size > 1000
    pair = ska.plot.precision(data)
    curves = {line.get_label(): line for line in pair[0].get_lines()}
    of = data["error"].sel(observable="knowledge_norm", seed=0).max("layer")
    np.testing.assert_allclose(
        curves["8 bits"].get_ydata(), of.sel(number="fixed8_weights_nearest")
    )
    plt.close("all")
    with pytest.raises(ValueError, match="Argument data must be what skajax"):
        ska.plot.precision(data.drop_vars("error"))


def test_it_goes_on_where_it_was(data, out, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("simulated again")

    (out / "precision.nc").unlink()
    monkeypatch.setattr(sys.modules["skajax.study.precision"], "simulate", refuse)
    again = ska.study.precision(out, quick=True)
    assert again.drop_attrs().identical(data.drop_attrs())
    assert (out / "precision.nc").exists()


@pytest.mark.parametrize("seeds", [[], [0, 0], [0.5], [-1]])
def test_seeds_that_are_none_are_refused(untyped, seeds):
    with pytest.raises(ValueError, match="Argument seeds must be at least one whole number"):
        ska.study.precision(quick=True, seeds=seeds)


def test_the_formats_of_the_study():
    found = sys.modules["skajax.study.precision"].numbers()
    assert len(found) == 1 + 2 * (4 * 2 + 2) + 6
    for held in found.values():
        for each in held[4:]:
            assert each is None or held.rounding != "stochastic" or each.draws
    assert found["fixed8_all_nearest"].knowledge.name == "fixed 8.3"
