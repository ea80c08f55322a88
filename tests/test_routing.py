"""Residuals and branches: layers in them are layers as any other, and only what is read changes."""

import dataclasses

import jax
import jax.numpy as jnp
import layer_checks as check
import numpy as np
import own_parts as own
import pytest
from hypothesis import given
from hypothesis import strategies as st

import skajax as ska
from skajax.layers import Flatten, Hold, Join, Merge, Pool, Residual, Swap
from skajax.layers._routing import nested, written

KEY = jax.random.key(4)
X = np.random.default_rng(0).uniform(size=(6, 4))


@dataclasses.dataclass(frozen=True)
class Wide:
    """By hand: a dense layer that hands on σ(z) beside x; z in front and x behind it are its knowledge.

    An energy that reads the first n columns alone is that of the dense layer.
    """

    width: int

    def init(self, key, x):
        return ska.Dense(self.width).init(key, x)

    def knowledge(self, weights, x):
        return jnp.concatenate([x @ weights.W + weights.b[None, :], x], axis=-1)

    def decide(self, z):
        return jnp.concatenate([jax.nn.sigmoid(z[:, : self.width]), z[:, self.width :]], axis=-1)


@dataclasses.dataclass(frozen=True)
class Fold:
    """A stage by hand: x + σ(z), of the two beside each other."""

    def init(self, key, x):
        return ()

    def apply(self, weights, x):
        left, right = jnp.split(x, 2, axis=-1)
        return left + right


def own_entropy(weights, trace, batch):
    """The entropy of the knowledge that is the layer's: of Wide's the first half."""
    halves = [trace.Z[0], trace.Z[1][:, :4], trace.Z[2]]
    return jnp.stack([jnp.sum(ska.entropy.entropy(z)) / z.shape[0] for z in halves])


ENERGY = ska.Energy(own_entropy, local=True, reads_weights=False)
PLAIN = ska.Energy(
    lambda w, trace, batch: jnp.stack(
        [jnp.sum(ska.entropy.entropy(z)) / z.shape[0] for z in trace.Z]
    ),
    local=True,
    reads_weights=False,
)


def dense(width, scale=0.3):
    return ska.Dense(width, scale=scale)


def pair():
    """A residual around one dense layer, and the same by hand, with the same weights."""
    network = ska.Network((dense(4), Residual(dense(4)), dense(3)))
    by_hand = ska.Network((dense(4), Wide(4), Fold(), dense(3)))
    x = jnp.asarray(X)
    weights = network.init(KEY, x)
    first, second, third = (weights[n] for n in network.rows)
    return network, weights, by_hand, (first, second, (), third), x


@pytest.mark.parametrize("name", ["euler", pytest.param("descent", marks=pytest.mark.thorough)])
def test_a_residual_is_the_layer_written_by_hand(name, x64):
    network, weights, by_hand, same, x = pair()
    method, asked = check.METHODS[name]
    observe = ("energy", "dissipation", "transport", "weight_norm")
    got = ska.simulate(network, weights, x, method(), energy=PLAIN, observe=observe, **asked)
    want = ska.simulate(by_hand, same, x, method(), energy=ENERGY, observe=observe, **asked)
    for quantity in observe:
        np.testing.assert_allclose(got[quantity], want[quantity], rtol=1e-12, atol=1e-12)
    layers = lambda run, rows: [run.final.weights[n] for n in rows]
    check.close(layers(got, network.rows), layers(want, by_hand.rows), 1e-12)


def blocks():
    """Two residuals, the second of several layers with a stage, and one in the other."""
    inner = Residual((dense(5), Residual(dense(5)), dense(4)))
    network = ska.Network((dense(4), Residual(dense(4)), inner, dense(3)))
    x = jnp.asarray(X)
    return network, network.init(KEY, x), x


def branches():
    """Three branches beside each other, x itself among them, and a sum of two on images."""
    x = jax.random.uniform(jax.random.key(1), (5, 4, 4, 2), float)
    two = Merge((own.Convolution(3, size=1), (Pool(1), own.Convolution(3, size=1))))
    three = Merge(((), dense(3, 0.1), (dense(2, 0.1), dense(2))), kind="concatenate")
    network = ska.Network((two, Flatten(), three, dense(3, 0.1)))
    return network, network.init(KEY, x), x


PROBLEMS = {"blocks": blocks, "branches": branches}
each_problem = pytest.mark.parametrize("problem", PROBLEMS)


