"""Recurrent layers against NumPy programs, backpropagation by hand, and the checks of every layer."""

import jax
import jax.numpy as jnp
import layer_checks as checks
import numpy as np
import pytest

import skajax as ska
from skajax.entropy import entropy
from skajax.layers import Flatten, GatedWeights, Recurrent

KINDS = {"simple": False, "gated": True}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def in_numpy(weights):
    """(W, V, b) of the candidate, and of the gate if there is one."""
    parts = weights if isinstance(weights, GatedWeights) else (weights,)
    return [tuple(np.asarray(a) for a in part) for part in parts]


def knowledge_numpy(parts, x, decide=sigmoid):
    """z_0 = 0, z_1, ..., z_T, each (samples, width), step by step."""
    (W, V, b), *gate = parts
    z = [np.zeros((len(x), len(b)))]
    for t in range(x.shape[1]):
        D = decide(z[-1])
        new = x[:, t] @ W + D @ V + b
        for W_g, V_g, b_g in gate:
            g = sigmoid(x[:, t] @ W_g + D @ V_g + b_g)
            new = (1 - g) * z[-1] + g * new
        z.append(new)
    return z


def slope_of_entropy(z):
    D = sigmoid(z)
    return -z * D * (1 - D) / np.log(2)


def flow_numpy(parts, x, window, by_z=None):
    """Backpropagation by hand: from every z_t through the last ``window`` steps, and no further."""
    z = knowledge_numpy(parts, x)
    flows = [[np.zeros_like(a) for a in part] for part in parts]
    (W, V, b), *gate = parts
    for t in range(1, len(z)):
        back = slope_of_entropy(z[t]) / len(x) if by_z is None else by_z[t - 1]
        for s in range(t, max(t - window, 0), -1):
            D, now = sigmoid(z[s - 1]), x[:, s - 1]
            into, further = [back], 0
            if gate:
                ((W_g, V_g, b_g),) = gate
                g = sigmoid(now @ W_g + D @ V_g + b_g)
                candidate = now @ W + D @ V + b
                into = [back * g, back * (candidate - z[s - 1]) * g * (1 - g)]
                further = back * (1 - g)
            for flow, part, a in zip(flows, parts, into, strict=True):
                flow[0] -= now.T @ a
                flow[1] -= D.T @ a
                flow[2] -= a.sum(0)
                further = further + (a @ part[1].T) * D * (1 - D)
            back = further
    return flows


def problem(layer, samples=5, times=4, features=3, seed=0):
    x = jax.random.uniform(jax.random.key(seed + 1), (samples, times, features), float)
    network = ska.Network((layer,))
    return network, network.init(jax.random.key(seed), x), x


def computed(network, weights, x, *energy):
    """Knowledge and flow of the first layer, by one program."""
    both = lambda w, x: (network.forward(w, x)[0][0], ska.flow(network, w, x, *energy)[0])
    return jax.jit(both)(weights, x)


def assert_parts(got, want, tolerance=1e-12):
    for a, b in zip(jax.tree.leaves(in_numpy(got)), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("gated", "window", "samples", "times", "features", "width"),
    [
        (False, 1, 3, 5, 2, 4),
        (True, 1, 2, 4, 3, 2),
        (False, 3, 1, 5, 1, 3),
        (True, 4, 3, 6, 3, 1),
        (False, 7, 2, 2, 3, 4),
        (True, 2, 4, 1, 2, 3),
    ],
)
def test_knowledge_and_flow_are_those_of_numpy(x64, gated, window, samples, times, features, width):
    layer = Recurrent(width, gated=gated, window=window, scale=1.5, bias=0.3)
    network, weights, x = problem(layer, samples, times, features)
    z, flow = computed(network, weights, x)
    parts, x_numpy = in_numpy(weights[0]), np.asarray(x)
    want = np.stack(knowledge_numpy(parts, x_numpy)[1:], axis=1)
    np.testing.assert_allclose(z, want, rtol=1e-12, atol=1e-12)
    assert_parts(flow, flow_numpy(parts, x_numpy, window))


