"""Methods against the ODE: exact solutions, observed orders, closed forms, true costs."""

import dataclasses

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference as ref
from reference import LN2

import skajax as ska
from skajax.observables import NAMES


@pytest.fixture(autouse=True)
def double(x64):
    """Double precision for all tests of this file."""


def constant(solver, dt):
    return ska.Adaptive(solver, controller=diffrax.ConstantStepSize(), dt0=dt)


def tight(solver=None, tolerance=1e-12):
    return ska.Adaptive(solver, rtol=tolerance, atol=tolerance)


def distance(run, want):
    """Relative distance of the final weights."""
    got, want = ref.flat(ref.to_numpy(run.final.weights)), ref.flat(want)
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def orders(errors):
    """Observed between errors of which each has half the step of the one before."""
    return np.log2(np.divide(errors[:-1], errors[1:]))


def assert_records(records, weights, x, start, tolerance):
    """Every observable in every record is that of the weights at its time, moving with the flow."""
    wanted = [ref.observables(w, ref.flow(w, x), x, start) for w in weights]
    for name in NAMES:
        want = np.stack([row[name] for row in wanted])
        scale = np.abs(want).max(axis=0, keepdims=True)
        error = np.max(np.abs(records[name] - want) / np.where(scale > 0, scale, 1))
        assert error < tolerance, name


# Exact solutions, whatever the method.

