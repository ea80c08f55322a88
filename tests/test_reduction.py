"""Reduction to the inputs' row space: the same run, whatever the inputs, and when it is left alone."""

import subprocess
import sys
import textwrap

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference as ref
from hypothesis import given
from hypothesis import strategies as st

import skajax as ska
from skajax import reduction
from skajax.observables import NAMES

# Inputs and weights here are large on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::skajax.SkajaxWarning")

INPUTS, WIDTHS = 40, (9, 5)
STEPS = 12


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 1, size=shape)


def sparse(samples=30, live=20):
    x = uniform(samples, INPUTS)
    x[:, np.random.default_rng(1).permutation(INPUTS)[live:]] = 0
    return x


# Inputs, and their rank; few shapes, because each is compiled.
FAMILIES = {
    "columns of zeros": (sparse(), 20),
    "fewer samples than inputs": (uniform(6, INPUTS), 6),
    "few samples, and zeros": (sparse(6, 30), 6),
    "more samples than the rank": (uniform(30, 7) @ uniform(7, INPUTS, seed=1), 7),
    "duplicates": (np.repeat(uniform(2, INPUTS), 3, axis=0), 2),
    "one sample": (uniform(1, INPUTS), 1),
    "nothing but zeros": (np.zeros((6, INPUTS)), 1),
    "pixels of one shade": (np.broadcast_to(uniform(30, 1), (30, INPUTS)), 1),
}
CHEAP = ("columns of zeros", "fewer samples than inputs", "few samples, and zeros")

each_family = pytest.mark.parametrize("family", FAMILIES)


def problem(x, dtype=jnp.float64, widths=WIDTHS):
    network, weights, _ = ref.Problem("", x.shape[1], widths, 1).arrays(dtype)
    return network, weights, jnp.asarray(x, dtype)


@pytest.fixture
def eager(monkeypatch):
    """Small problems are worth reducing."""
    monkeypatch.setattr(reduction, "SAVING", 0)


def columns(space):
    """Q, as a matrix."""
    basis = np.asarray(space.basis)
    return basis if basis.ndim == 2 else np.eye(space.inputs)[:, basis]


def assert_close(got, want, tolerance):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert g.dtype == w.dtype
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance)


def assert_same_run(
    network, weights, x, reduced, method, tolerance, observe=("entropy", "flow_norm", "weight_norm")
):
    """What the reduced run says of the network is what the network's own run says."""
    space, small, x_r = reduced
    want = ska.simulate(network, weights, x, method, steps=STEPS, observe=observe)
    got = ska.simulate(network, small, x_r, method, steps=STEPS, observe=observe)
    scale = {name: 1 + np.abs(getattr(want, name)).max() for name in observe}
    for name in observe:
        seen = getattr(got, name)
        if name == "weight_norm":
            assert np.abs(seen - want.weight_norm).max() > 1e3 * tolerance
            seen = space.weight_norm(seen)
        np.testing.assert_allclose(
            seen / scale[name], getattr(want, name) / scale[name], atol=tolerance, err_msg=name
        )
    assert_close(got.t, want.t, 0)
    assert_close(space.lift(got.final.weights), want.final.weights, tolerance)
    assert_close((got.final.Z, got.final.D), (want.final.Z, want.final.D), tolerance)


@each_family
def test_any_inputs(x64, family):
    inputs, rank = FAMILIES[family]
    network, weights, x = problem(inputs)
    space, small, x_r = reduced = reduction.find(network, weights, x, "full")
    assert (space.rank, space.inputs) == (rank, INPUTS)
    assert small[0].W.shape == (rank, WIDTHS[0]) and x_r.shape == (len(inputs), rank)
    assert_close(network.forward(small, x_r), network.forward(weights, x), 1e-13)
    assert_same_run(network, weights, x, reduced, ska.Euler(0.1), 1e-12)


@pytest.mark.parametrize("family", CHEAP)
def test_what_is_cheap(x64, eager, family):
    inputs, rank = FAMILIES[family]
    network, weights, x = problem(inputs)
    reduced = reduction.find(network, weights, x)
    # Columns come in blocks; samples as they are.
    assert reduced[0].rank == (32 if family == "columns of zeros" else rank)
    assert_same_run(network, weights, x, reduced, ska.Euler(0.1), 1e-12)


