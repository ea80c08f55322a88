"""Self-attention: means, a NumPy reference, Equinox's own layer, masks, and what every layer must show."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import layer_checks as checks
import numpy as np
import pytest

import skajax as ska
from skajax.layers import SelfAttention

MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]], bool)


def made(layer, samples=3, times=4, features=5, seed=0, dtype=float):
    x = jax.random.normal(jax.random.key(seed), (samples, times, features), dtype)
    return layer.init(jax.random.key(seed + 1), x), x


def in_numpy(layer, weights, x, mask=None):
    """z and A, one sample, head, time after the other, in double precision."""
    Q, K, V, O, b = (np.asarray(w, float) for w in weights)  # noqa: E741
    x, d = np.asarray(x, float), layer.width // layer.heads
    samples, times, _ = x.shape
    A = np.zeros((samples, layer.heads, times, times))
    z = np.zeros((samples, times, layer.width))
    for n in range(samples):
        for t in range(times):
            if mask is not None and not mask[n, t]:
                continue
            seen = [
                s
                for s in range(times)
                if (mask is None or mask[n, s]) and (s <= t or not layer.causal)
            ]
            found = []
            for h in range(layer.heads):
                own = slice(h * d, (h + 1) * d)
                scores = [(x[n, t] @ Q[:, own]) @ (x[n, s] @ K[:, own]) / np.sqrt(d) for s in seen]
                shares = np.exp(scores - np.max(scores))
                A[n, h, t, seen] = shares / shares.sum()
                found.append(sum(A[n, h, t, s] * (x[n, s] @ V[:, own]) for s in seen))
            z[n, t] = np.concatenate(found) @ O + b
    return z, A


@pytest.mark.parametrize(
    ("head", "heads", "times", "features", "causal", "masked"),
    [
        (2, 1, 4, 3, False, False),
        (1, 3, 5, 2, True, False),
        (3, 2, 4, 1, False, True),
        (2, 2, 5, 4, True, True),
        (1, 1, 1, 2, True, False),
    ],
)
def test_knowledge_and_maps_are_those_of_numpy(x64, head, heads, times, features, causal, masked):
    layer = SelfAttention(head * heads, heads, causal, scale=1.0, bias=0.3)
    mask = None
    if masked:
        mask = np.random.default_rng(0).random((2, times)) < 0.6
        mask[:, 1] = True
        layer = dataclasses.replace(layer, mask=mask)
    weights, x = made(layer, 2, times, features)
    z, A = in_numpy(layer, weights, x, mask)
    got = jax.jit(lambda w: (layer.knowledge(w, x), layer.attention(w, x)))(weights)
    np.testing.assert_allclose(got[0], z, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(got[1], A, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_zero_queries_give_the_mean_over_the_positions_that_are_seen(x64, causal):
    layer = SelfAttention(6, 2, causal, scale=0.7)
    weights, x = made(layer, times=5)
    weights = weights._replace(Q=jnp.zeros_like(weights.Q), b=jnp.linspace(-1, 1, 6))
    values = np.asarray(x) @ np.asarray(weights.V)
    means = np.broadcast_to(values.mean(axis=1, keepdims=True), values.shape)
    if causal:
        means = np.cumsum(values, axis=1) / np.arange(1, 6)[None, :, None]
    want = means @ np.asarray(weights.O) + np.asarray(weights.b)
    np.testing.assert_allclose(layer.knowledge(weights, x), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_it_is_equinoxs_layer_with_the_same_weights(causal):
    layer = SelfAttention(12, 3, causal, scale=0.5)
    weights, x = made(layer, times=7, dtype=jnp.float32)
    theirs = eqx.nn.MultiheadAttention(
        3, 5, output_size=12, qk_size=4, vo_size=4, use_output_bias=True, key=jax.random.key(9)
    )
    theirs = eqx.tree_at(
        lambda m: (
            m.query_proj.weight, m.key_proj.weight, m.value_proj.weight, m.output_proj.weight,
            m.output_proj.bias,
        ),
        theirs,
        (*(w.T for w in weights[:4]), weights.b),
    )  # fmt: skip
    mask = jnp.tril(jnp.ones((7, 7), bool)) if causal else None
    with jax.numpy_rank_promotion("allow"), jax.default_matmul_precision("highest"):
        want = jax.vmap(lambda s: theirs(s, s, s, mask))(x)
    np.testing.assert_allclose(layer.knowledge(weights, x), want, rtol=1e-6, atol=1e-6)


def test_it_does_not_know_the_order_of_positions(x64):
    layer = SelfAttention(6, 3, scale=0.7)
    weights, x = made(layer, times=6)
    order = np.random.default_rng(0).permutation(6)
    z = np.asarray(layer.knowledge(weights, x))
    np.testing.assert_allclose(layer.knowledge(weights, x[:, order]), z[:, order], atol=1e-13)
    assert np.abs(z[:, order] - z).max() > 0.1


def test_a_causal_layer_does_not_see_the_future(x64):
    layer = SelfAttention(6, 2, causal=True, scale=0.7)
    weights, x = made(layer, times=6)
    moved = layer.knowledge(weights, x.at[:, 3].add(1.0)) - layer.knowledge(weights, x)
    np.testing.assert_array_equal(moved[:, :3], 0)
    assert (np.abs(moved[:, 3:]).max(axis=(0, 2)) > 1e-3).all()
    np.testing.assert_array_equal(np.triu(layer.attention(weights, x)[0, 0], 1), 0)


def test_padding_is_never_attended_to_and_does_not_move(x64):
    layer = SelfAttention(6, 2, scale=0.7, mask=MASK)
    weights, x = made(layer)
    knowledge, flow = jax.jit(lambda w, x: layer.knowledge(w, x)), eqx.filter_jit(ska.flow)
    z = knowledge(weights, x)
    other = jnp.where(MASK[:, :, None], x, 1e6)  # whatever is there
    np.testing.assert_array_equal(knowledge(weights, other), z)
    np.testing.assert_array_equal(np.asarray(z)[~MASK], 0)
    network = ska.Network((layer,))
    checks.close(flow(network, (weights,), other), flow(network, (weights,), x), 0)
    # As if each sequence came alone, in its own length.
    bare = dataclasses.replace(layer, mask=None)
    for n, row in enumerate(MASK):
        alone = jax.jit(bare.knowledge)(weights, x[n : n + 1, row])
        np.testing.assert_allclose(z[n, row], alone[0], atol=1e-13)
    A = np.asarray(jax.jit(lambda w: layer.attention(w, x))(weights))
    np.testing.assert_array_equal(A.transpose(0, 2, 1, 3)[~MASK], 0)
    np.testing.assert_array_equal(A.transpose(0, 3, 1, 2)[~MASK], 0)
    np.testing.assert_allclose(A.sum(axis=3).transpose(0, 2, 1)[MASK], 1, rtol=1e-14)

    # Its entropy is one bit a number, and ‖Z‖ does not count it.
    observe = ("entropy", "knowledge_norm")
    run = ska.simulate(network, (weights,), x, ska.Euler(0.1), steps=3, observe=observe)
    Z = jnp.concatenate([run.final.Z[0][n, row] for n, row in enumerate(MASK)])
    entropy = jnp.sum(ska.entropy.entropy(Z)) + 6.0 * (~MASK).sum()
    np.testing.assert_allclose(run.entropy[-1, 0], entropy, rtol=1e-13)
    np.testing.assert_allclose(run.knowledge_norm[-1, 0], jnp.linalg.norm(Z), rtol=1e-13)


def test_padding_in_front_of_a_causal_layer_is_no_nan():
    mask = np.array([[False, False, True], [True, True, True]])
    layer = SelfAttention(4, 2, causal=True, mask=mask)
    weights, x = made(layer, samples=2, times=3, dtype=jnp.float32)
    network = ska.Network((layer,))
    both = jax.jit(lambda w: (ska.flow(network, (w,), x), layer.attention(w, x)))(weights)
    for leaf in jax.tree.leaves(both):
        assert bool(jnp.isfinite(leaf).all())


def test_scores_of_any_size_overflow_nothing():
    layer = SelfAttention(4, 2)
    weights, x = made(layer, dtype=jnp.float32)
    weights = weights._replace(Q=weights.Q * 1e10, K=weights.K * 1e10)
    A = layer.attention(weights, x)
    np.testing.assert_allclose(A.sum(axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(A.max(axis=-1), 1, rtol=1e-6)  # one position has it all


def test_initial_weights_have_the_scale_that_was_asked_for():
    x = jnp.zeros((1, 2, 300))
    weights = SelfAttention(200, 4, scale=0.3, bias=0.25).init(jax.random.key(0), x)
    for w in weights[:4]:
        np.testing.assert_allclose(jnp.std(w), 0.3, rtol=0.02)
        np.testing.assert_allclose(jnp.mean(w), 0, atol=0.01)
    assert abs(np.corrcoef(np.ravel(weights.Q), np.ravel(weights.K))[0, 1]) < 0.02
    np.testing.assert_array_equal(weights.b, 0.25)
    assert [w.shape for w in weights] == [(300, 200)] * 3 + [(200, 200), (200,)]


# What every layer must show.


def problem(masked=False, causal=False, times=4, places=(0, 1, 2, 3)):
    """Two layers of attention, pooling and a dense layer on top; or some of them."""
    mask = MASK if masked else None
    layers = (
        SelfAttention(6, 2, causal, mask=mask, scale=0.5),
        SelfAttention(4, causal=causal, mask=mask, scale=0.5, bias=0.1),
        ska.layers.Pool(None),
        ska.Dense(3, scale=0.5),
    )
    network = ska.Network(tuple(layers[place] for place in places))
    x = jax.random.uniform(jax.random.key(0), (3, times, 5), float)
    return network, network.init(jax.random.key(1), x), x


@pytest.mark.parametrize("kind", [{}, {"times": 1}, {"masked": True, "causal": True}], ids=str)
def test_the_flow_stops_at_the_wall_and_tangents_go_through(x64, kind):
    checks.check_flow(*problem(**kind))


def test_entropy_and_net_are_the_integrals_of_their_rates(x64):
    checks.check_closed_forms(*problem(masked=True, causal=True, places=(0, 2, 3)))


def test_methods_sweeps_and_files(x64, tmp_path):
    network, _, x = problem(masked=True, causal=True, places=(0,))
    checks.check_methods(network, x, tmp_path)


def test_masks_can_be_lanes_of_a_sweep():
    x = jax.random.uniform(jax.random.key(0), (3, 4, 5))
    masks = [np.tile(np.arange(4) < keep, (3, 1)) for keep in (4, 2)]
    network = lambda which: ska.Network((SelfAttention(4, scale=0.5, mask=masks[which]),))
    start = network(0).init(jax.random.key(0), x)
    asked = {"method": ska.Euler(0.1), "steps": 3, "observe": ("entropy",)}
    data = ska.sweep(network, start, x, **asked, over=ska.grid(which=[0, 1]))
    for which in (0, 1):
        one = ska.simulate(network(which), start, x, **asked)
        np.testing.assert_allclose(data.entropy[which], one.entropy, rtol=1e-5)
    assert float(abs(data.entropy[0, -1] - data.entropy[1, -1]).max()) > 0.1


def test_masks_and_networks_are_arguments_of_jit(x64):
    layer = SelfAttention(6, 2, scale=0.7, mask=MASK)
    weights, x = made(layer)
    other = np.roll(MASK, 1, axis=0)
    inside = jax.jit(lambda mask: dataclasses.replace(layer, mask=mask).knowledge(weights, x))
    want = dataclasses.replace(layer, mask=other).knowledge(weights, x)
    np.testing.assert_allclose(inside(other), want, rtol=1e-13)
    np.testing.assert_allclose(
        eqx.filter_jit(SelfAttention.knowledge)(layer, weights, x),
        layer.knowledge(weights, x),
        rtol=1e-13,
    )


def test_layers_that_run_alike_are_alike():
    a, b = SelfAttention(4, 2, scale=0.3), SelfAttention(4, 2, bias=1.0)
    assert a != b and a.running() == b.running() and hash(a.running()) == hash(b.running())
    assert SelfAttention(4, 2, True) != SelfAttention(4, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 4}, r"heads must divide the width of 6, but it was 4"),
        ({"heads": 0}, r"heads must be a whole number of heads, at least 1"),
        ({"width": 2.5}, r"width must be a whole number of neurons"),
        ({"causal": 1}, r"causal must be True or False"),
        ({"scale": -1.0}, r"scale must"),
        ({"precision": "low"}, r"precision must"),
        ({"decision": "step"}, r"decision must"),
        ({"mask": [True, False]}, r"mask must be booleans of shape \(samples, times\).*\(2,\)"),
        ({"mask": [[1, 0]]}, r"mask must be booleans .* but it was int"),
        ({"mask": "all"}, r"mask must be an array"),
        (
            {"mask": [[True, False], [False, False]]},
            r"mask must leave every sample at least one position, .* 1 samples \(sample 1 first\)",
        ),
    ],
)
def test_what_is_no_layer_is_refused(untyped, fields, message):
    with pytest.raises(ValueError, match=message):
        SelfAttention(**{"width": 6, "heads": 2} | fields)


def test_inputs_that_do_not_fit_are_refused():
    key = jax.random.key(0)
    network = ska.Network((SelfAttention(4),))
    with pytest.raises(
        ValueError,
        match=r"x must be of shape \(samples, times, features\).*\(3, 5\) \(x\[:, :, None\].*"
        r"layers\[0\] \(SelfAttention\)",
    ):
        network.init(key, jnp.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"\(2, 4, 4, 1\)"):
        network.init(key, jnp.zeros((2, 4, 4, 1)))
    network = ska.Network((SelfAttention(4, mask=MASK),))
    with pytest.raises(
        ValueError, match=r"mask must .* \(3, 6\) .* its shape was \(3, 4\), and x's \(3, 6, 5\)"
    ):
        network.init(key, jnp.zeros((3, 6, 5)))
    weights = network.init(key, jnp.zeros((3, 4, 5)))
    x = jnp.zeros((8, 4, 5))
    with pytest.raises(ValueError, match=r"mask must .* \(8, 4\)"):
        ska.simulate(network, weights, x, ska.Euler(0.1), steps=1)
