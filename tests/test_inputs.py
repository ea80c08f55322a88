"""Inputs over time: mini-batches that take turns, and inputs that move smoothly."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import skajax as ska


def problem(dtype=jnp.float64, samples=12):
    network = ska.mlp([4, 3], scale=0.7)
    x = jax.random.uniform(jax.random.key(1), (samples, 3), dtype)
    return network, network.init(jax.random.key(0), x), x


def distance(a, b):
    pairs = zip(*map(jax.tree.leaves, (a, b)), strict=True)
    return np.sqrt(sum(float(jnp.sum((u - v) ** 2)) for u, v in pairs))


def batches(x, **changes):
    return ska.MiniBatches(x, **({"size": 4, "period": 0.1, "key": jax.random.key(3)} | changes))


def test_each_epoch_has_every_sample_once_in_an_order_of_its_own(x64):
    _, _, x = problem()
    inputs = batches(x)
    epochs = [[inputs.at(0.1 * (3 * e + k) + 0.05).x for k in range(3)] for e in range(2)]
    for parts in epochs:
        got = np.sort(np.concatenate(parts), axis=0)
        np.testing.assert_array_equal(got, np.sort(np.asarray(x), axis=0))
    assert not np.array_equal(epochs[0][0], epochs[1][0])
    again = batches(x).at(0.45).x
    np.testing.assert_array_equal(again, epochs[1][1])
    # At a jump it is the new one, also where the time was added up.
    np.testing.assert_array_equal(inputs.at(sum([0.1] * 4)).x, epochs[1][1])


def test_the_last_partial_batch(x64):
    _, _, x = problem(samples=10)
    ordered = {"size": 4, "period": 0.1, "key": None}
    drop, wrap = ska.MiniBatches(x, **ordered), ska.MiniBatches(x, **ordered, last="wrap")
    assert (drop.per_epoch, wrap.per_epoch) == (2, 3)
    np.testing.assert_array_equal(drop.at(0.25).x, x[:4])
    np.testing.assert_array_equal(wrap.at(0.25).x, jnp.concatenate([x[8:], x[:2]]))


def test_euler_uses_the_batch_at_the_steps_start(x64):
    network, weights, x = problem()
    inputs = batches(x, period=0.2)
    run = ska.simulate(network, weights, inputs, ska.Euler(0.1), steps=4)
    by_hand = weights
    for k in range(4):
        rate = ska.flow(network, by_hand, inputs.at(0.1 * k).x)
        by_hand = jax.tree.map(lambda w, v: w + 0.1 * v, by_hand, rate)
    assert distance(run.final.weights, by_hand) < 1e-13


def test_adaptive_steps_end_on_the_jumps(x64):
    """And the run is that of one run a mini-batch, each begun where the one before ended."""
    network, weights, x = problem()
    inputs, method = batches(x), ska.Adaptive(diffrax.Tsit5(), rtol=1e-9, atol=1e-11)
    run = ska.simulate(network, weights, inputs, method, t1=0.5)
    ends = np.asarray(run.path.t)
    for jump in 0.1 * np.arange(1, 5):
        assert np.abs(ends - jump).min() < 1e-14
    piece = weights
    for k in range(5):
        batch = inputs.at(0.1 * k + 0.05).x
        piece = ska.simulate(network, piece, batch, method, t1=0.1, save_at="end").final.weights
    assert distance(run.final.weights, piece) < 1e-8
    inside = jax.jit(lambda w: ska.simulate(network, w, inputs, method, t1=0.5).final.weights)
    assert distance(inside(weights), piece) < 1e-8


def test_short_periods_give_the_flow_of_all_samples(x64):
    """Averaging: the distance falls with the period, to first order."""
    network, weights, x = problem()
    exact = ska.simulate(
        network, weights, x, ska.Adaptive(diffrax.Dopri8(), rtol=1e-11, atol=1e-13), t1=0.96,
        save_at="end",
    )  # fmt: skip
    method = ska.Adaptive(diffrax.Dopri8(), rtol=1e-9, atol=1e-11, max_steps=100_000)
    away = []
    for period in (0.08, 0.04, 0.02):
        inputs = ska.MiniBatches(x, size=3, period=period)
        run = ska.simulate(network, weights, inputs, method, t1=0.96, save_at="end")
        away.append(distance(run.final.weights, exact.final.weights))
    np.testing.assert_allclose(np.log2(np.divide(away[:-1], away[1:])), 1, atol=0.1)


@pytest.mark.parametrize("name", ["euler", "adaptive"])
def test_runs_go_on_with_the_same_batches(name, tmp_path, x64):
    network, weights, x = problem()
    inputs = batches(x, period=0.07)
    if name == "euler":
        method, short, whole = ska.Euler(0.05), {"steps": 6}, {"steps": 14}
    else:
        method, short, whole = ska.Adaptive(), {"t1": 0.3}, {"t1": 0.7}
        whole = {**whole, "save_at": np.linspace(0, 0.7, 8)}
        short = {**short, "save_at": np.linspace(0, 0.3, 4)}
    run = ska.simulate(network, weights, inputs, method, **whole)
    begun = ska.simulate(network, weights, inputs, method, **short)
    rest = {k: v[4:] if k == "save_at" else v for k, v in whole.items()}
    longer = ska.extend(begun, **rest)
    for name in run.records:
        np.testing.assert_array_equal(longer[name], run[name])


def test_moving_inputs_have_tangents_and_transport(x64):
    network, weights, x = problem()
    inputs = ska.Moving(lambda t: x * jnp.cos(t) + t)
    system = ska.System(network, inputs)
    instant = ska.Instant(system, jnp.asarray(0.4), weights)
    h = 1e-5
    at = lambda s: (
        system.trace(0.4 + s, jax.tree.map(lambda w, v: w + s * v, weights, instant.flow)).Z
    )
    for zdot, up, down in zip(instant.Zdot, at(h), at(-h), strict=True):
        np.testing.assert_allclose(zdot, (up - down) / (2 * h), rtol=1e-8, atol=1e-9)
    xdot = -x * jnp.sin(0.4) + 1
    gradient = ska.entropy.entropy_gradient(instant.Z[0])
    np.testing.assert_allclose(
        instant.transport[0], jnp.sum(gradient * (xdot @ weights[0].W)), rtol=1e-12
    )


def test_a_sweep_over_periods(x64):
    network, weights, x = problem()
    data = ska.sweep(
        network, weights, lambda period: batches(x, period=period), ska.Euler(0.05), steps=6,
        over=ska.grid(period=[0.1, 0.2]),
    )  # fmt: skip
    for n, period in enumerate((0.1, 0.2)):
        one = ska.simulate(network, weights, batches(x, period=period), ska.Euler(0.05), steps=6)
        np.testing.assert_allclose(data.entropy[n], one.entropy, rtol=1e-12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 0}, "Argument size must be"),
        ({"size": 13}, "Argument size must be"),
        ({"period": -1.0}, "Argument period must be"),
        ({"last": "pad"}, "Argument last must be"),
    ],
)
def test_bad_mini_batches_are_refused(untyped, changes, words):
    _, _, x = problem(jnp.float32)
    with pytest.raises(ValueError, match=words):
        batches(x, **changes)


def test_the_published_rule_needs_a_batch_at_rest(x64):
    network, weights, x = problem()
    with pytest.raises(ValueError, match="Argument x must be one batch at rest"):
        ska.simulate(network, weights, batches(x), ska.Published(0.05), steps=4)