METHODS = {
    "published": ska.Published(0.1),
    "momentum": ska.Descent(optax.sgd(0.1, momentum=0.9)),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_rule_that_is_linear_in_the_gradient(x64, method):
    network, weights, x = problem(FAMILIES["few samples, and zeros"][0])
    reduced = reduction.find(network, weights, x, "full")
    assert_same_run(network, weights, x, reduced, method, 1e-12, NAMES)


def test_not_a_rule_that_treats_each_weight_by_itself(x64):
    network, weights, x = problem(FAMILIES["fewer samples than inputs"][0])
    _, small, x_r = reduction.find(network, weights, x, "full")
    adam = ska.Descent(optax.adam(0.1))
    options = {"steps": STEPS, "observe": ("entropy",)}
    want = ska.simulate(network, weights, x, adam, **options).entropy
    got = ska.simulate(network, small, x_r, adam, **options).entropy
    assert np.abs(got - want).max() > 0.1


def test_single_precision():
    network, weights, x = problem(FAMILIES["few samples, and zeros"][0], jnp.float32)
    reduced = reduction.find(network, weights, x, "full")
    assert {leaf.dtype for leaf in jax.tree.leaves(reduced)} <= {np.dtype("f4"), np.dtype("i4")}
    assert_same_run(network, weights, x, reduced, ska.Euler(0.1), 1e-5)


def test_single_precision_sees_a_rank_that_its_rounding_blurs():
    x = FAMILIES["more samples than the rank"][0].astype(np.float32)
    assert np.linalg.matrix_rank(x.astype(np.float64)) > 7
    network, weights, x = problem(x, jnp.float32)
    reduced = reduction.find(network, weights, x, "full")
    assert reduced[0].rank == 7
    assert_same_run(network, weights, x, reduced, ska.Euler(0.1), 1e-5)


@each_family
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_start_lifts_to_the_start(x64, family, dtype):
    network, weights, x = problem(FAMILIES[family][0], dtype)
    space, small, _ = reduction.find(network, weights, x, "full")
    lifted = space.lift(small)
    assert_close(lifted, weights, 4 * jnp.finfo(dtype).eps)
    dead = ~np.asarray(x).any(axis=0)
    if space.basis.ndim == 1:
        dead[space.basis] = False
    np.testing.assert_array_equal(lifted[0].W[dead], weights[0].W[dead])
    np.testing.assert_array_equal(space.outside[dead], weights[0].W[dead])
    norms = jnp.stack([jnp.linalg.norm(w.W) for w in weights])
    reduced = jnp.stack([jnp.linalg.norm(w.W) for w in small])
    assert_close(space.weight_norm(reduced), norms, 4 * jnp.finfo(dtype).eps)


@st.composite
def inputs(draw):
    """Products of random factors, with columns emptied and samples repeated."""
    shapes = ((1, 6, 30), (1, 8, 20), (1, 5, 20))  # each is compiled
    samples, width, rank = (draw(st.sampled_from(sizes)) for sizes in shapes)
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, rank)) @ rng.normal(size=(rank, width))
    x *= rng.uniform(size=width) < draw(st.sampled_from([0.1, 0.5, 1]))
    return x[rng.integers(samples, size=samples)] * 10.0 ** draw(st.integers(-6, 6))


@given(x=inputs(), effort=st.sampled_from(["auto", "full"]))
def test_properties_of_any_inputs(x64, eager, x, effort):
    network, weights, inputs = problem(x, widths=(3,))
    reduced = reduction.find(network, weights, inputs, effort)
    rank = max(1, np.linalg.matrix_rank(x, rtol=1e-12))
    if reduced is None:
        assert effort == "auto" or rank == x.shape[1]
        return
    space, small, x_r = reduced
    Q, (numbers, _) = columns(space), map(ref.to_numpy, (weights, small))
    assert space.rank == rank if effort == "full" else rank <= space.rank <= 0.9 * space.inputs
    np.testing.assert_allclose(Q.T @ Q, np.eye(space.rank), atol=1e-14)
    size = np.abs(x).max() + (x == 0).all()
    np.testing.assert_allclose(np.asarray(x_r) @ Q.T / size, x / size, atol=1e-12)
    # W_⊥ is orthogonal to everything that the flow can reach.
    ((W, _),) = numbers
    np.testing.assert_allclose(Q.T @ np.asarray(space.outside), 0, atol=1e-13)
    np.testing.assert_allclose(np.asarray(space.outside) + Q @ (Q.T @ W), W, atol=1e-13)
    # And that is where the flow goes.
    ((whole, _),) = ref.flow(numbers, x)
    ((inside, _),) = ref.flow(ref.to_numpy(small), np.asarray(x_r))
    np.testing.assert_allclose(Q @ inside / size, whole / size, atol=1e-11)


