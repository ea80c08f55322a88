"""Crossings of the Tensor Net: the law by root finding in NumPy, the reduced model against runs."""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
import reference as ref
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.special import shichi
from scipy.stats import binom, norm

import skajax as ska
from skajax.timescales import net_amplitudes, net_law, signed, tensor_net
from skajax.timescales._net_law import TURN

LN2 = np.log(2)
SIGNS = {"published": -1, "equation": 1}


def weight(z, sign="published"):
    """f(z), or g(z)."""
    D = 1 / (1 + np.exp(-z))
    return D + SIGNS[sign] * z * D / (1 + np.exp(z)) / LN2


ratio = lambda a: weight(-a) / weight(a)


def test_the_amplitudes_that_the_law_turns_at(x64):
    turn = minimize_scalar(lambda a: -ratio(a), bounds=(0.5, 1.2), options={"xatol": 1e-12})
    np.testing.assert_allclose([turn.x, ratio(TURN)], [TURN, 1.2568904226], atol=2e-8)
    slope = lambda a, h=1e-5: ratio(a + h) - ratio(a - h)
    np.testing.assert_allclose(brentq(slope, 0.5, 1.2, xtol=1e-13), TURN, atol=1e-8)
    # Back at 1 where sinh a = a / ln 2; beside the strongest flow, not at it.
    back = brentq(lambda a: np.sinh(a) - a / LN2, 1, 2, xtol=1e-14)
    np.testing.assert_allclose(ratio(back), 1, atol=1e-13)
    np.testing.assert_allclose(net_amplitudes(0.5), [back, np.nan], atol=1e-10)
    strongest = brentq(lambda a: a * np.tanh(a / 2) - 1, 1, 2, xtol=1e-14)
    assert 0.0067 < strongest - back < 0.0068
    # The equation's weight is 0 where a σ(a) = ln 2.
    zero = brentq(lambda a: a / (1 + np.exp(-a)) - LN2, 0.5, 2, xtol=1e-14)
    np.testing.assert_allclose(net_amplitudes(0.0, "equation")[0], zero, atol=1e-10)
    # The largest share that crosses in the published sign.
    most = ratio(TURN) / (1 + ratio(TURN))
    np.testing.assert_allclose(most, 0.5569124713, atol=1e-10)
    counts = jnp.isfinite(net_amplitudes(most + jnp.array([-1e-9, 1e-9]))).sum(axis=1)
    assert counts.tolist() == [2, 0]


@given(st.floats(-700, 700))
def test_only_the_balance_can_change_the_published_sign(z):
    D = 1 / (1 + np.exp(-z))
    # z σ(-z) is at most W(1/e) = 0.27846: f is positive, and g is not.
    assert weight(z) >= (1 - 0.278465 / LN2) * D > 0
    assert (weight(z, "equation") < 0) == (z < -0.958852916780442)
    assert ratio(abs(z)) <= 1.2568904227
    if abs(z) > 1e-3:
        assert (ratio(abs(z)) > 1) == (abs(z) < 1.5366222602306334)


GRID = np.concatenate([np.linspace(1e-4, 2, 20_001), np.linspace(2.0001, 60, 2_001)])


@given(st.floats(1e-6, 1 - 1e-6), st.sampled_from(sorted(SIGNS)))
def test_every_amplitude_balances_and_none_is_missed(p, sign):
    with jax.enable_x64(True):
        found = np.asarray(net_amplitudes(p, sign))
    there = found[np.isfinite(found)]
    balance = lambda a: p * weight(a, sign) - (1 - p) * weight(-a, sign)
    np.testing.assert_allclose(balance(there), 0, atol=1e-12)
    changes = np.count_nonzero(np.diff(np.sign(balance(GRID))))
    # A pair closer than the grid, or a first one below it, it cannot see.
    assert len(there) == changes or np.ptp(there) < 2e-4 or there[0] < 2e-4
    assert (np.diff(there) > 0).all()


def test_an_amplitude_moves_with_the_share(x64):
    for p, sign in ((0.4, "published"), (0.53, "published"), (0.2, "equation")):
        last = lambda p, sign=sign: jnp.nanmax(net_amplitudes(p, sign))
        want = (last(p + 1e-6) - last(p - 1e-6)) / 2e-6
        np.testing.assert_allclose(jax.jit(jax.grad(last))(p), want, rtol=1e-7)
    mapped = jax.vmap(net_amplitudes)(jnp.array([0.4, 0.53]))
    np.testing.assert_array_equal(mapped, net_amplitudes(jnp.array([0.4, 0.53])))


