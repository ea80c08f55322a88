"""Predicted timescales: the spectrum against NumPy's, the reduced model against the whole run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref

import skajax as ska
from skajax.timescales import Size, linear, predict, spectrum

LN2 = np.log(2)
ALL = Size(samples=1000, modes=1000, neurons=1000)


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


def test_a_few_modes_of_many_by_products_alone(x64):
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


@pytest.mark.parametrize("problem", [ref.SMALL, ref.DEEP], ids=lambda p: p.name)
def test_with_nothing_left_out_it_is_the_network(problem, x64):
    weights, x = problem.numpy()
    weights = ref.to_skajax([(W / 10, b / 10) for W, b in weights])
    x = jnp.asarray(x)
    times = np.linspace(0, 6, 13)
    found = predict(problem.network, weights, x, t=times, size=ALL)
    method = ska.Adaptive(rtol=1e-9, atol=1e-11)
    run = ska.simulate(problem.network, weights, x, method, 6.0, save_at=times)
    for name in ("knowledge_norm", "flow_norm", "entropy"):
        np.testing.assert_allclose(getattr(found, name), getattr(run, name), rtol=5e-3)


def small(problem, scale):
    weights, x = problem.numpy()
    return [(scale * W, scale * b) for W, b in weights], x


def knowledge_apart(weights, x, start, t):
    """Relative to the reference's, of each layer's Z at t; and the largest |z| of any layer."""
    network = ref.PROBLEMS[0].network if start is None else start
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
    apart, largest = knowledge_apart(weights, x, problem.network, 2.0)
    assert 3e-5 < largest < 1e-3
    assert (apart < 1e-6).all()


def test_what_the_linear_solution_leaves_out_is_of_second_order_in_every_layer(x64):
    errors = []
    for scale in (2e-3, 1e-3):
        weights, x = small(ref.DEEP, scale)
        errors.append(knowledge_apart(weights, x, ref.DEEP.network, 1.0)[0])
    order = np.log2(errors[0] / errors[1])
    np.testing.assert_allclose(order, 2, atol=0.1)


def test_one_neuron_of_one_sample_grows_at_its_own_rate(x64):
    network, (w, b), x = ska.mlp([1]), (3e-5, 2e-5), 0.8
    weights = (ska.DenseWeights(jnp.array([[w]]), jnp.array([b])),)
    found = jax.jit(lambda t: linear(network, weights, jnp.array([[x]]), t))(2.0)
    want = (w * x + b) * np.exp((x**2 + 1) / (4 * LN2) * 2.0)
    np.testing.assert_allclose(found.Z[0], want, rtol=1e-13)
    assert found.t == 2.0
