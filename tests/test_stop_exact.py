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

pytestmark = pytest.mark.filterwarnings("ignore::skajax.SkajaxWarning")  # of saturated starts

T = 6.0
FINE = 1200
"""Samples of a run, eight or more in each step, by which the oracle looks for what happens within."""
NETWORK = ska.mlp([8, 3], scale=0.3)
END = {"save_at": "end", "observe": ()}
SOLVERS = {
    "Tsit5": (diffrax.Tsit5, (1e-4, 1e-5, 1e-8)),
    "Dopri8": (diffrax.Dopri8, (1e-4, 1e-5, 1e-8)),
    "Bosh3": (diffrax.Bosh3, (1e-4, 1e-5, 1e-5)),  # finer ones take its order thousands of steps
}
"""And tolerances."""


@pytest.fixture(autouse=True)
def double(x64):
    """Double precision for all tests of this file."""


def problem(seed, scale=1.0):
    x = jax.random.uniform(jax.random.key(seed), (6, 4), jnp.float64)
    weights = NETWORK.init(jax.random.key(seed + 1), x)
    return jax.tree.map(lambda w: scale * w, weights), x


def quantities(o):
    """What rules compare, as one row: of each layer ‖Φ‖, ‖Z‖, H, Ḣ and the Net's rate."""
    return jnp.concatenate(
        [o.flow_norm, o.knowledge_norm, o.entropy, o.entropy_rate, o.tensor_net_rate]
    )


READ = []
"""The times of all readings."""


def note(instant):
    jax.debug.callback(lambda t: READ.append(float(t)), instant.t)
    return jnp.zeros(len(NETWORK.rows), instant.t.dtype)


NOTED = ska.Observable("noted", note)


class Counting(stop.Rule):
    """Never holds, needs no reading within a step, and notes each that is made."""

    def needs(self):
        return (NOTED,)

    def start(self, layers, dtype):
        return ()

    def idle(self, memory, span):
        return stop.Idle(jnp.ones((), bool), jnp.ones((), bool))

    def look(self, memory, instant):
        return memory, stop.Verdict(jnp.zeros((), bool), 0, 0)


