"""The flow and its tangents: against autodiff, outer products, differences, and by identities."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from hypothesis import given
from hypothesis import strategies as st
from reference import LN2

import skajax as ska
from skajax.methods._fixed import Look, begin, take
from skajax.observables import NAMES, PAPER, observe

PRODUCT = 512  # batch and widths of the networks whose matrix products are counted

each_problem = pytest.mark.parametrize(
    "problem", [ref.SAMPLE, ref.ODD, ref.DEEP], ids=lambda p: p.name
)


@pytest.fixture(autouse=True)
def double(x64):
    """Double precision for all tests of this file."""


def shannon(z):
    """Binary entropy in bits, from the probabilities: nothing of skajax in it."""
    D, rest = jax.nn.sigmoid(z), jax.nn.sigmoid(-z)
    return (jax.scipy.special.entr(D) + jax.scipy.special.entr(rest)) / LN2


def mean_entropies(network, weights, x, stop=jax.lax.stop_gradient):
    """Sum over layers and neurons of the entropy's mean over samples."""
    total = 0.0
    for layer, w in zip(network.layers, weights, strict=True):
        z = layer.knowledge(w, stop(x))
        total += shannon(z).mean(axis=0).sum()
        x = jax.nn.sigmoid(z)
    return total


@partial(jax.jit, static_argnums=0)
def measure(network, weights, x, start):
    """Flow, observables, Z, D and tangents, of a run that began at ``start``: one program."""
    velocity = ska.flow(network, weights, x)
    Z, D = network.forward(weights, x)
    tangents = ska.tangents(network, weights, velocity, x)
    before, _ = network.forward(start, x)
    system = ska.System(network, ska.Batch(x))
    seen = observe(PAPER, ska.Instant(system, 0.0, weights, before=before))
    return velocity, seen, Z, D, *tangents


def instant(network, weights, x, start=None):
    return jax.tree.map(
        np.asarray, measure(network, weights, x, weights if start is None else start)
    )


def flow_of(network, weights, x):
    return instant(network, weights, x)[0]


def assert_close(got, want, **tolerance):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, **tolerance)


@each_problem
def test_flow_is_minus_the_gradient_of_the_layers_own_entropies(problem):
    network, weights, x = problem.arrays()
    flow = flow_of(network, weights, x)
    gradient = jax.jit(jax.grad(mean_entropies, argnums=1), static_argnums=0)(network, weights, x)
    assert_close(flow, jax.tree.map(jnp.negative, gradient), rtol=0, atol=1e-12)


@each_problem
def test_flow_is_the_papers_outer_products(problem):
    network, weights, x = problem.arrays()
    flow = flow_of(network, weights, x)
    assert isinstance(flow[0], ska.DenseWeights)
    want = ref.flow(*problem.numpy())
    assert_close(flow, ref.to_skajax(want), rtol=0, atol=1e-12)


def test_no_gradient_crosses_a_layer():
    network, weights, x = ref.DEEP.arrays()
    with_chain = jax.jit(
        jax.grad(lambda w: mean_entropies(network, w, x, stop=lambda value: value))
    )(weights)
    before = flow_of(network, weights, x)
    # The chain rule would have made a difference here, in every layer but the last.
    for rate, gradient in zip(before[:-1], with_chain[:-1], strict=True):
        assert float(jnp.abs(rate.W + gradient.W).max()) > 1e-3
    assert_close(before[-1], jax.tree.map(jnp.negative, with_chain[-1]), atol=1e-12)
    # Nor do the layers above matter.
    other = (*weights[:2], *jax.tree.map(lambda leaf: -2 * leaf, weights[2:]))
    assert_close(flow_of(network, other, x)[:2], before[:2], atol=0)


class _Two(NamedTuple):
    W: jax.Array
    V: jax.Array


@dataclasses.dataclass(frozen=True)
class _Gated:
    """A layer that is not linear in its weights, which has no bias: z = (x W) * tanh(x V)."""

    width: int

    def init(self, key, x):
        return _Two(*jax.random.normal(key, (2, x.shape[-1], self.width), x.dtype))

    def knowledge(self, weights, x):
        return (x @ weights.W) * jnp.tanh(x @ weights.V)


def test_any_layer_flows_down_its_own_entropy():
    network = ska.Network((_Gated(4), ska.Dense(3, scale=0.5), _Gated(2)))
    x = jax.random.uniform(jax.random.key(3), (6, 5))
    weights = network.init(jax.random.key(4), x)
    flow = flow_of(network, weights, x)
    gradient = jax.jit(jax.grad(lambda w: mean_entropies(network, w, x)))(weights)
    assert_close(flow, jax.tree.map(jnp.negative, gradient), atol=1e-12)