def forward(network, weights, x):
    """By hand: what the two problems compute, and in which order their layers come."""
    D = lambda n, a: jax.nn.sigmoid(network.layers[n].knowledge(weights[n], a))
    rows = network.rows
    if len(x.shape) == 2:
        a = D(rows[0], x)
        b = a + D(rows[1], a)
        first = D(rows[2], b)
        second = first + D(rows[3], first)
        return D(rows[5], b + D(rows[4], second))
    a = D(rows[0], x) + D(rows[1], x)
    a = a.reshape(len(a), -1)
    beside = [a, D(rows[2], a), D(rows[4], D(rows[3], a))]
    return D(rows[5], jnp.concatenate(beside, axis=-1))


@each_problem
def test_what_is_read(problem, x64):
    network, weights, x = PROBLEMS[problem]()
    np.testing.assert_allclose(
        network.forward(weights, x)[1][-1], forward(network, weights, x), rtol=1e-13
    )


@each_problem
def test_flows_and_tangents(problem, x64):
    network, weights, x = PROBLEMS[problem]()
    check.check_flow(network, weights, x)
    y = jnp.arange(len(x)) % 3
    loss = lambda w: (
        -jnp.mean(
            jnp.log(
                jax.nn.softmax(jax.scipy.special.logit(forward(network, w, x)))[
                    jnp.arange(len(x)), y
                ]
            )
        )
    )
    flow = lambda w: ska.flow(network, w, ska.Batch(x, y), ska.energies.CrossEntropy())
    got, gradient = jax.jit(lambda w: (flow(w), jax.grad(loss)(w)))(weights)
    check.close(got, jax.tree.map(jnp.negative, gradient), 1e-11)


def test_layers_read_the_decisions_that_they_are_given(x64):
    """``decided``: a residual adds what its last layer had decided, on what the one below had."""
    network, weights, x = blocks()
    earlier = tuple(0.9 * d for d in network.forward(weights, x)[1])
    inputs = network.trace(weights, x, decided=earlier).inputs
    first, second, third, fourth, fifth, _ = earlier
    want = (x, first, first + second, third, third + fourth, first + second + fifth)
    check.close(inputs, want, 1e-15)


