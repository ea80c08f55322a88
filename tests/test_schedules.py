"""The study of schedules: what is recommended is run, and what is left of the entropy written down."""

import jax
import numpy as np
import pytest
import xarray as xr

import skajax as ska
from skajax.study import Setting, schedules, schedules_table

ONE = Setting("digits", 30, (48, 24))
SETTINGS = (ONE, Setting("wine", 30, (48, 24)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study") / "out"


@pytest.fixture(scope="module")
def data(folder):
    return schedules(folder, SETTINGS, fractions=(0.6, 0.3), accuracy=0.05)


def test_the_recommended_runs_end_where_they_were_to(data):
    assert dict(data["error"].sizes) == {"setting": 2, "fraction": 2}
    np.testing.assert_allclose(data["error"], data["left"] / data["fraction"] - 1)
    np.testing.assert_allclose(data["T"], data["K"] * data["dt"], rtol=1e-5)
    assert (abs(data["error"]) < 0.2).all()  # few neurons, whose weights were not seen
    assert (data["discretisation"] < 0.08).all() and (data["discretisation"] > 0.005).all()
    assert data["reached"].all()


def test_what_is_left_is_the_runs_own(data):
    network, x = ONE.network(), ONE.inputs()
    weights = network.init(jax.random.key(0), x)
    row = data.sel(setting=ONE.name, fraction=0.3)
    dt, K = row["dt"].item(), row["K"].item()
    run = ska.simulate(network, weights, x, ska.Euler(dt), steps=K, observe=())
    assert run.final.t == pytest.approx(row["T"].item(), rel=1e-5)
    Z, start = run.final.Z, network.forward(weights, x)[0]
    total = lambda Z: sum(float(ska.entropy.entropy(z).sum()) for z in Z)
    np.testing.assert_allclose(row["left"], total(Z) / total(start), rtol=1e-4)


def test_it_goes_on_with_what_is_missing(folder, data):
    text = (folder / "schedules.md").read_text()
    assert text == schedules_table(data)
    assert f"| {ONE.name} |" in text and "Entropy within 10 % of the wanted fraction: " in text
    with xr.open_dataset(folder / "schedules.nc") as stored:
        xr.testing.assert_allclose(stored.load()["left"], data["left"])
    file = folder / "scheduled" / f"{ONE.name}.nc"
    before = file.stat().st_mtime_ns
    (folder / "scheduled" / f"{SETTINGS[1].name}.nc").unlink()
    again = schedules(folder, SETTINGS, fractions=(0.6, 0.3), accuracy=0.05)
    assert file.stat().st_mtime_ns == before
    np.testing.assert_allclose(again["left"], data["left"])
    with pytest.raises(ValueError, match="Argument out must hold results of this very study"):
        schedules(folder, SETTINGS, fractions=(0.6, 0.2), accuracy=0.05)


def test_the_table_says_who_misses(data):
    off = data.copy(deep=True)
    off["error"][:] = 0.01
    assert "within 10 % of the wanted fraction: 4 of 4." in schedules_table(off)
    off["error"][1, 0] = -0.2
    text = schedules_table(off)
    assert "within 10 % of the wanted fraction: 3 of 4." in text
    assert f"of 0.6: 1 of 2; beside it: {SETTINGS[1].name} (-20 %)" in text


def test_what_does_not_fit_is_named(untyped):
    one = Setting("wine", 30, (4,))
    for arguments, name in (
        ({"settings": []}, "settings"),
        ({"settings": [one], "fractions": ()}, "fractions"),
        ({"settings": [one], "fractions": (1.0,)}, "fractions"),
        ({"settings": [one], "accuracy": 0.0}, "accuracy"),
    ):
        with pytest.raises(ValueError, match=f"Argument {name} must "):
            schedules(**arguments)