METHODS = {
    # First order: the error at dt = 1/2000 is about dt times the growth rate c / (4 ln 2) < 2.
    "Euler": (ska.Euler(1 / 2000), {"t1": 1.0}, 2e-3),
    "Descent": (ska.Descent(optax.sgd(1 / 2000)), {"steps": 2000}, 2e-3),
    # At tolerances near rounding the records' error is that of the solver's interpolant.
    "Tsit5": (tight(), {"t1": 1.0}, 1e-9),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_single_sample_follows_the_exact_solution(name):
    method, span, tolerance = METHODS[name]
    network, weights, x = ref.SAMPLE.arrays()
    start, sample = ref.SAMPLE.numpy()
    run = ska.simulate(network, weights, x, method, **span)
    assert bool(run.outcome.completed)
    np.testing.assert_allclose(run.final.t, 1.0, rtol=1e-12)
    assert distance(run, ref.exact(start, sample, 1.0)) < tolerance
    some = slice(None, None, max(1, len(run.t) // 20))
    exact = [ref.exact(start, sample, float(t)) for t in run.t[some]]
    records = {name: getattr(run, name)[some] for name in NAMES}
    assert_records(records, exact, sample, start, tolerance)


# Another tolerance, t1 or 101 other save times compile nothing: these tests share one solve. The
# times are panels' edges, and between them the nodes of Gauss-Legendre quadrature.
END, PANELS, NODES = 2.0, 10, 9
NODE, GAUSS = np.polynomial.legendre.leggauss(NODES)
EDGES = np.linspace(0, END, PANELS + 1)
INSIDE = EDGES[:-1, None] + END / PANELS * (NODE + 1) / 2
TIMES = np.append(np.column_stack([EDGES[:-1], INSIDE]), END)


def test_records_of_an_adaptive_run_are_the_odes():
    network, weights, x = ref.SMALL.arrays()
    start, samples = ref.SMALL.numpy()
    run = ska.simulate(network, weights, x, tight(), t1=END, save_at=TIMES)
    np.testing.assert_array_equal(run.t, TIMES)
    some = slice(None, None, 7)
    want = ref.solve(start, samples, np.append(TIMES[some], END))
    records = {name: getattr(run, name)[some] for name in NAMES}
    assert_records(records, want[:-1], samples, start, 1e-9)
    assert distance(run, want[-1]) < 1e-10
    Z, D = ref.forward(ref.to_numpy(run.final.weights), samples)
    for got, values in zip((*run.final.Z, *run.final.D), (*Z, *D), strict=True):
        np.testing.assert_allclose(got, values, rtol=1e-12)
    assert run.final.t == END


def test_accumulated_quantities_match_their_closed_forms():
    # Recorded *rates*, integrated over the panels, against the recorded functions of the state:
    # entropy, both Nets, and the action.
    network, weights, x = ref.SMALL.arrays()
    run = ska.simulate(network, weights, x, tight(), t1=END, save_at=TIMES)

    def integral(name):
        rates = np.asarray(getattr(run, name))[:-1].reshape(PANELS, NODES + 1, -1)[:, 1:]
        return np.cumsum(np.einsum("n,pnl->pl", GAUSS, rates) * END / PANELS / 2, axis=0)

    def change(name):
        values = np.asarray(getattr(run, name))[:: NODES + 1]
        return values[1:] - values[0]

    assert np.abs(change("entropy")).max() > 1  # the run is long enough to tell
    for rate, total in [
        ("entropy_rate", change("entropy")),
        ("lagrangian", LN2 * change("entropy")),  # the action (eq. 12)
        ("tensor_net_rate", change("tensor_net")),
        ("tensor_net_rate_equation", change("tensor_net_equation")),
    ]:
        np.testing.assert_allclose(integral(rate), total, atol=1e-8, err_msg=rate)
    np.testing.assert_array_equal(run.tensor_net[0], 0)
    np.testing.assert_array_equal(run.tensor_net_equation[0], 0)
    # Net± = Σ Δ softplus ± ΔH, so the two differ by twice the entropy's change.
    np.testing.assert_allclose(
        change("tensor_net") - change("tensor_net_equation"), 2 * change("entropy"), atol=1e-11
    )


def test_the_tolerance_bounds_the_error():
    network, weights, x = ref.SMALL.arrays()
    (want,) = ref.solve(*ref.SMALL.numpy(), [END])
    for rtol in (1e-3, 1e-5, 1e-7):
        method = ska.Adaptive(rtol=rtol, atol=rtol / 100)
        run = ska.simulate(network, weights, x, method, t1=END)
        assert distance(run, want) < 10 * rtol


@pytest.mark.parametrize("end", [EDGES[6], 1.7])
def test_records_depend_neither_on_the_end_nor_on_other_save_times(end):
    network, weights, x = ref.SMALL.arrays()
    whole = ska.simulate(network, weights, x, tight(), t1=END, save_at=TIMES)
    times = np.sort(np.append(EDGES[1:7], np.linspace(0.01, 1.19, 95)))
    run = ska.simulate(network, weights, x, tight(), t1=end, save_at=times)
    assert run.final.t == end
    common = np.isin(times, EDGES)
    assert common.sum() == 6
    for name in NAMES:
        got, want = np.asarray(getattr(run, name)), np.asarray(getattr(whole, name))
        want = want[:: NODES + 1][1:7]
        np.testing.assert_allclose(got[common], want, rtol=1e-8, atol=1e-9, err_msg=name)


# Observed orders.


@pytest.mark.parametrize("problem", [ref.SMALL, ref.DEEP], ids=lambda p: p.name)
def test_euler_has_order_one(problem):
    network, weights, x = problem.arrays()
    (want,) = ref.solve(*problem.numpy(), [1.0])
    runs = [
        ska.simulate(network, weights, x, ska.Euler(1 / K), t1=1.0, observe=())
        for K in (100, 200, 400, 800)
    ]
    np.testing.assert_allclose(orders([distance(run, want) for run in runs]), 1, atol=0.05)


def test_tsit5_has_order_five():
    network, weights, x = ref.SMALL.arrays()
    (want,) = ref.solve(*ref.SMALL.numpy(), [8.0])
    end = np.array([8.0])
    errors = []
    for n in (32, 64, 128):
        method = constant(diffrax.Tsit5(), 8.0 / n)
        run = ska.simulate(network, weights, x, method, t1=8.0, save_at=end, observe=())
        assert int(run.stats.steps) == n
        errors.append(distance(run, want))
    assert errors[-1] > 1e-13  # or rounding would set the order
    np.testing.assert_allclose(orders(errors), 5, atol=0.2)


def test_eulers_records_are_its_own_steps():
    network, weights, x = ref.SMALL.arrays()
    start, samples = ref.SMALL.numpy()
    dt, K = 0.1, 7
    run = ska.simulate(network, weights, x, ska.Euler(dt), t1=K * dt)
    steps = [start]
    for _ in range(K):
        rates = ref.flow(steps[-1], samples)
        steps.append(
            [(W + dt * dW, b + dt * db) for (W, b), (dW, db) in zip(steps[-1], rates, strict=True)]
        )
    np.testing.assert_allclose(run.t, dt * np.arange(K + 1), rtol=1e-15)
    assert_records({n: getattr(run, n) for n in NAMES}, steps, samples, start, 1e-12)
    assert distance(run, steps[-1]) < 1e-14
    np.testing.assert_allclose(run.final.t, K * dt, rtol=1e-15)
    assert (int(run.stats.evaluations), int(run.stats.steps), int(run.stats.rejected)) == (K, K, 0)


def test_default_save_times():
    network, weights, x = ref.SAMPLE.arrays()
    run = ska.simulate(network, weights, x, tight(), t1=2.0)
    np.testing.assert_allclose(run.t, np.linspace(0, 2, 101), rtol=1e-15)
    start, samples = ref.SAMPLE.numpy()
    first = ref.observables(start, ref.flow(start, samples), samples, start)
    for name, want in first.items():  # the first record is the state given, not interpolated
        np.testing.assert_allclose(getattr(run, name)[0], want, rtol=1e-12, atol=1e-12)


# What a run costs.

calls = {"knowledge": 0}


@dataclasses.dataclass(frozen=True)
class Counting:
    """A dense layer that counts how often its knowledge is computed, while it is computed."""

    dense: ska.Dense

    def init(self, key, x):
        return self.dense.init(key, x)

    def knowledge(self, weights, x):
        jax.debug.callback(lambda: calls.update(knowledge=calls["knowledge"] + 1))
        return self.dense.knowledge(weights, x)


def counted(method):
    """How often a run computes the layer's knowledge, and the run."""
    network = ska.Network((Counting(ska.Dense(2)),))
    _, weights, x = ref.Problem("", 2, (2,), 3).arrays()
    calls["knowledge"] = 0
    run = ska.simulate(network, weights, x, method, t1=2.0, save_at=np.array([2.0]))
    jax.effects_barrier()
    return calls["knowledge"], run


@pytest.fixture(scope="module")
def measuring():
    """How many calls an evaluation of the flow makes, and how many only measure: Euler makes one a step.

    An evaluation computes knowledge for the trace, and once more for its derivative: in compiled
    programs those are one, but not where a callback counts them.
    """
    jax.config.update("jax_enable_x64", True)
    try:
        one, two, five = (counted(constant(diffrax.Euler(), 2.0 / n))[0] for n in (1, 2, 5))
    finally:
        jax.config.update("jax_enable_x64", False)
    assert five - two == 3 * (two - one)
    return two - one, 2 * one - two


COSTS = {
    # Without dt0 the first step of other layers than dense ones takes evaluations of the flow as well.
    "Tsit5": ska.Adaptive(diffrax.Tsit5(), rtol=1e-3, atol=1e-6, dt0=0.1),
    "Dopri5": constant(diffrax.Dopri5(), 0.25),
    "Dopri8": ska.Adaptive(diffrax.Dopri8(), rtol=1e-3, atol=1e-6, dt0=0.1),
    "Heun": ska.Adaptive(diffrax.Heun(), controller=diffrax.StepTo(np.array([0.0, 0.5, 2.0]))),
    # A first step far too large: rejected several times before any other is accepted.
    "Bosh3": ska.Adaptive(diffrax.Bosh3(), rtol=1e-6, atol=1e-6, dt0=2.0),
    "Euler": constant(diffrax.Euler(), 0.25),
}


@pytest.mark.parametrize("name", COSTS)
def test_evaluations_are_those_that_the_solver_makes(name, measuring):
    total, run = counted(COSTS[name])
    assert bool(run.outcome.completed)
    each, only_measure = measuring
    assert int(run.stats.evaluations) * each == total - only_measure
    if COSTS[name].dt0 == 2.0:
        assert int(run.stats.rejected) > 0


def test_an_implicit_solver_works_and_tells_no_evaluations():
    network, weights, x = ref.UNIT.arrays()
    start, sample = ref.UNIT.numpy()
    method = ska.Adaptive(diffrax.Kvaerno3(), rtol=1e-7, atol=1e-9)
    run = ska.simulate(network, weights, x, method, t1=1.0, save_at=np.array([1.0]), observe=())
    assert run.stats.evaluations is None
    assert int(run.stats.steps) > 0
    assert bool(run.outcome.completed)
    assert distance(run, ref.exact(start, sample, 1.0)) < 1e-6


# Optimisers as integrators of time.


def test_gradient_descent_is_eulers_method():
    network, weights, x = ref.SMALL.arrays()
    euler = ska.simulate(network, weights, x, ska.Euler(0.05), steps=40)
    descent = ska.simulate(network, weights, x, ska.Descent(optax.sgd(0.05)), steps=40)
    for e, d in zip(
        jax.tree.leaves(euler.final.weights), jax.tree.leaves(descent.final.weights), strict=True
    ):
        np.testing.assert_allclose(d, e, rtol=1e-14, atol=1e-16)
    np.testing.assert_allclose(descent.t, euler.t, rtol=1e-13)
    for name in NAMES:
        want = getattr(euler, name)
        np.testing.assert_allclose(getattr(descent, name), want, rtol=1e-11, atol=1e-12)
    assert int(descent.stats.evaluations) == 40


WARM_UP = optax.warmup_cosine_decay_schedule(0.0, 0.3, 4, 12, end_value=0.01)
RATES = np.array([float(WARM_UP(k)) for k in range(12)])
STEADY = np.full(12, 0.02)

OPTIMISERS = {
    "sgd": (optax.sgd(0.02), STEADY),
    # Adam's first step has length lr / (1 + 1e-8), eps being 1e-8.
    "adam": (optax.adam(0.02), STEADY),
    "lion": (optax.lion(0.02), STEADY),
    "adamw, schedule": (optax.adamw(WARM_UP), RATES),
    "momentum, schedule": (optax.sgd(WARM_UP, momentum=0.9), RATES),
    "injected nesterov": (
        optax.inject_hyperparams(optax.sgd)(learning_rate=0.02, momentum=0.9, nesterov=True),
        STEADY,
    ),
    "injected adam, clipped, schedule": (
        optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.inject_hyperparams(optax.adam)(learning_rate=WARM_UP),
        ),
        RATES,
    ),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_time_is_the_sum_of_the_learning_rates(name):
    optimiser, rates = OPTIMISERS[name]
    network, weights, x = ref.SAMPLE.arrays()
    run = ska.simulate(
        network, weights, x, ska.Descent(optimiser), steps=len(rates), observe=("flow_norm",)
    )
    assert bool(run.outcome.completed)
    times = np.concatenate([[0], np.cumsum(rates)])
    # The schedules themselves are computed in float32.
    np.testing.assert_allclose(run.t, times, rtol=2e-7)
    np.testing.assert_allclose(run.final.t, times[-1], rtol=2e-7)

    # The weights are the optimiser's own.
    @jax.jit
    def step(mine, state):
        gradient = jax.tree.map(jnp.negative, ska.flow(network, mine, x))
        update, state = optimiser.update(gradient, state, mine)
        return update, optax.apply_updates(mine, update), state

    with jax.numpy_dtype_promotion("standard"):
        mine, state, moves = weights, optimiser.init(weights), []
        for _ in rates:
            update, mine, state = step(mine, state)
            moves.append(jax.tree.map(np.asarray, update))
    for got, want in zip(jax.tree.leaves(run.final.weights), jax.tree.leaves(mine), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)

    # The knowledge's speed is that of the update, per learning rate; at rate 0, the flow's.
    for k, (rate, update) in enumerate(zip(rates, moves, strict=True)):
        if rate == 0:
            assert k == 0
            start, sample = ref.SAMPLE.numpy()
            want = ref.observables(start, ref.flow(start, sample), sample, start)["flow_norm"]
        else:
            want = np.linalg.norm(np.asarray(x) @ update[0].W + update[0].b) / rate
        np.testing.assert_allclose(run.flow_norm[k], want, rtol=1e-6)


def test_a_schedule_is_a_non_uniform_step():
    # Gradient descent under a schedule is Euler's method on the grid of its cumulative sums.
    network, weights, x = ref.SMALL.arrays()
    start, samples = ref.SMALL.numpy()
    method = ska.Descent(optax.sgd(WARM_UP))
    run = ska.simulate(network, weights, x, method, steps=12, observe=("entropy",))
    mine = start
    for rate in RATES:
        mine = [
            (W + rate * dW, b + rate * db)
            for (W, b), (dW, db) in zip(mine, ref.flow(mine, samples), strict=True)
        ]
    assert distance(run, mine) < 1e-7
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(run))


def test_methods_say_what_they_are():
    assert ska.Euler(0.1).name == "Euler"
    assert ska.Published(0.1).name == "Published"
    assert ska.Descent(optax.sgd(0.1)).name == "Descent"
    assert ska.Adaptive(diffrax.Dopri8()).name == "Adaptive(Dopri8, PIDController)"
