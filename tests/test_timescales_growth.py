"""Growth rates by products alone, against explicit Jacobians, the spectrum of the batch, and runs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import own_parts as own
import pytest
from jax.flatten_util import ravel_pytree

import skajax as ska
from skajax.timescales import _growth as module
from skajax.timescales import growth, spectrum
from skajax.timescales._krylov import largest

LN2 = np.log(2)


def uniform(*shape, seed=0, dtype=jnp.float64):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), dtype)


def jacobian(function, weights):
    """∂z/∂w as a NumPy matrix: of all numbers of z, in order, by all numbers of the weights."""
    flat, unravel = ravel_pytree(weights)
    return np.asarray(jax.jit(jax.jacfwd(lambda w: ravel_pytree(function(unravel(w)))[0]))(flat))


def own_jacobian(network, weights, x, row):
    """That of a layer's knowledge by its own weights, its inputs given."""
    given = jax.jit(lambda w: network.trace(w, x).inputs)(weights)[row]
    layer = network.learning[row]
    return jacobian(lambda w: layer.knowledge(w, given), weights[network.rows[row]])


def distinct(values, times):
    """Of numbers that each occur so many times, one each."""
    return np.sort(values)[::-1][::times]


def check_modes(found, row, operator, tolerance=1e-10):
    """Rates and directions are eigenvalues and eigenvectors of the operator on all of the knowledge."""
    neurons = found.neurons[row]
    directions = np.asarray(found.directions[row])
    if neurons > 1:  # each neuron has them for itself: the first, say
        assert directions.shape[-1] == 1
        directions = np.concatenate(
            [directions, np.zeros((*directions.shape[:-1], neurons - 1))], axis=-1
        )
    flat = directions.reshape(len(directions), -1)
    scale = abs(float(found.rates[row][0]))
    np.testing.assert_allclose(
        flat @ operator.T, flat * np.asarray(found.rates[row])[:, None], atol=tolerance * scale
    )
    np.testing.assert_allclose(np.linalg.norm(flat, axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("shape", [(30, 7), (7, 30)])
def test_of_dense_layers_they_are_the_spectrum(shape, x64):
    x = uniform(*shape)
    network = ska.mlp([5, 4], scale=0.3)
    weights = network.init(jax.random.key(0), x)
    found = growth(network, weights, x, count=5)
    for row, inputs in enumerate((x, network.forward(weights, x)[1][0])):
        want = spectrum(inputs, 5)
        np.testing.assert_allclose(found.rates[row], want.rates, rtol=1e-10, atol=1e-13)
        same = np.abs(np.asarray(found.directions[row][..., 0]) @ np.asarray(want.modes))
        np.testing.assert_allclose(same[:2, :2], np.eye(2), atol=1e-8)
        assert float(jnp.max(found.errors[row])) < 1e-12
    assert found.neurons == (5, 4)
    np.testing.assert_allclose(found.times[0], 1 / want_rates(x, 5), rtol=1e-10)


def want_rates(x, count):
    kernel = np.asarray(x) @ np.asarray(x).T + 1
    return np.linalg.eigvalsh(kernel)[::-1][:count] / (4 * len(x) * LN2)


@pytest.mark.parametrize(
    "problem", [pytest.param("images", marks=pytest.mark.thorough), "sequences"]
)
def test_they_are_those_of_explicit_jacobians(problem, x64):
    network, weights, x = own.PROBLEMS[problem](jnp.float64)
    found = growth(network, weights, x, count=4)
    for row in range(len(network.rows)):
        J = own_jacobian(network, weights, x, row)
        kernel = J @ J.T / (4 * LN2 * x.shape[0])
        want = distinct(np.linalg.eigvalsh(kernel), found.neurons[row])[:4]
        np.testing.assert_allclose(found.rates[row], want, rtol=1e-10, atol=1e-14)
        check_modes(found, row, kernel)
    # A gate, and attention, mix the weights of neurons; a convolution does not.
    assert found.neurons == {"images": (3, 4), "sequences": (1, 1, 2)}[problem]


def test_rates_of_learning_multiply_them(x64):
    x = uniform(9, 4)
    network, paced = ska.mlp([3, 2]), ska.mlp([3, 2]).layers
    paced = ska.Network((ska.Paced(paced[0], 3.0), ska.Paced(paced[1], 0.5)))
    weights = network.init(jax.random.key(0), x)
    plain, found = growth(network, weights, x, count=3), growth(paced, weights, x, count=3)
    np.testing.assert_allclose(found.rates[0], 3 * plain.rates[0], rtol=1e-10)
    np.testing.assert_allclose(found.rates[1][:2], plain.rates[1][:2] / 2, rtol=1e-9)


def test_knowledge_grows_at_the_leading_rate(x64):
    """Along a run from tiny weights, within the linear regime, ‖Z‖ grows as e^{λt}."""
    network, _, x = own.images(jnp.float64)
    network = ska.Network(network.layers[:1])
    weights = jax.tree.map(lambda w: 1e-6 * w, network.init(jax.random.key(0), x))
    rates = growth(network, weights, x, count=2).rates[0]
    leading = float(rates[0])
    times = np.asarray([0.0, 2.0, 4.0]) / leading  # it grows by e⁴: still small
    run = ska.simulate(
        network, weights, x, ska.Adaptive(rtol=1e-8, atol=1e-14), t1=times[-1], save_at=times,
        observe=("knowledge_norm",),
    )  # fmt: skip
    size = np.asarray(run.knowledge_norm[:, 0])
    assert float(rates[1]) < leading / 10 and size[-1] < 1e-3
    measured = np.log(size[2] / size[1]) / (times[2] - times[1])
    np.testing.assert_allclose(measured, leading, rtol=0.01)


def supervised():
    """Two layers with a linear output, and class labels."""
    x, y = uniform(6, 3), jnp.asarray([0, 1, 2, 2, 1, 0])
    network = ska.Network((ska.Dense(4, scale=0.8), ska.Dense(3, scale=0.8, decision="identity")))
    return network, network.init(jax.random.key(3), x), ska.Batch(x, y)


def test_of_the_squared_error_they_are_the_neural_tangent_kernel(x64):
    network, weights, batch = supervised()
    J = jacobian(lambda w: network.forward(w, batch.x)[0][-1], weights)
    kernel = J @ J.T
    found = growth(network, weights, batch, ska.energies.SquaredError(), count=18)
    want = -np.linalg.eigvalsh(kernel)[::-1] / 6
    np.testing.assert_allclose(found.rates[-1], want, rtol=1e-10, atol=1e-12)
    assert not found.local and len(found.rates) == 2
    np.testing.assert_array_equal(found.rates[0], found.rates[1])
    # Outputs move along its eigenvectors, and take the hidden layer's knowledge with them.
    every = jacobian(lambda w: network.forward(w, batch.x)[0], weights)
    both = np.concatenate([np.asarray(d).reshape(18, -1) for d in found.directions], axis=1)
    moves = every @ J.T / -6  # of all knowledge, per unit of the outputs' error
    np.testing.assert_allclose(
        both[:, 24:] @ moves.T, both * np.asarray(found.rates[0])[:, None], atol=1e-10
    )
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("energy", [ska.energies.CrossEntropy(), ska.energies.Entropy(local=False)])
def test_of_global_energies_they_are_minus_the_gauss_newton_matrix(energy, x64):
    network, weights, batch = supervised()
    network = ska.mlp([4, 3], scale=0.8)
    trace = jax.jit(network.trace)(weights, batch.x)
    J = jacobian(lambda w: network.forward(w, batch.x)[0], weights)
    flat, unravel = ravel_pytree(trace.Z)

    def total(flat):
        Z = unravel(flat)
        here = network.knowing(trace.inputs, Z)
        return jnp.sum(energy(weights, here, batch))

    H = np.asarray(jax.jit(jax.hessian(total))(flat))
    values = np.linalg.eigvalsh(-J.T @ H @ J)
    want = values[np.argsort(-np.abs(values))][:5]
    found = growth(network, weights, batch, energy, count=5)
    np.testing.assert_allclose(found.rates[0], want, rtol=1e-10)
    moved = np.concatenate([np.asarray(d).reshape(5, -1) for d in found.directions], axis=1)
    np.testing.assert_allclose(
        moved @ (-J @ J.T @ H).T, moved * np.asarray(found.rates[0])[:, None], atol=1e-10
    )


def test_errors_decay_as_the_kernel_says(x64):
    """Near a minimum of the squared error its slowest direction decays at the kernel's smallest rate."""
    x = uniform(5, 2)
    network = ska.Network((ska.Dense(1, scale=0.5, decision="identity"),))
    weights = network.init(jax.random.key(0), x)
    y = network.forward(network.init(jax.random.key(1), x), x)[0][0]  # can be reached
    batch, energy = ska.Batch(x, y), ska.energies.SquaredError()
    rates = growth(network, weights, batch, energy).rates[0]
    assert rates.shape == (3,)  # of two weights and a bias
    slowest = -float(rates[-1])
    times = np.asarray([0.0, 4.0, 5.0]) / slowest
    run = ska.simulate(
        network, weights, batch, ska.Adaptive(rtol=1e-10, atol=1e-13), t1=times[-1],
        save_at=times, energy=energy, observe=("energy",),
    )  # fmt: skip
    left = np.asarray(run.energy[:, -1])
    np.testing.assert_allclose(
        np.log(left[1] / left[2]) / (times[2] - times[1]), 2 * slowest, rtol=0.01
    )


def test_a_local_energy_of_ones_own(x64):
    """Σ D (1 - D), whose curvature at z = 0 is -1/8: rates are eig(J Jᵀ) / (8 B)."""
    network, weights, x = own.images(jnp.float64)
    found = growth(network, weights, x, own.CONTRAST, count=3)
    entropy = growth(network, weights, x, count=3)
    for a, b in zip(found.rates, entropy.rates, strict=True):
        np.testing.assert_allclose(a, np.asarray(b) * LN2 / 2, rtol=1e-10)


def test_goodness_couples_the_neurons_of_a_sample(x64):
    x, y = uniform(6, 3), jnp.asarray([1, -1, 1, 1, -1, -1])
    network = ska.mlp([4], scale=0.5)
    weights, energy = network.init(jax.random.key(0), x), ska.energies.Goodness()
    found = growth(network, weights, ska.Batch(x, y), energy, count=4)
    J = own_jacobian(network, weights, x, 0)

    def total(flat):
        Z = (flat.reshape(6, 4),)
        here = network.knowing((x,), Z)
        return jnp.sum(energy(weights, here, ska.Batch(x, y)))

    H = np.asarray(jax.jit(jax.hessian(total))(jnp.zeros(24)))
    values = np.linalg.eigvalsh(-J.T @ H @ J)
    want = values[np.argsort(-np.abs(values))][:4]
    np.testing.assert_allclose(found.rates[0], want, rtol=1e-10)
    assert found.neurons == (1,)


@pytest.mark.parametrize("signs", [(1,), (1, -1)])
def test_krylovs_spaces_find_what_a_decomposition_finds(signs):
    """With eigenvalues that occur several times, of both signs, and a rank below the size."""
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [[5.0] * 4, [3.0] * 3, [1.0], 0.9 * 0.8 ** np.arange(30), np.zeros(262)]
    )
    values = values * np.resize(signs, 300)
    basis, _ = np.linalg.qr(rng.normal(size=(300, 300)))
    matrix = (basis * values) @ basis.T
    found, vectors, error = largest(lambda v: matrix @ v, 300, 10, 1e-12)
    want = values[np.argsort(-np.abs(values), kind="stable")][:10]
    by_size = lambda a: sorted(a, key=lambda value: (-round(abs(value), 9), value))
    np.testing.assert_allclose(by_size(found), by_size(want), rtol=1e-11)
    np.testing.assert_allclose(matrix @ vectors, vectors * found, atol=1e-11)
    assert error < 1e-11


@pytest.mark.parametrize("repeated", [False, True])
def test_large_kernels_by_krylovs_spaces(repeated, x64, monkeypatch):
    """The same modes as by the whole matrix; equal ones, of inputs that are one-hot, are all found."""
    x = jnp.eye(40)[np.arange(80) % 40] if repeated else uniform(80, 60)
    network = ska.mlp([3])
    weights = network.init(jax.random.key(0), x)
    monkeypatch.setattr(module, "WHOLE", 16)
    found = growth(network, weights, x, count=5)
    np.testing.assert_allclose(found.rates[0], want_rates(x, 5), rtol=1e-10)
    if repeated:
        np.testing.assert_allclose(found.rates[0][1:], 2 / (4 * 80 * LN2), rtol=1e-10)
    assert found.neurons == (3,)


def sizes(program):
    """Of all arrays that a program makes."""
    for equation in program.eqns:
        yield from (variable.aval.size for variable in equation.outvars)
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from sizes(inner)


def test_no_jacobian_is_made(x64):
    """Of 300 samples and 400 neurons it would have 14 billion numbers: no array has more than the weights."""
    network = ska.mlp([400])
    form = module._Form((True,), 400, True, 300)

    def apply(weights, x, vectors):
        trace = network.trace(weights, x)
        flow = module._Linear(network, weights, ska.Batch(x), trace, ska.energies.Entropy(), 0)
        return module._applied(flow, form, vectors)

    x = jnp.zeros((300, 300))
    weights = (ska.DenseWeights(jnp.zeros((300, 400)), jnp.zeros(400)),)
    program = jax.make_jaxpr(apply)(weights, x, jnp.zeros((14, 300)))
    assert 300 * 400 <= max(sizes(program.jaxpr)) <= 301 * 400


def test_precision_and_weights_stay(x64):
    x = uniform(20, 6)
    network = ska.Network((ska.Dense(4, scale=0.1), ska.Dense(3)))
    weights = network.init(jax.random.key(0), x)
    single = jax.tree.map(lambda w: w.astype(jnp.float32), weights)
    before = jax.tree.map(np.array, single)
    exact = growth(network, weights, x, count=3)
    found = growth(network, single, x.astype(jnp.float32), count=3)
    for row in range(2):
        assert found.rates[row].dtype == jnp.float32 == found.directions[row].dtype
        leading = float(exact.rates[row][0])
        np.testing.assert_allclose(
            found.rates[row], exact.rates[row][: len(found.rates[row])], atol=1e-5 * leading
        )
    assert found.neurons == (4, 3)
    jax.tree.map(np.testing.assert_array_equal, before, single)


def test_what_does_not_move_has_no_modes(x64):
    """Attention without weights stays without knowledge: its Jacobian is 0."""
    x = uniform(3, 4, 2)
    network = ska.Network((own.Attention(2),))
    found = growth(network, (jnp.zeros((3, 2, 2)),), x)
    assert found.rates[0].shape == (0,) and found.directions[0].shape == (0, 3, 4, 2)
    assert "–" in str(found)


def test_of_networks_that_read_whole_numbers(x64):
    """A stage's weights, of the tokens, move under a global energy."""
    x = jnp.asarray(np.random.default_rng(0).integers(0, 4, (6, 2)))
    items = (ska.layers.Embed(4, 2), ska.layers.Flatten(), ska.Dense(3, decision="identity"))
    network = ska.Network(items)
    weights = network.init(jax.random.key(0), x)
    J = jacobian(lambda w: network.forward(w, x)[0][0], weights)
    batch = ska.Batch(x, jnp.zeros((6, 3)))
    found = growth(network, weights, batch, ska.energies.SquaredError(), count=4)
    want = np.linalg.eigvalsh(J @ J.T)[::-1][:4] / -6
    np.testing.assert_allclose(found.rates[0], want, rtol=1e-10)
    assert found.rates[0].dtype == jnp.float64


def test_it_prints_as_a_table(x64):
    x = uniform(8, 3)
    network = ska.mlp([4, 2])
    weights = network.init(jax.random.key(0), x)
    found = growth(network, weights, x, count=2)
    lines = str(found).splitlines()
    assert lines[0] == "Growth rates, each layer by its own weights"
    assert lines[1].split() == ["layer", "1", "2"]
    assert lines[2].split() == ["rate", "1", *(f"{float(r[0]):.4g}" for r in found.rates)]
    assert lines[-1].split() == ["neurons", "alike", "4", "2"]
    whole = growth(network, weights, x, ska.energies.Entropy(local=False), count=2)
    assert "all layers together" in str(whole) and str(whole).splitlines()[1].split()[1:] == ["all"]


def test_bad_input_is_refused_by_name(x64, untyped):
    network, weights, batch = supervised()
    x, decay = batch.x, ska.energies.WeightDecay()
    for name, arguments, more in (
        ("network", ("mlp", weights, x), {}),
        ("weights", (network, weights[:1], x), {}),
        ("x", (network, weights, x[0]), {}),
        ("x", (network, weights, ska.MiniBatches(x, size=2, period=1.0)), {}),
        ("x", (network, weights, x, ska.energies.CrossEntropy()), {}),
        ("energy", (network, weights, x, "entropy"), {}),
        ("energy", (network, weights, x, decay), {}),
        ("energy", (network, weights, x, ska.Flow(lambda w, trace, batch: w, reads_weights=False)), {}),
        ("energy", (network, weights, batch, ska.energies.CrossEntropy() + ska.energies.Entropy()), {}),
        ("count", (network, weights, x), {"count": 0}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"Argument {name} must .*, but "):
            growth(*arguments, **more)
    with pytest.raises(ValueError, match=r"Argument x must be known: .* outside of jit"):
        jax.jit(lambda x: growth(network, weights, x).rates)(x)


def entries(network, x):
    """The functions that predict, of dense sigmoid layers."""
    weights = network.init(jax.random.key(0), x)
    times = ska.timescales
    return {
        "linear": lambda: times.linear(network, weights, x, 0.1),
        "predict": lambda: times.predict(network, weights, x),
        "predict, unknown weights": lambda: times.predict(network, None, x),
        "design": lambda: times.design(network, x, 1.0),
        "schedule": lambda: times.schedule(network, x),
    }


def test_predictions_refuse_layers_that_they_do_not_know(x64):
    tanh = ska.Network((ska.Dense(4, decision="tanh"), ska.Dense(2)))
    paced = ska.Network((ska.Dense(4), ska.Paced(ska.Dense(2, decision="identity"), 2.0)))
    for network, x, layer in (
        (own.images(jnp.float64)[0], own.images(jnp.float64)[2], "layer 1 was Convolution"),
        (tanh, uniform(8, 3), "layer 1 was Dense.*tanh"),
        (paced, uniform(8, 3), "layer 2 was Dense.*identity"),
    ):
        for call in entries(network, x).values():
            with pytest.raises(
                ValueError, match=f"Argument network must have dense .*growth.*, but {layer}"
            ):
                call()
        # Its rates can be had.
        weights = network.init(jax.random.key(0), x)
        assert all(float(r[0]) > 0 for r in growth(network, weights, x, count=1).rates)
    with pytest.raises(
        ValueError, match=r"Argument x must be of shape .*, but its shape was .*growth"
    ):
        spectrum(uniform(2, 3, 3, 1))


def test_decisions_enter_by_their_slope_at_zero(x64):
    """H's curvature there is -D'(0) / ln 2: of the sigmoid 1/4, of tanh 1; of ReLU taken as 0, no mode."""
    x = uniform(8, 3)
    network = ska.mlp([4])
    weights = network.init(jax.random.key(0), x)
    sigmoid, tanh, relu = (
        growth(
            ska.Network((dataclasses.replace(network.layers[0], decision=name),)),
            weights,
            x,
            count=2,
        ).rates[0]
        for name in ("sigmoid", "tanh", "relu")
    )
    np.testing.assert_allclose(tanh, 4 * sigmoid, rtol=1e-12)
    assert len(sigmoid) == 2 and len(relu) == 0
