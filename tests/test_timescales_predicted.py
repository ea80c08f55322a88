"""Predicted timescales: the spectrum against NumPy's, the reduced model against the whole run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from scipy.optimize import brentq
from scipy.special import shichi

import skajax as ska
from skajax.timescales import Size, linear, predict, schedule, spectrum
from skajax.timescales._thin import stack_of, taken

LN2 = np.log(2)
ALL = Size(samples=1000, modes=1000, neurons=1000)
CURVES = ("knowledge_norm", "flow_norm", "entropy")


def batch(samples, inputs, dtype=jnp.float64, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=(samples, inputs)), dtype)


@pytest.mark.parametrize("shape", [(30, 7), (7, 30), (1, 4), (4, 1)])
def test_the_spectrum_is_that_of_the_kernel(shape, x64):
    x = batch(*shape)
    found = spectrum(x)
    kernel = np.asarray(x) @ np.asarray(x).T + 1
    want = np.linalg.eigvalsh(kernel)[::-1] / (4 * shape[0] * LN2)
    np.testing.assert_allclose(found.rates, want[: len(found.rates)], atol=1e-13 * want[0])
    # Each mode is an eigenvector over the samples, and its direction moves it.
    np.testing.assert_allclose(
        kernel @ np.asarray(found.modes) / (4 * shape[0] * LN2),
        np.asarray(found.modes) * np.asarray(found.rates),
        atol=1e-12 * want[0],
    )
    extended = np.append(x, np.ones((shape[0], 1)), axis=1)
    np.testing.assert_allclose(extended @ found.directions, found.coordinates, atol=1e-12)
    np.testing.assert_allclose(found.tail, 0, atol=1e-12)
    np.testing.assert_allclose(found.growth_time, 1 / want[0], rtol=1e-12)


def deficient(kind, samples, inputs):
    """A batch whose rank is below both its sides."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(samples, inputs))
    return {
        "zeros": 0 * x,
        "ones": 0 * x + 1,
        "one-hot": np.eye(inputs)[np.arange(samples) % 3],
        "repeated rows": x[np.arange(samples) // 4],
        "constant columns": np.where(np.arange(inputs) < inputs // 2, 0.5, x),
        "two directions": rng.normal(size=(samples, 2)) @ rng.normal(size=(2, inputs)),
        "hardly any": x * np.geomspace(1, 1e-9, inputs),
    }[kind]


KINDS = (
    "zeros", "ones", "one-hot", "repeated rows", "constant columns", "two directions", "hardly any",
)  # fmt: skip


@pytest.mark.parametrize(("shape", "dtype"), [((12, 7), jnp.float64), ((7, 12), jnp.float32)])
@pytest.mark.parametrize("kind", KINDS)
def test_modes_and_directions_are_orthonormal_whatever_the_rank(kind, shape, dtype, x64):
    x = jnp.asarray(deficient(kind, *shape), dtype)
    extended = np.append(np.asarray(x, float), np.ones((shape[0], 1)), axis=1)
    size, eps = np.linalg.norm(extended, 2), float(jnp.finfo(dtype).eps)
    want = np.linalg.svd(extended, compute_uv=False) ** 2 / (4 * shape[0] * LN2)
    mapped = jax.tree.map(lambda a: a[0], jax.vmap(spectrum)(x[None]))
    for found in (spectrum(x), jax.jit(spectrum)(x), mapped):
        modes, directions, coordinates, rates = (
            np.asarray(a, float)
            for a in (found.modes, found.directions, found.coordinates, found.rates)
        )
        identity = np.eye(modes.shape[1])
        np.testing.assert_allclose(modes.T @ modes, identity, atol=50 * eps)
        np.testing.assert_allclose(directions.T @ directions, identity, atol=50 * eps)
        np.testing.assert_allclose(rates, want[: rates.size], atol=100 * eps * want[0])
        # Modes of the size of rounding count as 0: √(8 n ε) of the largest.
        floor = np.sqrt(100 * eps) * size
        np.testing.assert_allclose(extended @ directions, coordinates, atol=floor)


@pytest.mark.parametrize("kind", ["zeros", "repeated rows", "hardly any"])
def test_linear_and_reduction_whatever_the_rank(kind, x64):
    x = jnp.asarray(deficient(kind, 12, 7))
    network = ska.mlp([5, 3], scale=1e-4)
    weights = network.init(jax.random.key(0), x)
    names = (*CURVES, "weight_norm")
    steps = lambda how: ska.simulate(
        network, weights, x, ska.Euler(0.1), steps=2, reduction=how, observe=names
    )
    run, reduced = steps("off"), steps("full")
    for name in names:
        np.testing.assert_allclose(getattr(reduced, name), getattr(run, name), rtol=1e-9)
    method = ska.Adaptive(rtol=1e-9, atol=1e-13)
    run = ska.simulate(network, weights, x, method, 0.5, save_at="end", reduction="off", observe=())
    for z, want in zip(linear(network, weights, x, 0.5).Z, run.final.Z, strict=True):
        np.testing.assert_allclose(z, want, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_predict_and_schedule_whatever_the_rank(kind):
    x = jnp.asarray(deficient(kind, 12, 7), jnp.float32)
    network = ska.mlp([5, 3], scale=0.1)
    weights = network.init(jax.random.key(0), x)
    method = ska.Adaptive(rtol=1e-5, atol=1e-8)
    run = ska.simulate(network, weights, x, method, 20.0, reduction="off", observe=CURVES)
    found = predict(network, weights, x, t=run.t, size=ALL)
    for name in CURVES:
        np.testing.assert_allclose(getattr(found, name), getattr(run, name), rtol=1e-2, atol=1e-5)
    plan = schedule(network, x, weights=weights, size=ALL)
    assert plan.K >= 1 and np.isfinite([plan.T, plan.dt, plan.error_per_dt]).all()
    # From zeros alone, weights and inputs, there is nothing to learn, ever.
    if kind == "zeros":
        still = schedule(network, x, weights=jax.tree.map(jnp.zeros_like, weights), size=ALL)
        assert not still.reached and np.isfinite([still.T, still.dt]).all()


def test_equal_rates_are_all_found(x64, monkeypatch):
    # Lanczos' method from one vector finds each rate once, however many modes have it.
    monkeypatch.setattr("skajax.timescales._spectrum.DENSE", 100)
    x = np.eye(200)[np.arange(280) % 190]
    found, extended = spectrum(x, 20), np.append(x, np.ones((280, 1)), axis=1)
    want = np.linalg.svd(extended, compute_uv=False)[:20] ** 2 / (4 * 280 * LN2)
    np.testing.assert_allclose(found.rates, want, rtol=1e-12)
    for vectors in (found.modes, found.directions):
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(20), atol=1e-12)
    np.testing.assert_allclose(extended @ found.directions, found.coordinates, atol=1e-10)


@pytest.mark.parametrize("dense", [100, 2048])
def test_a_few_modes_of_many_by_products_alone(x64, monkeypatch, dense):
    monkeypatch.setattr("skajax.timescales._spectrum.DENSE", dense)
    x = batch(700, 600) * jnp.linspace(1, 3, 600)[None, :]
    few, whole = spectrum(x, 5), jax.jit(spectrum)(x)
    np.testing.assert_allclose(few.rates, whole.rates[:5], rtol=1e-10)
    np.testing.assert_allclose(
        np.abs(few.directions.T @ whole.directions[:, :5]), np.eye(5), atol=1e-6
    )
    lengths = np.sum(np.asarray(x) ** 2, axis=1) + 1
    np.testing.assert_allclose(
        few.tail + np.sum(np.asarray(few.coordinates) ** 2, axis=1), lengths, rtol=1e-12
    )


def test_the_published_leading_rate():
    x, _ = ska.data.mnist_subset(per_class=100)
    np.testing.assert_allclose(spectrum(x, 3).rates[0], 13.8, atol=0.05)


def test_with_nothing_left_out_it_is_the_network(x64):
    weights, x = small(ref.SMALL, 0.1)
    weights, x = ref.to_skajax(weights), jnp.asarray(x)
    times = np.linspace(0, 10, 101)
    found = predict(ref.SMALL.network, weights, x, t=times, size=ALL)
    run = ska.simulate(
        ref.SMALL.network, weights, x, ska.Adaptive(rtol=1e-9, atol=1e-11), 10.0, save_at=times,
        observe=(*CURVES, "entropy_rate"),
    )  # fmt: skip
    for name in CURVES:
        np.testing.assert_allclose(getattr(found, name), getattr(run, name), rtol=5e-3)
    rate = np.abs(run.entropy_rate).max()
    np.testing.assert_allclose(found.entropy_rate, run.entropy_rate, atol=5e-3 * rate)
    assert found.inside.all() and not found.spread.any()
    for read, landmarks in (
        (found.peak, ska.landmarks.peaks(run)),
        (found.steepest, ska.landmarks.minima(run)),
    ):
        np.testing.assert_allclose(read, [mark.t for mark in landmarks], rtol=2e-2)
    np.testing.assert_allclose(found.rates[1], (5 / 4 + 1) / (4 * LN2), rtol=1e-12)
    # The bias's input is counted: 5 + 5 inputs of 4 + 5, on as many samples.
    np.testing.assert_allclose(found.share, (5 * 5 + 5 * 3) / (4 * 5 + 5 * 3))


def test_what_is_left_out_hardly_matters():
    x = batch(300, 40, jnp.float32)
    network = ska.mlp([160, 90])
    weights = network.init(jax.random.key(0), x)
    size = Size(samples=64, modes=16, neurons=48)
    given, expected = (
        jax.jit(lambda w: predict(network, w, x, size=size))(weights),
        predict(network, None, x, size=size, draws=4),
    )
    times = np.linspace(0, 3, 301)
    run = ska.simulate(network, weights, x, ska.Adaptive(), 3.0, save_at=times, observe=CURVES)
    peaks = [peak.t for peak in ska.landmarks.peaks(run)]
    np.testing.assert_allclose(given.peak, peaks, rtol=0.05)
    np.testing.assert_allclose(expected.peak, peaks, rtol=0.1)
    assert (expected.spread > 0).all() and (expected.spread < 0.1 * expected.peak).all()
    assert given.share < 0.3
    # The curves too, of the whole network.
    for name in ("knowledge_norm", "entropy"):
        for layer in (0, 1):
            curve = np.asarray(getattr(run, name))[:, layer]
            seen = np.interp(given.t, run.t, curve)
            inside = np.asarray(given.t) <= 3
            apart = np.asarray(getattr(given, name))[inside, layer] - seen[inside]
            assert np.abs(apart).max() < 0.05 * curve.max()


def test_the_thinned_network_keeps_moments_and_amplitudes(x64):
    x = batch(120, 10)
    network = ska.mlp([70, 50], scale=0.3)
    weights = network.init(jax.random.key(0), x)
    size, known = Size(samples=40, modes=6, neurons=20), spectrum(x)
    thin = jax.jit(taken, static_argnums=4)(stack_of(network, x.dtype), weights, x, known, size)
    np.testing.assert_allclose(
        thin.x.T @ thin.x / 40, np.diag(known.rates[:6]) * 4 * LN2, rtol=1e-4, atol=1e-4
    )
    # Each neuron kept has its own amplitude: in the first layer that of the leading mode, ...
    lead = known.directions[:, 0] @ jnp.concatenate([weights[0].W, weights[0].b[None]])
    kept = np.asarray(thin.weights[0][0][0])
    assert len(kept) == 20 and np.isin(kept.round(10), np.asarray(lead).round(10)).all()
    # ... above it the mean knowledge, of the samples that were kept.
    rows = np.argsort(known.modes[:, 0])[((np.arange(40) + 0.5) * 3).astype(int)]
    Z, D = network.forward(weights, x[rows])
    below = np.argsort(lead)[((np.arange(20) + 0.5) * 3.5).astype(int)]
    W, b = thin.weights[1]
    mean = np.sqrt(3.5) * np.asarray(D[0])[:, below].mean(axis=0) @ W + b
    assert np.isin(np.asarray(mean).round(10), np.asarray(Z[1].mean(axis=0)).round(10)).all()
    np.testing.assert_allclose(thin.norms, np.sqrt([3 * 3.5, 3 * 2.5]))


def test_one_neuron_peaks_where_the_closed_form_has_it(x64):
    # dz/dt = c z D' / ln 2 is largest at z tanh(z/2) = 1, and 1/D' = 2 + 2 cosh z: time is ln z + Chi(z).
    x, W = 0.8, 0.1
    c = x**2 + 1
    passed = lambda z: np.log(z) + shichi(z)[1]
    crest = brentq(lambda z: z * np.tanh(z / 2) - 1, 1, 2)
    want = 2 * LN2 / c * (passed(crest) - passed(x * W))
    ensemble = (ska.DenseWeights(jnp.array([[[W]], [[-W]]]), jnp.zeros((2, 1))),)
    network = ska.mlp([1])
    lane = lambda weights: predict(network, weights, jnp.array([[x]])).peak
    np.testing.assert_allclose(jax.jit(jax.vmap(lane))(ensemble), want, rtol=5e-3)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("network", {"network": "mlp"}),
        ("weights", {"weights": ()}),
        ("x", {"x": np.full((3, 4), np.nan)}),
        ("spectrum", {"spectrum": spectrum(jnp.ones((2, 4)))}),
        ("draws", {"draws": 0}),
        ("size", {"size": 5}),
        ("key", {"key": 3}),
        ("t", {"t": [0.0, np.nan]}),
        ("t", {"t": [0.0, 2.0, 1.0]}),
        ("t", {"t": [1.0, 2.0]}),
        ("t", {"t": 2.0}),
    ],
)
def test_arguments_that_do_not_fit(name, arguments, untyped):
    given = {"network": ska.mlp([2]), "weights": None, "x": jnp.ones((3, 4))} | arguments
    with pytest.raises(ValueError, match=f"Argument {name} must .*, but "):
        predict(**given)
    with pytest.raises(
        ValueError, match="Argument rank must be None, or a whole number from 1 to 3"
    ):
        spectrum(jnp.ones((3, 4)), 4)
    with pytest.raises(ValueError, match="Argument neurons must be a whole number, at least 1"):
        Size(neurons=0)