def test_tangents_are_the_product_rule():
    network, weights, x = ref.ODD.arrays()
    numbers, samples = ref.ODD.numpy()
    rng = np.random.default_rng(5)
    velocity = [(rng.normal(size=W.shape), rng.normal(size=b.shape)) for W, b in numbers]
    tangents = jax.jit(ska.tangents, static_argnums=0)
    got = tangents(network, weights, ref.to_skajax(velocity), x)
    want = ref.tangents(numbers, velocity, samples)
    assert_close(got, tuple(map(tuple, want)), rtol=1e-13, atol=1e-13)


def test_tangents_are_central_differences():
    network, weights, x = ref.DEEP.arrays()
    velocity, _, _, _, *tangents = instant(network, weights, x)
    eps = 1e-3
    forward = jax.jit(network.forward)

    def moved(steps):
        there = jax.tree.map(lambda w, v: np.asarray(w) + steps * eps * v, weights, velocity)
        return jax.tree.map(np.asarray, forward(there, x))

    # Fourth order: error (eps^4 / 30) f⁗ and rounding 1e-16 / eps, both below 1e-12.
    differences = jax.tree.map(
        lambda a, b, c, d: (8 * (a - b) - (c - d)) / 12 / eps, *map(moved, (1, -1, 2, -2))
    )
    assert_close(tuple(tangents), differences, atol=1e-11)


def test_in_the_linear_regime_knowledge_grows_at_the_gram_matrixs_rates():
    # For |z| << 1, D' = 1/4 and dZ/dt = (x xᵀ + 1) Z / (4 B ln 2): the first layer's timescales.
    # Neglected: D' = (1 - z²/4 ...)/4, 1e-12 in relative terms.
    samples = 6
    network = ska.mlp([4])
    x = jax.random.uniform(jax.random.key(0), (samples, 3))
    weights = jax.tree.map(lambda w: 1e-6 * w, ref.Problem("", 3, (4,), 1).arrays()[1])
    _, _, (Z,), _, (Zdot,), _ = instant(network, weights, x)
    growth = (np.asarray(x) @ np.asarray(x).T + 1) / (4 * samples * LN2)
    np.testing.assert_allclose(Zdot, growth @ Z, rtol=1e-9, atol=1e-18)


def test_hidden_layers_start_at_their_widths_rate():
    # With D = 1/2 below, all samples are alike: dz/dt = (n/4 + 1) z / (4 ln 2).
    network = ska.mlp([16, 5])
    x = jax.random.uniform(jax.random.key(0), (7, 3))
    rng = np.random.default_rng(1)
    still = (np.zeros((3, 16)), np.zeros(16))
    moving = (1e-6 * rng.normal(size=(16, 5)), 1e-6 * rng.normal(size=5))
    weights = ref.to_skajax([still, moving])
    _, _, Z, _, Zdot, _ = instant(network, weights, x)
    np.testing.assert_allclose(Zdot[1], (16 / 4 + 1) / (4 * LN2) * Z[1], rtol=1e-9)
    np.testing.assert_array_equal(Zdot[0], 0)


def test_knowledge_flow_peaks_where_saturation_sets_in():
    # z D'(z) is largest where z tanh(z/2) = 1, |z| = 1.5434: scanned over one neuron's bias.
    network = ska.mlp([1])
    biases = jnp.linspace(1.5, 1.6, 1001)
    x = jnp.zeros((1, 1))

    def speed(bias):
        weights = (ska.DenseWeights(jnp.zeros((1, 1)), bias[None]),)
        (Zdot,), _ = ska.tangents(network, weights, ska.flow(network, weights, x), x)
        return Zdot[0, 0]

    peak = biases[jnp.argmax(jax.jit(jax.vmap(speed))(biases))]
    np.testing.assert_allclose(peak * jnp.tanh(peak / 2), 1, atol=1e-4)


@each_problem
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_state_is_a_function_of_weights_and_inputs(problem, dtype):
    network, weights, x = problem.arrays(dtype)
    state = ska.state(network, weights, x, t=0.25)
    Z, D = ref.forward(*problem.numpy())
    assert state.t == 0.25
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {np.dtype(dtype)}
    close = {"rtol": 20 * jnp.finfo(dtype).eps, "atol": 20 * jnp.finfo(dtype).eps}
    assert_close((state.Z, state.D), (tuple(Z), tuple(D)), **close)
    assert_close(state.weights, weights, rtol=0)
    assert ska.state(network, weights, x).t == 0