def test_the_law_over_initialisations(x64):
    n = 64
    for sign in SIGNS:
        law = net_law(n, chance=0.45, sign=sign)
        m = np.arange(n + 1)
        np.testing.assert_allclose(law.probability, binom.pmf(m, n, 0.45), rtol=1e-9, atol=1e-15)
        p = m / n
        if sign == "published":
            counts = np.where((p > 0.5) & (p < 0.55691247), 2, (p <= 0.5) & (p > 0))
        else:
            counts = p < 0.5
        want = [binom.pmf(m, n, 0.45)[counts == k].sum() for k in range(3)]
        np.testing.assert_allclose(law.counts, want, rtol=1e-9)
        last = [max(row[np.isfinite(row)], default=np.nan) for row in np.asarray(law.amplitudes)]
        np.testing.assert_array_equal(law.last, last)
        np.testing.assert_array_equal(np.isfinite(law.amplitudes).sum(axis=1), counts)
    both = net_law(10, side=0.25)
    np.testing.assert_allclose(np.asarray(both.share)[[0, 4, 10]], [0.75, 0.55, 0.25])


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("rising", [13, 17, 20])
def test_knowledge_of_one_amplitude_obeys_the_law_exactly(rising, sign, x64):
    # Inputs of 0: every z is its neuron's bias, ż = z D' / ln 2, and t = 2 ln 2 [ln a + Chi(a)].
    start, neurons = 0.05, 32
    signs = np.where(np.arange(neurons) < rising, 1.0, -1.0)
    layer = ska.DenseWeights(jnp.zeros((3, neurons)), jnp.asarray(start * signs))
    found = tensor_net(ska.mlp([neurons]), (layer,), jnp.zeros((5, 3)), t1=14.0, sign=sign)
    np.testing.assert_allclose(found.share, rising / neurons)
    amplitudes = net_amplitudes(rising / neurons, sign)
    amplitudes = np.asarray(amplitudes)[np.isfinite(amplitudes)]
    age = lambda a: 2 * LN2 * (np.log(a) + shichi(a)[1])
    for answer in (found.law, found.reduced):
        assert answer.count == len(amplitudes)
        here = slice(0, len(amplitudes))
        np.testing.assert_allclose(
            answer.knowledge_norm[0, here], amplitudes * np.sqrt(5 * neurons), rtol=5e-3
        )
        np.testing.assert_allclose(answer.t[0, here], age(amplitudes) - age(start), rtol=5e-3)
        t, Z = answer.last
        if len(amplitudes):
            assert (t[0], Z[0]) == (answer.t[0, here][-1], answer.knowledge_norm[0, here][-1])
        else:
            assert np.isnan(t[0]) and np.isnan(Z[0])


X = np.random.default_rng(1).uniform(size=(20, 9))
NETWORK = ska.mlp([12, 9], scale=0.05)
END = 9.0


def simulated(weights):
    return ska.simulate(
        NETWORK, weights, jnp.asarray(X), ska.Adaptive(rtol=1e-6, atol=1e-9), END,
        save_at=np.linspace(0, END, 301),
        observe=("knowledge_norm", "tensor_net_rate", "tensor_net_rate_equation"),
    )  # fmt: skip


def test_with_nothing_left_out_the_reduced_model_crosses_where_the_run_does(x64):
    seen = set()
    for seed in range(4):
        weights = NETWORK.init(jax.random.key(seed), jnp.asarray(X))
        run = simulated(weights)
        for sign, name in zip(SIGNS, ("tensor_net_rate", "tensor_net_rate_equation"), strict=True):
            found = tensor_net(NETWORK, weights, jnp.asarray(X), t1=END, sign=sign).reduced
            measured = ska.landmarks.crossings(run, name)
            for layer in (1, 2):
                want = [c for c in measured if c.layer == layer]
                seen.add(len(want))
                assert found.count[layer - 1] == len(want)
                t, Z = found.t[layer - 1], found.knowledge_norm[layer - 1]
                np.testing.assert_allclose(t[: len(want)], [c.t for c in want], atol=0.02)
                np.testing.assert_allclose(
                    Z[: len(want)], [c.knowledge_norm for c in want], rtol=0.03
                )
                assert np.isnan(t[len(want) :]).all()
    assert seen == {0, 1, 2}


