"""Layers in a time of their own, designs and schedules: against the equations and against runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref

import skajax as ska
from skajax.timescales import design, linear, schedule, spectrum

X = np.random.default_rng(0).uniform(size=(12, 5))
NETWORK = ska.mlp([8, 6], scale=0.02)
METHOD = ska.Adaptive(rtol=1e-6, atol=1e-8)
FLOW = ("flow_norm", "knowledge_norm")


def paced(rates, widths, scale=0.02):
    return ska.Network(
        tuple(
            ska.Paced(ska.Dense(n, scale=scale), rate)
            for n, rate in zip(widths, rates, strict=True)
        )
    )


def test_a_paced_layer_moves_at_its_rate(x64):
    rates, (start, x) = (3.0, 0.5), ref.SMALL.numpy()
    network = paced(rates, (5, 3))
    run = ska.simulate(
        network, ref.to_skajax(start), jnp.asarray(x), ska.Euler(0.1), steps=5, observe=FLOW
    )
    want = start
    for _ in range(5):
        want = [
            (W + 0.1 * r * Wdot, b + 0.1 * r * bdot)
            for (W, b), (Wdot, bdot), r in zip(want, ref.flow(want, x), rates, strict=True)
        ]
    Z, _ = ref.forward(want, x)
    for got, z in zip(run.final.Z, Z, strict=True):
        np.testing.assert_allclose(got, z, rtol=1e-12)
    for got, (W, b) in zip(run.final.weights, want, strict=True):
        np.testing.assert_allclose(got.W, W, rtol=1e-11)
        np.testing.assert_allclose(got.b, b, rtol=1e-11)


def test_a_paced_layer_begins_where_the_dense_one_does(x64):
    x = jnp.asarray(X)
    dense, slow = ska.mlp([8]), paced([0.25], [8], scale=0.01)
    Z, _ = dense.forward(dense.init(jax.random.key(1), x), x)
    Z_slow, _ = slow.forward(slow.init(jax.random.key(1), x), x)
    np.testing.assert_allclose(Z_slow[0], Z[0], rtol=1e-12)


def test_the_linear_solution_of_paced_layers(x64):
    x = jnp.asarray(X)
    network = paced((2.0, 0.5), (8, 6), scale=1e-5)
    weights = network.init(jax.random.key(0), x)
    found = linear(network, weights, x, 2.0)
    method = ska.Adaptive(rtol=1e-11, atol=1e-16)
    run = ska.simulate(network, weights, x, method, 2.0, save_at="end", observe=())
    assert 5e-4 < max(np.abs(z).max() for z in run.final.Z) < 1e-3
    for got, z in zip(found.Z, run.final.Z, strict=True):
        np.testing.assert_allclose(got, z, rtol=0, atol=1e-6 * np.linalg.norm(z))


@pytest.mark.parametrize("rate", [0, -1.0, np.inf, "fast"])
def test_a_pace_that_is_none(rate, untyped):
    with pytest.raises(ValueError, match="Argument rate must be a positive, finite number, but"):
        ska.Paced(ska.Dense(3), rate)
    with pytest.raises(ValueError, match="Argument layer must be a layer"):
        ska.Paced("layer")


@pytest.mark.parametrize("by", ["scale", "rate"])
def test_a_design_peaks_where_it_was_to(by):
    x = jnp.asarray(X, jnp.float32)
    times = (4.0, 5.0)
    found = design(NETWORK, x, times, by=by, draws=2)
    assert found.succeeded and found.tried < 40
    np.testing.assert_allclose(found.prediction.peak, times, rtol=1e-2)
    assert str(found).startswith(f"layer 1: {float(found.values[0]):.4g} for a peak at t = ")
    # Nothing was thinned out: what is left is the spread over the seeds.
    peaks = []
    for seed in range(8):
        weights = found.network.init(jax.random.key(seed), x)
        run = ska.simulate(found.network, weights, x, METHOD, 10.0, observe=FLOW)
        peaks.append([peak.t for peak in ska.landmarks.peaks(run)])
    np.testing.assert_allclose(np.mean(peaks, axis=0), times, rtol=0.1)


def test_a_design_in_double_precision(x64):
    x = jnp.asarray(X)
    found = design(NETWORK, x, 4.0, draws=1)
    assert found.succeeded and found.values.dtype == jnp.float64
    np.testing.assert_allclose(found.prediction.peak, 4.0, rtol=1e-2)


def test_a_time_out_of_reach_is_said():
    found = design(NETWORK, jnp.asarray(X, jnp.float32), 1e-4, draws=2)
    assert not found.succeeded
    assert "not at 0.0001: no value that was tried makes it" in str(found)


@pytest.mark.parametrize("fraction", [0.6, 0.2])
def test_a_schedule_reaches_the_fraction_at_the_accuracy(fraction, x64):
    x = jnp.asarray(X)
    weights = NETWORK.init(jax.random.key(3), x)
    found = schedule(NETWORK, x, fraction, accuracy=0.02, weights=weights)
    assert found.reached
    np.testing.assert_allclose(found.K * found.dt, found.T, rtol=1e-12)
    observe = {"observe": ("entropy",)}
    run = ska.simulate(NETWORK, weights, x, ska.Euler(found.dt), steps=found.K, **observe)
    exact = ska.simulate(NETWORK, weights, x, METHOD, found.T, save_at="end", **observe)
    start = run.entropy[0]
    # Nothing is thinned out: the exact run has the fraction, to the solver's and records' accuracy.
    np.testing.assert_allclose(exact.entropy[-1].sum() / start.sum(), fraction, rtol=1e-2)
    np.testing.assert_allclose(exact.entropy[-1] / start, found.entropy_fraction, rtol=2e-2)
    errors = [
        np.linalg.norm(a - b) / np.linalg.norm(b)
        for a, b in zip(run.final.Z, exact.final.Z, strict=True)
    ]
    # Of first order in dt: its square is left out.
    np.testing.assert_allclose(max(errors), found.error_per_dt * found.dt, rtol=0.15)
    assert max(errors) < 1.15 * 0.02


@pytest.mark.parametrize(
    ("function", "name", "arguments"),
    [
        (design, "times", {"times": -1.0}),
        (design, "times", {"times": [1.0, 2.0, 3.0]}),
        (design, "by", {"times": 1.0, "by": "luck"}),
        (design, "tolerance", {"times": 1.0, "tolerance": 0.0}),
        (design, "tolerance", {"times": 1.0, "tolerance": 1e-6}),
        (design, "draws", {"times": 1.0, "draws": 0}),
        (design, "key", {"times": 1.0, "key": 3}),
        (design, "size", {"times": 1.0, "size": 5}),
        (schedule, "draws", {"draws": 0}),
        (design, "spectrum", {"times": 1.0, "spectrum": spectrum(jnp.ones((3, 2)))}),
        (schedule, "entropy_fraction", {"entropy_fraction": 1.0}),
        (schedule, "accuracy", {"accuracy": -0.1}),
        (schedule, "weights", {"weights": ()}),
    ],
)
def test_arguments_that_do_not_fit(function, name, arguments, untyped):
    with pytest.raises(ValueError, match=f"Argument {name} must .*, but "):
        function(NETWORK, jnp.asarray(X, jnp.float32), **arguments)


@pytest.mark.parametrize(
    "function", [lambda x: design(NETWORK, x, 1.0), lambda x: schedule(NETWORK, x)]
)
def test_what_decides_by_values_says_so(function):
    with pytest.raises(ValueError, match=r"Argument x must be known: .* outside of jit"):
        jax.jit(function)(jnp.asarray(X, jnp.float32))


def test_a_thinned_design_peaks_where_it_was_to_whatever_the_seed():
    x = ska.data.sklearn("digits")[0][::9]
    network = ska.mlp([96, 80])
    found = design(network, x, [1.2, 0.6])
    assert found.succeeded and found.prediction.share < 0.2
    for seed in range(2):
        weights = found.network.init(jax.random.key(seed), x)
        run = ska.simulate(found.network, weights, x, ska.Adaptive(), 2.5, observe=FLOW)
        peaks = [peak.t for peak in ska.landmarks.peaks(run)]
        np.testing.assert_allclose(peaks, [1.2, 0.6], rtol=0.15)
