"""Flows that are no gradients, and the named rules: NumPy programs, identities, and the balance."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import skajax as ska
from skajax.observables import NAMES, choose

E = ska.energies
R = ska.rules
flow_of = eqx.filter_jit(ska.flow)


@pytest.fixture(autouse=True)
def double(x64):
    """Double precision for all tests of this file."""


def problem(widths=(6, 5, 3), samples=7, inputs=4, seed=0, dtype=jnp.float64, layer=ska.Dense):
    network = ska.Network(tuple(layer(n, scale=0.7) for n in widths))
    key = jax.random.key(seed)
    x = jax.random.uniform(key, (samples, inputs), dtype)
    y = jnp.arange(samples) % widths[-1]
    return network, network.init(key, x), x, y


def close(got, want, tolerance):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance)


def minus_gradient(network, energy):
    """The gradient flow of a global energy, as a flow of a user's own."""

    def function(weights, trace, batch):
        total = lambda w: jnp.sum(energy(w, network.trace(w, batch.x), batch))
        return jax.tree.map(jnp.negative, jax.grad(total)(weights))

    return function


BALANCE = ("energy", "dissipation", "transport")
METHODS = {
    "euler": (lambda: ska.Euler(0.1), {"steps": 6}),
    "descent": (lambda: ska.Descent(optax.adam(0.05)), {"steps": 6}),
    "adaptive": (lambda: ska.Adaptive(rtol=1e-6, atol=1e-8), {"t1": 0.6}),
}


@pytest.mark.parametrize(
    "name", ["euler", pytest.param("descent", marks=pytest.mark.thorough), "adaptive"]
)
def test_a_flow_that_is_a_gradient_is_the_energys_own_run(name):
    """Weights and all that is observed, the balance included."""
    network, weights, x, y = problem((6, 3))
    batch = ska.Batch(x, y)
    method, asked = METHODS[name]
    energy = E.CrossEntropy()
    flow = ska.Flow(minus_gradient(network, energy), energy=energy)
    asked = asked | {"observe": BALANCE}
    want = ska.simulate(network, weights, batch, method(), energy=energy, **asked)
    got = ska.simulate(network, weights, batch, method(), energy=flow, **asked)
    close(got.final.weights, want.final.weights, 1e-12)
    close(got.records.values, want.records.values, 1e-11)


def test_sums_with_energies_and_rates():
    """dW/dt = r (-∇H + 0.3 F), and what is watched is H + 0.3 E."""
    network, weights, x, y = problem()
    batch = ska.Batch(x, y)
    rule = R.direct_feedback_alignment(network, x, jax.random.key(3))
    both = E.Entropy() + 0.3 * rule
    parts = [flow_of(network, weights, batch, each) for each in (E.Entropy(), rule)]
    want = jax.tree.map(lambda a, b: a + 0.3 * b, *parts)
    close(flow_of(network, weights, batch, both), want, 1e-13)
    close(
        flow_of(network, weights, batch, 2 * rule), jax.tree.map(lambda a: 2 * a, parts[1]), 1e-13
    )
    paced = ska.Network(tuple(ska.Paced(layer, 2.0) for layer in network.layers))
    close(
        flow_of(paced, weights, batch, both), jax.tree.map(lambda a: 2 * a, want), 1e-13
    )  # the rule was made for layers of the same widths
    trace = network.trace(weights, x)
    watched = E.Entropy()(weights, trace, batch) + 0.3 * E.CrossEntropy()(weights, trace, batch)
    run = ska.simulate(
        network, weights, batch, ska.Euler(0.1), steps=1, energy=both, observe=("energy",)
    )
    np.testing.assert_allclose(run.energy[0], 7 * watched, rtol=1e-13)


def test_a_flow_of_weights_alone_decays_exactly():
    network, weights, x, _ = problem()
    decay = ska.Flow(lambda w, trace, batch: jax.tree.map(lambda a: -0.5 * a, w))
    tight = ska.Adaptive(diffrax.Dopri8(), rtol=1e-11, atol=1e-13)
    run = ska.simulate(network, weights, x, tight, t1=1.2, energy=decay, save_at="end", observe=())
    close(run.final.weights, jax.tree.map(lambda a: np.exp(-0.6) * a, weights), 1e-10)


