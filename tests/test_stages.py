"""Stages, which map what the next layer reads: flattening, pooling, embedding, normalising."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import layer_checks as check
import numpy as np
import own_parts as own
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import skajax as ska
from skajax.layers import Embed, Flatten, Normalise, Pool

KEY = jax.random.key(3)
EULER = {"method": ska.Euler(0.1), "steps": 3, "observe": ("entropy",)}


def windows(x, window, strides, padding):
    """The positions of x in each window, by loops: a dict from a window's place to slices of x."""
    axes = []
    for n, size, step in zip(x.shape[1:-1], window, strides, strict=True):
        if padding == "VALID":
            starts = range(0, n - size + 1, step)
        else:  # the windows that n / step strides need, as evenly as whole numbers allow
            count = -(-n // step)
            over = max((count - 1) * step + size - n, 0)
            starts = [k * step - over // 2 for k in range(count)]
        axes.append([slice(max(s, 0), min(s + size, n)) for s in starts])
    places = [range(len(axis)) for axis in axes]
    return {
        place: tuple(axis[p] for axis, p in zip(axes, place, strict=True))
        for place in itertools.product(*places)
    }


@settings(max_examples=8)
@given(
    axes=st.sampled_from([1, 2]),
    size=st.sampled_from([3, 6]),
    window=st.integers(1, 3),
    strides=st.sampled_from([None, 1, 2]),
    kind=st.sampled_from(["mean", "max"]),
    padding=st.sampled_from(["VALID", "SAME"]),
)
def test_pooling_is_numpys(x64, axes, size, window, strides, kind, padding):
    x = np.random.default_rng(size).normal(size=(2, *(size, size + 1)[:axes], 3))
    stage = Pool(window, strides, kind, padding)
    step = window if strides is None else strides
    assert stage.init(KEY, jnp.asarray(x)) == ()
    got = stage.apply((), jnp.asarray(x))
    found = windows(x, (window,) * axes, (step,) * axes, padding)
    assert got.shape == (2, *(1 + np.max(list(found), axis=0)), 3)
    reduce = {"mean": np.mean, "max": np.max}[kind]
    for place, part in found.items():
        want = reduce(x[:, *part], axis=tuple(range(1, 1 + axes)))
        np.testing.assert_allclose(got[:, *place], want, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("kind", ["mean", "max"])
def test_global_pooling_and_one_window_over_all(kind, x64):
    x = jax.random.normal(KEY, (4, 5, 3, 2))
    everywhere = Pool(None, kind=kind).apply((), x)
    assert everywhere.shape == (4, 2)
    np.testing.assert_allclose(
        everywhere, Pool((5, 3), kind=kind).apply((), x).reshape(4, 2), rtol=1e-14
    )
    np.testing.assert_allclose(everywhere, getattr(np, kind)(x, axis=(1, 2)), rtol=1e-14)


def test_windows_of_one_axis_each(x64):
    x = jax.random.normal(KEY, (2, 6, 4, 3))
    got = Pool((3, 2), strides=(3, 1)).apply((), x)
    rows = x.reshape(2, 2, 3, 4, 3).mean(2)
    np.testing.assert_allclose(got, (rows[:, :, 1:] + rows[:, :, :-1]) / 2, rtol=1e-13)


def test_flattening():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(Flatten().apply((), x), x.reshape(2, 12))
    flat = jnp.ones((2, 5))
    np.testing.assert_array_equal(Flatten().apply((), flat), flat)


def between(kind, dtype=float):
    """Two layers with pooling and flattening between them, and on images."""
    x = jax.random.uniform(jax.random.key(1), (5, 6, 6, 2), dtype)
    network = ska.Network(
        (
            Pool(2, strides=1, kind=kind), own.Convolution(3), Pool(2, kind=kind, padding="SAME"), Flatten(),
            ska.Dense(4, scale=0.2),
        )
    )  # fmt: skip
    return network, network.init(KEY, x), x


@pytest.mark.parametrize("kind", ["mean", "max"])
def test_layers_around_stages(kind, x64):
    network, weights, x = between(kind)
    check.check_flow(network, weights, x)
    total = lambda w: sum(jnp.sum(ska.entropy.entropy(z)) for z in network.forward(w, x)[0]) / 5
    whole = jax.jit(jax.grad(total))(weights)
    flow = jax.jit(lambda w: ska.flow(network, w, x, ska.energies.Entropy(local=False)))
    check.close(flow(weights), jax.tree.map(jnp.negative, whole), 1e-12)


def test_everything_runs_with_stages(x64, tmp_path):
    _, _, x = between("max")
    stages = (Pool(2, kind="max"), Flatten(), Normalise.of(x.reshape(5, -1)[:, :18]))
    network = ska.Network((*stages, ska.Dense(3, scale=0.05), Normalise()))
    check.check_methods(network, x, tmp_path)


def test_stages_in_files(tmp_path):
    """skajax's own stages come back from a file; beside a layer of somebody else's, too."""
    x = jax.random.uniform(KEY, (4, 6, 5, 1))
    stack = (Pool((2, 1), kind="max"), Flatten(), ska.Dense(3))
    network = ska.Network(stack)
    run = ska.simulate(network, network.init(KEY, x), x, **EULER)
    run.save(tmp_path / "run.nc")
    back = ska.load(tmp_path / "run.nc")
    assert back.network == network
    assert jax.tree.structure(back.final.weights) == jax.tree.structure(run.final.weights)

    network = ska.Network((own.Convolution(2), *stack, ska.Dense(2)))
    run = ska.simulate(network, network.init(KEY, x), x, **EULER)
    run.save(tmp_path / "own.nc")
    back = ska.load(tmp_path / "own.nc")
    assert back.network.layers[1:] == network.layers[1:]
    check.close(back.final.weights, run.final.weights, 0)


# Token ids.

IDS = np.array([[0, 3, 1, 1], [2, 2, 4, 0], [4, 1, 0, 3]])
TABLE = np.random.default_rng(0).normal(size=(5, 3))


def test_what_tokens_stand_for(x64):
    given_, own_, hot = Embed(table=TABLE), Embed(5, 3), Embed(5)
    weights = own_.init(KEY, jnp.asarray(IDS))
    assert weights.shape == (5, 3) and hot.init(KEY, jnp.asarray(IDS)) == ()
    np.testing.assert_array_equal(given_.apply((), IDS), TABLE[IDS])
    np.testing.assert_array_equal(own_.apply(weights, IDS), np.asarray(weights)[IDS])
    np.testing.assert_array_equal(hot.apply((), IDS), np.eye(5)[IDS])


@pytest.mark.parametrize("width", [4, 7])
def test_positions_are_the_sinusoids(width, x64):
    got = Embed(table=np.zeros((5, width)), positions=True).apply((), IDS)
    for t in range(4):
        for i in range(width):
            angle = t / 10000 ** (2 * (i // 2) / width)
            want = np.sin(angle) if i % 2 == 0 else np.cos(angle)
            np.testing.assert_allclose(got[:, t, i], want, atol=1e-15)


def tokens(embed):
    """A network on token ids."""
    x = jnp.asarray(IDS)
    network = ska.Network(
        (embed, ska.layers.Flatten(), ska.Dense(4, scale=0.3), ska.Dense(3, scale=0.3))
    )
    return network, network.init(KEY, x), x


def test_whole_numbers_run_as_what_they_stand_for(x64):
    """A network on ids is the network on the rows of the table: flow, tangents, records, row space off."""
    network, weights, x = tokens(Embed(table=TABLE))
    rest = ska.Network(network.layers[2:])
    flat = jnp.asarray(TABLE[IDS].reshape(3, -1))
    flow = eqx.filter_jit(ska.flow)
    check.close(flow(network, weights, x)[2:], flow(rest, weights[2:], flat), 1e-14)
    adaptive = {"method": ska.Adaptive(rtol=1e-9, atol=1e-11), "t1": 0.4, "observe": ("entropy",)}
    names = ("entropy", "tensor_net", "transport", "output_mean")
    for asked in (EULER | {"observe": names}, adaptive):
        got = ska.simulate(network, weights, x, **asked)
        want = ska.simulate(rest, weights[2:], flat, reduction="off", **asked)
        for name in want.records:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-8, atol=1e-10)
        assert got.stats.rank is None


def test_a_table_of_its_own_moves_under_global_energies_alone(x64):
    network, weights, x = tokens(Embed(5, 3))
    flow = eqx.filter_jit(ska.flow)
    assert not np.any(np.asarray(flow(network, weights, x)[0]))
    y = jnp.asarray([0, 1, 2])
    loss = lambda w: ska.energies.CrossEntropy()(w, network.trace(w, x), ska.Batch(x, y))[-1]
    want = jax.tree.map(jnp.negative, jax.jit(jax.grad(loss))(weights))
    got = flow(network, weights, ska.Batch(x, y), ska.energies.CrossEntropy())
    check.close(got, want, 1e-12)
    assert float(jnp.abs(got[0]).max()) > 1e-3
    # Its tangent: what the table's own motion makes of the layers above.
    check.check_tangents(network, weights, x, jax.tree.map(lambda w: jnp.cos(w + 1), weights))


def test_everything_runs_on_whole_numbers(x64, tmp_path):
    network = ska.Network((Embed(5, 3, positions=True), Flatten(), ska.Dense(4, scale=0.3)))
    check.check_methods(network, jnp.asarray(IDS), tmp_path)


def test_mini_batches_and_other_precisions_of_ids():
    network, weights, x = tokens(Embed(5))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(weights))
    want = ska.simulate(network, weights, x, **EULER)
    small = ska.simulate(network, weights, IDS.astype(np.uint8), **EULER)
    np.testing.assert_array_equal(small.entropy, want.entropy)
    turns = ska.MiniBatches(x, size=3, period=0.1)
    got = ska.simulate(network, weights, turns, **EULER)
    np.testing.assert_allclose(got.entropy, want.entropy, rtol=1e-6)


def test_tables_in_files(tmp_path):
    network, weights, x = tokens(Embed(5, 3, scale=0.5))
    run = ska.simulate(network, weights, x, **EULER)
    run.save(tmp_path / "run.nc")
    assert ska.load(tmp_path / "run.nc").network == network
    network, weights, x = tokens(Embed(table=TABLE.astype("f")))
    run = ska.simulate(network, weights, x, **EULER)
    run.save(tmp_path / "given.nc")
    back = ska.load(tmp_path / "given.nc", network=network)
    check.close(back.final.weights, run.final.weights, 0)
    np.testing.assert_array_equal(ska.load(tmp_path / "given.nc").entropy, run.entropy)


def test_a_token_that_nobody_knows_inside_of_jit():
    network, weights, x = tokens(Embed(5, 3))
    run = jax.jit(lambda x: ska.simulate(network, weights, x, **EULER))(x.at[0, 0].set(5))
    assert not bool(run.outcome.completed)


# Means and deviations.


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 6), (2, 3, 4, 5)])
def test_layer_normalisation_is_numpys(shape, x64):
    x = np.random.default_rng(1).normal(2, 3, shape)
    for eps in (1e-5, 0.3):
        stage = Normalise(eps=eps)
        assert stage.init(KEY, jnp.asarray(x)) == ()
        want = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
        np.testing.assert_allclose(stage.apply((), x), want, rtol=1e-13, atol=1e-14)


