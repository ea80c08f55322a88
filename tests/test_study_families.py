"""The study of families of networks: matched weights, one start, curves per decision, table, figure."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import skajax as ska
from skajax.study import families, families_table

study = importlib.import_module("skajax.study.families")
LAYOUTS, QUICK = study.LAYOUTS, study.QUICK
NAMES = ["dense", "conv", "recurrent", "attention", "graph"]
FEW = ["dense", "conv", "graph"]
SEEDS = (0, 3)


@pytest.fixture(
    scope="module",
    params=[FEW, pytest.param(NAMES, marks=pytest.mark.thorough)],
    ids=["few", "all"],
)
def names(request):
    """Of the families, while the study has no others."""
    few = lambda of: {name: of[name] for name in request.param}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "LAYOUTS", few(LAYOUTS))
        quick = dataclasses.replace(QUICK, widths=few(QUICK.widths))
        patch.setattr(study, "QUICK", quick)
        yield request.param


@pytest.fixture(scope="module")
def folder(names, tmp_path_factory):
    return tmp_path_factory.mktemp("study") / "out"


@pytest.fixture(scope="module")
def data(folder):
    return families(folder, seeds=SEEDS, quick=True)


def test_families_have_as_many_weights():
    assert list(LAYOUTS) == NAMES
    first = [
        784 * 4 + 4,
        25 * 2 + 2,
        28 * 40 + 40 * 40 + 40,
        3 * 49 * 18 + 18 * 18 + 18,
        49 * 53 + 53,
    ]
    read = [4, 12 * 12 * 2, 40, 18, 53]  # by the last layer
    small = [n + 10 * r + 10 for n, r in zip(first, read, strict=True)]
    full = [
        784 * 8 + 8 + 8 * 8 + 8 + 8 * 10 + 10,
        25 * 8 + 8 + 25 * 8 * 17 + 17 + 4 * 4 * 17 * 10 + 10,
        28 * 40 + 40 * 40 + 40 + 2 * 40 * 40 + 40 + 40 * 10 + 10,
        3 * 49 * 24 + 24 * 24 + 24 + 4 * 24 * 24 + 24 + 24 * 10 + 10,
        49 * 55 + 55 + 55 * 55 + 55 + 55 * 10 + 10,
    ]
    for form, counts in ((QUICK, small), (study.FULL, full)):
        cases = [study.Case(name, form.widths[name], 1, 0) for name in NAMES]
        assert [study._count(case) for case in cases] == counts
        assert max(counts) <= 1.1 * min(counts)


def test_a_graph_joins_the_patches_that_touch():
    layer = study._layer("graph", 2)
    pairs = zip(np.asarray(layer.senders), np.asarray(layer.receivers), strict=True)
    rows, columns = np.divmod(np.arange(16), 4)
    apart = abs(rows[:, None] - rows) + abs(columns[:, None] - columns)
    assert {*pairs} == {*zip(*np.nonzero(apart <= 1), strict=True)}


def test_every_layer_starts_alike(data, names):
    assert list(data["family"].values) == names
    counts = [study._count(study.Case(name, QUICK.widths[name], 1, 0)) for name in names]
    assert list(data["weights"].values) == counts
    start = data.isel(record=0)
    np.testing.assert_allclose(start["knowledge"], 0.05, rtol=1e-4)
    # h(z) = 1 - z² / (8 ln 2) up to z⁴, whose mean a normal z has 3 times.
    np.testing.assert_allclose(start["entropy"], 1 - 0.05**2 / (8 * np.log(2)), atol=2e-5)
    np.testing.assert_allclose(start["tensor_net"], 0, atol=1e-9)
    decisions = {
        "dense": 4,
        "conv": 12 * 12 * 2,
        "recurrent": 28 * 40,
        "attention": 16 * 18,
        "graph": 16 * 53,
    }
    want = [[decisions[name], 10] for name in names]
    np.testing.assert_array_equal(data["decisions"].transpose("family", "layer"), want)


def test_numbers_are_those_of_a_run_by_hand(data):
    x = ska.data.mnist_subset(2)[0].astype(np.float64)
    network = ska.mlp([4, 10], scale=1.0)
    drawn = network.init(jax.random.key(3), jnp.asarray(x, jnp.float32))
    size = lambda z: np.sqrt(np.mean(z**2))
    W1, W2 = (np.asarray(w.W, float) for w in drawn)
    s1 = 0.05 / size(x @ W1)
    D = 1 / (1 + np.exp(-s1 * x @ W1))
    s2 = 0.05 / size(D @ W2)
    one = data.sel(family="dense", seed=3)
    np.testing.assert_allclose(one["scale"], [s1, s2], rtol=1e-4)
    rate = np.linalg.eigvalsh(x @ x.T + 1)[-1] / (4 * len(x) * np.log(2))
    np.testing.assert_allclose(one["growth"][0], 1 / rate, rtol=1e-4)

    weights = tuple(
        jax.tree.map(lambda w, s=s: jnp.float32(s) * w, part)
        for part, s in zip(drawn, (s1, s2), strict=True)
    )
    t = one["t"].values
    run = ska.simulate(
        network,
        weights,
        jnp.asarray(x, jnp.float32),
        ska.Adaptive(rtol=1e-6, atol=1e-8),
        float(t[-1]),
        save_at=t,
    )
    many = np.array([20 * 4, 20 * 10])
    for name, by_hand in (
        ("flow", np.asarray(run.flow_norm) / np.sqrt(many)),
        ("knowledge", np.asarray(run.knowledge_norm) / np.sqrt(many)),
        ("entropy", np.asarray(run.entropy) / many),
        ("tensor_net", np.asarray(run.tensor_net) / many),
    ):
        scale = abs(one[name]).max().item()
        np.testing.assert_allclose(one[name], by_hand, atol=2e-3 * scale, err_msg=name)
    np.testing.assert_allclose(one["end"], np.asarray(run.entropy)[-1] / many, atol=1e-3)
    times = ska.timescales.measure(run)["time"].sel(definition=["flow_peak", "tensor_net_crossing"])
    np.testing.assert_allclose(one["time"].sel(definition=times["definition"]), times, rtol=0.01)
    assert (one["flow"][-1] < 0.7 * one["flow"].max("record")).all()


def test_peaks_are_maxima_that_stand_out(template, x64):
    t = np.linspace(0, 5, 101)
    bump = lambda at, height: height * np.exp(-(((t - at) / 0.3) ** 2))
    flow = np.stack([bump(1, 1) + bump(3, 0.5) + bump(4.2, 0.05), 1 - t / 10], axis=1)
    flow = jnp.asarray(flow, template.t.dtype)
    run = template.replace(
        t=jnp.asarray(t, flow.dtype), flow_norm=flow, knowledge_norm=jnp.ones_like(flow)
    )
    first, second = study._peaks(run)
    np.testing.assert_allclose(first, [1, 3], atol=1e-3)
    assert second == []


def test_the_table_has_every_family(folder, data, names):
    text = (folder / "families.md").read_text()
    assert text == families_table(data)
    for name, count in zip(names, data["weights"].values, strict=True):
        for layer in (1, 2):
            assert f"| {name} | {count} | {layer} |" in text
    alike = data.assign(peaks=xr.ones_like(data["peaks"]))
    alike["first_peak"] = xr.full_like(data["first_peak"], 2.0).where(data["family"] != "conv")
    alike["peaks"] = alike["peaks"].where(data["family"] != "graph", 2)
    text = families_table(alike)
    one, *_ = [line for line in text.splitlines() if line.startswith("- Layers with one flow peak")]
    assert "dense 4 of 4" in one and "graph 0 of 4" in one
    (line,) = [
        line for line in text.splitlines() if line.startswith("| conv |") and "| 1 |" in line[:20]
    ]
    assert line.split("|")[6:8] == [" – ", " – "]


def test_the_figure_shows_medians_over_the_seeds(folder, data, names):
    assert (folder / "families.png").stat().st_size > 10_000
    axes = ska.plot.families(data)
    for ax, name in zip(axes, names, strict=True):
        one = data.sel(family=name)
        flows = one["flow"].transpose("seed", "record", "layer").values.astype(float)
        shares = flows / flows.max(axis=1, keepdims=True)
        t = one["t"].values
        second = np.stack([np.interp(t[0], t[1], column) for column in shares[1].T], axis=-1)
        expected = (shares[0] + second)[1:] / 2
        assert len(ax.get_lines()) == 2
        for line, curve in zip(ax.get_lines(), expected.T, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), t[0, 1:])
            np.testing.assert_allclose(line.get_ydata(), curve, rtol=1e-5)
    with pytest.raises(ValueError, match=f"one Axes for each of the {len(names)} families"):
        ska.plot.families(data, axes=axes[:2])
    plt.close("all")


def test_it_goes_on_with_what_is_missing(folder, data, monkeypatch):
    made = []
    real = study._measured
    monkeypatch.setattr(
        study, "_measured", lambda one, growth: made.append(one.name) or real(one, growth)
    )
    gone = study.Case("dense", (4,), 2, 3).name
    (folder / "runs" / f"{gone}.nc").unlink()
    (folder / "runs" / f".{gone}.nc.123.part").write_bytes(b"half a file")  # as a kill leaves it
    again = families(folder, seeds=SEEDS, quick=True)
    assert made == [gone]
    xr.testing.assert_allclose(
        again[["flow", "first_peak", "time"]], data[["flow", "first_peak", "time"]]
    )
    with xr.open_dataset(folder / "families.nc") as stored:
        xr.testing.assert_allclose(stored.load()[["flow", "end"]], data[["flow", "end"]])


def test_what_does_not_fit_is_refused(folder, data, monkeypatch):
    for seeds in ((), (0, 0), (-1,)):
        with pytest.raises(ValueError, match="Argument seeds must be whole numbers"):
            families(seeds=seeds)
    monkeypatch.setattr(study, "_NUMBERS", {**study._NUMBERS, "rtol": 1e-9})
    with pytest.raises(ValueError, match="hold results of this very study"):
        families(folder, seeds=SEEDS, quick=True)
