"""The study of architectures: its settings, files, causes, table and figure; and what is intrinsic."""

import importlib

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import skajax as ska
from skajax.study import Setting, architectures, intrinsic, intrinsic_table
from skajax.study.causes import causes
from skajax.study.settings import DATA, QUICK, SETTINGS

study = importlib.import_module("skajax.study.architectures")


def test_the_settings_cover_what_they_are_to():
    assert len(SETTINGS) >= 40
    assert len({one.name for one in SETTINGS}) == len(SETTINGS)
    assert {len(one.widths) for one in SETTINGS} >= {1, 2, 3, 4, 5, 6, 8}
    assert {16, 2048} <= {width for one in SETTINGS for width in one.widths}
    assert {10, 1000} <= {one.samples for one in SETTINGS}
    assert {0.001, 1.0} <= {one.scale for one in SETTINGS}
    assert len({one.input_scale for one in SETTINGS}) >= 3
    assert {one.data for one in SETTINGS} == set(DATA)


def test_a_setting_describes_itself():
    one = Setting("wine", 50, (8, 4), 0.1, input_scale=2.0, seed=3)
    assert one.name == "wine50_8-4_scale0.1_inputs2_seed3"
    assert [layer.width for layer in one.network().layers] == [8, 4]
    x, all_of_it = one.inputs(), ska.data.sklearn("wine")[0]
    assert x.dtype == np.float32
    # As many samples, each three times, and inputs that are always 0.
    np.testing.assert_array_equal(
        x[:50, :13], 2 * all_of_it[np.linspace(0, 177, 50).round().astype(int)]
    )
    np.testing.assert_array_equal(x[50:], np.tile(x[:50], (2, 1)))
    assert x.shape == (150, 64)
    assert not x[:, 13:].any()