def small(problem, scale):
    weights, x = problem.numpy()
    return [(scale * W, scale * b) for W, b in weights], x


def knowledge_apart(weights, x, network, t):
    """Relative to the reference's, of each layer's Z at t; and the largest |z| of any layer."""
    found = linear(network, ref.to_skajax(weights), jnp.asarray(x), t)
    Z, _ = ref.forward(ref.solve(weights, x, [t])[0], x)
    apart = [
        np.linalg.norm(np.asarray(z) - want) / np.linalg.norm(want)
        for z, want in zip(found.Z, Z, strict=True)
    ]
    return np.array(apart), max(np.abs(z).max() for z in Z)


@pytest.mark.parametrize("problem", [ref.SAMPLE, ref.SMALL, ref.DEEP], ids=lambda p: p.name)
def test_the_linear_solution_is_exact_while_knowledge_is_small(problem, x64):
    weights, x = small(problem, 3e-5)
    _, largest = knowledge_apart(weights, x, problem.network, 2.0)
    weights, x = small(problem, 3e-5 * 9e-4 / largest)
    apart, largest = knowledge_apart(weights, x, problem.network, 2.0)
    assert 8e-4 < largest < 1e-3
    assert (apart < 1e-6).all()


def test_what_the_linear_solution_leaves_out_is_of_second_order_in_every_layer(x64):
    errors = []
    for scale in (2e-3, 1e-3):
        weights, x = small(ref.DEEP, scale)
        errors.append(knowledge_apart(weights, x, ref.DEEP.network, 1.0)[0])
    order = np.log2(errors[0] / errors[1])
    np.testing.assert_allclose(order, 2, atol=0.1)