def test_velocities_are_lifted_without_what_does_not_move(x64):
    for family in CHEAP:
        network, weights, x = problem(FAMILIES[family][0])
        space, small, x_r = reduction.find(network, weights, x, "full")
        flow = eqx.filter_jit(ska.flow)
        lifted = space.lift_increment(flow(network, small, x_r))
        assert_close(lifted, flow(network, weights, x), 1e-13)


def test_lifting_is_transformable(x64):
    network, weights, x = problem(FAMILIES["few samples, and zeros"][0])
    space, small, _ = reduction.find(network, weights, x, "full")
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), small)
    over_time = jax.jit(lambda space, stack: jax.vmap(space.lift)(stack))(space, stack)
    assert_close(jax.tree.map(lambda leaf: leaf[0], over_time), weights, 1e-14)
    slope = jax.grad(lambda w: space.lift(w)[0].W[3].sum())(small)[0].W
    want = np.broadcast_to(columns(space)[3][:, None], slope.shape)
    np.testing.assert_allclose(slope, want, rtol=1e-14)


def test_weight_norms_of_any_shape(x64):
    network, weights, x = problem(FAMILIES["fewer samples than inputs"][0])
    space, _, _ = reduction.find(network, weights, x, "full")
    norms = jnp.asarray([[[3.0, 1.0], [jnp.nan, 2.0], [0.0, 0.0]]])
    outside = np.linalg.norm(space.outside)
    want = [[[np.hypot(3, outside), 1], [np.nan, 2], [outside, 0]]]
    np.testing.assert_allclose(space.weight_norm(norms), want, rtol=1e-15)


def test_what_does_not_pay_is_left_alone(x64):
    # Too small, and the same where it is large enough; exactly the inputs that were given.
    network, weights, x = problem(FAMILIES["fewer samples than inputs"][0])
    assert reduction.find(network, weights, x) is None
    wide, weights, x = problem(uniform(16, 600), widths=(300, 2))
    assert reduction.find(wide, weights, x)[0].rank == 16
    # A rank below the number of columns shows only to those who look for it.
    network, weights, x = problem(FAMILIES["more samples than the rank"][0])
    assert reduction.find(network, weights, x) is None
    # A decomposition that no run would earn back: many samples, a narrow layer.
    network, weights, x = problem(uniform(500, 700), widths=(10,))
    assert reduction.find(network, weights, x) is None
    # Nothing to leave out, and one input.
    for x in (uniform(50, 4), uniform(3, 1), np.zeros((2, 1))):
        network, weights, x = problem(x)
        assert reduction.find(network, weights, x, "full") is None


def test_other_inputs_of_a_kind_have_the_same_shape(eager):
    ranks = set()
    for live in range(17, 33):
        network, weights, x = problem(sparse(live=live), jnp.float32)
        ranks.add(reduction.find(network, weights, x)[0].rank)
    assert ranks == {32}


def test_the_embedded_images():
    x, _ = ska.data.mnist_subset()
    network = ska.mlp([256, 10])
    weights = network.init(jax.random.key(0), x)
    space, _, x_r = reduction.find(network, weights, x)
    assert (space.rank, space.inputs) == (624, 784)  # 609 pixels that are ever lit, in blocks
    assert np.asarray(x_r).sum() == pytest.approx(x.sum())
    assert reduction.find(network, weights, x, "full")[0].rank == 587
    space, small, x_r = reduction.find(network, weights, x[::10])
    assert space.rank == 100
    assert_close(network.forward(small, x_r), network.forward(weights, x[::10]), 2e-6)