def test_what_fills_up_a_batch_changes_no_time():
    one = Setting("wine", 30, (6, 4), 0.1)
    network, x = one.network(), one.inputs()
    weights = network.init(jax.random.key(0), x)
    bare = x[:30, :13]
    first = weights[0]._replace(W=weights[0].W[:13])
    times = np.append(0, np.geomspace(0.01, 10, 100))
    observe = ("entropy", "entropy_rate", "flow_norm", "knowledge_norm", "tensor_net_rate")
    asked = {"t1": 10.0, "save_at": times, "observe": observe}
    runs = [
        ska.simulate(network, w, data, ska.Adaptive(rtol=1e-6, atol=1e-8), **asked)
        for w, data in ((weights, x), ((first, *weights[1:]), bare))
    ]
    full, plain = (ska.timescales.measure(run) for run in runs)
    np.testing.assert_allclose(full["time"], plain["time"], rtol=1e-3)
    copies = len(x) / 30
    np.testing.assert_allclose(runs[0].entropy, copies * runs[1].entropy, rtol=1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study") / "out"


@pytest.fixture(scope="module")
def data(folder):
    return architectures(folder, quick=True)


def test_the_study_holds_prediction_beside_measurement(data):
    assert list(data["setting"].values) == [one.name for one in QUICK]
    assert dict(data["measured"].sizes) == {"setting": 3, "layer": 2}
    for error, predicted in (("error", "predicted"), ("error_given", "given")):
        np.testing.assert_allclose(data[error], data[predicted] / data["measured"] - 1)
    calm = data.isel(setting=slice(0, 2))
    assert (abs(calm["error"].sel(layer=1)) < 0.25).all()  # few neurons, and a test is no study
    assert (abs(calm["error_given"]) < 0.03).all()  # of such small networks nothing is left out
    assert (calm["knowledge_error"].sel(layer=1) < 0.1).all()
    for row, one in enumerate(QUICK):
        x = one.inputs().astype(float)
        rate = np.linalg.eigvalsh(x @ x.T + 1)[-1] / (4 * np.log(2) * len(x))
        np.testing.assert_allclose(data["growth_predicted"][row], 1 / rate, rtol=1e-6)
    # e-fold growth in the linear regime takes 1 / λ; where saturation sets in before, longer.
    growth = calm["time"].sel(definition="growth", layer=1) / calm["growth_predicted"]
    np.testing.assert_allclose(growth[0], 1, atol=0.02)
    assert 1 < growth[1] < 1.5
    assert (data["start"].isel(setting=2) > 1.0).all()


def test_the_folder_holds_files_to_read(folder, data):
    text = (folder / "architectures.md").read_text()
    for one in QUICK:
        assert f"| {one.data} | {one.samples} |" in text
    assert "Hidden layers, within 15 %:" in text
    assert (folder / "architectures.png").stat().st_size > 10_000
    with xr.open_dataset(folder / "architectures.nc") as stored:
        xr.testing.assert_allclose(
            stored.load()[["measured", "error"]], data[["measured", "error"]]
        )


def test_it_goes_on_with_what_is_missing(folder, data, monkeypatch):
    made = []
    for part in ("_measured", "_predicted"):
        real = getattr(study, part)
        monkeypatch.setattr(
            study,
            part,
            lambda one, real=real, part=part: made.append((part, one.name)) or real(one),
        )
    gone = QUICK[1].name
    (folder / "measured" / f"{gone}.nc").unlink()
    (folder / "measured" / f".{gone}.nc.123.part").write_bytes(
        b"half a file"
    )  # as a kill leaves it
    again = architectures(folder, quick=True)
    assert made == [("_measured", gone)]
    xr.testing.assert_allclose(again[["measured", "error"]], data[["measured", "error"]])
    made.clear()
    architectures(folder, QUICK[:1])
    assert made == []


def test_a_changed_configuration_is_refused(folder, data, monkeypatch):
    numbers = {**study._NUMBERS, "measured": {**study._NUMBERS["measured"], "rtol": 1e-9}}
    monkeypatch.setattr(study, "_NUMBERS", numbers)
    before = sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*"))
    with pytest.raises(
        ValueError, match=r"Argument out must hold results of this very study.*1e-09"
    ):
        architectures(folder, quick=True)
    assert sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*")) == before


def test_a_damaged_file_is_named(folder, data):
    file = folder / "predicted" / f"{QUICK[0].name}.nc"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    try:
        with pytest.raises(ValueError, match=f"(?s)Argument out must.*{file.name}"):
            architectures(folder, quick=True)
    finally:
        file.write_bytes(whole)


def row(**changes):
    """One setting of two layers, predicted well, but for the changes: one value a layer."""
    values = {
        "start": [0.1, 0.05], "measured": [1.0, 2.0], "error": [0.02, 0.03], "second_hump": [0.0, 0.0],
        "height": [0.5, 0.5], "error_given": [0.2, 0.2],
    } | changes  # fmt: skip
    data = xr.Dataset({name: ("layer", np.asarray(v, float)) for name, v in values.items()})
    reasons = np.asarray([["the flow is largest at the end of the run"] * 2], object)
    return data.assign(reason=(("definition", "layer"), reasons)).assign_coords(
        definition=["flow_peak"], layer=[1, 2]
    )


def test_every_cause_is_told_by_its_number():
    nan = np.nan
    assert causes(row()) == ["", ""]
    assert causes(row(error=[0.11, 0.14])) == ["unexplained, +11 %", ""]
    assert causes(row(error=[-0.09, -0.2])) == ["", "unexplained, -20 %"]
    assert causes(row(measured=[nan, 2.0], error=[nan, 0])) == [
        "no peak: the flow is largest at the end of the run", "",
    ]  # fmt: skip
    assert causes(row(error=[nan, 0.5])) == ["no peak predicted", "unexplained, +50 %"]
    # A saturated layer carries those above it along.
    assert causes(row(start=[2.0, 0.1], error=[0.0, 0.3])) == [
        "",
        "saturated start, |z| = 2, +30 %",
    ]
    assert causes(row(error=[0, 0.3], second_hump=[0, 0.9]))[1] == "two humps, 90 % as high, +30 %"
    assert causes(row(error=[0, 0.3], height=[0, 0.98]))[1].startswith("flat top")
    luck = causes(row(error=[0, 0.3], error_given=[0, -0.02]))[1]
    assert luck == "the seed's luck, +30 %; from the very weights -2 %"


def test_the_figure_draws_every_pair(data):
    ax = ska.plot.predicted_times(data)
    drawn = [line for line in ax.get_lines() if len(line.get_xdata()) == 1]
    pairs = int((data["measured"].notnull() & data["predicted"].notnull()).sum())
    assert len(drawn) == pairs
    x = sorted(float(line.get_xdata()[0]) for line in drawn)
    known = data["measured"].where(data["predicted"].notnull()).values
    np.testing.assert_allclose(x, np.sort(known[np.isfinite(known)]))
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    plt.close(ax.figure)


def test_which_times_are_intrinsic():
    one = Setting("digits", 30, (12, 6), 0.02)
    found = intrinsic(
        one.network(), one.inputs(), t1=60.0, seeds=3, scales=(0.003, 0.03), batches=(75, 150),
        steps=(0.1, 0.05), t1_steps=20.0,
    )  # fmt: skip
    assert list(found.times) == ["seed", "scale", "batch", "dt"]
    assert dict(found.times["seed"]["time"].sizes)["seed"] == 3
    # Scaling weights down delays the peak; the growth rate is the data's and stays.
    spread = ska.timescales.spread(found.times["scale"], "scale")["full"].sel(layer=1)
    assert spread.sel(definition="flow_peak") > 3 * spread.sel(definition="growth")
    # A batch of the same samples over and over is the same batch.
    batch = ska.timescales.spread(found.times["batch"], "batch")["full"].sel(layer=1)
    assert batch.sel(definition="growth") < 0.05
    text = intrinsic_table(found)
    for name in ska.timescales.DEFINITIONS:
        assert f"| {name} |" in text
    assert found.decay["exponent"].dims == ("seed", "layer")
    assert list(found.table["axis"].values) == ["seed", "scale", "batch", "dt"]


def test_what_does_not_fit_is_named(tmp_path, untyped):
    (tmp_path / "file").write_text("")
    one = Setting("wine", 30, (4,))
    for function, argument in (
        (lambda: architectures(settings=[]), "settings"),
        (lambda: architectures(settings=[one, one]), "settings"),
        (lambda: architectures(tmp_path / "file", quick=True), "out"),
        (lambda: Setting("titanic", 30, (4,)), "data"),
        (lambda: Setting("wine", 300, (4,)).inputs(), "samples"),
        (lambda: intrinsic(one.network(), one.inputs(), seeds=1), "seeds"),
        (lambda: intrinsic(one.network(), one.inputs(), batches=(1000,)), "batches"),
        (lambda: intrinsic(one.network(), one.inputs(), t1=0.0), "t1"),
        (lambda: intrinsic(one.network(), one.inputs(), t1_steps=0.0), "t1_steps"),
    ):
        with pytest.raises(ValueError) as error:
            function()
        assert str(error.value).startswith(f"Argument {argument} must ")


@pytest.mark.parametrize(
    ("argument", "value", "must"),
    [
        ("seeds", 2.5, "be a whole number, 2 or more"),
        ("seeds", True, "be a whole number, 2 or more"),
        ("seeds", "a", "be a whole number, 2 or more"),
        ("batches", (6.5,), "be numbers of samples up to 150"),
        ("batches", (True,), "be numbers of samples up to 150"),
        ("batches", 6, "be a sequence of numbers"),
        ("scales", (0.0,), "be standard deviations, positive and finite"),
        ("scales", (np.nan,), "be standard deviations, positive and finite"),
        ("scales", 0.1, "be a sequence of numbers"),
        ("steps", ("a",), "be step sizes, positive and finite"),
        ("steps", 0.1, "be a sequence of numbers"),
        ("steps", (9.0,), "make up t1_steps, 4.0, in a whole number of steps"),
        ("steps", (0.3,), "make up t1_steps, 4.0, in a whole number of steps"),
        ("t1_steps", np.inf, "be an end time, positive and finite"),
        ("t1_steps", "a", "be an end time, positive and finite"),
    ],
)
def test_what_intrinsic_refuses_goes_by_its_own_name(argument, value, must, untyped):
    one = Setting("wine", 30, (4,))
    given = {"batches": (10,), argument: value}
    with pytest.raises(ValueError) as error:
        intrinsic(one.network(), one.inputs(), **given)
    assert str(error.value).startswith(f"Argument {argument} must {must}")
