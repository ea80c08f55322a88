"""jit, vmap and grad, in both precisions: the same numbers as without, and true derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference as ref
from published_numpy import published

import skajax as ska
from skajax.observables import NAMES

FEW = ("entropy", "flow_norm", "tensor_net", "output_mean")
# What makes a method of one number, and what else simulate is given.
METHODS = {
    "Euler": (ska.Euler, {"steps": 10, "observe": FEW}),
    "Published": (ska.Published, {"steps": 10, "observe": FEW}),
    "Descent": (
        lambda _: ska.Descent(optax.sgd(0.05, momentum=0.9)),
        {"steps": 10, "observe": FEW},
    ),
    "Adaptive": (
        lambda a: ska.Adaptive(rtol=1e-3 * a, atol=1e-6),
        {"t1": 1.0, "observe": FEW},
    ),
}


def lanes(problem, count=3):
    """Weights of several draws, stacked, and one by one."""
    several = [
        ref.Problem("", problem.inputs, problem.widths, problem.samples, seed=seed).arrays()[1]
        for seed in range(count)
    ]
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *several), several


def assert_lane(batch, lane, alone, rtol):
    """One lane of a batch of runs is the run alone: records, state, cost, outcome."""
    taken = jax.tree.map(lambda leaf: leaf[lane], batch)
    assert jax.tree.structure(taken) == jax.tree.structure(alone)
    for (path, got), want in zip(
        jax.tree.leaves_with_path(taken), jax.tree.leaves(alone), strict=True
    ):
        where = jax.tree_util.keystr(path)
        assert got.dtype == want.dtype, where
        scale = np.abs(np.asarray(want, float)).max()
        np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * scale, err_msg=where)


def test_flow_tangents_and_state_under_jit_and_vmap(x64):
    network, _, x = ref.SMALL.arrays()
    stacked, several = lanes(ref.SMALL)

    def functions(weights):
        velocity = ska.flow(network, weights, x)
        return velocity, ska.tangents(network, weights, velocity, x), ska.state(network, weights, x)

    batch = jax.jit(jax.vmap(functions))(stacked)
    for lane, weights in enumerate(several):
        assert_lane(batch, lane, jax.jit(functions)(weights), 1e-13)
    compiled = jax.jit(ska.flow, static_argnums=0)(network, several[0], x)
    assert_lane(batch[0], 0, compiled, 1e-13)


@pytest.mark.parametrize(
    "name",
    ["Euler", "Published", pytest.param("Descent", marks=pytest.mark.thorough), "Adaptive"],
)
def test_vmap_and_jit_are_the_loop(name, x64):
    # Over the weights, the inputs and the method's number (dt, or rtol) at once.
    make, span = METHODS[name]
    problem = ref.SAMPLE if name == "Adaptive" else ref.SMALL
    network, _, x = problem.arrays()
    stacked, several = lanes(problem)
    inputs, numbers = jnp.stack([x, 0.5 * x, -x]), jnp.array([0.1, 0.03, 0.2])

    def simulate(weights, x, number):
        return ska.simulate(network, weights, x, make(number), **span)

    batch = jax.jit(jax.vmap(simulate))(stacked, inputs, numbers)
    np.testing.assert_array_equal(batch.outcome.completed, True)
    for lane, weights in enumerate(several):
        alone = simulate(weights, inputs[lane], numbers[lane])
        # Compiled differently, so equal to rounding; an adaptive step's size amplifies it.
        assert_lane(batch, lane, alone, 1e-9 if name == "Adaptive" else 1e-12)


def test_vmap_without_jit(x64, compilations):
    network, _, x = ref.UNIT.arrays()
    stacked, several = lanes(ref.UNIT, 2)
    simulate = lambda w: ska.simulate(network, w, x, ska.Euler(0.1), steps=4, observe=FEW)
    with compilations() as found:
        batch = jax.vmap(simulate)(stacked)
    for lane, weights in enumerate(several):
        assert_lane(batch, lane, simulate(weights), 1e-12)
    # A few programs, not one for every operation of a step.
    assert len(found) < 30


def test_a_study_of_seeds_in_one_expression(x64):
    network = ska.mlp([3], scale=0.5)
    _, _, x = ref.SMALL.arrays()
    keys = jax.random.split(jax.random.key(0), 2)

    def simulate(key):
        return ska.simulate(network, network.init(key, x), x, ska.Euler(0.1), steps=5, observe=())

    batch = jax.jit(jax.vmap(simulate))(keys)
    for lane, key in enumerate(keys):
        weights = ref.to_numpy(jax.jit(network.init)(key, x))
        for _ in range(5):
            weights = moved(weights, ref.flow(weights, np.asarray(x)), 0.1)
        got = jax.tree.map(lambda leaf, n=lane: leaf[n], batch.final.weights)
        np.testing.assert_allclose(ref.flat(ref.to_numpy(got)), ref.flat(weights), rtol=1e-12)


def test_everything_known_inside_jit_but_the_weights(x64):
    # x, dt and t1 are constants of the program here; no check may trip over them.
    network, weights, x = ref.SMALL.arrays()
    simulate = lambda w: ska.simulate(network, w, x, ska.Euler(0.1), t1=1.0, observe=FEW)
    want = simulate(weights)
    for got in (jax.jit(simulate)(weights), jax.jit(lambda: simulate(weights))()):
        for name in FEW:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-12, atol=1e-12, err_msg=name)
    # A time that is traced cannot tell how many records there are.
    with pytest.raises(ValueError, match="Argument t1 must be replaced by steps"):
        jax.jit(lambda dt: ska.simulate(network, weights, x, ska.Euler(dt), t1=1.0))(0.1)


# Derivatives.


def directions(problem):
    """Random directions for weights and inputs."""
    weights, x = problem.numpy()
    rng = np.random.default_rng(9)
    along = [(rng.normal(size=W.shape), rng.normal(size=b.shape)) for W, b in weights]
    return weights, x, along, rng.normal(size=x.shape)


def moved(weights, along, step):
    return [(W + step * dW, b + step * db) for (W, b), (dW, db) in zip(weights, along, strict=True)]


def derivative(function, step=2e-4):
    """Fourth-order central difference at 0: error step^4 f⁽⁵⁾ / 30."""
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8 * near - far) / 12 / step


def measured(entropies, flow_norms):
    """The observable to be differentiated: of all layers, unequally weighed."""
    return (entropies * np.arange(1.0, len(entropies) + 1)).sum() + 3 * flow_norms.sum()


def along(gradients, direction):
    return sum(
        float(np.vdot(g, d))
        for g, d in zip(jax.tree.leaves(gradients), jax.tree.leaves(direction), strict=True)
    )


def last(run):
    return measured(run.entropy[-1], run.flow_norm[-1])


def at(weights, x, start):
    seen = ref.observables(weights, ref.flow(weights, x), x, start)
    return measured(seen["entropy"], seen["flow_norm"])


def test_gradient_through_eulers_steps(x64):
    weights, x, dw, dx = directions(ref.SMALL)
    network = ref.SMALL.network

    def program(weights, x, dt):
        return last(ska.simulate(network, weights, x, ska.Euler(dt), steps=10, observe=FEW))

    def numpy(weights, x, dt):
        start = weights
        for _ in range(10):
            weights = moved(weights, ref.flow(weights, x), dt)
        return at(weights, x, start)

    got = jax.jit(jax.grad(program, argnums=(0, 1, 2)))(
        ref.to_skajax(weights), jnp.asarray(x), jnp.asarray(0.1)
    )
    close = {"rtol": 1e-8, "atol": 1e-9}
    want = derivative(lambda s: numpy(moved(weights, dw, s), x, 0.1))
    np.testing.assert_allclose(along(got[0], ref.to_skajax(dw)), want, **close)
    want = derivative(lambda s: numpy(weights, x + s * dx, 0.1))
    np.testing.assert_allclose(along(got[1], dx), want, **close)
    want = derivative(lambda s: numpy(weights, x, 0.1 + s))
    np.testing.assert_allclose(got[2], want, **close)


def test_gradient_through_the_published_rule(x64):
    weights, x, dw, _ = directions(ref.SMALL)

    def program(weights, dt):
        run = ska.simulate(ref.SMALL.network, weights, x, ska.Published(dt), steps=8, observe=FEW)
        return last(run) + run.tensor_net[-1].sum()

    def numpy(weights, dt):
        rows, _ = published(weights, x, dt, 8)
        flows = np.array(rows[-1]["flow_norm"])
        return measured(np.array(rows[-1]["entropy"]), flows) + sum(rows[-1]["tensor_net"])

    got = jax.jit(jax.grad(program, argnums=(0, 1)))(ref.to_skajax(weights), jnp.asarray(0.1))
    want = derivative(lambda s: numpy(moved(weights, dw, s), 0.1))
    np.testing.assert_allclose(along(got[0], ref.to_skajax(dw)), want, rtol=1e-8)
    want = derivative(lambda s: numpy(weights, 0.1 + s))
    np.testing.assert_allclose(got[1], want, rtol=1e-8)


def test_gradient_through_an_adaptive_solve(x64):
    # Against differences of the reference solutions: the true sensitivity, not the program's own.
    weights, x, dw, _ = directions(ref.SAMPLE)
    method = ska.Adaptive(rtol=1e-10, atol=1e-12)

    def program(weights, t1):
        times = jnp.stack([t1])
        run = ska.simulate(
            ref.SAMPLE.network, weights, x, method, t1=t1, save_at=times,
            observe=("entropy", "flow_norm"),
        )  # fmt: skip
        return last(run)

    def solved(weights, t1):
        return at(ref.exact(weights, x, t1), x, weights)

    # Two lanes, whose steps are not the same.
    starts, ends = [weights, [(W / 2, b / 2) for W, b in weights]], [1.0, 1.5]
    stacked = jax.tree.map(lambda *w: jnp.stack(w), *map(ref.to_skajax, starts))
    gradients = jax.jit(jax.vmap(jax.grad(program, argnums=(0, 1))))(stacked, jnp.asarray(ends))
    for lane, (start, end) in enumerate(zip(starts, ends, strict=True)):
        got = jax.tree.map(lambda leaf, n=lane: leaf[n], gradients)
        want = derivative(lambda s, w=start, t=end: solved(moved(w, dw, s), t))
        np.testing.assert_allclose(along(got[0], ref.to_skajax(dw)), want, rtol=1e-7)
        want = derivative(lambda s, w=start, t=end: solved(w, t + s))
        np.testing.assert_allclose(got[1], want, rtol=1e-7)


# Single precision, and the smallest and oddest of networks.


@pytest.mark.parametrize("problem", [ref.UNIT, ref.ODD], ids=lambda p: p.name)
def test_eulers_steps_in_float32(problem):
    start, samples = problem.numpy()
    steps = [start]
    for _ in range(20):
        steps.append(moved(steps[-1], ref.flow(steps[-1], samples), 0.05))
    network, weights, x = problem.arrays(jnp.float32)
    run = ska.simulate(network, weights, x, ska.Euler(0.05), t1=1.0)
    assert_follows(run, problem, steps)


def test_an_adaptive_run_in_float32():
    network, weights, x = ref.SMALL.arrays(jnp.float32)
    method, times = ska.Adaptive(rtol=1e-6, atol=1e-7), np.array([0.3, 1.0])
    run = ska.simulate(network, weights, x, method, t1=1.0, save_at=times)
    assert_follows(run, ref.SMALL, ref.solve(*ref.SMALL.numpy(), times))


def assert_follows(run, problem, states):
    """A float32 run stays by the float64 states: weights, records, and in its own precision."""
    start, samples = problem.numpy()
    assert {leaf.dtype for leaf in jax.tree.leaves(run.final)} == {np.dtype("float32")}
    got = ref.flat(ref.to_numpy(run.final.weights))
    np.testing.assert_allclose(got, ref.flat(states[-1]), rtol=1e-5, atol=1e-5)
    rows = [ref.observables(w, ref.flow(w, samples), samples, start) for w in states]
    for name in NAMES:
        values = np.asarray(getattr(run, name))
        assert values.dtype == np.float32
        want = np.stack([row[name] for row in rows])
        # Sums of up to 143 terms of order 1, of which the Nets are small differences.
        np.testing.assert_allclose(values, want, rtol=2e-5, atol=5e-5, err_msg=name)