class Oracle:
    """When rules first hold on a dense run, from readings of it: an independent program in NumPy."""

    def __init__(self, run):
        self.solution = run.solution()
        per_step = max(8, min(48, FINE // len(run.path.t)))
        self.t, samples, _ = self.solution.sample(quantities, per_step)
        self.samples = np.split(samples, 5, axis=1)
        self.before = {n: np.maximum.accumulate(np.abs(self.samples[n])) for n in (0, 3)}
        self.maxima = {n: self._maxima(n) for n in (0, 3)}
        self.crossing = self._crossing()

    def read(self, t):
        return np.split(self.solution.read(quantities, t)[0], 5)

    def _maxima(self, n):
        """Of each layer, times and values of all local maxima of ‖Φ‖, or |Ḣ|."""
        found = []
        for c, y in enumerate(np.abs(self.samples[n]).T):
            inside = np.flatnonzero((y[1:-1] >= y[:-2]) & (y[1:-1] >= y[2:])) + 1
            tops = []
            for k in inside:
                top = minimize_scalar(
                    lambda s, c=c: -abs(self.read(s)[n][c]),
                    bounds=(self.t[k - 1], self.t[k + 1]),
                    method="bounded",
                    options={"xatol": 1e-8 * T},
                )
                tops.append((top.x, -top.fun))
            found.append(tops)
        return found

    def _crossing(self):
        """When the first Net's rate changes its sign."""
        sign = np.sign(self.samples[4])
        times = [
            brentq(lambda s, c=c: self.read(s)[4][c], self.t[k], self.t[k + 1], xtol=1e-12)
            for c in range(sign.shape[1])
            for k in np.flatnonzero(sign[:-1, c] * sign[1:, c] < 0)[:1]
        ]
        return min(times, default=np.inf)

    def largest(self, n, t):
        """Of each layer, the largest ‖Φ‖, or |Ḣ|, up to t, exclusive."""
        before = np.searchsorted(self.t, t)
        values = self.before[n][before - 1] if before else np.zeros(len(self.maxima[n]))
        tops = [[v for s, v in layer if s < t] for layer in self.maxima[n]]
        return np.array([max([value, *top]) for value, top in zip(values, tops, strict=True)])

    def holds(self, rule, t, now):
        flow, Z, H, rate, _ = now
        match rule:
            case stop.FlowConverged():
                return bool((flow < rule.fraction * np.maximum(self.largest(0, t), flow)).all())
            case stop.EntropyConverged():
                speed = np.abs(rate)
                return bool(((speed < self.largest(3, t)) & (speed <= rule.rate * H)).all())
            case stop.ResidenceTime():
                return bool(((flow > 0) & (rule.time * flow <= Z)).all())
            case stop.StructureStart():
                return t >= self.crossing
            case Counting():
                return False
            case stop.AnyOf():
                return any(self.holds(each, t, now) for each in rule.rules)
            case stop.AllOf():
                return all(self.holds(each, t, now) for each in rule.rules)
        raise AssertionError(rule)

    def first(self, rule):
        """When it first holds; None: never."""
        events = [s for n in self.maxima for layer in self.maxima[n] for s, _ in layer]
        for k, t in enumerate(self.t):
            if self.holds(rule, t, [each[k] for each in self.samples]):
                break
        else:
            return None
        if k == 0:
            return self.t[0]
        left, right = self.t[k - 1], self.t[k]
        inside = sorted(s for s in events if left < s < right)
        for s in inside:  # it may hold from a maximum on
            if not self.holds(rule, s, self.read(s)):
                left = s
        while right - left > 1e-8 * T:
            middle = (left + right) / 2
            if self.holds(rule, middle, self.read(middle)):
                right = middle
            else:
                left = middle
        return right


RULES = {
    "nested": lambda a, b: stop.AnyOf(
        stop.FlowConverged(0.6 + 0.39 * a) & stop.ResidenceTime(1 + 9 * b),
        stop.EntropyConverged(10 ** (3 * b - 3)),
        Counting(),
    ),
    "signs": lambda a, b: stop.AnyOf(
        stop.EntropyConverged(0.1 + a) & stop.ResidenceTime(1 + b),
        stop.StructureStart(),
        Counting(),
    ),
}
"""Composed rules of two numbers between 0 and 1. Each rule of a composition decides for some of them."""
ALONE = {
    "flow": lambda a, _: stop.FlowConverged(0.5 + 0.45 * a),
    "entropy": lambda a, _: stop.EntropyConverged(0.1 + a),
}
"""Rules that maxima count for, by themselves."""


def compare(name, numbers, seed, scale, solver, rtol):
    weights, x = problem(seed, scale)
    method = ska.Adaptive(SOLVERS[solver][0](), rtol=rtol, atol=rtol / 100, max_steps=20_000)
    dense = ska.simulate(NETWORK, weights, x, method, t1=T, dense=True, **END)
    rule = (RULES | ALONE)[name](*numbers)
    want = Oracle(dense).first(rule)
    run = ska.simulate(NETWORK, weights, x, method, t1=T, until=rule, **END)
    about = (name, numbers, seed, scale, solver, rtol, want, str(run.outcome))
    if want is None:
        assert bool(run.outcome.completed), about
        return
    assert bool(run.outcome.stopped), about
    assert abs(float(run.final.t) - want) <= 1e-6 * T, about
    # The step in which it ended is made once more, and no other.
    before = int(np.searchsorted(np.asarray(dense.path.t), want))
    assert int(run.stats.steps) - int(run.stats.rejected) == before


@pytest.mark.parametrize(
    ("name", "solver"),
    [
        pytest.param("flow", "Tsit5", marks=pytest.mark.thorough),
        pytest.param("entropy", "Tsit5", marks=pytest.mark.thorough),
        ("nested", "Tsit5"),
        ("signs", "Tsit5"),
        ("nested", "Dopri8"),
        pytest.param("signs", "Bosh3", marks=pytest.mark.thorough),
    ],
)
def test_a_rule_ends_a_run_where_it_first_holds(name, solver):
    # Of compositions the flow, the residence time, the entropy decide; a sign, the entropy, a sign.
    problems = {0: (0.5, 0.1), 1: (1.0, 0.4), 3: (0.5, 1.0)}
    for (seed, numbers), rtol in zip(problems.items(), SOLVERS[solver][1], strict=True):
        compare(name, numbers, seed, 1.0, solver, rtol)


@settings(max_examples=20)
@given(
    st.sampled_from(sorted(RULES)),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.integers(0, 2**16),
    st.floats(0.05, 3.0),
    st.sampled_from([1e-4, 1e-5, 1e-6, 1e-7, 1e-8]),
)
def test_random_networks(name, numbers, seed, scale, rtol):
    compare(name, numbers, seed, scale, "Tsit5", rtol)


@pytest.mark.parametrize("name", RULES)
def test_readings_between_steps_are_few(name):
    """At most a tenth of the evaluations; of runs of five steps, a third."""
    within, evaluations = [], []
    for rtol in (1e-4, 1e-6, 1e-8):
        method = ska.Adaptive(rtol=rtol, atol=rtol / 100)
        for seed in range(4):
            weights, x = problem(seed, 0.3 + 0.6 * seed)
            READ.clear()
            rule = RULES[name](0.4 + 0.2 * seed, 0.3 * seed)
            run = ska.simulate(NETWORK, weights, x, method, t1=T, until=rule, **END)
            jax.effects_barrier()
            # The start, and the end of each accepted step; the step in which the rule holds is undone.
            ends = 1 + int(run.stats.steps - run.stats.rejected)
            assert len(READ) >= ends
            within.append(len(READ) - ends)
            evaluations.append(int(run.stats.evaluations))
    assert sum(within) <= 0.1 * sum(evaluations), (within, evaluations)
    assert sum(within[:4]) <= 0.33 * sum(evaluations[:4]), (within, evaluations)