def test_without_a_watched_energy_there_is_no_balance():
    network, weights, x, _ = problem()
    decay = ska.Flow(lambda w, trace, batch: jax.tree.map(jnp.negative, w))
    names = [each.name for each in choose(None, energy=decay)]
    assert names == [name for name in NAMES if name not in BALANCE]
    for name in BALANCE:
        with pytest.raises(ValueError, match="Flow watches no energy"):
            ska.simulate(
                network, weights, x, ska.Euler(0.1), steps=2, energy=decay, observe=(name,)
            )
    data = ska.sweep(
        network, lambda seed: network.init(jax.random.key(seed), x), x, ska.Euler(0.1), steps=2,
        energy=decay, over=ska.grid(seed=range(2)),
    )  # fmt: skip
    assert "entropy" in data and "energy" not in data


def feedback(name, network, x, key=None):
    make = {"fa": R.feedback_alignment, "dfa": R.direct_feedback_alignment}[name]
    return make(network, x, jax.random.key(5) if key is None else key)


@pytest.mark.parametrize("decision", ["sigmoid", "tanh"])
def test_feedback_through_the_transposed_weights_is_the_gradient(decision):
    """Feedback matrices that are the moving weights: the supervised flow, along a whole run."""
    network, weights, x, y = problem(layer=lambda n, scale: ska.Dense(n, scale, decision=decision))
    batch = ska.Batch(x, y)

    def transposed(weights, trace, batch):
        matrices = tuple(w.W for w in weights[1:])
        return R.FeedbackAlignment(network, matrices)(weights, trace, batch)

    flow = ska.Flow(transposed, energy=E.CrossEntropy())
    close(
        flow_of(network, weights, batch, flow),
        flow_of(network, weights, batch, R.supervised()),
        1e-12,
    )
    runs = [
        ska.simulate(network, weights, batch, ska.Euler(0.5), steps=20, energy=each, observe=())
        for each in (flow, R.supervised())
    ]
    close(runs[0].final.weights, runs[1].final.weights, 1e-12)


def test_with_one_hidden_layer_both_feedbacks_are_one_rule():
    network, weights, x, y = problem((6, 3))
    one, other = (feedback(name, network, x) for name in ("fa", "dfa"))
    close(one.function.matrices, other.function.matrices, 0)
    flows = [flow_of(network, weights, ska.Batch(x, y), each) for each in (one, other)]
    close(*flows, 1e-15)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(flows[0])) > 1e-3