def test_the_default_flow_is_a_sum_of_outer_products_over_all_steps(x64):
    network, weights, x = problem(Recurrent(4, scale=1.0))
    z, flow = computed(network, weights, x)
    before = np.concatenate([np.full((5, 1, 4), 0.5), sigmoid(np.asarray(z))[:, :-1]], axis=1)
    g = slope_of_entropy(np.asarray(z)) / 5
    np.testing.assert_allclose(flow.W, -np.einsum("sti,stj->ij", x, g), rtol=1e-12)
    np.testing.assert_allclose(flow.V, -np.einsum("sti,stj->ij", before, g), rtol=1e-12)
    np.testing.assert_allclose(flow.b, -g.sum((0, 1)), rtol=1e-12)


def test_one_step_is_a_dense_layer_whose_bias_has_what_D_0_adds(x64):
    network, weights, x = problem(Recurrent(4, scale=1.0, bias=0.2), times=1)
    W, V, b = weights[0]
    dense, same = ska.Network((ska.Dense(4),)), (ska.DenseWeights(W, b + 0.5 * V.sum(0)),)
    (z, flow), (dense_z, want) = computed(network, weights, x), computed(dense, same, x[:, 0])
    np.testing.assert_allclose(z[:, 0], dense_z, rtol=1e-12)
    np.testing.assert_allclose(flow.W, want.W, rtol=1e-12)
    np.testing.assert_allclose(flow.b, want.b, rtol=1e-12)
    np.testing.assert_allclose(flow.V, 0.5 * np.broadcast_to(want.b, (4, 4)), rtol=1e-12)


def through_time(gated, weights, x):
    """Σ h(z_t) / B by a plain scan, to be differentiated through all steps."""

    def tick(z, now):
        D = jax.nn.sigmoid(z)
        drive = lambda part: now @ part.W + D @ part.V + part.b[None, :]
        if gated:
            g = jax.nn.sigmoid(drive(weights.gate))
            z = (1 - g) * z + g * drive(weights.candidate)
        else:
            z = drive(weights)
        return z, jnp.sum(entropy(z)) / x.shape[0]

    width = (weights.gate if gated else weights).b.shape[0]
    start = jnp.zeros((x.shape[0], width), x.dtype)
    return jnp.sum(jax.lax.scan(tick, start, jnp.moveaxis(x, 1, 0))[1])


@pytest.mark.parametrize("kind", [pytest.param("simple", marks=pytest.mark.thorough), "gated"])
def test_a_window_of_all_steps_is_backpropagation_through_time(x64, kind):
    gated = KINDS[kind]
    _, weights, x = problem(Recurrent(4, gated=gated, scale=1.0), times=6)
    gradient = jax.jit(jax.grad(lambda w: through_time(gated, w, x)))(weights[0])
    want = jax.tree.map(jnp.negative, gradient)
    found = {}
    for window in (1, 5, 6, 60):
        network = ska.Network((Recurrent(4, gated=gated, window=window),))
        found[window] = computed(network, weights, x)[1]
        if window < 6:  # under the global energy the gradient goes through all times
            everywhere = computed(network, weights, x, ska.energies.Entropy(local=False))[1]
            checks.close(everywhere, want, 1e-12)
    checks.close(found[6], want, 1e-12)
    checks.close(found[60], found[6], 0)
    for shorter in (1, 5):
        assert max_difference(found[shorter], want) > 1e-5


def max_difference(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda u, v: float(jnp.abs(u - v).max()), a, b)))


def stack(kind, window=1, layers=2):
    """So many recurrent layers, and a dense one on top."""
    gated = KINDS[kind]
    x = jax.random.uniform(jax.random.key(2), (5, 4, 3), float)
    recurrent = (
        Recurrent(4, gated=gated, window=window, scale=0.8),
        Recurrent(3, gated=gated, window=window, scale=0.8, bias=0.1),
    )
    network = ska.Network((*recurrent[:layers], Flatten(), ska.Dense(2, scale=0.5)))
    return network, network.init(jax.random.key(0), x), x