def test_fixed_statistics_and_those_of_data(x64):
    x = np.random.default_rng(2).normal([1.0, -2.0, 5.0], [0.1, 3.0, 1.0], (4, 6, 3))
    x[..., 2] = 7.0
    y = np.asarray(Normalise.of(x).apply((), x))
    np.testing.assert_allclose(y[..., :2].mean((0, 1)), 0, atol=1e-14)
    np.testing.assert_allclose(y[..., :2].std((0, 1)), 1, rtol=1e-13)
    np.testing.assert_array_equal(y[..., 2], 0)
    m, s = np.ones((6, 3)), np.full((6, 3), 2.0)
    np.testing.assert_allclose(Normalise(m, s).apply((), x), (x - 1) / 2, rtol=1e-15)
    single = Normalise.of(x).apply((), x.astype("f"))
    assert single.dtype == jnp.float32


def test_a_gain_and_a_shift_move_under_global_energies_alone(x64):
    x, y = jax.random.uniform(KEY, (5, 4)), jnp.arange(5) % 3
    network = ska.Network(
        (
            Normalise.of(x, learned=True),
            ska.Dense(6, scale=0.3),
            Normalise(learned=True),
            ska.Dense(3, scale=0.3),
        )
    )
    weights = network.init(KEY, x)
    np.testing.assert_array_equal(weights[2].gain, np.ones(6))
    np.testing.assert_array_equal(weights[2].shift, np.zeros(6))
    weights = jax.tree.map(
        lambda w: w + 0.1 * jnp.cos(jnp.arange(w.size, dtype=w.dtype)).reshape(w.shape), weights
    )
    check.check_flow(network, weights, x)
    flow = eqx.filter_jit(ska.flow)
    assert not np.any(np.asarray(flow(network, weights, x)[2].gain))
    loss = lambda w: ska.energies.CrossEntropy()(w, network.trace(w, x), ska.Batch(x, y))[-1]
    got = flow(network, weights, ska.Batch(x, y), ska.energies.CrossEntropy())
    check.close(got, jax.tree.map(jnp.negative, jax.jit(jax.grad(loss))(weights)), 1e-12)
    assert float(jnp.abs(got[2].gain).max()) > 1e-4