@pytest.mark.parametrize("name", ["fa", "dfa"])
def test_feedback_by_euler_is_a_numpy_program(name):
    network, weights, x, y = problem()
    rule = feedback(name, network, x)
    run = ska.simulate(
        network, weights, ska.Batch(x, y), ska.Euler(0.1), steps=50, energy=rule, observe=BALANCE
    )
    W = [[np.array(w.W), np.array(w.b)] for w in weights]
    B = [np.asarray(b) for b in rule.function.matrices]
    X, Y = np.asarray(x), np.eye(3)[np.asarray(y)]
    losses, dissipations = [], []
    for _ in range(51):
        a = [X]
        for n, (w, b) in enumerate(W):
            z = a[-1] @ w + b
            a.append(1 / (1 + np.exp(-z)) if n < len(W) - 1 else z)
        e = np.exp(a[-1] - a[-1].max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        losses.append(-np.log((p * Y).sum(axis=1)).sum())
        error = (p - Y) / len(X)
        random, true = [error], [error]
        for n in reversed(range(1, len(W))):
            slope = a[n] * (1 - a[n])
            back = random[0] if name == "fa" else error
            random.insert(0, (back @ B[n - 1].T) * slope)
            true.insert(0, (true[0] @ W[n][0].T) * slope)
        dissipations.append([])
        for n, (delta, exact) in enumerate(zip(random, true, strict=True)):
            steps = a[n].T @ delta, delta.sum(axis=0)
            gradient = a[n].T @ exact, exact.sum(axis=0)
            product = sum(np.sum(u * v) for u, v in zip(steps, gradient, strict=True))
            dissipations[-1].append(len(X) * product)
            W[n] = [W[n][0] - 0.1 * steps[0], W[n][1] - 0.1 * steps[1]]
    np.testing.assert_allclose(run.energy[:, -1], losses, rtol=1e-10)
    np.testing.assert_allclose(run.dissipation, dissipations, rtol=1e-9, atol=1e-12)
    assert np.any(np.asarray(dissipations) < 0)  # a hidden layer may climb: it is no gradient


def test_feedback_of_another_energy():
    """Squared error of a linear output: δ = (D - y) / B."""
    network, weights, x, _ = problem(
        (5, 3), layer=lambda n, scale: ska.Dense(n, scale, decision="identity")
    )
    y = jax.random.normal(jax.random.key(8), (7, 3), jnp.float64)
    rule = R.feedback_alignment(network, x, jax.random.key(1), energy=E.SquaredError(), scale=2.0)
    (B,) = rule.function.matrices
    flow = flow_of(network, weights, ska.Batch(x, y), rule)
    hidden = np.asarray(x) @ np.asarray(weights[0].W)
    delta = (hidden @ np.asarray(weights[1].W) - np.asarray(y)) / 7
    np.testing.assert_allclose(flow[1].W, -hidden.T @ delta, rtol=1e-12)
    np.testing.assert_allclose(flow[0].W, -np.asarray(x).T @ (delta @ B.T), rtol=1e-12)


def test_feedback_matrices_have_the_variance_that_is_said():
    network, _, x, _ = problem((300, 200, 10), inputs=5)
    for name, above in (("fa", (200, 10)), ("dfa", (10, 10))):
        for matrix, n in zip(feedback(name, network, x).function.matrices, above, strict=True):
            np.testing.assert_allclose(jnp.var(matrix) * n, 1, rtol=0.1)
    for matrix, n in zip(
        R.layerwise(network, x, jax.random.key(0)).readouts, (300, 200), strict=True
    ):
        np.testing.assert_allclose(jnp.var(matrix) * n, 1, rtol=0.1)


def test_local_losses_are_autodiff_with_gradients_stopped():
    network, weights, x, y = problem()
    energy = R.layerwise(network, x, jax.random.key(2))
    hold = jax.lax.stop_gradient

    def total(weights):
        below, losses = x, []
        for n, w in enumerate(weights):
            z = hold(below) @ w.W + w.b[None, :]
            below = jax.nn.sigmoid(z)
            logits = below @ energy.readouts[n] if n < 2 else z
            losses.append(-jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y]))
        return sum(losses), losses

    gradient, losses = jax.jit(jax.grad(total, has_aux=True))(weights)
    batch = ska.Batch(x, y)
    flow = flow_of(network, weights, batch, energy)
    close(flow, jax.tree.map(jnp.negative, gradient), 1e-12)
    run = ska.simulate(
        network, weights, batch, ska.Euler(0.1), steps=1, energy=energy, observe=("energy",)
    )
    np.testing.assert_allclose(run.energy[0], 7 * np.asarray(losses), rtol=1e-12)


