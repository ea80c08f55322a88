"""Inputs over time: mini-batches that take turns, and inputs that move smoothly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import SMALL, flow, forward, observables, solve, to_skajax

import skajax as ska

FEW = ("entropy", "transport")
flow_of = jax.jit(ska.flow, static_argnums=0)


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
    run = ska.simulate(network, weights, inputs, ska.Euler(0.1), steps=4, observe=FEW)
    by_hand = weights
    for k in range(4):
        rate = flow_of(network, by_hand, inputs.at(0.1 * k).x)
        by_hand = jax.tree.map(lambda w, v: w + 0.1 * v, by_hand, rate)
    assert distance(run.final.weights, by_hand) < 1e-13


def test_adaptive_steps_end_on_the_jumps(x64):
    """And the run is that of one run a mini-batch, each begun where the one before ended."""
    network, weights, x = problem()
    inputs, method = batches(x), ska.Adaptive(rtol=1e-9, atol=1e-11)
    run = ska.simulate(network, weights, inputs, method, t1=0.5, observe=())
    ends = np.asarray(run.path.t)
    for jump in 0.1 * np.arange(1, 5):
        assert np.abs(ends - jump).min() < 1e-14
    piece = weights
    for k in range(5):
        batch = inputs.at(0.1 * k + 0.05).x
        piece = ska.simulate(network, piece, batch, method, t1=0.1, observe=()).final.weights
    assert distance(run.final.weights, piece) < 1e-8
    inside = jax.jit(lambda w: ska.simulate(network, w, inputs, method, t1=0.5, observe=()).final)
    assert distance(inside(weights).weights, piece) < 1e-8


def test_short_periods_give_the_flow_of_all_samples(x64):
    """Averaging: the distance falls with the period, to first order."""
    network, weights, x = problem()
    method = ska.Adaptive(rtol=1e-9, atol=1e-11)
    go = lambda x: ska.simulate(network, weights, x, method, t1=0.96, observe=()).final.weights
    exact = go(x)
    away = [distance(go(batches(x, period=T, key=None)), exact) for T in (0.08, 0.04, 0.02)]
    np.testing.assert_allclose(np.log2(np.divide(away[:-1], away[1:])), 1, atol=0.1)


@pytest.mark.parametrize("name", ["euler", "adaptive"])
def test_runs_go_on_with_the_same_batches(name, tmp_path, x64):
    network, weights, x = problem()
    inputs = batches(x, period=0.07)
    if name == "euler":
        method, short, whole = ska.Euler(0.05), {"steps": 6}, {"steps": 14}
    else:
        method, short, whole = ska.Adaptive(rtol=1e-9, atol=1e-11), {"t1": 0.3}, {"t1": 0.7}
        whole = {**whole, "save_at": np.linspace(0, 0.7, 8)}
        short = {**short, "save_at": np.linspace(0, 0.3, 4)}
    run = ska.simulate(network, weights, inputs, method, observe=FEW, **whole)
    begun = ska.simulate(network, weights, inputs, method, observe=FEW, **short)
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
    at = jax.jit(
        lambda s: (
            system.trace(0.4 + s, jax.tree.map(lambda w, v: w + s * v, weights, instant.flow)).Z
        )
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
        over=ska.grid(period=[0.1, 0.2]), observe=FEW,
    )  # fmt: skip
    for n, period in enumerate((0.1, 0.2)):
        inputs = batches(x, period=period)
        one = ska.simulate(network, weights, inputs, ska.Euler(0.05), steps=6, observe=FEW)
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


PERIOD = 0.5
SCALED = np.random.default_rng(1).uniform(size=(12, 4)) * np.repeat([1.5, 1.0, 0.3], 4)[:, None]
"""Three mini-batches in turn, of which every observable jumps from one to the next."""
WEIGHTS = SMALL.numpy()[0][:1]
ENDS = {
    "for an instant, on the second jump": (ska.stop.FlowConverged(0.3055), 1.0),
    "for a moment from the second jump on": (ska.stop.FlowConverged(0.307), 1.0),
    "just before the third jump": (ska.stop.ResidenceTime(3.83), 1.47),
    "from the fifth jump on": (ska.stop.ResidenceTime(4.3), 2.5),
    "after the fifth jump": (ska.stop.ResidenceTime(4.7), 2.78),
}
"""Rules, and about when they first hold."""


def turn(k):
    return SCALED[4 * (k % 3) : 4 * (k % 3) + 4]


def margin(rule, rows, k):
    """Of row k by how much a rule holds: below 0 it does not."""
    Z, flows = (
        np.array([row[name] for row in rows[: k + 1]]) for name in ("knowledge_norm", "flow_norm")
    )
    if isinstance(rule, ska.stop.ResidenceTime):
        return (Z[-1] / flows[-1]).min() - rule.time
    return rule.fraction - (flows[-1] / flows.max(axis=0)).max()


def seen(weights, x):
    return observables(weights, flow(weights, x), x, weights)


@pytest.fixture(scope="module")
def course():
    """The ODE through six mini-batches, 50 readings each: times, rows; each jump is there twice."""
    weights, times, rows = WEIGHTS, [], []
    for k in range(6):
        within = np.linspace(0, PERIOD, 51)
        path = solve(weights, turn(k), within)
        times += list(PERIOD * k + within)
        rows += [seen(each, turn(k)) for each in path]
        weights = path[-1]
    return times, rows


@pytest.mark.parametrize("name", ENDS)
def test_a_rule_ends_an_adaptive_run_by_readings_of_the_batch_at_hand(name, course, x64):
    (rule, about), (times, rows) = ENDS[name], course
    margins = [margin(rule, rows, k) for k in range(len(rows))]
    k = next(k for k, each in enumerate(margins) if each >= 0)
    t = times[k]
    if times[k - 1] < t:  # not on a jump, but between two readings
        t = np.interp(0, margins[k - 1 : k + 1], times[k - 1 : k + 1])
    assert t == pytest.approx(about, abs=0.01) and t >= 2 * PERIOD
    inputs = ska.MiniBatches(SCALED, size=4, period=PERIOD)
    for rtol in (1e-4, 1e-8):
        method = ska.Adaptive(rtol=rtol, atol=rtol / 100)
        run = ska.simulate(
            ska.mlp([5]), to_skajax(WEIGHTS), inputs, method, 4.0, until=rule, observe=()
        )
        assert run.outcome.stopped
        assert float(run.final.t) == pytest.approx(t, abs=max(1e-4, 5 * rtol))


@pytest.mark.parametrize("name", list(ENDS)[1:])  # the first is shorter than a step
def test_a_rule_ends_eulers_run_by_readings_of_the_batch_at_hand(name, x64):
    rule, about = ENDS[name]
    dt, by_hand, rows = 0.01, WEIGHTS, []
    for step in range(300):
        x = turn(step // 50)
        rows.append(seen(by_hand, x))
        if margin(rule, rows, step) >= 0:
            break
        rates = flow(by_hand, x)
        by_hand = [
            (W + dt * dW, b + dt * db) for (W, b), (dW, db) in zip(by_hand, rates, strict=True)
        ]
    assert step * dt == pytest.approx(about, abs=0.03)
    inputs = ska.MiniBatches(SCALED, size=4, period=PERIOD)
    run = ska.simulate(
        ska.mlp([5]), to_skajax(WEIGHTS), inputs, ska.Euler(dt), steps=300, until=rule, observe=()
    )
    assert run.outcome.stopped and int(run.outcome.step) == step
    for z, want in zip(run.final.Z, forward(by_hand, x)[0], strict=True):
        np.testing.assert_allclose(z, want, rtol=1e-10)
