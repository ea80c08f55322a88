"""The study of the Tensor Net's crossings: its numbers, its tests, and where it goes on; and the control."""

import importlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.stats import chi2

import skajax as ska
from skajax.__main__ import main
from skajax.study import Setting, tensor_net, tensor_net_table
from skajax.study.claims import _net_law

study = importlib.import_module("skajax.study.tensor_net")
SEEDS = 3
SETTING = Setting("digits", 30, (8, 8))  # one program for the laws of both layers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "QUICK", (SETTING,))
        yield tmp_path_factory.mktemp("study") / "out"


@pytest.fixture(scope="module")
def data(folder):
    return tensor_net(folder, quick=True, seeds=SEEDS)


def test_what_is_measured_and_predicted(data):
    network, x, t1 = SETTING.network(), jnp.asarray(SETTING.inputs()), data["t1"].item()
    known = ska.timescales.spectrum(x, 32)
    for seed in range(SEEDS):
        weights = network.init(jax.random.key(seed), x)
        found = ska.timescales.tensor_net(network, weights, x, t1=t1, spectrum=known)
        one = data.isel(setting=0, seed=seed).sel(sign="published")
        np.testing.assert_array_equal(one["reduced_count"], found.reduced.count)
        np.testing.assert_allclose(one["reduced_t"], found.reduced.last[0], rtol=1e-4)
        np.testing.assert_allclose(one["law_norm"], found.law.last[1], rtol=1e-4)
        # Nothing is left out of so small a network: what is predicted is what is measured.
        np.testing.assert_array_equal(one["measured_count"], found.reduced.count)
        np.testing.assert_allclose(one["measured_norm"], found.reduced.last[1], rtol=0.02)
        np.testing.assert_allclose(one["measured_t"], found.reduced.last[0], rtol=0.02)
    law = [ska.timescales.net_law(n).counts for n in SETTING.widths]
    found = data["expected"].isel(setting=0).sel(sign="published")
    np.testing.assert_allclose(found, law, rtol=1e-3, atol=1e-6)
    assert data["drawn_count"].sizes["draw"] == SEEDS
    lines = (tensor_net_table(data)).strip().splitlines()
    assert len(lines) == 2 + 2 * 2 and "100.0 %" in lines[2]


def test_it_goes_on_where_it_was(data, folder, monkeypatch):
    monkeypatch.setattr(study, "_setting", lambda *_: pytest.fail("run again"))
    again = tensor_net(folder, quick=True, seeds=SEEDS)
    xr.testing.assert_identical(again.drop_attrs(), data.drop_attrs())
    assert (folder / "tensor_net.md").read_text() == tensor_net_table(data)
    with pytest.raises(ValueError, match="Argument out must hold results of this very study"):
        tensor_net(folder, quick=True, seeds=SEEDS + 1)
    with pytest.raises(ValueError, match="Argument seeds must be a whole number, at least 2"):
        tensor_net(None, quick=True, seeds=1)


def test_the_p_values():
    assert study.as_expected(np.array([25, 50, 25]), np.array([0.25, 0.5, 0.25])) == 1
    assert study.as_expected(np.array([25, 50, 1]), np.array([0.5, 0.5, 0.0])) == 0
    value = (30 - 25) ** 2 / 25 + (45 - 50) ** 2 / 50
    found = study.as_expected(np.array([30, 45, 25]), np.array([0.25, 0.5, 0.25]))
    np.testing.assert_allclose(found, chi2.sf(value, 2), rtol=1e-12)
    # Of 40 and 60 against 60 and 40 each is off by 10 of 50.
    found = study.homogeneous(np.array([40, 60, 0]), np.array([60, 40, 0]))
    np.testing.assert_allclose(found, chi2.sf(4 * 100 / 50, 1), rtol=1e-12)
    values = np.append(np.arange(50.0), np.nan)
    assert study.alike(values, values) == 1 and study.alike(values, values + 40) < 1e-6


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    """The control as its command keeps it, and the folder."""
    out = tmp_path_factory.mktemp("control") / "out"
    line = ["study", "net-control", "--out", str(out), "--quick", "--seeds", "1", "--quiet"]
    assert main(line) == 0
    return xr.load_dataset(out / "net_control.nc", engine="h5netcdf"), out


def test_the_control_is_kept_with_a_table(control, capsys):
    kept, out = control
    assert kept.sizes == {"kind": 3, "seed": 1, "layer": 2}
    table = (out / "net_control.md").read_text(encoding="utf-8")
    assert f"{kept.peak.values[0, 0, 1]:.6f}" in table
    assert main(["info", str(out)]) == 0
    assert "skajax net_control 1" in capsys.readouterr().out


def test_the_signs_set_the_pace_of_the_layers_above_and_nothing_else(control):
    found = control[0].isel(seed=0)
    drawn, crossing, never = (found.sel(kind=kind) for kind in found["kind"].values)
    assert (never["crossings"] == 0).all()
    # Layer 1's z and -z follow the same equation.
    for other in (crossing, never):
        for name in ("left", "probe", "fisher"):
            first = drawn[name].sel(layer=1)
            np.testing.assert_allclose(other[name].sel(layer=1), first, rtol=1e-3)
    # Layer 2 reads larger decisions where more of them rise.
    assert never["peak"].sel(layer=2) < 0.95 * crossing["peak"].sel(layer=2)
    assert never["left"].sel(layer=2) < crossing["left"].sel(layer=2)


def test_the_claims_law(untyped):
    weight = lambda z: 1 / (1 + np.exp(-z)) * (1 - z / (1 + np.exp(z)) / np.log(2))
    for a in (1.0, 1.186, 1.779, 3.0):
        p = weight(-a) / (weight(a) + weight(-a))
        assert abs(_net_law.share_at(a) - p) < 5e-4
    norms = np.array([[100.0], [200.0], [np.nan], [400.0]])
    reduced = SimpleNamespace(last=(np.array([[0.1], [0.2], [np.nan], [0.3]]), norms))
    evidence = SimpleNamespace(
        x=np.zeros((1000, 2)),
        network=ska.mlp([256]),
        expected_net=SimpleNamespace(reduced=reduced),
    )
    told = _net_law.of_norms(evidence, {1: 300.0})
    assert "a root mean square z of 0.593" in told
    assert "above 67 % of what is expected" in told and "in 75 %" in told
    assert "K = 24 in layer 1 lies above 67 %" in _net_law.of_times(evidence, {1: 24.0})
    assert "44 % of the initialisations" in _net_law.of_order(evidence)
