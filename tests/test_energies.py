"""Energies: exact solutions, independent NumPy programs, and the balance dE/dt = transport - dissipation."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import skajax as ska
from skajax._fingerprint import fingerprint

E = ska.energies


@pytest.fixture(autouse=True)
def double(x64):
    """Double precision for all tests of this file."""


def problem(widths=(4, 3), samples=7, inputs=4, seed=0):
    network = ska.mlp(widths, scale=0.7)
    key = jax.random.key(seed)
    x = jax.random.uniform(key, (samples, inputs), jnp.float64)
    y = jnp.arange(samples) % widths[-1]
    return network, network.init(key, x), x, y


TIGHT = ska.Adaptive(diffrax.Dopri8(), rtol=1e-11, atol=1e-13)


def test_one_linear_layer_is_the_matrix_exponential():
    """dW/dt = -(1/B) Xᵀ (X W - Y) with a bias: W̃(t) = W̃* + e^{-X̃ᵀX̃ t / B} (W̃(0) - W̃*)."""
    network = ska.Network((ska.Dense(3, scale=0.5, decision="identity"),))
    x = jax.random.normal(jax.random.key(1), (9, 4), jnp.float64)
    y = jax.random.normal(jax.random.key(2), (9, 3), jnp.float64)
    weights = network.init(jax.random.key(0), x)
    run = ska.simulate(
        network, weights, ska.Batch(x, y), TIGHT, t1=2.0, energy=E.SquaredError(), save_at="end",
        observe=("energy",),
    )  # fmt: skip
    X = np.c_[x, np.ones(len(x))]
    start = np.r_[weights[0].W, weights[0].b[None]]
    best = np.linalg.lstsq(X, np.asarray(y), rcond=None)[0]
    want = best + expm(-X.T @ X / len(X) * 2.0) @ (start - best)
    got = np.r_[run.final.weights[0].W, run.final.weights[0].b[None]]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-8)


def test_two_balanced_linear_layers_follow_the_sigmoidal_modes():
    """Saxe, McClelland and Ganguli (2013): of each mode u(t) = s e^{2st} / (e^{2st} - 1 + s / u_0)."""
    rng = np.random.default_rng(0)
    U, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    V, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    R, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    s, u0 = np.array([2.0, 1.5, 0.8, 0.4]), 0.02
    x = np.sqrt(4.0) * np.eye(4)  # XᵀX / B = 1
    y = x @ U @ np.diag(s) @ V.T
    dense = lambda: NoBias(4)
    network = ska.Network((dense(), dense()))
    root = np.sqrt(u0) * np.eye(4)
    weights = (jnp.asarray(U @ root @ R.T), jnp.asarray(R @ root @ V.T))
    run = ska.simulate(
        network, weights, ska.Batch(x, y), TIGHT, t1=2.0, energy=E.SquaredError(), save_at="end",
        reduction="off", observe=("energy",),
    )  # fmt: skip
    product = np.asarray(run.final.weights[0] @ run.final.weights[1])
    grown = np.exp(2 * s * 2.0)
    want = s * grown / (grown - 1 + s / u0)
    np.testing.assert_allclose(U.T @ product @ V, np.diag(want), rtol=0, atol=1e-6)


class NoBias:
    """A linear layer without a bias: z = x W, D = z."""

    def __init__(self, width):
        self.width = width

    def init(self, key, x):
        return jax.random.normal(key, (x.shape[-1], self.width), x.dtype)

    def knowledge(self, weights, x):
        return x @ weights

    def decide(self, z):
        return z


def test_cross_entropy_by_euler_is_a_numpy_program():
    network, weights, x, y = problem()
    run = ska.simulate(
        network, weights, ska.Batch(x, y), ska.Euler(0.1), steps=50, energy=E.CrossEntropy(),
        observe=("energy",),
    )  # fmt: skip
    W = [[np.array(w.W), np.array(w.b)] for w in weights]
    X, Y = np.asarray(x), np.eye(3)[np.asarray(y)]
    losses = []
    for _ in range(51):
        a = [X]
        for n, (w, b) in enumerate(W):
            z = a[-1] @ w + b
            a.append(1 / (1 + np.exp(-z)) if n < len(W) - 1 else z)
        e = np.exp(a[-1] - a[-1].max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        losses.append(-np.log((p * Y).sum(axis=1)).sum())
        delta = (p - Y) / len(X)
        for n in reversed(range(len(W))):
            dw, db = a[n].T @ delta, delta.sum(axis=0)
            if n:
                delta = (delta @ W[n][0].T) * a[n] * (1 - a[n])
            W[n][0] = W[n][0] - 0.1 * dw
            W[n][1] = W[n][1] - 0.1 * db
    np.testing.assert_allclose(run.energy[:, -1], losses, rtol=1e-10)
    assert np.all(np.asarray(run.energy[:, :-1]) == 0)


def test_goodness_is_a_numpy_program():
    network, weights, x, _ = problem()
    y = np.where(np.arange(7) % 2, 1, -1)
    batch = ska.Batch(x, jnp.asarray(y))
    flow = jax.jit(lambda w: ska.flow(network, w, batch, E.Goodness(0.2)))(weights)
    a = np.asarray(x)
    for w, rate in zip(weights, flow, strict=True):
        z = a @ np.asarray(w.W) + np.asarray(w.b)
        D = 1 / (1 + np.exp(-z))
        margin = y * (D**2 - 0.2).sum(axis=1)
        by_G = -y / (1 + np.exp(margin)) / len(a)
        by_z = by_G[:, None] * 2 * D * D * (1 - D)
        np.testing.assert_allclose(rate.W, -a.T @ by_z, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(rate.b, -by_z.sum(axis=0), rtol=1e-10, atol=1e-14)
        a = D


def test_weights_decay_exponentially():
    network, weights, x, _ = problem()
    run = ska.simulate(
        network, weights, x, TIGHT, t1=1.5, energy=E.WeightDecay(0.8), save_at="end",
        observe=("energy",),
    )  # fmt: skip
    for before, after in zip(weights, run.final.weights, strict=True):
        np.testing.assert_allclose(after.W, np.exp(-1.2) * before.W, rtol=1e-9)
        np.testing.assert_array_equal(after.b, before.b)


def test_sums_and_multiples_add_their_flows():
    network, weights, x, y = problem()
    batch = ska.Batch(x, y)
    parts = (E.Entropy(), E.CrossEntropy(), E.WeightDecay(0.3))
    every = (*parts, parts[0] + 0.1 * parts[1] + 2 * parts[2])
    *flows, total = jax.jit(lambda w: [ska.flow(network, w, batch, each) for each in every])(
        weights
    )
    want = jax.tree.map(lambda a, b, c: a + 0.1 * b + 2 * c, *flows)
    for got, leaf in zip(*map(jax.tree.leaves, (total, want)), strict=True):
        np.testing.assert_allclose(got, leaf, rtol=1e-12, atol=1e-15)


ENERGIES = {
    "entropy": E.Entropy(),
    "global entropy": E.Entropy(local=False),
    "cross-entropy": E.CrossEntropy(),
    "squared error": E.SquaredError(),
    "goodness": E.Goodness(),
    "sum": E.CrossEntropy() + 0.1 * E.Entropy() + 0.5 * E.WeightDecay(),
}


@pytest.mark.parametrize(
    ("name", "moving"),
    [
        ("entropy", False),
        pytest.param("global entropy", False, marks=pytest.mark.thorough),
        ("cross-entropy", False),
        pytest.param("squared error", False, marks=pytest.mark.thorough),
        ("goodness", False),
        pytest.param("sum", False, marks=pytest.mark.thorough),
        pytest.param("entropy", True, marks=pytest.mark.thorough),
        ("sum", True),
    ],
)
def test_the_balance_holds(name, moving):
    """E(t1) - E(0) = ∫ (transport - dissipation) dt, by quadrature along an adaptive run."""
    network, weights, x, y = problem()
    nodes, gauss = np.polynomial.legendre.leggauss(40)
    times = np.r_[0.0, (nodes + 1) / 2, 1.0]
    inputs = ska.Batch(x, y)
    if moving:
        inputs = ska.Moving(lambda t: ska.Batch(x * (1 + 0.3 * jnp.sin(2 * t)) + 0.1 * t, y))
    method = ska.Adaptive(diffrax.Dopri8(), rtol=1e-8, atol=1e-10, controller=None)
    observe = ("energy", "dissipation", "transport")
    run = ska.simulate(
        network, weights, inputs, method, t1=1.0, energy=ENERGIES[name], observe=observe,
        save_at=times,
    )  # fmt: skip
    rate = np.asarray(run.transport - run.dissipation)[1:-1]
    change = np.asarray(run.energy[-1] - run.energy[0])
    np.testing.assert_allclose(gauss @ rate / 2, change, rtol=0, atol=1e-7)
    local = name in ("entropy", "goodness")
    if not moving and not local and name != "sum":
        np.testing.assert_allclose(run.transport.sum(axis=1), 0, atol=1e-12)
        assert np.all(np.diff(run.energy.sum(axis=1)) < 0)
    if not moving and local:
        assert np.all(np.asarray(run.transport)[:, 0] == 0)


def test_rates_of_layers_are_part_of_the_flow():
    network, weights, x, y = problem()
    paced = ska.Network(tuple(ska.Paced(layer, 2.0) for layer in network.layers))
    for energy in (E.Entropy(), E.CrossEntropy()):
        slow = ska.flow(network, weights, ska.Batch(x, y), energy)
        fast = ska.flow(paced, weights, ska.Batch(x, y), energy)
        for a, b in zip(*map(jax.tree.leaves, (slow, fast)), strict=True):
            np.testing.assert_allclose(b, 2 * a, rtol=1e-13)


@pytest.mark.parametrize(
    ("energy", "inputs", "words"),
    [
        (E.CrossEntropy(), lambda x, y: x, "Argument x must be a Batch"),
        (E.CrossEntropy(), lambda x, y: ska.Batch(x, y[:, None]), "Argument y must have the shape"),
        (E.CrossEntropy(), lambda x, y: ska.Batch(x, y[:3]), "Argument y must have one target"),
        (E.Goodness(), lambda x, y: x, "Argument y must have the sign"),
        ("entropy", lambda x, y: x, "Argument energy must be an energy"),
        (
            ska.Energy(lambda weights, trace, batch: trace.Z[-1].mean(), local=False),
            lambda x, y: x,
            r"Argument function must give one number a layer, .*\(2,\), but it gave one of shape \(\)",
        ),
    ],
)
def test_bad_energies_are_refused(untyped, energy, inputs, words):
    network, weights, x, y = problem()
    with pytest.raises(ValueError, match=words):
        ska.simulate(network, weights, inputs(x, y), ska.Euler(0.1), steps=2, energy=energy)


@pytest.mark.parametrize(
    "energy",
    [
        E.Entropy(),
        E.Entropy(local=False),
        E.Goodness(0.5),
        E.CrossEntropy() + 0.1 * E.Entropy(local=False),
    ],
    ids=str,
)
def test_an_energy_prints_as_it_is_made(energy):
    assert eval(repr(energy), vars(E)) == energy


def test_functions_print_with_the_names_of_arguments():
    function = lambda weights, trace, batch: weights
    energy = ska.Energy(function, local=False, reads_weights=False)
    flow = ska.Flow(function, energy=E.Entropy())
    in_a_row = [" ".join(repr(each).split()) for each in (energy, flow)]
    assert in_a_row[0].endswith(", local=False, reads_weights=False )")
    assert in_a_row[1].endswith(", energy=Entropy(local=True), reads_weights=True )")


def test_files_know_an_energy_by_the_digest_they_always_had():
    digest = "b8949c83af3467d8b736ae3152a69e4279606aba081c47356ed06d59c6cd5aef"
    assert fingerprint(E.Entropy()) == digest


def test_the_published_rule_is_of_the_local_entropy():
    network, weights, x, y = problem()
    with pytest.raises(ValueError, match="Argument energy must be Entropy"):
        ska.simulate(
            network, weights, ska.Batch(x, y), ska.Published(0.1), steps=3, energy=E.CrossEntropy()
        )