def test_forward_forward_is_a_numpy_program():
    network, weights, x, _ = problem(inputs=6)
    y = jnp.arange(7) % 5
    batch = R.positive_negative(x, y, jax.random.key(4), classes=5)
    flow = flow_of(network, weights, batch, R.forward_forward(0.3))
    a, sign = np.asarray(batch.x), np.r_[np.ones(7), -np.ones(7)]
    for w, rate in zip(weights, flow, strict=True):
        D = 1 / (1 + np.exp(-(a @ np.asarray(w.W) + np.asarray(w.b))))
        by_G = -sign / (1 + np.exp(sign * (D**2 - 0.3).sum(axis=1))) / 14
        by_z = by_G[:, None] * 2 * D * D * (1 - D)
        np.testing.assert_allclose(rate.W, -a.T @ by_z, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(rate.b, -by_z.sum(axis=0), rtol=1e-10, atol=1e-14)
        a = D


def test_positive_samples_have_their_label_and_negative_ones_another():
    x = jax.random.uniform(jax.random.key(0), (300, 12), jnp.float32)
    y = jnp.arange(300) % 4
    batch = R.positive_negative(x, y, jax.random.key(1), classes=4)
    assert batch.x.dtype == jnp.float32 and batch.x.shape == (600, 12)
    np.testing.assert_array_equal(batch.x[:, 4:], jnp.concatenate([x, x])[:, 4:])
    np.testing.assert_array_equal(batch.y, np.r_[np.ones(300), -np.ones(300)])
    labels = batch.x[:, :4]
    np.testing.assert_array_equal(labels.sum(axis=1), 1)
    np.testing.assert_array_equal(labels.max(axis=1), 1)
    told = np.asarray(labels.argmax(axis=1))
    np.testing.assert_array_equal(told[:300], y)
    away = (told[300:] - np.asarray(y)) % 4
    assert set(away) == {1, 2, 3}
    assert np.all(np.abs(np.bincount(away)[1:] - 100) < 40)  # uniform: 5 standard deviations
    again = R.positive_negative(x, y, jax.random.key(1), classes=4)
    np.testing.assert_array_equal(batch.x, again.x)
    neutral = R.embed_labels(x, None, classes=4)
    np.testing.assert_array_equal(neutral[:, :4], np.full((300, 4), 0.25))


RULES = {
    "supervised": lambda network, x: R.supervised(),
    "fa": lambda network, x: feedback("fa", network, x),
    "dfa": lambda network, x: feedback("dfa", network, x),
    "layerwise": lambda network, x: R.layerwise(network, x, jax.random.key(2)),
    "ska + dfa": lambda network, x: R.ska() + 2.0 * feedback("dfa", network, x),
}


@pytest.mark.parametrize(
    ("name", "moving"),
    [
        pytest.param("fa", False, marks=pytest.mark.thorough),
        ("layerwise", False),
        pytest.param("ska + dfa", False, marks=pytest.mark.thorough),
        ("ska + dfa", True),
    ],
)
def test_the_balance_holds(name, moving):
    """E(t1) - E(0) = ∫ (transport - dissipation) dt, of the energy that is watched."""
    network, weights, x, y = problem((6, 3))
    nodes, gauss = np.polynomial.legendre.leggauss(40)
    times = np.r_[0.0, (nodes + 1) / 2, 1.0]
    inputs = ska.Batch(x, y)
    if moving:
        inputs = ska.Moving(lambda t: ska.Batch(x * (1 + 0.3 * jnp.sin(2 * t)) + 0.1 * t, y))
    method = ska.Adaptive(diffrax.Dopri8(), rtol=1e-10, atol=1e-12)
    run = ska.simulate(
        network, weights, inputs, method, t1=1.0, energy=RULES[name](network, x), save_at=times,
        observe=BALANCE,
    )  # fmt: skip
    rate = np.asarray(run.transport - run.dissipation)[1:-1]
    change = np.asarray(run.energy[-1] - run.energy[0])
    np.testing.assert_allclose(gauss @ rate / 2, change, rtol=0, atol=1e-8)
    assert np.abs(change).max() > 1e-2


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param("fa", jnp.float64, marks=pytest.mark.thorough),
        ("layerwise", jnp.float64),
        pytest.param("ska + dfa", jnp.float64, marks=pytest.mark.thorough),
        ("ska + dfa", jnp.float32),
    ],
)
def test_rules_go_through_the_house(name, dtype, tmp_path):
    """Sweeps are runs, extended runs are whole ones, files come back, the row space changes nothing."""
    network, weights, x, y = problem((6, 3), samples=3, inputs=40, dtype=dtype)
    batch, rule = ska.Batch(x, y), RULES[name](network, x)
    tolerance = 2e-4 if dtype == jnp.float32 else 1e-10

    def go(weights, steps=4, reduction="auto"):
        return ska.simulate(
            network, weights, batch, ska.Euler(0.1), steps=steps, energy=rule, observe=BALANCE,
            reduction=reduction,
        )  # fmt: skip

    whole = go(weights, reduction="off")
    assert whole.t.dtype == whole.energy.dtype == dtype
    half = go(weights, steps=2, reduction="off")
    close(ska.extend(half, steps=4).records.values, whole.records.values, 0)
    rows = go(weights, reduction="full")
    assert int(rows.stats.rank) == 3
    close(rows.final.weights, whole.final.weights, tolerance)
    lanes = jax.tree.map(lambda w: jnp.stack([w, w / 2]), weights)
    mapped = jax.jit(jax.vmap(go))(lanes)
    close(jax.tree.map(lambda a: a[0], mapped.records.values), whole.records.values, tolerance)
    data = ska.sweep(
        network, lambda k: jax.tree.map(lambda w: w / k, weights), batch, ska.Euler(0.1), steps=4,
        energy=rule, over=ska.grid(k=(1.0, 2.0)), store=tmp_path / "lanes", observe=BALANCE,
    )  # fmt: skip
    np.testing.assert_allclose(data.energy, mapped.energy, rtol=tolerance, atol=tolerance)
    whole.save(tmp_path / "run.nc")
    back = ska.load(tmp_path / "run.nc", network=network)
    close(back.records.values, whole.records.values, 0)


