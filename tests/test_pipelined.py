"""All layers at once: the pipeline against a NumPy program, its limit, and its first-order error."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from scipy.integrate import solve_ivp
from scipy.special import expit
from test_devices import environment

import skajax as ska

T = 1.0
DTS = (0.02, 0.01, 0.005)


def pipelined(weights, x, dt, ticks):
    """Weights after the ticks, and what every layer decided at the last: a line for a line of the rule."""
    weights = [(W.copy(), b.copy()) for W, b in weights]
    _, decided = ref.forward(weights, x)
    for _ in range(ticks):
        reads = [x, *decided[:-1]]
        Z = [a @ W + b for (W, b), a in zip(weights, reads, strict=True)]
        decided = [expit(z) for z in Z]
        for (W, b), a, z in zip(weights, reads, Z, strict=True):
            gradient = -z * ref.slope(z) / ref.LN2
            W -= dt * a.T @ gradient / len(x)
            b -= dt * gradient.mean(axis=0)
    return weights, decided


def lagging(weights, x, lag):
    """What layers read and decide where each reads what the one below decided a little earlier."""
    _, slopes = ref.tangents(weights, ref.flow(weights, x), x)
    reads, a = [], x
    for (W, b), slope in zip(weights, slopes, strict=True):
        reads.append(a)
        a = expit(a @ W + b) - lag * slope
    return reads


def lagging_flow(weights, x, lag):
    """The flow on what layers read then."""
    rates = []
    for (W, b), a in zip(weights, lagging(weights, x, lag), strict=True):
        gradient = -(z := a @ W + b) * ref.slope(z) / ref.LN2
        rates.append((-a.T @ gradient / len(x), -gradient.mean(axis=0)))
    return rates


def first_order_error(weights, x, lag):
    """e in W_K = W(T) + dt e: de/dt = F'(W) e - F'(W) F(W) / 2, and what a lag of dt adds to the flow.

    The derivatives are central differences of the flow; ``lag`` is 1, or 0 for Euler's method.
    """
    flow = lambda w: ref.flat(ref.flow(ref.unflat(w, weights), x))
    late = lambda w, s: ref.flat(lagging_flow(ref.unflat(w, weights), x, s))
    size = len(ref.flat(weights))

    def rate(_, both):
        w, e = both[:size], both[size:]
        F, h = flow(w), 1e-5
        along = lambda d: (flow(w + h * d) - flow(w - h * d)) / (2 * h)
        return np.concatenate([F, along(e - F / 2) + lag * (late(w, h) - late(w, -h)) / (2 * h)])

    start = np.concatenate([ref.flat(weights), np.zeros(size)])
    ended = solve_ivp(rate, (0, T), start, method="DOP853", rtol=1e-8, atol=1e-10)
    return ref.unflat(ended.y[size:, -1], weights)


def test_it_is_the_numpy_program(x64):
    weights, x = ref.DEEP.numpy()
    run = ska.simulate(
        *ref.DEEP.arrays(), ska.Pipelined(0.05), steps=40, reduction="off", observe=()
    )
    want, decided = pipelined(weights, x, 0.05, 40)
    for got, (W, b) in zip(run.final.weights, want, strict=True):
        np.testing.assert_allclose(got.W, W, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(got.b, b, rtol=1e-12, atol=1e-13)
    for got, D in zip(run.resume.carry.memory, decided, strict=True):
        np.testing.assert_allclose(got, D, rtol=1e-12)


@pytest.fixture(scope="module")
def runs():
    """Errors of the weights over dt, by method and step; and the limit."""
    with jax.enable_x64(True):
        problem = ref.DEEP.arrays()
        tight = ska.Adaptive(diffrax.Dopri8(), rtol=1e-11, atol=1e-13)
        limit = ska.simulate(*problem, tight, T, save_at="end", observe=()).final.weights
        off = lambda method: jax.tree.map(
            lambda w, v: np.asarray((w - v) / method.dt),
            ska.simulate(*problem, method, T, observe=()).final.weights,
            limit,
        )
        methods = (ska.Euler, ska.Pipelined)
        return {(make, dt): off(make(dt)) for make in methods for dt in DTS}


@pytest.mark.parametrize("make", [ska.Euler, ska.Pipelined])
def test_its_order_is_one_in_every_layer(make, runs):
    norms = np.array([[np.hypot(*map(np.linalg.norm, w)) for w in runs[make, dt]] for dt in DTS])
    orders = 1 + np.diff(np.log(norms), axis=0) / np.diff(np.log(DTS))[:, None]
    np.testing.assert_allclose(orders, 1, atol=0.05)


@pytest.mark.parametrize(("make", "lag"), [(ska.Euler, 0.0), (ska.Pipelined, 1.0)])
def test_its_error_is_that_of_the_lag_to_first_order(make, lag, runs):
    want = first_order_error(*ref.DEEP.numpy(), lag)
    for layer, leaves in enumerate(zip(*(runs[make, dt] for dt in DTS), strict=True)):
        for name in ("W", "b"):
            coarse, fine = (getattr(leaf, name) for leaf in leaves[1:])
            best = getattr(ska.DenseWeights(*want[layer]), name)
            off = np.linalg.norm(2 * fine - coarse - best) / np.linalg.norm(best)
            assert off < 1e-3, (layer, name, off)


def test_the_first_layer_is_eulers_and_the_others_are_not(runs):
    euler, piped = runs[ska.Euler, 0.01], runs[ska.Pipelined, 0.01]
    np.testing.assert_allclose(piped[0].W, euler[0].W, rtol=1e-9, atol=1e-9)
    apart = [np.linalg.norm(a.W - b.W) for a, b in zip(piped, euler, strict=True)]
    assert min(apart[1:]) > 0.1


def test_what_a_layer_decides_lags_by_as_many_ticks_as_there_are_layers_below(x64):
    network, weights, x = ref.DEEP.arrays()
    run = lambda dt, K: ska.simulate(network, weights, x, ska.Pipelined(dt), steps=K, observe=())
    found = []
    for dt in (0.01, 0.005):
        K = round(0.5 / dt)
        now, after = run(dt, K), run(dt, K + 1).resume.carry.memory
        found.append([(a - b) / dt for a, b in zip(after, now.final.D, strict=True)])
    numbers = ref.to_numpy(now.final.weights)
    _, slopes = ref.tangents(numbers, ref.flow(numbers, np.asarray(x)), np.asarray(x))
    lag, below = 0.0, 0.0
    for (W, _), D, slope, coarse, fine in zip(numbers, now.final.D, slopes, *found, strict=True):
        carried = (lag - below) @ W if np.ndim(below) else np.zeros_like(slope)
        lag, below = np.asarray(D * (1 - D)) * carried, slope
        np.testing.assert_allclose(2 * fine - coarse, lag, atol=0.02 * max(np.abs(lag).max(), 1e-9))


def test_in_the_row_space_of_few_samples(x64):
    problem = dataclasses.replace(ref.SMALL, inputs=20, samples=4, scale=0.3)
    names = ("entropy", "flow_norm", "dissipation", "transport")
    reduced, whole = (
        ska.simulate(*problem.arrays(), ska.Pipelined(0.05), steps=10, reduction=how, observe=names)
        for how in ("full", "off")
    )
    assert reduced.stats.rank == 4 and whole.stats.rank is None
    for name in names:
        np.testing.assert_allclose(reduced[name], whole[name], rtol=1e-9)


def test_what_is_recorded_is_of_the_weights_and_how_they_move(x64):
    """Its dissipation is what the pipeline's motion takes off; with the transport it is the energy's rate."""
    names = ("entropy", "entropy_rate", "dissipation", "transport")
    run = ska.simulate(*ref.DEEP.arrays(), ska.Pipelined(0.001), steps=100, observe=names)
    rate = np.asarray(run.transport - run.dissipation)
    np.testing.assert_allclose(rate, run.entropy_rate, rtol=1e-10)
    moved = np.diff(np.asarray(run.entropy), axis=0) / 0.001
    np.testing.assert_allclose(moved, (rate[1:] + rate[:-1]) / 2, rtol=1e-3)


def test_it_goes_on_with_what_the_pipeline_holds(x64):
    run = lambda steps: ska.simulate(
        *ref.DEEP.arrays(), ska.Pipelined(0.05), steps=steps, reduction="off", observe=()
    )
    whole, half = run(20), ska.extend(run(9), steps=20)
    jax.tree.map(np.testing.assert_array_equal, whole.final, half.final)


def test_what_does_not_fit(untyped):
    x, y = jnp.ones((4, 3)), jnp.zeros(4, int)
    network = ska.mlp([4, 2])
    weights = network.init(jax.random.key(0), x)
    run = lambda x, **more: ska.simulate(network, weights, x, ska.Pipelined(0.1), steps=3, **more)
    with pytest.raises(ValueError, match="Argument energy must be local with Pipelined"):
        run(ska.Batch(x, y), energy=ska.energies.CrossEntropy())
    with pytest.raises(ValueError, match="Argument x must be one batch at rest with Pipelined"):
        run(ska.MiniBatches(x, None, size=2, period=0.1, key=jax.random.key(1)))
    with pytest.raises(ValueError, match="Argument dt must be a time step"):
        ska.Pipelined(0.0)
    tick = ska.Pipelined(0.1)
    spread = lambda network=network, method=tick, **more: ska.pipeline.simulate(
        network, weights, x, method, steps=3, **more
    )
    with pytest.raises(ValueError, match=r"Argument devices must be at least 2.*there were 1"):
        spread()
    with pytest.raises(ValueError, match="Argument devices must be a mesh with one axis"):
        spread(devices="all")
    with pytest.raises(ValueError, match=r"Argument method must be Pipelined\(dt\)"):
        spread(method=ska.Euler(0.1))
    with pytest.raises(ValueError, match="Argument network must be without Residual"):
        spread(ska.Network((ska.layers.Residual(ska.Dense(3)), ska.Dense(2))))


def test_four_devices_agree_with_one():
    ended = subprocess.run(
        [sys.executable, Path(__file__).parent / "four_devices.py"], env=environment(4),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("four devices agree with one\n")