# A dense layer at every position.


@pytest.mark.parametrize("shape", [(5, 4, 3), (3, 2, 4, 3)])
def test_a_pointwise_layer_is_a_dense_one_on_all_positions(shape, x64):
    x = jax.random.normal(KEY, shape, float)
    layer, flat = ska.Dense(6, scale=0.4, pointwise=True), x.reshape(-1, 3)
    network, dense = ska.Network((layer,)), ska.mlp([6])
    weights = network.init(KEY, x)
    assert weights[0].W.shape == (3, 6) and layer.rows is None
    got, want = network.forward(weights, x)[0][0], dense.forward(weights, flat)[0][0]
    np.testing.assert_allclose(got.reshape(-1, 6), want, rtol=1e-13, atol=1e-14)
    # Energies sum over positions, and average over samples.
    positions = len(flat) / len(x)
    times = jax.tree.map(lambda g: positions * g, ska.flow(dense, weights, flat))
    check.close(ska.flow(network, weights, x), times, 1e-12)
    same = ska.Network((dataclasses.replace(layer, pointwise=False),))
    check.close(ska.flow(ska.Network((layer,)), weights, flat), ska.flow(same, weights, flat), 0)


def test_an_embedding_that_learns_under_ska(x64):
    """One-hot ids and a pointwise layer: z_t = W[x_t] + b, whose rows move as far as their tokens occur."""
    x = jnp.asarray(IDS)
    network = ska.Network((Embed(5), ska.Dense(3, scale=0.3, pointwise=True)))
    weights = network.init(KEY, x)
    W, b = weights[1]
    z = network.forward(weights, x)[0][0]
    np.testing.assert_allclose(z, np.asarray(W)[IDS] + np.asarray(b), rtol=1e-14)
    rows = np.zeros((5, 3))
    np.add.at(rows, IDS, -np.asarray(ska.entropy.entropy_gradient(z)) / len(x))
    np.testing.assert_allclose(ska.flow(network, weights, x)[1].W, rows, rtol=1e-12, atol=1e-15)