def test_a_store_knows_rules_apart(tmp_path):
    network, weights, x, y = problem()
    asked = {"over": ska.grid(dt=(0.1,)), "steps": 2, "store": tmp_path / "s", "observe": ()}
    make = lambda key: feedback("fa", network, x, jax.random.key(key))
    first = ska.sweep(network, weights, ska.Batch(x, y), ska.Euler, energy=make(1), **asked)
    again = ska.sweep(network, weights, ska.Batch(x, y), ska.Euler, energy=make(1), **asked)
    assert first.identical(again)
    with pytest.raises(ValueError, match="Argument store must"):
        ska.sweep(network, weights, ska.Batch(x, y), ska.Euler, energy=make(2), **asked)


def test_another_draw_compiles_nothing(compilations):
    network, weights, x, y = problem()
    rules = [feedback("fa", network, x, jax.random.key(seed)) for seed in range(2)]
    go = lambda rule: ska.simulate(
        network, weights, ska.Batch(x, y), ska.Euler(0.1), steps=3, energy=rule, observe=("energy",)
    )
    one = go(rules[0])
    with compilations() as found:
        other = go(rules[1])
    assert found == []
    assert float(jnp.abs(one.energy - other.energy).max()) > 0


def wrong_label(y):
    return y.at[3].set(3)


