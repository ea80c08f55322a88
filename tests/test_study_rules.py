"""The study of rules: what its numbers are, from programs of their own; and what it keeps."""

import importlib

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import skajax as ska

room = importlib.import_module("skajax.study.rules")
RULES = room.RULES
NAMES = ["ska", "global_entropy", "supervised", "feedback_alignment", "direct_feedback_alignment",
         "layerwise", "forward_forward"]  # fmt: skip


FEW = ["ska", "supervised", "feedback_alignment", "forward_forward"]
"""A local energy, a global one, no energy at all, and one of twice as many samples."""


@pytest.fixture(
    scope="module",
    params=[FEW, pytest.param(NAMES, marks=pytest.mark.thorough)],
    ids=["few", "all"],
)
def names(request):
    """Of the rules, while the study has no others."""
    with pytest.MonkeyPatch.context() as patch:
        few = {name: RULES[name] for name in request.param}
        if request.param == FEW:  # forward-forward is stiff
            few["forward_forward"] = RULES["forward_forward"]._replace(horizon=10.0)
        patch.setattr(room, "RULES", few)
        yield request.param


@pytest.fixture(scope="module")
def out(names, tmp_path_factory):
    return tmp_path_factory.mktemp("rules")


@pytest.fixture(scope="module")
def data(out):
    return ska.study.rules(out, quick=True, seeds=[3])


def of(data, *names):
    """These rules, of those that the study has."""
    there = [name for name in names if name in data["rule"]]
    assert there
    return data.sel(rule=there)


def images():
    """The quick study's, by hand: of each class 8 images, and 4 held out."""
    x, y = ska.data.mnist_subset(per_class=12)
    x = np.array(x)
    x[:, :10] = 0.1
    held = np.arange(120) % 12 >= 8
    return x, np.asarray(y), held


def test_there_are_seven_rules():
    assert list(RULES) == NAMES


def test_it_has_the_dims_that_are_said(data, names):
    assert list(data["rule"].values) == names and list(data["seed"].values) == [3]
    assert data["cosine"].dims == data["dissipation"].dims == ("rule", "seed", "time", "layer")
    assert data["probe"].dims == ("rule", "seed", "look", "layer")
    assert float(data["time"][0]) == 0 and float(data["time"][-1]) == 1
    assert not data.isnull().drop_vars("peak").any().to_array().any()


def test_every_rule_begins_at_the_same_weights(data):
    first = data.isel(time=0)
    for name in ("loss", "error", "test_error"):
        assert len(np.unique(first[name].values)) == 1
    assert len(np.unique(data["probe"].isel(look=0).sel(layer=1).values)) == 1


def test_the_gradient_flows_cosine_with_itself_is_one(data):
    one = data.sel(rule="supervised")
    np.testing.assert_allclose(one["cosine"], 1, atol=1e-5)
    np.testing.assert_allclose(one["cosine_all"], 1, atol=1e-5)
    loss = one["loss"].values.ravel()
    np.testing.assert_allclose(one["energy"].sum("layer").values.ravel(), loss, rtol=1e-5)
    assert np.all(np.diff(loss) < 1e-6) and loss[-1] < 0.1 * loss[0]


def test_the_last_layer_of_the_supervised_rules_follows_the_gradient(data):
    """Feedback and local losses differ from the gradient below the last layer alone."""
    found = of(data, "feedback_alignment", "direct_feedback_alignment", "layerwise")["cosine"]
    np.testing.assert_allclose(found.sel(layer=3), 1, atol=1e-5)
    assert np.all(np.abs(found.sel(layer=[1, 2], time=0)) < 0.9)


def test_cosines_at_the_start_are_a_numpy_program(data):
    x, y, held = images()
    network = ska.mlp([32, 16, 10])
    weights = network.init(jax.random.key(3), jnp.asarray(x[~held]))
    W = [[np.asarray(a, float) for a in w] for w in weights]
    D, Z = [x[~held].astype(float)], []
    for w, b in W:
        Z.append(D[-1] @ w + b)
        D.append(1 / (1 + np.exp(-Z[-1])))
    slopes = [d * (1 - d) for d in D[1:]]
    p = np.exp(Z[-1]) / np.exp(Z[-1]).sum(axis=1, keepdims=True)
    errors = [np.eye(10)[y[~held]] - p]
    for (w, _), slope in zip(W[:0:-1], slopes[-2::-1], strict=True):
        errors.insert(0, (errors[0] @ w.T) * slope)
    by_layer = lambda drives: [
        np.r_[(d.T @ g).ravel(), g.sum(0)] for d, g in zip(D[:-1], drives, strict=True)
    ]
    gradient = by_layer(errors)
    flow = by_layer([z * slope for z, slope in zip(Z, slopes, strict=True)])
    pairs = zip(flow, gradient, strict=True)
    want = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
    got = data["cosine"].sel(rule="ska", seed=3).isel(time=0)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)
    one, other = np.concatenate(flow), np.concatenate(gradient)
    total = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    np.testing.assert_allclose(
        data["cosine_all"].sel(rule="ska", seed=3).isel(time=0), total, rtol=1e-3, atol=1e-5
    )
    speed = np.linalg.norm(flow[0]) / 80 / np.log(2)
    np.testing.assert_allclose(
        data["speed"].sel(rule="ska", seed=3, layer=1).isel(time=0), speed, rtol=1e-4
    )