def test_the_published_rule_around_a_residual(x64):
    """Three passes by hand: the lagging input of the top layer is the sum of two earlier decisions."""
    network, weights, _, same, x = pair()
    dt, B = 0.1, len(X)
    got = ska.simulate(network, weights, x, ska.Published(dt), steps=4, observe=("entropy",))
    W, b = ([np.asarray(getattr(w, name)) for w in same if w] for name in ("W", "b"))
    sigma = lambda z: 1 / (1 + np.exp(-z))
    before = None
    for _ in range(4):
        z1 = X @ W[0] + b[0]
        z2 = sigma(z1) @ W[1] + b[1]
        z3 = (sigma(z1) + sigma(z2)) @ W[2] + b[2]
        Z, D = [z1, z2, z3], [sigma(z1), sigma(z2), sigma(z3)]
        if before is not None:
            read = [X, before[0], before[0] + before[1]]
            change = [d - old for d, old in zip(D, before, strict=True)]
            g = [
                -(z * d * (1 - d) + delta) / np.log(2)
                for z, d, delta in zip(Z, D, change, strict=True)
            ]
            W = [w - dt * a.T @ each / B for w, a, each in zip(W, read, g, strict=True)]
            b = [v - dt * each.mean(0) for v, each in zip(b, g, strict=True)]
        before = D
    for n, w, v in zip(network.rows, W, b, strict=True):
        np.testing.assert_allclose(got.final.weights[n].W, w, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(got.final.weights[n].b, v, rtol=1e-12, atol=1e-13)


def test_everything_runs_with_blocks(x64, tmp_path):
    check.check_methods(pair()[0], jnp.asarray(X), tmp_path)


def test_balance_along_a_run_with_blocks(x64):
    network, weights, _, _, x = pair()
    check.check_closed_forms(network, weights, x)


def test_blocks_in_files_and_in_words(tmp_path):
    """A residual is what it is made of, in equality, hash, repr and files."""
    network = ska.Network(
        (dense(4), Residual(dense(4)), Merge((dense(2), ())[::-1], "concatenate"), dense(3))
    )
    flat = (
        dense(4), Hold(), dense(4), Join("sum"), Hold(), Swap(), dense(2), Join("concatenate"), dense(3),
    )  # fmt: skip
    assert network == ska.Network(flat) and hash(network) == hash(ska.Network(flat))
    said = repr(network)
    assert not [name for name in ("Hold", "Join", "Swap") if name in said]
    assert eval(said, NAMES) == network
    x = jnp.asarray(X, "f")
    weights = network.init(KEY, x)
    run = ska.simulate(network, weights, x, ska.Euler(0.1), steps=2, observe=("entropy",))
    assert run.entropy.shape == (3, 4)
    run.save(tmp_path / "run.nc")
    back = ska.load(tmp_path / "run.nc")
    assert back.network == network
    assert jax.tree.structure(back.final.weights) == jax.tree.structure(run.final.weights)


NAMES = {**vars(ska.layers), "Network": ska.Network}

ITEMS = st.recursive(
    st.sampled_from([ska.Dense(2), Pool(None), Flatten()]),
    lambda item: st.one_of(
        st.builds(Residual, st.lists(item, min_size=1, max_size=3)),
        st.builds(
            Merge,
            st.lists(st.lists(item, max_size=2).map(tuple), min_size=2, max_size=4),
            st.sampled_from(["sum", "concatenate"]),
        ),
    ),
    max_leaves=8,
)


@given(st.lists(ITEMS, max_size=4))
def test_a_network_prints_what_was_written(items):
    network = ska.Network((*items, ska.Dense(1)))
    said = repr(network)
    assert not [name for name in ("Hold", "Join", "Swap") if name in said]
    assert eval(said, NAMES) == network
    assert len(list(written(nested(network.layers)))) == len(network.layers)


def test_routes_by_hand_print_as_they_are():
    """Two swaps: no residual, and no merge."""
    routes = (Hold(), dense(4), Swap(), dense(4), Swap(), Join())
    assert repr(ska.Network(routes)).count("Swap()") == 2


def test_an_error_names_the_place_that_was_written():
    wrong = ska.Dense(3)  # reads no sequences
    pair = ska.Dense(4, pointwise=True)
    for layers, where in (
        ((pair, wrong), "layers[1] (Dense)"),
        ((Residual((pair, wrong)),), "layers[0].stack[1] (Dense)"),
        ((pair, Merge(((), pair, (pair, wrong)))), "layers[1].branches[2][1] (Dense)"),
        ((Residual(Merge((pair, wrong))),), "layers[0].stack[0].branches[1][0] (Dense)"),
    ):
        with pytest.raises(ValueError) as error:
            ska.Network(layers).init(KEY, jnp.ones((2, 5, 4)))
        assert f"({where} of the network)" in str(error.value)


def init(*layers):
    return ska.Network(layers).init(KEY, X.astype("f"))


BAD = {
    "nothing": (lambda: Residual(()), "stack", "layers and stages", "()"),
    "no layer": (lambda: Residual(3), "stack", "a layer", "3"),
    "one branch": (lambda: Merge((dense(3),)), "branches", "at least two", "Dense"),
    "kind": (lambda: Merge((dense(3), ()), "mean"), "kind", "'concatenate'", "'mean'"),
    "shapes": (
        lambda: init(dense(4), Residual((dense(5), dense(3)))), "layers", "add up arrays of one shape",
        "(6, 4) and (6, 3) (layers[1] (Residual) of the network)",
    ),
    "axes": (
        lambda: ska.Network((Merge((own.Convolution(2), own.Convolution(2, size=1)), "concatenate"),)).init(
            KEY, jnp.ones((2, 5, 5, 1))
        ),
        "layers", "the last axis only", "(2, 3, 3, 2) and (2, 5, 5, 2)",
    ),
    "open": (lambda: ska.Network((Hold(), dense(3))), "layers", "one Join for each Hold", "Hold()"),
    "closed": (lambda: ska.Network((dense(3), Join())), "layers", "one Join for each Hold", "Join("),
    "swapped": (lambda: ska.Network((Swap(), dense(3))), "layers", "one Join for each Hold", "Swap()"),
    "no layers in it": (lambda: ska.Network((Residual(Flatten()),)), "layers", "at least one", "Flatten"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_routes_are_named(case, untyped):
    function, argument, must, but = BAD[case]
    with pytest.raises(ValueError) as error:
        function()
    promise, _, fact = str(error.value).rpartition(", but ")
    assert promise.startswith(f"Argument {argument} must ")
    assert must in promise and but in fact