FEEDBACK = lambda network, x: feedback("fa", network, x)
BAD = {
    "a label beyond": (RULES["supervised"], lambda x, y: ska.Batch(x, wrong_label(y)),
                       r"from 0 to 2, .*3 outputs, for CrossEntropy, but it held 3"),
    "a label below": (FEEDBACK, lambda x, y: ska.Batch(x, y - 1), r"from 0 to 2.* it held -1"),
    "in mini-batches": (FEEDBACK, lambda x, y: ska.MiniBatches(x, wrong_label(y), size=2, period=1.0),
                        r"from 0 to 2.* it held 3"),
    "layerwise, a label": (RULES["layerwise"], lambda x, y: ska.Batch(x, wrong_label(y)), "held 3"),
    "no targets": (FEEDBACK, lambda x, y: x, "be a Batch.* for CrossEntropy"),
    "layerwise, none": (RULES["layerwise"], lambda x, y: x, "be a Batch"),
    "of another shape": (FEEDBACK, lambda x, y: ska.Batch(x, y[:, None]), "y must have the shape"),
    "goodness": (lambda n, x: R.forward_forward(), lambda x, y: x, "y must have the sign"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_targets_that_do_not_fit_are_refused(name):
    network, weights, x, y = problem()
    rule, inputs, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        ska.simulate(
            network, weights, inputs(x, y), ska.Euler(0.1), steps=2, energy=rule(network, x)
        )


def test_rules_that_do_not_fit_are_refused(untyped):
    network, weights, x, y = problem()
    batch, key = ska.Batch(x, y), jax.random.key(0)
    other = problem((8, 5, 3))[0]
    go = lambda energy, method=None: ska.simulate(
        network, weights, batch, method or ska.Euler(0.1), steps=2, energy=energy
    )
    for make, name in (
        (R.feedback_alignment, "matrices"),
        (R.direct_feedback_alignment, "matrices"),
        (R.layerwise, "readouts"),
    ):
        with pytest.raises(ValueError, match=rf"Argument {name} must have .*\(6, .*\(8, "):
            go(make(other, x, key))
        with pytest.raises(ValueError, match="Argument scale must be a size"):
            make(network, x, key, scale=0.0)
    with pytest.raises(ValueError, match="Argument energy must be Entropy"):
        go(R.feedback_alignment(network, x, key), ska.Published(0.1))
    with pytest.raises(ValueError, match="a Flow has no potential"):
        go(R.feedback_alignment(network, x, key), ska.Descent(optax.lbfgs()))
    with pytest.raises(ValueError, match="Argument function must give dW/dt in the weights'"):
        go(ska.Flow(lambda w, trace, batch: w[:2]))
    with pytest.raises(ValueError, match="Argument function must be a function of weights"):
        ska.Flow(E.Entropy())
    with pytest.raises(ValueError, match="Argument energy must be an energy to watch"):
        ska.Flow(lambda w, trace, batch: w, energy=R.feedback_alignment(network, x, key))
    images = jax.random.uniform(key, (4, 6, 6, 1), jnp.float64)

    class Flat:
        init = staticmethod(lambda key, x: ())
        apply = staticmethod(lambda weights, x: x.reshape(x.shape[0], -1))

    stack = ska.Network((ska.Dense(3), Flat(), ska.Dense(2)))
    with pytest.raises(ValueError, match="no stage between them"):
        R.feedback_alignment(stack, images.reshape(4, -1), key)
    for bad, words in (
        ((x, y), "at least 10 inputs"),
        ((images.reshape(4, -1), jnp.array([0, 1, 10, 2])), "from 0 to 9.* it held 10"),
        ((images.reshape(4, -1), y), "for each of the 4 samples"),
    ):
        with pytest.raises(ValueError, match=words):
            R.positive_negative(*bad, key)
    with pytest.raises(ValueError, match="Argument classes must be a whole number, at least 2"):
        R.positive_negative(x, y, key, classes=1)


def test_the_feedback_may_read_a_stage_below():
    """A first stage is under all feedback: its layers' rule is that of the flattened images."""
    network, weights, x, y = problem()

    class Flat:
        init = staticmethod(lambda key, x: ())
        apply = staticmethod(lambda weights, x: x.reshape(x.shape[0], -1))

    images = ska.Network((Flat(), *network.layers))
    key = jax.random.key(5)
    rule = R.feedback_alignment(images, x.reshape(7, 2, 2), key)
    start = images.init(jax.random.key(0), x.reshape(7, 2, 2))
    flow = flow_of(images, (start[0], *weights), ska.Batch(x.reshape(7, 2, 2), y), rule)
    want = flow_of(network, weights, ska.Batch(x, y), feedback("fa", network, x))
    close(flow[1:], want, 1e-14)


def test_rules_take_networks_that_read_whole_numbers():
    """Their matrices are of the layers' precision, not of the tokens'."""
    tokens, y = jnp.arange(12).reshape(4, 3) % 7, jnp.arange(4) % 3
    network = ska.Network(
        (ska.layers.Embed(7, 5), ska.layers.Flatten(), *problem((6, 3))[0].layers)
    )
    weights = network.init(jax.random.key(0), tokens)
    for make in (R.feedback_alignment, R.layerwise):
        flow = flow_of(
            network, weights, ska.Batch(tokens, y), make(network, tokens, jax.random.key(1))
        )
        assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(flow))
        assert float(jnp.abs(flow[2].W).max()) > 0