def test_signs_are_chosen_and_nothing_else(x64):
    x = jnp.asarray(X)
    start = NETWORK.init(jax.random.key(0), x)
    for p, crosses in ((0.3, True), (0.8, False)):
        weights = signed(NETWORK, start, x, p)
        for old, new in zip(jax.tree.leaves(start), jax.tree.leaves(weights), strict=True):
            np.testing.assert_array_equal(abs(old), abs(new))
        Z, _ = NETWORK.forward(weights, x)
        for z in Z:
            assert np.sum(z.mean(axis=0) > 0) == round(p * z.shape[1])
        measured = ska.landmarks.crossings(simulated(weights))
        assert {c.layer for c in measured} == ({1, 2} if crosses else set())
        jitted = jax.jit(lambda w, p=p: signed(NETWORK, w, x, np.array([p, p])))(start)
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), jitted, weights))


def test_drawn_weights_are_those_that_the_network_draws(x64):
    x, key = jnp.asarray(X), jax.random.key(5)
    found = tensor_net(NETWORK, None, x, t1=END, key=key, draws=3)
    weights = jax.vmap(lambda key: NETWORK.init(key, x))(jax.random.split(key, 3))
    known = ska.timescales.spectrum(x)
    lane = lambda w: tensor_net(NETWORK, w, x, t1=END, spectrum=known)
    given = jax.jit(jax.vmap(lane))(weights)
    np.testing.assert_array_equal(found.reduced.count, given.reduced.count)
    # All draws are looked at at the same instants, and one alone at its own.
    np.testing.assert_allclose(found.reduced.t, given.reduced.t, rtol=1e-2)
    np.testing.assert_allclose(found.share, given.share)
    np.testing.assert_allclose(found.odds.sum(axis=-1), 1)
    for k in (0, 1):
        np.testing.assert_allclose(found.odds[:, k], (found.reduced.count == k).mean(axis=0))
    one = tensor_net(NETWORK, jax.tree.map(lambda w: w[0], weights), x, t1=END)
    assert "share that rises" in str(one) and "3 draws" in str(found)
    assert "2 draws" not in str(found) and str(given).startswith("TensorNet: ")


def test_biases_and_samples_on_both_sides_shift_the_chance(x64):
    bias, scale, rng = 0.03, 0.05, np.random.default_rng(0)
    x = np.concatenate([X[:6], -X[6:]]) + 0.3 * rng.normal(size=X.shape)
    layers = ska.Network((ska.Dense(12, scale, bias), ska.Dense(9, scale, bias)))
    found = tensor_net(layers, None, jnp.asarray(x), t1=END, draws=1)
    extended = np.append(x, np.ones((len(x), 1)), axis=1)
    U, _, V = np.linalg.svd(extended)
    v, u = V[0], U[:, 0]
    q = norm.cdf(bias * v[-1] / scale / np.sqrt(1 - v[-1] ** 2))
    s = np.mean(u > 0)
    want = binom.pmf(np.arange(13), 12, q) @ (s * np.arange(13) + (1 - s) * np.arange(12, -1, -1))
    law = found.expected[0]
    np.testing.assert_allclose(law.probability @ law.share, want / 12, rtol=1e-6)
    want = norm.cdf(bias / (scale * np.sqrt(12) / 2))
    law = found.expected[1]
    np.testing.assert_allclose(law.probability @ law.share, want, rtol=1e-6)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("share", lambda: net_amplitudes(1.5)),
        ("sign", lambda: net_amplitudes(0.5, "paper")),
        ("neurons", lambda: net_law(0)),
        ("chance", lambda: net_law(3, chance=-0.1)),
        ("side", lambda: net_law(3, side="half")),
        ("t1", lambda: tensor_net(NETWORK, None, X, t1=-1.0)),
        ("sign", lambda: tensor_net(NETWORK, None, X, t1=1.0, sign="paper")),
        ("network", lambda: tensor_net(ska.Network((ska.Dense(3, decision="tanh"),)), None, X)),
        (
            "shares",
            lambda: signed(NETWORK, NETWORK.init(jax.random.key(0), X), X, np.array([0.5, 2])),
        ),
    ],
)
def test_bad_arguments_are_named(argument, call, untyped):
    with pytest.raises(ValueError, match=f"Argument {argument} must"):
        call()


PARTS = ("knowledge_norm", "flow_norm", "tensor_net_rate", *ska.timescales.NET_PARTS)


