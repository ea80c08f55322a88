"""The published rule against a NumPy program of it, pass by pass."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from published_numpy import published

import skajax as ska
from skajax.observables import DIAGNOSTICS

WIDTHS = (256, 128, 64, 10)


def paper_sized():
    """Weights and a batch of the published size, and as sparse as its images, from outside."""
    rng = np.random.default_rng(2025)
    sizes = (784, *WIDTHS)
    weights = [
        (rng.normal(scale=0.01, size=(n, m)), np.zeros(m)) for n, m in itertools.pairwise(sizes)
    ]
    x = rng.uniform(size=(1000, 784)) * (rng.uniform(size=(1000, 784)) < 0.2)
    return weights, x


def assert_same(run, rows, final, tolerance):
    """All records and the weights at the end, each to the tolerance times its largest value."""
    assert str(run.outcome).startswith("completed")
    assert run.t.shape == (len(rows),)
    series = {name: np.stack([row[name] for row in rows]) for name in DIAGNOSTICS}
    series["t"] = np.array([row["t"] for row in rows])
    errors = {}
    for name, want in series.items():
        got = np.asarray(getattr(run, name), np.float64)
        assert got.shape == want.shape
        # Of each layer; but the transport is the small difference of two rates.
        sized = series["dissipation"] if name == "transport" else want
        scale = np.abs(sized).max(axis=0, keepdims=True)
        errors[name] = np.max(np.abs(got - want) / np.where(scale > 0, scale, 1))
    assert max(errors.values()) < tolerance, errors
    for (W, b), w in zip(final, run.final.weights, strict=True):
        np.testing.assert_allclose(w.W, W, rtol=0, atol=tolerance * np.abs(W).max())
        np.testing.assert_allclose(w.b, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.fixture(scope="module")
def full_size():
    """50 passes at full size by the NumPy program, shared by the tests below."""
    weights, x = paper_sized()
    return weights, x, *published(weights, x, 0.01, 50)


@pytest.mark.thorough
def test_fifty_passes_at_full_size_in_float64(full_size, x64):
    weights, x, rows, final = full_size
    network = ska.mlp(list(WIDTHS))
    run = ska.simulate(network, ref.to_skajax(weights), x, ska.Published(0.01), t1=0.5)
    assert run.final.weights[0].W.dtype == jnp.float64
    assert_same(run, rows, final, 1e-10)


def test_fifty_passes_at_full_size_in_float32(full_size):
    weights, x, rows, final = full_size
    network = ska.mlp(list(WIDTHS))
    x32, weights32 = jnp.asarray(x, jnp.float32), ref.to_skajax(weights, jnp.float32)
    run = ska.simulate(network, weights32, x32, ska.Published(0.01), t1=0.5)
    assert run.final.weights[0].W.dtype == jnp.float32
    assert_same(run, rows, final, 1e-5)


@pytest.mark.parametrize("problem", ref.PROBLEMS, ids=lambda p: p.name)
def test_networks_of_any_shape(problem, x64):
    network, weights, x = problem.arrays()
    rows, final = published(*problem.numpy(), 0.05, 30)
    run = ska.simulate(network, weights, x, ska.Published(0.05), steps=30)
    assert_same(run, rows, final, 1e-11)


@pytest.mark.parametrize(("dt", "passes"), [(0.02, 25), (0.5 / 150, 150), (0.001, 500)])
def test_the_papers_time_steps(dt, passes, x64):
    # 500 passes are more than one chunk of compiled steps, and end inside one.
    network, weights, x = ref.SMALL.arrays()
    rows, final = published(*ref.SMALL.numpy(), dt, passes)
    run = ska.simulate(network, weights, x, ska.Published(dt), t1=0.5)
    assert len(run.t) == passes - 1
    assert_same(run, rows, final, 1e-10)


@pytest.mark.parametrize("passes", [2, 3, 128, 129, 130])
def test_runs_that_end_at_the_edge_of_a_chunk(passes, x64):
    network, weights, x = ref.SAMPLE.arrays()
    rows, final = published(*ref.SAMPLE.numpy(), 0.01, passes)
    run = ska.simulate(network, weights, x, ska.Published(0.01), steps=passes)
    assert_same(run, rows, final, 1e-11)
    assert int(run.stats.steps) == passes - 1
    np.testing.assert_allclose(run.final.t, (passes - 1) * 0.01, rtol=1e-14)


def test_the_first_pass_has_no_flow_and_the_second_moves_at_the_odes(x64):
    network, weights, x = ref.SMALL.arrays()
    run = ska.simulate(network, weights, x, ska.Published(1e-6), steps=3)
    assert len(run.t) == 2
    np.testing.assert_array_equal(run.t, [0, 1e-6])
    for name in ("entropy_rate", "flow_norm", "lagrangian", "tensor_net", "alignment"):
        np.testing.assert_array_equal(getattr(run, name)[0], 0)
    # Pass 2 follows one update with ΔD = 0: a backward difference over one Euler step.
    numbers, samples = ref.SMALL.numpy()
    want = ref.observables(numbers, ref.flow(numbers, samples), samples, numbers)
    np.testing.assert_allclose(run.flow_norm[1], want["flow_norm"], rtol=1e-4)
    np.testing.assert_allclose(run.entropy_rate[1], want["entropy_rate"], rtol=1e-4)


def test_it_converges_to_the_ode_with_order_one(x64):
    network, weights, x = ref.SMALL.arrays()
    (want,) = ref.solve(*ref.SMALL.numpy(), [1.0])
    errors = []
    for K in (200, 400, 800):
        # K + 1 passes make K updates, and end at t = 1.
        run = ska.simulate(network, weights, x, ska.Published(1 / K), steps=K + 1)
        np.testing.assert_allclose(run.final.t, 1, rtol=1e-12)
        final = ref.flat(ref.to_numpy(run.final.weights))
        errors.append(np.linalg.norm(final - ref.flat(want)))
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, 1, atol=0.05)


def test_it_is_not_eulers_method(x64):
    # The two rules differ in the second step already, by the ΔD in the gradient.
    network, weights, x = ref.SAMPLE.arrays()
    observe = ("knowledge_norm",)
    rule = ska.simulate(network, weights, x, ska.Published(0.1), steps=4, observe=observe)
    euler = ska.simulate(network, weights, x, ska.Euler(0.1), steps=3, observe=observe)
    np.testing.assert_allclose(rule.t, euler.t[:3], rtol=1e-15)
    np.testing.assert_allclose(rule.knowledge_norm[:2], euler.knowledge_norm[:2], rtol=1e-14)
    assert float(jnp.abs(rule.knowledge_norm[2] / euler.knowledge_norm[2] - 1).max()) > 1e-4
