"""Measures of class separation: cases of known answers, other libraries' numbers, invariances."""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
import reference as ref
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import RidgeCV

import skajax as ska
from skajax.study import cluster_agreement, fisher_ratio, probe_accuracy, separation

METRICS = ["fisher", "probe", "ari", "nmi"]


@pytest.fixture(autouse=True)
def headless():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def blobs(seed=0, *, classes=3, each=12, extent=0.1, inputs=4):
    """Classes about the corners of a cube, and their labels, out of order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), each))
    middles = 3 * np.eye(classes, inputs)
    return middles[labels] + extent * rng.normal(size=(len(labels), inputs)), labels


def alternating(half, extent):
    """Two classes at ±1, the samples of each at ± extent about it."""
    labels = np.repeat([0, 1], 2 * half)
    return (2 * labels - 1 + extent * np.tile([1, -1], 2 * half))[:, None], labels


# Fisher's ratio.


@pytest.mark.parametrize("extent", [0.5, 2.0])
def test_fisher_ratio_of_two_known_classes(extent):
    # Between the classes the variance is 1, within them extent².
    np.testing.assert_allclose(fisher_ratio(*alternating(5, extent)), 1 / extent**2, rtol=1e-13)


def test_fisher_ratio_of_classes_that_coincide_or_have_no_extent():
    features, labels = alternating(5, 0.0)
    assert fisher_ratio(features, labels) == np.inf
    features, _ = alternating(6, 0.3)
    assert fisher_ratio(features, np.tile([0, 0, 1, 1], 6)) == pytest.approx(0, abs=1e-30)
    for same in (1.0, 0.1, 1 / 3):  # whatever the rounding of its mean
        assert fisher_ratio(np.full((7, 3), same), [0, 0, 0, 0, 1, 1, 1]) == 0


@given(seed=st.integers(0, 2**16), size=st.floats(0.01, 100))
def test_fisher_ratio_is_the_ratio_of_scatter_matrices_whatever_the_coordinates(seed, size):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[0, 1, 2], rng.integers(0, 3, 20)])
    features = rng.normal(size=(23, 5)) + labels[:, None]
    middle = features.mean(axis=0)
    between, within = np.zeros((5, 5)), np.zeros((5, 5))
    for name in range(3):
        own = features[labels == name]
        apart = own.mean(axis=0) - middle
        between += len(own) * np.outer(apart, apart)
        within += (own - own.mean(axis=0)).T @ (own - own.mean(axis=0))
    want = np.trace(between) / np.trace(within)
    rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    moved = size * features @ rotation + rng.normal(size=5)
    np.testing.assert_allclose(fisher_ratio(features, labels), want, rtol=1e-12)
    np.testing.assert_allclose(fisher_ratio(moved, labels), want, rtol=1e-8)
    np.testing.assert_allclose(fisher_ratio(features, 7 - 2 * labels), want, rtol=1e-12)


# The linear probe.


def test_a_probe_tells_separated_classes_and_none_that_were_drawn_by_lot():
    features, labels = blobs(each=40)
    test = np.arange(len(labels)) % 3 == 0
    assert probe_accuracy(features, labels, test) == 1.0
    lot = np.random.default_rng(1).permutation(labels)
    assert abs(probe_accuracy(features, lot, test) - 1 / 3) < 0.15  # 40 samples: ± 0.075
    assert probe_accuracy(0 * features, labels, test) < 0.5


@given(
    seed=st.integers(0, 2**16),
    unit=st.sampled_from([1e-6, 1.0, 1e4]),
    ridges=st.sampled_from([(0.01,), (1e-3, 0.1, 10.0)]),
    inputs=st.sampled_from([6, 40]),
)
def test_the_probe_is_scikit_learns_ridge_in_any_unit(seed, unit, ridges, inputs):
    # With one penalty, or with the best of several by leaving out every sample once.
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[3, 5, 9], rng.integers(0, 3, 40) * 2 + 5])
    features = rng.normal(size=(43, inputs)) + 0.3 * labels[:, None]
    test = np.arange(43) % 4 == 3
    X, classes = features[~test], np.unique(labels)
    size = np.sum((X - X.mean(axis=0)) ** 2) / inputs
    model = RidgeCV(size * np.array(ridges)).fit(
        X, (labels[~test][:, None] == classes).astype(float)
    )
    told = classes[np.argmax(model.predict(features[test]), axis=1)]
    got = probe_accuracy(unit * features, labels, test, ridges)
    assert got == np.mean(told == labels[test])


# Clusters.


def test_separated_clusters_agree_with_the_classes_whatever_they_are_called():
    features, labels = blobs()
    assert cluster_agreement(features, labels) == (1.0, pytest.approx(1.0))
    assert cluster_agreement(1e-7 * features + 0.5, 10 - labels) == (1.0, pytest.approx(1.0))


def test_clusters_of_noise_do_not_agree_with_classes():
    rng = np.random.default_rng(0)
    ari, nmi = cluster_agreement(rng.normal(size=(300, 3)), rng.integers(0, 3, 300))
    assert abs(ari) < 0.03
    assert 0 <= nmi < 0.05


def test_two_classes_in_one_cluster_have_a_known_agreement():
    # Four tight groups of n, two classes of two groups each: k-means with 2 finds the near pairs.
    n = 5
    features = np.repeat([0.0, 1.0, 100.0, 101.0], n)[:, None]
    together, across = np.repeat([0, 0, 1, 1], n), np.repeat([0, 1, 0, 1], n)
    assert cluster_agreement(features, together) == (1.0, pytest.approx(1.0))
    # Across, each class is half of each cluster: the pairs that agree are fewer than by chance.
    pairs = lambda k: k * (k - 1) / 2
    expected = (2 * pairs(2 * n)) ** 2 / pairs(4 * n)
    ari = (4 * pairs(n) - expected) / (2 * pairs(2 * n) - expected)
    got, nmi = cluster_agreement(features, across)
    np.testing.assert_allclose((got, nmi), (ari, 0), atol=1e-12)


def test_samples_that_are_all_alike_are_no_clusters():
    assert cluster_agreement(np.ones((6, 2)), [0, 0, 0, 1, 1, 1]) == (0.0, 0.0)


# Along the flow.


def small():
    x, y = blobs(extent=0.4)
    network = ska.mlp([5, 4], scale=0.1)
    x = jnp.asarray(x, jnp.float32)
    return network, network.init(jax.random.key(1), x), x, y


@pytest.fixture(scope="module")
def study():
    network, weights, x, y = small()
    method = ska.Adaptive(rtol=1e-9, atol=1e-11)
    times, scales = (0.0, 1.0, 3.0), (1.0, 5.0)
    return separation(network, weights, x, y, times=times, scales=scales, method=method)


def test_a_study_has_labelled_axes(study):
    assert study["trained"].dims == ("time", "layer", "metric")
    assert study["random"].dims == ("scale", "layer", "metric")
    assert study["inputs"].dims == ("metric",)
    assert list(study["metric"].values) == METRICS
    np.testing.assert_array_equal(study["layer"], [1, 2])
    np.testing.assert_array_equal(study["time"], [0, 1, 3])
    assert study.attrs["classes"] == 3
    assert study["time"].attrs["units"] == "time"


def test_what_is_measured_is_the_decisions_of_the_ode(study):
    _, weights, x, y = small()
    # At t = 0 nothing has been learned: the layers are the untrained ones at scale 1.
    np.testing.assert_array_equal(study["trained"].sel(time=0), study["random"].sel(scale=1))
    samples, start = np.asarray(x, float), ref.to_numpy(weights)
    for t, solution in zip((1.0, 3.0), ref.solve(start, samples, (1.0, 3.0)), strict=True):
        _, D = ref.forward(solution, samples)
        got = study["trained"].sel(time=t, metric="fisher")
        np.testing.assert_allclose(got, [fisher_ratio(d, y) for d in D], rtol=1e-6)
    scaled = [(5 * W, 5 * b) for W, b in start]
    _, D = ref.forward(scaled, samples)
    got = study["random"].sel(scale=5, metric="fisher")
    np.testing.assert_allclose(got, [fisher_ratio(d, y) for d in D], rtol=1e-10)
    inputs = study["inputs"]
    np.testing.assert_allclose(inputs.sel(metric="fisher"), fisher_ratio(samples, y), rtol=1e-12)
    assert float(inputs.sel(metric="probe")) == 1.0
    assert float(inputs.sel(metric="ari")) == 1.0


def test_a_study_repeats_itself(study):
    network, weights, x, y = small()
    method = ska.Adaptive(rtol=1e-9, atol=1e-11)
    again = separation(network, weights, x, y, times=(3.0,), scales=(5.0,), method=method)
    np.testing.assert_allclose(
        again["trained"].sel(time=3), study["trained"].sel(time=3), rtol=1e-9
    )
    xr.testing.assert_allclose(again["random"].sel(scale=5), study["random"].sel(scale=5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(5)}, "Argument y must hold one label for each of the 36 samples"),
        ({"y": np.arange(36)}, "Argument y must hold at least two samples of each class"),
        ({"times": (-1.0, 1.0)}, "Argument times must hold times from 0 on"),
        ({"times": (0.0,)}, "Argument times must hold times from 0 on"),
        ({"scales": (0.0,)}, "Argument scales must be a factor"),
        ({"test": 1.0}, "Argument test must be a share"),
        ({"method": ska.Euler(0.1)}, "Argument method must be an Adaptive"),
    ],
)
def test_bad_arguments_are_refused(change, message, untyped):
    network, weights, x, y = small()
    with pytest.raises(ValueError, match=message):
        separation(network, weights, x, **{"y": y, **change})


def test_bad_features_and_labels_are_refused():
    features, labels = blobs()
    with pytest.raises(ValueError, match="Argument features must be finite"):
        fisher_ratio(np.where(features > 2, np.nan, features), labels)
    with pytest.raises(ValueError, match="Argument labels must hold one label"):
        fisher_ratio(features, labels[:-1])
    with pytest.raises(ValueError, match="at least two classes"):
        cluster_agreement(features, 0 * labels)
    with pytest.raises(ValueError, match="Argument test must mark some"):
        probe_accuracy(features, labels, np.ones(36, bool))
    with pytest.raises(ValueError, match="Argument ridges must be a factor"):
        probe_accuracy(features, labels, np.arange(36) < 9, ridges=[0.0])


# The figure.


def test_the_figure_shows_every_measure_of_every_layer(study):
    axes = ska.plot.separation(study)
    assert len(axes) == 4
    for metric, ax in zip(METRICS, axes, strict=True):
        of = study.sel(metric=metric)
        curves = {line.get_label(): line for line in ax.lines}
        for layer in (1, 2):
            drawn = curves[f"layer {layer}"]
            np.testing.assert_array_equal(drawn.get_xdata(), study["time"])
            np.testing.assert_array_equal(drawn.get_ydata(), of["trained"].sel(layer=layer))
        assert curves["inputs"].get_ydata()[0] == float(of["inputs"])
        assert curves["best untrained"].get_ydata()[0] == float(of["random"].max())
        assert ax.get_ylabel()
    axes[0].figure.draw_without_rendering()


def test_seeds_are_a_band_about_their_median(study):
    other = study.copy()
    other["trained"] = study["trained"] * 3
    third = study.copy()
    third["trained"] = study["trained"] * 5
    data = xr.concat([other, study, third], "seed")
    _, mine = plt.subplots(1, 4, layout="constrained")
    axes = ska.plot.separation(data, axes=mine)
    assert list(axes) == list(mine)
    for metric, ax in zip(METRICS, axes, strict=True):
        median = other["trained"].sel(metric=metric, layer=2)
        np.testing.assert_allclose(ax.lines[1].get_ydata(), median, rtol=1e-12)
        assert len(ax.collections) == 2


def test_other_data_are_refused(study, untyped):
    with pytest.raises(ValueError, match="Argument data must be what"):
        ska.plot.separation(study.drop_vars("inputs"))
    with pytest.raises(ValueError, match="Argument axes must hold one Axes for each of the 4"):
        ska.plot.separation(study, axes=plt.subplots(1, 2)[1])
