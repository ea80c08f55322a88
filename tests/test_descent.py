"""Optimisers with label trees, line searches and values: what they are given, and what time means."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference as ref
from optax import contrib

import skajax as ska

pytestmark = pytest.mark.usefixtures("x64")

SLOW_FAST = (ska.DenseWeights("slow", "slow"), ska.DenseWeights("fast", "fast"))


def two_rates(slow, fast, labels=SLOW_FAST):
    return optax.multi_transform({"slow": slow, "fast": fast}, labels)


def by_rank(weights):
    return jax.tree.map(lambda w: "slow" if w.ndim == 1 else "fast", weights)


def simulated(optimiser, steps=4, observe=("entropy",), problem=ref.SMALL):
    network, weights, x = problem.arrays()
    return ska.simulate(network, weights, x, ska.Descent(optimiser), steps=steps, observe=observe)


def energy(network, weights, x):
    """The entropies of all layers, a sample: of weights, with inputs held at what these make of x."""
    _, D = network.forward(weights, x)
    inputs = (x, *D[:-1])

    def value(trial):
        Z = [
            layer.knowledge(w, x) for layer, w, x in zip(network.layers, trial, inputs, strict=True)
        ]
        return sum(jnp.sum(ska.entropy.entropy(z)) for z in Z) / x.shape[0]

    return value


SCHEDULE = optax.exponential_decay(0.3, 1, 0.5)
LABELLED = {
    "a rate a layer": (two_rates(optax.sgd(0.01), optax.sgd(0.1)), [0.1] * 4),
    "Adam and SGD": (two_rates(optax.sgd(0.01), optax.adam(0.1, eps=0.0)), [0.1] * 4),
    "labels of whole layers": (two_rates(optax.sgd(0.01), optax.sgd(0.1), ("slow", "fast")), [0.1] * 4),
    "labels by rank": (two_rates(optax.sgd(0.01), optax.sgd(0.1), by_rank), [0.1] * 4),
    "a schedule in one": (
        two_rates(optax.sgd(0.2), optax.sgd(SCHEDULE)),
        [0.3, 0.2, 0.2, 0.2],
    ),
    "injected": (
        two_rates(*[optax.inject_hyperparams(optax.sgd)(rate) for rate in (0.1, 0.01)]),
        [0.1] * 4,
    ),
    "a frozen layer": (two_rates(optax.set_to_zero(), optax.sgd(0.1)), [0.1] * 4),
    "a mask": (
        optax.chain(optax.sgd(0.1), optax.masked(optax.scale(0.5), (True, False))),
        [0.1] * 4,
    ),
    # Optax hands on the gradient itself where a mask is False: that layer climbs, at rate -1.
    "a mask that leaves the gradient": (optax.masked(optax.sgd(0.1), (True, False)), [0.1] * 4),
    "a clipped gradient": (
        optax.chain(optax.clip_by_global_norm(1.0), two_rates(optax.sgd(0.01), optax.sgd(0.1))),
        [0.1] * 4,
    ),
    "a plateau": (
        optax.chain(optax.sgd(0.1), contrib.reduce_on_plateau(factor=0.5, patience=1, rtol=1.0)),
        [0.05, 0.025, 0.0125, 0.00625],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LABELLED)
def test_time_is_that_of_the_weights_that_learn_fastest(name):
    optimiser, rates = LABELLED[name]
    run = simulated(optimiser, observe=())
    np.testing.assert_allclose(run.t, np.cumsum([0, *rates]), rtol=1e-6)


def test_a_rate_a_layer_is_a_layer_that_is_paced():
    # dW/dt = -r ∇H, r = 1/10 in the first layer: Euler's method on Paced layers makes the same steps.
    network, weights, x = ref.SMALL.arrays()
    paced = ska.Network((ska.Paced(network.layers[0], 0.1), network.layers[1]))
    observe = ("entropy", "entropy_rate", "dissipation", "transport", "flow_norm", "tensor_net")
    euler = ska.simulate(paced, weights, x, ska.Euler(0.1), steps=6, observe=observe)
    run = simulated(two_rates(optax.sgd(0.01), optax.sgd(0.1)), steps=6, observe=observe)
    np.testing.assert_allclose(run.t, euler.t, rtol=1e-12)
    for name in observe:
        np.testing.assert_allclose(getattr(run, name), getattr(euler, name), rtol=1e-9, atol=1e-10)


def spy(seen):
    """An optimiser that shows what it is given, at the weights of a step."""

    def update(gradient, state, weights, *, value, grad, value_fn, **_):
        jax.debug.callback(
            lambda *a: seen.append(a), value, grad, weights, jax.grad(value_fn)(weights)
        )
        return jax.tree.map(lambda g: -0.1 * g, gradient), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)


def test_the_value_is_the_energy_whose_gradient_is_minus_the_flow():
    network, weights, x = ref.SMALL.arrays()
    seen = []
    run = simulated(spy(seen), steps=2)
    jax.effects_barrier()
    real = [s for s in seen if jax.tree.map(np.shape, s[2]) == jax.tree.map(np.shape, weights)]
    assert len(real) >= 2
    values = np.array([float(s[0]) for s in real])
    # The sum over the layers of what is recorded as entropy, which is summed over the samples.
    for entropy in np.asarray(run.entropy).sum(axis=1)[:2]:
        assert np.isclose(values, entropy / x.shape[0], rtol=1e-12).any()
    for _, gradient, mine, slope in real:
        flow = ska.flow(network, jax.tree.map(jnp.asarray, mine), x)
        for g, s, f in zip(*map(jax.tree.leaves, (gradient, slope, flow)), strict=True):
            np.testing.assert_allclose(g, -np.asarray(f), rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(s, -np.asarray(f), rtol=1e-9, atol=1e-13)


SEARCHES = {
    "L-BFGS": optax.lbfgs(),
    "backtracking": optax.chain(optax.sgd(50.0), optax.scale_by_backtracking_linesearch(20)),
    "Polyak's step": optax.polyak_sgd(max_learning_rate=0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", SEARCHES)
def test_optimisers_that_need_the_value_make_their_own_steps(name):
    optimiser, steps = SEARCHES[name], 3
    # One layer is enough for the search that takes longest to compile.
    problem = ref.SAMPLE if name == "L-BFGS" else ref.SMALL
    network, weights, x = problem.arrays()
    run = simulated(optimiser, steps=steps, problem=problem)
    assert bool(run.outcome.completed)

    @jax.jit
    def step(mine, state):
        value_fn = energy(network, mine, x)
        value, gradient = jax.value_and_grad(value_fn)(mine)
        given = {"value": value, "grad": gradient, "value_fn": value_fn}
        update, state = optimiser.update(gradient, state, mine, **given)
        square = optax.tree_utils.tree_vdot(gradient, gradient)
        along = -optax.tree_utils.tree_vdot(update, gradient) / square
        searched = optax.tree_utils.tree_get(state, "learning_rate", along)
        return optax.apply_updates(mine, update), state, along, searched

    with jax.numpy_dtype_promotion("standard"):
        mine, state, times, energies = weights, optimiser.init(weights), [0.0], []
        for _ in range(steps):
            energies.append(float(energy(network, mine, x)(mine)))
            mine, state, along, searched = step(mine, state)
            # Of plain gradients a step's length says what its learning rate was; of L-BFGS's it does not.
            times.append(times[-1] + float(searched if name == "L-BFGS" else along))
    for got, want in zip(jax.tree.leaves(run.final.weights), jax.tree.leaves(mine), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(run.t, times, rtol=1e-9)
    np.testing.assert_allclose(
        np.asarray(run.entropy).sum(axis=1)[:-1] / x.shape[0], energies, rtol=1e-9
    )


def test_a_line_search_runs_inside_jit_and_goes_on():
    network, weights, x = ref.SMALL.arrays()
    method = ska.Descent(SEARCHES["backtracking"])
    go = lambda w, steps=3: ska.simulate(network, w, x, method, steps=steps, observe=("entropy",))
    whole, inside, part = go(weights), jax.jit(go)(weights), go(weights, 2)
    np.testing.assert_allclose(inside.t, whole.t, rtol=1e-12)
    np.testing.assert_array_equal(ska.extend(part, steps=3).entropy, whole.entropy)


def needs_more():
    def update(gradient, state, weights=None, *, loss, **_):
        return gradient, state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)


UNFIT = {
    "another argument": (needs_more(), "missing 1 required keyword-only argument: 'loss'"),
    "a second derivative": (contrib.sophia(0.1), "obj_fn must be provided"),
    "a tree of another network": (
        two_rates(optax.sgd(0.1), optax.sgd(0.2), ("slow", "fast", "fast")),
        "it raised ValueError",
    ),
    "labels without an optimiser": (
        two_rates(optax.sgd(0.1), optax.sgd(0.2), ("slow", "other")),
        "no corresponding transformation",
    ),
    "labels by size": (
        two_rates(
            optax.adam(0.1),
            optax.sgd(0.2),
            lambda w: jax.tree.map(lambda a: "slow" if a.size > 3 else "fast", w),
        ),
        "by their sizes",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_optimisers_that_do_not_fit_are_refused(name):
    optimiser, reason = UNFIT[name]
    with pytest.raises(ValueError, match=r"Argument optimiser must .*, but .*") as caught:
        simulated(optimiser)
    assert reason in str(caught.value)