@pytest.mark.parametrize("t", [np.nan, -1.0, np.ones(2), np.inf, True, 1j, None, "a"])
def test_a_time_that_is_none(t, untyped):
    network, x = ska.mlp([2]), jnp.ones((3, 4))
    weights = network.init(jax.random.key(0), x)
    with pytest.raises(
        ValueError,
        match=r"Argument t must be (one finite time, 0 or later|an array of numbers, floating-point or whole), but",  # noqa: E501
    ):
        linear(network, weights, x, t)


def test_a_traced_time_is_one(untyped):
    network, x = ska.mlp([2]), jnp.ones((3, 4))
    weights = network.init(jax.random.key(0), x)
    at = lambda t: linear(network, weights, x, t).Z[0]
    with pytest.raises(ValueError, match="Argument t must be one finite time, 0 or later, but"):
        jax.jit(at)(jnp.ones(2))
    for t, z in zip((1.0, 2.0), jax.vmap(at)(jnp.array([1.0, 2.0])), strict=True):
        np.testing.assert_allclose(z, at(t), rtol=1e-5)


def test_one_neuron_of_one_sample_grows_at_its_own_rate(x64):
    network, (w, b), x = ska.mlp([1]), (3e-5, 2e-5), 0.8
    weights = (ska.DenseWeights(jnp.array([[w]]), jnp.array([b])),)
    found = jax.jit(lambda t: linear(network, weights, jnp.array([[x]]), t))(2.0)
    want = (w * x + b) * np.exp((x**2 + 1) / (4 * LN2) * 2.0)
    np.testing.assert_allclose(found.Z[0], want, rtol=1e-13)
    assert found.t == 2.0