@pytest.fixture(scope="module")
def seen():
    """A run of the small network with everything that its phases are read off."""
    with jax.enable_x64(True):
        x = jnp.asarray(X)
        weights = NETWORK.init(jax.random.key(1), x)
        method = ska.Adaptive(rtol=1e-6, atol=1e-9)
        times = np.linspace(0, END, 301)
        run = ska.simulate(NETWORK, weights, x, method, END, save_at=times, observe=PARTS)
        return run, tensor_net(NETWORK, weights, x, t1=END)


def test_what_rises_and_what_falls_are_parts_of_the_rate(seen, x64):
    run, _ = seen
    np.testing.assert_allclose(
        run.tensor_net_rising + run.tensor_net_falling, run.tensor_net_rate, rtol=1e-9, atol=1e-9
    )
    assert (run.tensor_net_rising > 0).all() and (run.tensor_net_falling < 0).all()
    end = ref.to_numpy(run.final.weights)
    Z, _ = ref.forward(end, X)
    Zdot, _ = ref.tangents(end, ref.flow(end, X), X)
    for k, (z, zdot) in enumerate(zip(Z, Zdot, strict=True)):
        rates = weight(z) * zdot
        np.testing.assert_allclose(run.tensor_net_rising[-1, k], rates[zdot > 0].sum(), rtol=1e-5)
        np.testing.assert_allclose(run.tensor_net_falling[-1, k], rates[zdot < 0].sum(), rtol=1e-5)


def test_phases_end_when_amplitudes_and_flow_say(seen, x64):
    # A curve whose answers are known: a = e^t / 10, and a flow that peaks at t = 4 as a Gaussian of width 1.
    run, _ = seen
    t = np.linspace(0, 6, 601)
    sizes = np.sqrt([z.size for z in run.final.Z])
    made = run.replace(
        t=jnp.asarray(t),
        knowledge_norm=jnp.asarray(np.exp(t)[:, None] / 10 * sizes),
        flow_norm=jnp.asarray(np.exp(-((t - 4) ** 2) / 2)[:, None] * np.ones(2)),
    )
    found = ska.timescales.net_phases(made)
    np.testing.assert_allclose(found.linear, np.log(5), atol=1e-4)
    np.testing.assert_allclose(found.overtaking, np.log(15.434046), atol=1e-4)
    np.testing.assert_allclose(found.saturation, 4 + np.sqrt(2 * LN2), atol=1e-4)
    early = {name: made[name][:100] for name in ("knowledge_norm", "flow_norm")}
    short = ska.timescales.net_phases(made.replace(t=made.t[:100], **early))
    assert np.isnan(np.array(short)).all()
    x = jnp.asarray(X)
    weights = NETWORK.init(jax.random.key(0), x)
    few = ska.simulate(NETWORK, weights, x, ska.Euler(0.1), steps=1, observe=("knowledge_norm",))
    with pytest.raises(ValueError, match="Argument run must have recorded flow_norm"):
        ska.timescales.net_phases(few)


def test_the_figure_shows_the_parts_the_crossings_and_the_phases(seen, x64):
    run, predicted = seen
    plt.switch_backend("Agg")
    axes = ska.plot.net_phases(run, predicted)
    plt.gcf().draw_without_rendering()
    ends = np.array(ska.timescales.net_phases(run))
    measured = ska.landmarks.crossings(run)
    assert measured
    for k, ax in enumerate(axes):
        lines = {str(line.get_label()): line for line in ax.lines}
        for text, name in (
            ("rate", "tensor_net_rate"),
            ("of what rises", "tensor_net_rising"),
            ("of what falls", "tensor_net_falling"),
        ):
            np.testing.assert_array_equal(lines[text].get_ydata(), np.asarray(run[name])[:, k])
        want = [c.t for c in measured if c.layer == k + 1]
        if want:
            np.testing.assert_allclose(lines["zero crossing"].get_xdata(), want)
        told = [x.get_xdata()[0] for x in ax.lines if x.get_label() == "predicted crossing"]
        t = np.asarray(predicted.reduced.t[k])
        np.testing.assert_allclose(told, t[np.isfinite(t)])
        edges = [patch.get_x() for patch in ax.patches]
        np.testing.assert_allclose(edges[1:], ends[:, k][np.isfinite(ends[:, k])])
    plt.close("all")
    with pytest.raises(ValueError, match="Argument predicted must be of these 2 layers"):
        ska.plot.net_phases(run, jax.tree.map(lambda a: jnp.stack([a, a]), predicted))
    plt.close("all")