@each_problem
def test_observables_along_the_flow(problem):
    network, weights, x = problem.arrays()
    numbers, samples = problem.numpy()
    start = [(0.5 * W, 0.25 * b) for W, b in numbers]
    _, got, *_ = instant(network, weights, x, ref.to_skajax(start))
    want = ref.observables(numbers, ref.flow(numbers, samples), samples, start)
    assert set(want) == set(got) == set(NAMES)
    for name, values in want.items():
        np.testing.assert_allclose(getattr(got, name), values, rtol=1e-12, atol=1e-12, err_msg=name)


def matrix_products(function, *arguments):
    """How many products of two PRODUCT x PRODUCT matrices the compiled program computes."""
    program = jax.jit(function).lower(*arguments).compile()
    # XLA's own account of the optimised program, however it names or fuses its products. What is
    # elementwise adds a few times 1 / PRODUCT of a product for each layer.
    return int(program.cost_analysis()["flops"] / (2 * PRODUCT**3))


def test_nothing_is_computed_twice():
    network = ska.mlp([PRODUCT] * 4)
    x = jax.ShapeDtypeStruct((PRODUCT, PRODUCT), jnp.float32)
    weights = jax.eval_shape(network.init, jax.random.key(0), x)

    def flow(weights, x):
        return ska.flow(network, weights, x)

    def step(method):
        look, system = Look(PAPER, PAPER, None), lambda x: ska.System(network, ska.Batch(x))
        now = jax.eval_shape(lambda w, x: begin(method, system(x), w, look), weights, x)
        one = lambda now, x: take(method, system(x), look, now, None)[::2]
        return matrix_products(one, now, x)

    assert matrix_products(flow, weights, x) == 8  # one forwards, one back, in four layers
    # Tangents: x Ẇ in four layers, ẋ W in three.
    assert step(ska.Euler(jnp.float32(0.1))) == 15
    assert step(ska.Published(jnp.float32(0.1))) == 8


# Properties of random networks. Each shape is compiled once, so there are two, and many draws of
# weights, scales and inputs.

SHAPES = ((2, (6, 1), 8), (5, (2, 7, 4), 1))


@st.composite
def networks(draw):
    inputs, widths, samples = draw(st.sampled_from(SHAPES))
    seed, scale = draw(st.integers(0, 2**16)), draw(st.floats(0.01, 3))
    return ref.Problem("", inputs, widths, samples, scale, seed)


def shuffled(problem, x):
    return np.random.default_rng(problem.seed).permutation(x, axis=0)


@given(problem=networks())
def test_properties_of_random_networks(problem):
    network, weights, x = problem.arrays()
    velocity, seen, Z, D, Zdot, Ddot = instant(network, weights, x)
    numbers, samples = problem.numpy()

    # Against the paper's equations, to rounding.
    assert_close(velocity, ref.to_skajax(ref.flow(numbers, samples)), rtol=1e-12, atol=1e-13)

    # Entropy in bits lies in [0, 1] a decision; Shannon's value.
    sizes = problem.samples * np.array(problem.widths)
    assert np.all((seen.entropy >= 0) & (seen.entropy <= sizes * (1 + 1e-15)))

    # Each layer descends: moving W and b at fixed input lowers the layer's mean entropy at the
    # rate |velocity|², which is the sum over the batch of L / ln 2 along x Ẇ + ḃ, divided by B.
    for inputs, z, v in zip((np.asarray(x), *D[:-1]), Z, velocity, strict=True):
        moved = inputs @ v.W + v.b
        descent = -np.sum(z * ref.slope(z) * moved) / LN2 / problem.samples
        speed = np.sum(v.W**2) + np.sum(v.b**2)
        np.testing.assert_allclose(descent, -speed, rtol=1e-10, atol=1e-14)

    # The first layer has nothing below that moves, so its whole rate is a descent.
    first = velocity[0]
    speed = np.sum(first.W**2) + np.sum(first.b**2)
    np.testing.assert_allclose(
        seen.entropy_rate[0], -problem.samples * speed, rtol=1e-10, atol=1e-13
    )

    # Identities between the observables.
    scale = {"rtol": 1e-12, "atol": 1e-12 * (1 + seen.flow_norm.max() * sizes.max())}
    np.testing.assert_allclose(seen.entropy_rate, seen.lagrangian / LN2, **scale)
    np.testing.assert_allclose(
        seen.tensor_net_rate - seen.tensor_net_rate_equation, 2 * seen.entropy_rate, **scale
    )
    np.testing.assert_allclose(seen.tensor_net, 0, atol=1e-12)
    np.testing.assert_allclose(seen.tensor_net_equation, 0, atol=1e-12)
    assert np.all(np.abs(seen.alignment) <= 1 + 1e-12)
    for column, (z, ddot) in enumerate(zip(Z, Ddot, strict=True)):
        aligned = seen.alignment[column] * np.linalg.norm(z) * np.linalg.norm(ddot)
        np.testing.assert_allclose(-aligned / LN2, seen.entropy_rate[column], **scale)
    for d, zdot, ddot in zip(D, Zdot, Ddot, strict=True):
        np.testing.assert_allclose(ddot, d * (1 - d) * zdot, rtol=1e-9, atol=1e-15)