@pytest.mark.parametrize(
    ("kind", "window"),
    [("simple", 1), pytest.param("simple", 3, marks=pytest.mark.thorough), ("gated", 2)],
)
def test_what_every_layer_shows(x64, kind, window):
    checks.check_flow(*stack(kind, window))


@pytest.mark.parametrize(
    ("kind", "window"), [("simple", 1), pytest.param("gated", 2, marks=pytest.mark.thorough)]
)
def test_closed_forms_hold_along_a_run(x64, kind, window):
    checks.check_closed_forms(*stack(kind, window, layers=1))


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_knows_of_later_ones(x64, kind):
    network, weights, x = problem(Recurrent(4, gated=KINDS[kind], window=2, scale=1.0), times=6)
    forward = jax.jit(lambda x: network.forward(weights, x)[0][0])
    before, after = forward(x), forward(x.at[:, 3].add(1.0))
    np.testing.assert_array_equal(after[:, :3], before[:, :3])
    for t in range(3, 6):
        assert np.abs(after[:, t] - before[:, t]).max() > 1e-3


def test_samples_do_not_know_of_each_other(x64):
    network, weights, x = problem(Recurrent(4, gated=True, scale=1.0))
    forward = jax.jit(lambda x: network.forward(weights, x)[0][0])
    np.testing.assert_allclose(forward(x)[2:3], forward(x[2:3]), rtol=1e-13)