X = jnp.ones((2, 5, 4, 3))
BAD = {
    "no window": (lambda: Pool(0), "window", "at least 1", "0"),
    "half a window": (lambda: Pool(1.5), "window", "whole number", "1.5"),
    "three axes": (lambda: Pool((1, 1, 1)), "window", "1 or 2 axes", "(1, 1, 1)"),
    "no stride": (lambda: Pool(2, strides=0), "strides", "at least 1", "0"),
    "kind": (lambda: Pool(2, kind="sum"), "kind", "'max'", "'sum'"),
    "padding": (lambda: Pool(2, padding="CIRCULAR"), "padding", "'SAME'", "'CIRCULAR'"),
    "global strides": (lambda: Pool(None, strides=2), "window", "be given", "None"),
    "larger": (lambda: Pool((6, 2)).init(KEY, X), "window", "(5, 4)", "(6, 2) for x of shape (2, 5, 4, 3)"),
    "larger, padded": (lambda: Pool(5, padding="SAME").init(KEY, X), "window", "(5, 4)", "5 for x"),
    "axes": (lambda: Pool((2,)).init(KEY, X), "x", "the window (2,)", "(2, 5, 4, 3)"),
    "flat": (lambda: Pool(2).init(KEY, jnp.ones((2, 5))), "x", "(samples, times", "(2, 5)"),
    "no vocabulary": (lambda: Embed(0), "vocabulary", "at least 1", "0"),
    "no table": (lambda: Embed(table=np.ones(3, "f")), "table", "(vocabulary, width)", "(3,)"),
    "other table": (lambda: Embed(4, table=np.ones((3, 2), "f")), "table", "(4, None)", "(3, 2)"),
    "unknown": (lambda: tokens(Embed(4)), "x", "0 to 3, a vocabulary of 4", "one was 4 (layers[0] (Embed)"),
    "negative": (
        lambda: ska.Network((Embed(5), ska.Dense(3))).init(KEY, -IDS), "x", "vocabulary of 5", "one was -4",
    ),
    "unknown, of a run": (
        lambda: ska.simulate(*tokens(Embed(5))[:2], IDS + 1, ska.Euler(0.1), steps=1),
        "x", "vocabulary of 5", "one was 5",
    ),
    "numbers": (
        lambda: ska.Network((Embed(5), ska.Dense(3))).init(KEY, np.ones((3, 4), "f")),
        "x", "be integers, which Embed reads", "float32",
    ),
    "times": (lambda: Embed(5).init(KEY, jnp.zeros((2, 3, 4), int)), "x", "(samples, times)", "(2, 3, 4)"),
    "later": (
        lambda: ska.Network((Pool(1), Embed(5), ska.Dense(3))).init(KEY, np.ones((3, 4, 1), "f")),
        "x", "token ids", "layers[1] (Embed)",
    ),
    "moving": (
        lambda: ska.simulate(*tokens(Embed(5))[:2], ska.Moving(lambda t: IDS), ska.Euler(0.1), steps=1),
        "x", "be at rest", "Moving",
    ),
    "no mean": (lambda: Normalise(None, np.ones(3, "f")), "deviation", "with mean", "(3,) and None"),
    "one shape": (lambda: Normalise(np.ones(2), np.ones(3)), "deviation", "one shape", "(3,) and (2,)"),
    "no deviation": (lambda: Normalise(np.ones(2), np.zeros(2)), "deviation", "positive", "0"),
    "mean nan": (lambda: Normalise(np.full(2, np.nan), np.ones(2)), "mean", "finite", "NaN"),
    "mean 3": (lambda: Normalise(3.0, 1.0), "mean", "an array", "3.0"),
    "eps": (lambda: Normalise(eps=0.0), "eps", "positive", "0"),
    "statistics": (lambda: Normalise(np.ones(4), np.ones(4)).init(KEY, X), "x", "(4,)", "(2, 5, 4, 3)"),
    "pointwise": (lambda: ska.Dense(3, pointwise=1), "pointwise", "True or False", "1"),
    "images": (
        lambda: ska.mlp([3]).init(KEY, np.ones((3, 4), np.uint8)), "x", "be floating-point inputs", "/ 255",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_stages_are_named(case, untyped):
    function, argument, must, but = BAD[case]
    with pytest.raises(ValueError) as error:
        function()
    promise, _, fact = str(error.value).rpartition(", but ")
    assert promise.startswith(f"Argument {argument} must ")
    assert must in promise and but in fact


def test_what_does_not_fit_has_a_place():
    network = ska.Network((own.Convolution(3), Pool(4), Flatten(), ska.Dense(2)))
    with pytest.raises(ValueError, match=r"\(2, 3, 2, 3\) \(layers\[1\] \(Pool\) of the network\)"):
        network.init(KEY, X)