SUMS = ("entropy", "entropy_rate", "lagrangian", "tensor_net_rate", "tensor_net_rate_equation")
NORMS = ("knowledge_norm", "flow_norm")
MEANS = ("alignment", "weight_norm", "output_mean")


@given(problem=networks())
def test_batches_are_averaged_in_the_flow_and_summed_in_the_observables(problem):
    network, weights, x = problem.arrays()
    velocity, seen, *_ = instant(network, weights, x)

    reordered, seen_reordered, *_ = instant(network, weights, shuffled(problem, x))
    assert_close(reordered, velocity, rtol=1e-12, atol=1e-14)
    assert_close(seen_reordered, seen, rtol=1e-11, atol=1e-11)

    twice, seen_twice, *_ = instant(network, weights, np.concatenate([x, x]))
    assert_close(twice, velocity, rtol=1e-12, atol=1e-14)
    for names, factor in ((SUMS, 2), (NORMS, np.sqrt(2)), (MEANS, 1)):
        for name in names:
            one, two = getattr(seen, name), getattr(seen_twice, name)
            np.testing.assert_allclose(two, factor * one, rtol=1e-11, atol=1e-11, err_msg=name)


@given(problem=networks())
def test_a_neurons_sign_is_a_symmetry_of_the_last_layer(problem):
    # z → -z for one output neuron: h is even, so its weights' flow only changes sign.
    network, weights, x = problem.arrays()
    last = weights[-1]
    sign = np.where(np.arange(last.b.size) == 0, -1.0, 1.0)
    flipped = (*weights[:-1], ska.DenseWeights(last.W * sign[None, :], last.b * sign))
    velocity, seen, *_ = instant(network, weights, x)
    mirrored, seen_mirrored, *_ = instant(network, flipped, x)
    assert_close(mirrored[:-1], velocity[:-1], atol=1e-15)
    np.testing.assert_allclose(mirrored[-1].W[:, 0], -velocity[-1].W[:, 0], atol=1e-15)
    np.testing.assert_allclose(mirrored[-1].b[0], -velocity[-1].b[0], atol=1e-15)
    np.testing.assert_allclose(seen_mirrored.output_mean[0], 1 - seen.output_mean[0], atol=1e-14)
    for name in ("entropy", "entropy_rate", "knowledge_norm", "flow_norm"):
        np.testing.assert_allclose(
            getattr(seen_mirrored, name), getattr(seen, name), rtol=1e-12, atol=1e-12, err_msg=name
        )


def test_a_bias_is_the_weight_of_a_constant_input():
    # z = x W + b is z = [x, 1] [W; b]: a network whose first bias is such a row moves alike.
    network, weights, x = ref.SMALL.arrays()
    velocity = flow_of(network, weights, x)
    first = weights[0]
    padded = ska.DenseWeights(np.concatenate([first.W, first.b[None]]), np.zeros(first.b.shape))
    with_one = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    moved = flow_of(network, (padded, *weights[1:]), with_one)
    np.testing.assert_allclose(moved[0].W[:-1], velocity[0].W, atol=1e-15)
    np.testing.assert_allclose(moved[0].W[-1], velocity[0].b, atol=1e-15)
    np.testing.assert_allclose(moved[0].b, velocity[0].b, atol=1e-15)
    assert_close(moved[1:], velocity[1:], atol=1e-15)


def test_inputs_that_are_always_zero_change_nothing():
    network, weights, x = ref.SMALL.arrays()
    first = weights[0]
    wider = ska.DenseWeights(np.concatenate([first.W, np.ones((2, 5))]), first.b)
    moved = flow_of(network, (wider, *weights[1:]), np.pad(x, ((0, 0), (0, 2))))
    velocity = flow_of(network, weights, x)
    np.testing.assert_allclose(moved[0].W[:-2], velocity[0].W, atol=1e-15)
    np.testing.assert_array_equal(moved[0].W[-2:], 0)
    assert_close(moved[1:], velocity[1:], atol=1e-15)
