"""Stop rules end an adaptive run where they first hold on its own dense solution, between its steps too."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar

import skajax as ska
from skajax import stop

T = 6.0
FINE = 48
"""Samples of each step, by which the oracle looks for what happens within."""
NETWORK = ska.mlp([8, 3], scale=0.3)
SOLVERS = {"Tsit5": diffrax.Tsit5, "Dopri8": diffrax.Dopri8, "Bosh3": diffrax.Bosh3}


@pytest.fixture(autouse=True)
def double(x64):
    """Double precision for all tests of this file."""


def problem(seed, scale=1.0):
    x = jax.random.uniform(jax.random.key(seed), (6, 4), jnp.float64)
    weights = NETWORK.init(jax.random.key(seed + 1), x)
    return jax.tree.map(lambda w: scale * w, weights), x


def peak_so_far(read, t, values, k):
    """The largest value of one layer up to sample k, with the maximum between samples found."""
    at = int(np.argmax(values[: k + 1]))
    if at in (0, k):
        return values[at]
    bounds = (t[at - 1], t[at + 1])
    found = minimize_scalar(
        lambda s: -read(s), bounds=bounds, method="bounded", options={"xatol": 1e-10 * T}
    )
    return max(-found.fun, values[at])


def first_time(name, argument, run):
    """Where the rule first holds on a dense run; None where it never does."""
    solution = run.solution()
    observable = "tensor_net_rate" if name == "structure" else "flow_norm"
    t, values, _ = solution.sample(observable, FINE)
    read = lambda s: solution.read(observable, s)[0]
    if name == "structure":
        sign = np.sign(values)
        changes = [
            brentq(lambda s, c=c: read(s)[c], t[k], t[k + 1], xtol=1e-12)
            for c in range(values.shape[1])
            for k in np.flatnonzero(sign[:-1, c] * sign[1:, c] < 0)[:1]
        ]
        return min(changes, default=None)
    if name == "residence":
        excess = lambda s: np.max(argument * read(s) - solution.read("knowledge_norm", s)[0])
        above = np.max(argument * values - solution.sample("knowledge_norm", FINE)[1], axis=1)
    elif name == "flow":
        peaks = lambda k: np.array(
            [
                peak_so_far(lambda s, c=c: read(s)[c], t, values[:, c], k)
                for c in range(values.shape[1])
            ]
        )
        rough = np.maximum.accumulate(values, axis=0)
        above = np.max(values - argument * rough, axis=1)
        k = int(np.argmax(above < 0))
        if above[k] >= 0:
            return None
        known = peaks(k)
        excess = lambda s: np.max(read(s) - argument * known)
        above = np.max(values - argument * np.maximum(rough, 0), axis=1)
        if excess(t[k - 1]) < 0:  # the exact peak is higher than the samples
            return t[k - 1]
        return brentq(excess, t[k - 1], t[k], xtol=1e-12) if excess(t[k]) < 0 else None
    else:
        raise AssertionError(name)
    k = int(np.argmax(above <= 0))
    if above[k] > 0:
        return None
    return t[0] if k == 0 else brentq(excess, t[k - 1], t[k], xtol=1e-12)


RULES = {
    "flow": (stop.FlowConverged, 0.9),
    "residence": (stop.ResidenceTime, 2.0),
    "structure": (lambda _: stop.StructureStart(), 0.0),
}


def compare(name, seed, scale, solver, rtol):
    rule, argument = RULES[name]
    weights, x = problem(seed, scale)
    method = ska.Adaptive(SOLVERS[solver](), rtol=rtol, atol=rtol / 100, max_steps=20_000)
    dense = ska.simulate(NETWORK, weights, x, method, t1=T, dense=True, save_at="end")
    want = first_time(name, argument, dense)
    run = ska.simulate(NETWORK, weights, x, method, t1=T, until=rule(argument), save_at="end")
    if want is None:
        assert bool(run.outcome.completed), (name, seed, scale, solver, rtol, run.outcome)
        return None
    assert bool(run.outcome.stopped), (name, seed, scale, solver, rtol, want)
    assert abs(float(run.final.t) - want) <= 1e-6 * T, (float(run.final.t), want, name, seed, scale)
    # The step in which it ended is made once more, and no other.
    stages = {"Tsit5": 6, "Dopri8": 14, "Bosh3": 3}[solver]
    ends = np.asarray(dense.path.t)
    before = int(np.searchsorted(ends, want))
    assert int(run.stats.steps) - int(run.stats.rejected) == before
    return stages


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", RULES)
def test_a_rule_ends_a_run_where_it_first_holds(name, solver):
    for seed in range(3):
        for rtol in (1e-4, 1e-7):
            compare(name, seed, 1.0, solver, rtol)


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(RULES)),
    st.integers(0, 2**16),
    st.floats(0.05, 3.0),
    st.sampled_from([1e-4, 1e-5, 1e-6, 1e-8]),
)
def test_random_networks(name, seed, scale, rtol):
    compare(name, seed, scale, "Tsit5", rtol)


def test_the_same_inside_of_jit_and_vmap():
    rule = stop.FlowConverged(0.9) | stop.StructureStart()
    method = ska.Adaptive(rtol=1e-6, atol=1e-8)
    problems = [problem(seed) for seed in range(3)]
    alone = [
        float(ska.simulate(NETWORK, w, x, method, t1=T, until=rule, save_at="end").final.t)
        for w, x in problems
    ]
    weights, x = jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)
    lane = lambda w, x: ska.simulate(NETWORK, w, x, method, t1=T, until=rule, save_at="end").final.t
    together = jax.jit(jax.vmap(lane))(weights, x)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6 * T)