class _Ones:
    """Not a dense layer: every neuron sums its inputs, and adds its weight."""

    def init(self, key, x):
        return jnp.zeros((), x.dtype)

    def knowledge(self, weights, x):
        return x.sum(axis=-1, keepdims=True) + weights


@pytest.mark.parametrize("spread", [0, 5])  # decades of the samples' sizes
def test_the_quick_decomposition_is_as_good_as_the_slow_one(spread):
    sizes = np.logspace(0, -spread, 6)[:, None]
    x = sizes * (uniform(6, INPUTS) - 0.5)
    (Q, coordinates), (exact, _) = reduction._cholesky_rows(x), reduction._rows(x, True)
    np.testing.assert_allclose(Q.T @ Q, np.eye(6), rtol=0, atol=1e-14)
    np.testing.assert_allclose(Q @ Q.T, exact @ exact.T, rtol=0, atol=1e-13)
    np.testing.assert_allclose(coordinates @ Q.T / sizes, x / sizes, rtol=0, atol=1e-13)


def test_nearly_dependent_samples_take_the_slow_decomposition():
    x = np.repeat(uniform(3, INPUTS), 2, axis=0)
    assert reduction._cholesky_rows(x) is None
    assert reduction._cholesky_rows(x + 1e-9 * uniform(6, INPUTS, seed=1)) is None
    Q, coordinates = reduction._rows(x, False)
    np.testing.assert_allclose(Q.T @ Q, np.eye(6), rtol=0, atol=1e-13)
    np.testing.assert_allclose(coordinates @ Q.T, x, rtol=0, atol=1e-13)


def test_only_dense_layers():
    x = jnp.asarray(uniform(6, INPUTS), jnp.float32)
    for layers, found in [((_Ones(), ska.Dense(3)), False), ((ska.Dense(3), _Ones()), True)]:
        network = ska.Network(layers)
        weights = network.init(jax.random.key(0), x)
        assert (reduction.find(network, weights, x, "full") is not None) == found


def test_only_known_values():
    network, weights, x = problem(FAMILIES["fewer samples than inputs"][0], jnp.float32)
    found = []

    def look(weights, x):
        found.append(reduction.find(network, weights, x, "full"))
        return x

    jax.jit(look)(weights, x)
    jax.jit(lambda x: look(weights, x))(x)
    jax.vmap(lambda w: look(w, x))(jax.tree.map(lambda leaf: leaf[None], weights))
    assert found == [None] * 3
    # Inside jit values may still be known.
    assert reduction.find(network, weights, np.asarray(x), "full") is not None
    jax.jit(lambda dt: look(weights, x) * dt)(1.0)
    assert found[-1][0].rank == 6


@pytest.mark.parametrize("effort", ["most", True, None, 1])
def test_unknown_efforts(untyped, effort):
    network, weights, x = problem(FAMILIES["one sample"][0], jnp.float32)
    with pytest.raises(ValueError, match=r"^Argument effort must be 'auto' or 'full', but it was"):
        reduction.find(network, weights, x, effort)


def test_results_are_where_the_arguments_were():
    program = """
        import os
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
        import jax
        import numpy as np
        from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
        import skajax as ska
        from skajax import reduction

        x = np.zeros((4, 10), np.float32)
        x[:, :6] = 1 + np.arange(24).reshape(4, 6) ** 2
        network = ska.mlp([3])
        weights = network.init(jax.random.key(0), x)
        find = lambda x: reduction.find(network, weights, x, "full")
        mesh = Mesh(np.array(jax.devices()), "b")
        batch, inputs = (NamedSharding(mesh, spec) for spec in (P("b"), P(None, "b")))
        assert find(jax.device_put(x, inputs)) is None
        assert find(jax.device_put(x, batch))[2].sharding == batch
        second = jax.devices()[1]
        there = find(jax.device_put(x, second))[2]
        assert there.committed and there.devices() == {second}
        space, small, x_r = find(jax.device_put(x))
        assert not any(leaf.committed for leaf in jax.tree.leaves((space, small, x_r)))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=120)