def test_separation_is_that_of_the_studys_own_measures(data):
    x, y, held = images()
    assert data["inputs_fisher"].item() == pytest.approx(ska.study.fisher_ratio(x, y), rel=1e-6)
    assert data["inputs_probe"].item() == ska.study.probe_accuracy(x, y, held)
    network = ska.mlp([32, 16, 10])
    weights = network.init(jax.random.key(3), jnp.asarray(x[~held]))
    _, D = network.forward(weights, jnp.asarray(x))
    first = data.sel(rule="supervised", seed=3).isel(look=0)
    np.testing.assert_allclose(
        first["fisher"].sel(layer=1), ska.study.fisher_ratio(D[0], y), rtol=1e-3
    )
    np.testing.assert_allclose(
        first["probe"].sel(layer=1), ska.study.probe_accuracy(D[0], y, held), atol=0.051
    )


def test_dissipation_is_the_square_of_the_speed_along_a_gradient(data):
    """-⟨∇E, Ẇ⟩ = ‖Ẇ‖² where Ẇ = -∇E; of a rule that is no gradient it is less than ‖∇E‖ ‖Ẇ‖."""
    some = of(data, "ska", "global_entropy", "supervised", "layerwise", "forward_forward")
    np.testing.assert_allclose(some["dissipation"], some["speed"] ** 2, rtol=2e-3, atol=1e-9)
    feedback = data.sel(rule="feedback_alignment").isel(time=slice(5, 20))
    hidden = feedback.sel(layer=1)
    apart = np.abs(hidden["dissipation"] / hidden["speed"] ** 2 - 1)
    assert float(apart.min()) > 0.01


def test_transport_of_a_global_energy_moves_it_between_layers(data):
    """On a batch at rest its sum is 0; of SKA's local energy it is not."""
    most = np.abs(data["dissipation"].sum("layer")).max("time")
    total = np.abs(data["transport"].sum("layer")).max("time") / most
    shares = of(total.to_dataset(name="share"), "global_entropy", "supervised")["share"]
    assert float(shares.max()) < 1e-4
    assert float(total.sel(rule="ska").min()) > 1e-3


def test_the_balance_of_skas_energy(data):
    """E(T) - E(0) = ∫ (transport - dissipation) dt, by trapezoids in ln t between the records."""
    one = data.sel(rule="ska", seed=3).isel(time=slice(1, None))
    part, energy = one["time"].values, one["energy"].sum("layer").values
    rate = (one["transport"] - one["dissipation"]).sum("layer").values * one["horizon"].item()
    moved = np.trapezoid(rate * part, np.log(part))
    np.testing.assert_allclose(moved, energy[-1] - energy[0], rtol=0.02)


def test_the_table_and_the_figure(data, out, names):
    text = ska.study.rules_table(data)
    lines = text.splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(names)
    assert all(line.count("|") == lines[0].count("|") for line in lines[: 2 + len(names)])
    assert (out / "rules.md").read_text() == text
    for name in ("rules.nc", "rules.png"):
        assert (out / name).stat().st_size > 1000
    grid = ska.plot.rules(data)
    assert grid.shape == (4, len(names))
    layer_two = grid[1, names.index("supervised")].get_lines()[1]
    np.testing.assert_allclose(layer_two.get_ydata(), 1, atol=1e-5)
    plt.close("all")
    with pytest.raises(ValueError, match="Argument data must be what skajax"):
        ska.plot.rules(data.drop_vars("cosine"))


def test_it_goes_on_where_it_was(data, out, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("simulated again")

    (out / "rules.nc").unlink()
    monkeypatch.setattr(room, "simulate", refuse)
    again = ska.study.rules(out, quick=True, seeds=[3])
    assert again.drop_attrs().identical(data.drop_attrs())
    assert (out / "rules.nc").exists()


@pytest.mark.parametrize("seeds", [[], [0, 0], [0.5], [-1]])
def test_seeds_that_are_none_are_refused(untyped, seeds):
    with pytest.raises(ValueError, match="Argument seeds must be at least one whole number"):
        ska.study.rules(quick=True, seeds=seeds)


def test_held_out_images_are_in_no_batch():
    images = room._images(room.SIZES[True])
    seen = {row.tobytes() for row in np.asarray(images.x)}
    assert len(seen) == 80
    assert not seen & {row.tobytes() for row in np.asarray(images.test_x)}