@pytest.mark.parametrize(
    ("name", "decide"),
    [("sigmoid", sigmoid), ("tanh", np.tanh), ("relu", lambda z: z * (z > 0)), ("identity", lambda z: z)],
)  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_each_decision_and_that_on_zero_knowledge(x64, kind, name, decide):
    network, weights, x = problem(Recurrent(4, gated=KINDS[kind], scale=0.7, decision=name))
    (z,), (D,) = jax.jit(network.forward)(weights, x)
    want = np.stack(knowledge_numpy(in_numpy(weights[0]), np.asarray(x), decide)[1:], axis=1)
    np.testing.assert_allclose(z, want, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(D, decide(want), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_knowledge_of_long_sequences_is_bounded(kind):
    network, weights, x = problem(Recurrent(8, gated=KINDS[kind], scale=5.0), times=3000)
    z, flow = computed(network, weights, x)
    z = np.abs(np.asarray(z))
    part = weights[0].candidate if KINDS[kind] else weights[0]
    bound = np.abs(np.asarray(part.W)).sum(0) + np.abs(np.asarray(part.V)).sum(0)
    assert (z <= bound * (1 + 1e-5)).all() and z[:, -1].max() > 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(flow))


@pytest.mark.parametrize("kind", KINDS)
def test_the_energy_that_descent_gives_to_a_line_search_has_the_flow_as_its_gradient(x64, kind):
    network, weights, x = stack(kind, 2)
    system = ska.system.System(network, ska.Batch(x))
    gradient, flow = jax.jit(
        lambda w: (jax.grad(system.potential(0.0, w))(w), system.flow(0.0, w))
    )(weights)
    checks.close(gradient, jax.tree.map(jnp.negative, flow), 1e-12)


@pytest.mark.parametrize("kind", [pytest.param("simple", marks=pytest.mark.thorough), "gated"])
def test_the_published_rule_lags_in_what_is_below_and_not_in_time(x64, kind):
    """In NumPy: a layer's own D_{t-1} is that of the present weights, on what it reads from below."""
    gated, dt, samples = KINDS[kind], 0.2, 5
    x = jax.random.uniform(jax.random.key(2), (samples, 4, 3), float)
    network = ska.Network(
        (Recurrent(4, gated=gated, scale=0.8), Recurrent(3, gated=gated, scale=0.8))
    )
    weights = network.init(jax.random.key(0), x)
    run = ska.simulate(network, weights, x, ska.Published(dt), steps=5, observe=("entropy",))

    layers = [in_numpy(w) for w in weights]
    after = lambda parts, below: np.stack(knowledge_numpy(parts, below)[1:], axis=1)
    before = None
    for k in range(5):
        Z, D, below = [], [], np.asarray(x)
        for parts in layers:
            Z.append(after(parts, below))
            D.append(sigmoid(Z[-1]))
            below = D[-1]
        if k >= 1:
            moved = []
            reads = [np.asarray(x), before[0]]
            for parts, z, now, old, read in zip(layers, Z, D, before, reads, strict=True):
                g = (slope_of_entropy(z) - (now - old) / np.log(2)) / samples
                flows = flow_numpy(parts, read, 1, by_z=np.moveaxis(g, 1, 0))
                moved.append(
                    [
                        tuple(a + dt * f for a, f in zip(part, flow, strict=True))
                        for part, flow in zip(parts, flows, strict=True)
                    ]
                )
            layers = moved
        before = D
    for got, want in zip(run.final.weights, layers, strict=True):
        assert_parts(got, want, 1e-12)


def test_networks_that_differ_in_initial_values_alone_share_their_programs():
    layer = Recurrent(4, gated=True, window=2, scale=0.3, bias=0.2)
    assert layer.running() == Recurrent(4, gated=True, window=2)
    assert hash(layer) == hash(Recurrent(4, True, 2, 0.3, 0.2)) != hash(layer.running())


def test_initial_weights_have_their_scale_and_biases():
    x = jax.ShapeDtypeStruct((2, 3, 200), jnp.float32)
    weights = Recurrent(300, gated=True, scale=0.2, bias=0.7).init(jax.random.key(0), x)
    for part, bias in zip(weights, (0.7, 0.0), strict=True):
        for array, rows in ((part.W, 200), (part.V, 300)):
            assert array.shape == (rows, 300) and array.dtype == jnp.float32
            assert float(array.std()) == pytest.approx(0.2, rel=0.02)
        np.testing.assert_array_equal(part.b, np.full(300, bias, np.float32))
    drawn = [np.asarray(a)[0] for part in weights for a in (part.W, part.V)]
    correlations = np.corrcoef(drawn) - np.eye(4)
    assert np.abs(correlations).max() < 0.25


BAD = {
    "no width": (lambda x: Recurrent(0), "width", "at least 1"),
    "no window": (lambda x: Recurrent(3, window=0), "window", "at least 1"),
    "half a window": (lambda x: Recurrent(3, window=1.5), "window", "whole number of steps"),
    "gate": (lambda x: Recurrent(3, gated="yes"), "gated", "True or False"),
    "scale": (lambda x: Recurrent(3, scale=-1), "scale", "at least 0"),
    "bias": (lambda x: Recurrent(3, bias=float("nan")), "bias", "finite"),
    "precision": (lambda x: Recurrent(3, precision="most"), "precision", "'highest'"),
    "decision": (lambda x: Recurrent(3, decision="step"), "decision", "'sigmoid'"),
    "images": (
        lambda x: ska.Network((Recurrent(3),)).init(jax.random.key(0), x[:, 0]),
        "x",
        r"\(samples, times, features\).*\(5, 3\).*layers\[0\] \(Recurrent\)",
    ),
    "no times": (
        lambda x: Recurrent(3).init(jax.random.key(0), x[:, :0]),
        "x",
        r"at least one time.*\(5, 0, 3\)",
    ),
    "after flattening": (
        lambda x: ska.Network((Flatten(), Recurrent(3))).init(jax.random.key(0), x),
        "x",
        r"\(5, 12\).*layers\[1\] \(Recurrent\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_are_refused(untyped, case):
    make, argument, words = BAD[case]
    with pytest.raises(ValueError, match=f"Argument {argument} must .*{words}"):
        make(jnp.ones((5, 4, 3)))
