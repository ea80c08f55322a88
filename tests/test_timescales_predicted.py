"""Predicted timescales: the spectrum against NumPy's, the reduced model against the whole run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref

import skajax as ska
from skajax.timescales import Size, predict, spectrum

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
