"""What simulate refuses, how runs end that cannot go on, and what a run costs besides its steps."""

import subprocess
import sys
import textwrap

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import own_parts
import pytest
import reference as ref

import skajax as ska
from skajax.observables import NAMES

# Inputs and weights here are large on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::skajax.SkajaxWarning")

EULER = ska.Euler(0.1)
SGD = ska.Descent(optax.sgd(0.1))
WILD = ska.Descent(optax.sgd(1e37))
CONSTANT = diffrax.ConstantStepSize()


def small(dtype=jnp.float32):
    return ref.SMALL.arrays(dtype)


def replaced(weights, layer, W):
    return (*weights[:layer], weights[layer]._replace(W=W), *weights[layer + 1 :])


# Bad input. Each case: what is called, the argument it must name, and words that must be said.

NETWORK, WEIGHTS, X = small()
OTHER = ref.Problem("", 4, (5, 2), 7).arrays(jnp.float32)[1]
DEEPER = ref.Problem("", 4, (5, 3, 2), 7).arrays(jnp.float32)[1]


def run(network=NETWORK, weights=WEIGHTS, x=X, method=EULER, **span):
    return ska.simulate(network, weights, x, method, **(span or {"steps": 2}))


def adaptive(**span):
    return run(method=ska.Adaptive(), **span)


def published(**span):
    return run(method=ska.Published(0.1), **span)


BAD = {
    "labels": (lambda: run(x=np.arange(7)), "x", "floating-point", "int"),
    "integer images": (lambda: run(x=np.ones((7, 4), np.uint8)), "x", "floating-point", "uint8"),
    "booleans": (lambda: run(x=np.ones((7, 4), bool)), "x", "floating-point", "bool"),
    "complex": (lambda: run(x=np.ones((7, 4), np.complex64)), "x", "floating-point", "complex64"),
    "no batch": (lambda: run(x=np.ones(4, np.float32)), "x", "(samples, inputs)", "(4,)"),
    "images": (
        lambda: run(x=np.ones((7, 2, 2), np.float32)),
        "x",
        "(samples, inputs)",
        "(7, 2, 2)",
    ),
    "empty batch": (lambda: run(x=np.ones((0, 4), np.float32)), "x", "non-empty", "(0, 4)"),
    "no inputs": (lambda: run(x=np.ones((7, 0), np.float32)), "x", "non-empty", "(7, 0)"),
    "nan in x": (
        lambda: run(x=X.at[1, 2].set(jnp.nan)),
        "x",
        "finite",
        "1 NaN or infinite value, the first at [1, 2]",
    ),
    "inf in x": (
        lambda: run(x=X.at[:2, 2].set(jnp.inf)),
        "x",
        "finite",
        "2 NaN or infinite values, the first at [0, 2]",
    ),
    "weights for x": (
        lambda: run(x=WEIGHTS, weights=X),
        "x",
        "array",
        "(are weights and x swapped?)",
    ),
    "a name like one": (
        lambda: run(observe=("entrpy",), steps=2),
        "observe",
        "names",
        "did you mean 'entropy'?",
    ),
    "x is text": (lambda: run(x="abc"), "x", "array of numbers", "str"),
    "x is nothing": (lambda: run(x=None), "x", "array of numbers", "None"),
    "ragged x": (lambda: run(x=[[1.0, 2.0], [3.0]]), "x", "array of numbers", "list"),
    "x too wide": (lambda: run(x=np.ones((7, 5), np.float32)), "weights", "(5, 5)", "(4, 5)"),
    "a list of weights": (lambda: run(weights=list(WEIGHTS)), "weights", "tuple", "list"),
    "weights of fewer layers": (lambda: run(weights=WEIGHTS[:1]), "weights", "2 layers", "of 1"),
    "weights of more layers": (lambda: run(weights=DEEPER), "weights", "2 layers", "of 3"),
    "weights of another network": (lambda: run(weights=OTHER), "weights", "(5, 3)", "(5, 2)"),
    "bare matrices": (
        lambda: run(weights=tuple(w.W for w in WEIGHTS)),
        "weights",
        "network.init",
        "layer 1 was",
    ),
    "weights of another precision": (
        lambda: run(weights=jax.tree.map(lambda w: w.astype(jnp.float16), WEIGHTS)),
        "weights",
        "float32",
        "float16",
    ),
    "integer weights": (
        lambda: run(weights=jax.tree.map(lambda w: w.astype(jnp.int32), WEIGHTS)),
        "weights",
        "float32",
        "int32",
    ),
    "nan in weights": (
        lambda: run(weights=replaced(WEIGHTS, 1, WEIGHTS[1].W.at[0, 0].set(jnp.nan))),
        "weights",
        "finite",
        "layer 2's W",
    ),
    "inf in weights": (
        lambda: run(weights=replaced(WEIGHTS, 0, WEIGHTS[0].W.at[0].set(jnp.inf))),
        "weights",
        "finite",
        "layer 1's W",
    ),
    "weights are text": (lambda: run(weights=("text", "text")), "weights", "array", "str"),
    "no network": (lambda: run(network=[3]), "network", "Network", "[3]"),
    "no method": (lambda: run(method=0.1), "method", "Euler(0.01)", "0.1"),
    "a method's class": (lambda: run(method=ska.Euler), "method", "Euler(0.01)", "class"),
    "dt = 0": (lambda: ska.Euler(0.0), "dt", "positive", "0.0"),
    "dt < 0": (lambda: ska.Published(-0.1), "dt", "positive", "-0.1"),
    "dt is nan": (lambda: ska.Euler(float("nan")), "dt", "finite", "nan"),
    "dt is inf": (lambda: ska.Published(float("inf")), "dt", "finite", "inf"),
    "dt is text": (lambda: ska.Euler("0.1"), "dt", "positive", "'0.1'"),
    "dt is true": (lambda: ska.Euler(True), "dt", "positive", "True"),
    "dt is an array": (lambda: ska.Euler(jnp.ones(2)), "dt", "positive", "Array"),
    "t1 = 0": (lambda: run(t1=0.0), "t1", "positive", "0.0"),
    "t1 < 0": (lambda: published(t1=-1.0), "t1", "positive", "-1.0"),
    "t1 < 0, adaptive": (lambda: adaptive(t1=-1.0), "t1", "positive", "-1.0"),
    "t1 is nan": (lambda: adaptive(t1=float("nan")), "t1", "finite", "nan"),
    "t1 is no whole number of steps": (lambda: run(t1=0.55), "t1", "whole number", "5.5"),
    "t1 a little off": (lambda: published(t1=0.5002), "t1", "whole number", "5.002"),
    "t1 shorter than a step": (lambda: run(t1=0.04), "t1", "whole number", "0.4"),
    "t1 and steps": (lambda: run(t1=0.2, steps=2), "t1", "not both", "steps=2"),
    "neither t1 nor steps": (lambda: run(t1=None), "t1", "steps", "None"),
    "no steps": (lambda: run(steps=0), "steps", "at least 1", "0"),
    "half a step": (lambda: run(steps=1.5), "steps", "whole number", "1.5"),
    "steps is true": (lambda: run(steps=True), "steps", "whole number", "True"),
    "a single pass": (lambda: published(steps=1), "steps", "at least 2", "1"),
    "a single pass, by t1": (lambda: published(t1=0.1), "t1", "at least 2", "1"),
    "t1 with descent": (lambda: run(method=SGD, t1=0.2), "t1", "left out", "learning rates"),
    "descent without steps": (lambda: run(method=SGD, t1=None), "steps", "whole number", "None"),
    "steps with adaptive": (lambda: adaptive(t1=0.2, steps=2), "steps", "left out", "controller"),
    "adaptive without t1": (lambda: adaptive(t1=None), "t1", "given", "None"),
    "save_at with euler": (lambda: run(t1=0.2, save_at=[0.1]), "save_at", "left out", "every step"),
    "save_at beyond t1": (
        lambda: adaptive(t1=0.5, save_at=[0.1, 0.6]),
        "save_at",
        "[0, 0.5]",
        "0.6",
    ),
    "save_at before 0": (
        lambda: adaptive(t1=0.5, save_at=[-0.1, 0.2]),
        "save_at",
        "[0, 0.5]",
        "-0.1",
    ),
    "save_at unsorted": (
        lambda: adaptive(t1=0.5, save_at=[0.3, 0.2]),
        "save_at",
        "increase",
        "0.3",
    ),
    "save_at twice": (lambda: adaptive(t1=0.5, save_at=[0.2, 0.2]), "save_at", "increase", "0.2"),
    "save_at empty": (lambda: adaptive(t1=0.5, save_at=[]), "save_at", "at least one", "(0,)"),
    "save_at a number": (lambda: adaptive(t1=0.5, save_at=0.2), "save_at", "sequence", "()"),
    "save_at nan": (lambda: adaptive(t1=0.5, save_at=[0.1, np.nan]), "save_at", "increase", "nan"),
    "save_at text": (lambda: adaptive(t1=0.5, save_at="now"), "save_at", "'end'", "'now'"),
    "rtol = 0": (lambda: ska.Adaptive(rtol=0.0), "rtol", "positive", "0.0"),
    "a controller's rtol < 0": (
        lambda: ska.Adaptive(controller=diffrax.PIDController(rtol=-1e-3, atol=1e-6)),
        "controller",
        "not negative",
        "rtol=-0.001",
    ),
    "a controller without tolerances": (
        lambda: ska.Adaptive(controller=diffrax.PIDController(rtol=0.0, atol=0.0)),
        "controller",
        "not both 0",
        "rtol=0.0",
    ),
    "atol < 0": (lambda: ska.Adaptive(atol=-1e-3), "atol", "positive", "-0.001"),
    "dt0 = 0": (lambda: ska.Adaptive(dt0=0.0), "dt0", "positive", "0.0"),
    "max_steps = 0": (lambda: ska.Adaptive(max_steps=0), "max_steps", "at least 1", "0"),
    "constant steps of what size": (
        lambda: ska.Adaptive(controller=CONSTANT),
        "dt0",
        "given",
        "None",
    ),
    "two tolerances": (
        lambda: ska.Adaptive(controller=diffrax.PIDController(1e-3, 1e-3), rtol=1e-4),
        "controller",
        "without rtol",
        "0.0001",
    ),
    "no controller": (lambda: ska.Adaptive(controller=0.1), "controller", "Diffrax", "0.1"),
    "no solver": (lambda: ska.Adaptive("Tsit5"), "solver", "Diffrax", "Tsit5"),
    "a solver's class": (lambda: ska.Adaptive(diffrax.Tsit5), "solver", "Diffrax", "Tsit5"),
    "a learning rate for an optimiser": (lambda: ska.Descent(0.1), "optimiser", "Optax", "0.1"),
    "an optimiser's maker": (lambda: ska.Descent(optax.sgd), "optimiser", "Optax", "sgd"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case, untyped):
    function, argument, must, but = BAD[case]
    with pytest.raises(ValueError) as error:
        function()
    message = str(error.value)
    assert message.startswith(f"Argument {argument} must ")
    promise, _, fact = message.rpartition(", but ")
    assert must in promise, message
    assert but in fact or but in promise, message
    assert message.endswith((".", ")."))


@pytest.mark.parametrize(
    ("span", "steps"),
    [
        ({"t1": 0.3}, 3),  # 0.3 / 0.1 = 2.9999999999999996
        ({"t1": 1}, 10),
        ({"t1": np.float32(0.7)}, 7),
        ({"t1": jnp.float32(0.6)}, 6),
        ({"steps": np.int64(4)}, 4),
    ],
    ids=str,
)
def test_whole_numbers_of_steps_are_recognised_in_spite_of_rounding(span, steps, untyped):
    assert run(**span).t.shape == (steps + 1,)
    assert published(**span).t.shape == (steps - 1,)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray, lambda a: np.asarray(a).tolist()])
def test_inputs_and_weights_from_outside(kind, untyped):
    given = run(x=kind(X), weights=jax.tree.map(np.asarray, WEIGHTS))
    np.testing.assert_array_equal(given.entropy, run().entropy)


# Runs that cannot go on.


def assert_finite(tree):
    for path, leaf in jax.tree.leaves_with_path(tree):
        assert np.isfinite(np.asarray(leaf)).all(), jax.tree_util.keystr(path)


def constant(dt):
    return ska.Adaptive(controller=CONSTANT, dt0=dt)


OVERFLOWS = {
    # At once, from a good start.
    "euler": (ska.Euler(1e37), {"steps": 5}, 1.0),
    "published": (ska.Published(1e37), {"steps": 5}, 1.0),
    "published, in its only update": (ska.Published(1e37), {"steps": 2}, 1.0),
    "descent": (WILD, {"steps": 5}, 1.0),
    "constant steps": (constant(1e37), {"t1": 1e38, "save_at": [0.0, 1e38]}, 1.0),
    "constant steps, nothing saved before": (
        constant(1e37),
        {"t1": 1e38, "save_at": [9e37, 1e38]},
        1.0,
    ),
    # Where ‖Z‖² overflows and Z does not.
    "euler, norms only": (ska.Euler(1e20), {"steps": 5}, 1.0),
    "published, norms only": (ska.Published(1e20), {"steps": 5}, 1.0),
    # Before the first step: inputs whose knowledge has no norm in float32.
    "euler, huge inputs": (EULER, {"steps": 5}, 1e25),
    "published, huge inputs": (ska.Published(0.1), {"steps": 5}, 1e37),
    "descent, huge inputs": (WILD, {"steps": 5}, 1e37),
    "controller, huge inputs": (ska.Adaptive(), {"t1": 0.5, "save_at": [0.0, 0.5]}, 1e37),
    "constant steps, huge inputs": (constant(0.1), {"t1": 0.5, "save_at": [0.0, 0.5]}, 1e25),
}


@pytest.mark.parametrize("case", OVERFLOWS)
def test_a_run_that_overflows_says_when_and_where_and_what_to_try(case):
    method, span, scale = OVERFLOWS[case]
    result = ska.simulate(NETWORK, WEIGHTS, scale * X, method, **span)
    assert not bool(result.outcome.completed)
    message = str(result.outcome)
    assert message.startswith("diverged: layer 1 overflowed")
    for word in (f"t = {float(result.outcome.t):.6g}", "Try", "smaller dt", "float64"):
        assert word in message
    # What is returned is from before, and the state is where the last record was.
    records = {name: getattr(result, name) for name in ("t", *NAMES)}
    assert_finite(records)
    for name in NAMES:
        assert len(getattr(result, name)) == len(result.t)
    if scale == 1.0:
        assert_finite(result)
        assert result.final.t == 0 == result.outcome.t
        assert int(result.outcome.step) <= 1
        for got, want in zip(
            jax.tree.leaves(result.final.weights), jax.tree.leaves(WEIGHTS), strict=True
        ):
            np.testing.assert_array_equal(got, want)
    with pytest.raises(ska.RunFailed) as error:
        ska.simulate(NETWORK, WEIGHTS, scale * X, method, throw=True, **span)
    assert str(error.value) == message
    assert error.value.run.entropy.shape == result.entropy.shape


class Late(ska.Method):
    """Euler's method, whose steps from the time ``late`` on overflow."""

    dt: float
    late: float

    def step(self, system, now):
        rates = system.flow(now.t, now.weights)
        dt = jnp.where(now.t < self.late, self.dt, 1e36)
        return ska.Step(jax.tree.map(lambda w, v: w + dt * v, now.weights, rates), rates, rates)


@pytest.mark.parametrize("late", [1, 127, 128, 200])
def test_an_overflow_in_mid_run_keeps_what_came_before(late):
    network, weights, x = ref.SAMPLE.arrays(jnp.float32)
    dt = 1 / 128
    calm = ska.simulate(network, weights, x, Late(dt, 9.0), steps=late)
    wild = ska.simulate(network, weights, x, Late(dt, late * dt), steps=late + 60)
    assert str(wild.outcome).startswith("diverged: layer 1 overflowed")
    assert int(wild.outcome.step) == late + 1
    assert wild.t.shape == (late + 1,)
    assert_finite(wild)
    for got, want in zip(
        jax.tree.leaves((wild.t, wild.records, wild.final)),
        jax.tree.leaves((calm.t, calm.records, calm.final)),
        strict=True,
    ):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("method", [ska.Euler, ska.Published])
def test_inside_vmap_nothing_after_an_overflow_looks_like_a_result(method):
    lanes, few = jnp.array([0.1, 1e37, 1e20]), ("knowledge_norm", "output_mean")
    runs = jax.jit(jax.vmap(lambda dt: run(method=method(dt), steps=5, observe=few)))(lanes)
    np.testing.assert_array_equal(runs.outcome.completed, [True, False, False])
    np.testing.assert_array_equal(runs.outcome.layer, [0, 1, 1])
    alone = run(method=method(0.1), steps=5)
    for lane, dt in enumerate(lanes):
        failed = run(method=method(float(dt)), steps=5)
        kept = len(failed.t)
        np.testing.assert_array_equal(runs.outcome.t[lane], failed.outcome.t)
        np.testing.assert_array_equal(runs.outcome.step[lane], failed.outcome.step)
        for observable in few:
            values = np.asarray(runs[observable][lane])
            assert len(values) == len(alone.t)
            np.testing.assert_allclose(values[:kept], failed[observable], rtol=1e-5, atol=1e-5)
            assert np.isnan(values[kept:]).all(), observable


def test_inside_jit_nothing_after_an_overflow_looks_like_a_result():
    times, few = jnp.array([0.0, 1e36, 1e38]), ("knowledge_norm", "output_mean")
    result = jax.jit(lambda dt: run(method=constant(dt), t1=1e38, save_at=times, observe=few))(1e37)
    assert not bool(result.outcome.completed)
    assert result.outcome.t == 0  # the time of the last good record, as without jit
    assert int(result.outcome.layer) == 1
    for observable in few:
        values = np.asarray(result[observable])
        assert np.isfinite(values[0]).all(), observable
        assert np.isnan(values[1:]).all(), observable


def limited(dtmin):
    """A method of at most 5 steps, each at least dtmin long."""
    controller = diffrax.PIDController(rtol=1e-4, atol=1e-6, dtmin=dtmin, force_dtmin=False)
    return ska.Adaptive(controller=controller, dt0=0.5, max_steps=5)


TWO = {"t1": 50.0, "save_at": [0.5, 50.0], "observe": ("entropy", "flow_norm", "tensor_net")}


def test_a_run_out_of_steps_holds_what_it_reached():
    result = run(method=limited(1e-6), **TWO)
    message = str(result.outcome)
    assert message.startswith(f"stopped at t = {float(result.final.t):.6g}")
    for word in ("max_steps = 5", "Try a larger max_steps"):
        assert word in message
    assert not bool(result.outcome.completed)
    assert int(result.stats.steps) == int(result.outcome.step) == 5
    assert 0.5 < float(result.final.t) == float(result.outcome.t) < 50
    np.testing.assert_array_equal(result.t, [0.5])
    assert_finite(result)
    whole = run(method=ska.Adaptive(rtol=1e-5, atol=1e-6), **TWO)
    for name in whole.records:
        np.testing.assert_allclose(result[name][0], whole[name][0], rtol=1e-3, atol=1e-3)


def test_steps_below_the_controllers_minimum():
    result = run(x=30 * X, method=limited(0.4), **TWO)
    message = str(result.outcome)
    assert not bool(result.outcome.completed)
    for word in ("stopped at t = ", "minimum", "Try"):
        assert word in message
    assert_finite(result)


def test_a_completed_run_says_so():
    result = run(t1=0.3)
    assert str(result.outcome) == "completed: reached t = 0.3"
    assert bool(result.outcome.completed)
    assert int(result.outcome.layer) == 0
    with pytest.raises(ValueError, match="Argument throw must be False inside jit"):
        jax.jit(lambda w: ska.simulate(NETWORK, w, X, EULER, steps=2, throw=True))(WEIGHTS)


# Compilation.


AGAIN = {
    "euler": [
        (ska.Euler(0.1), {"t1": 0.5}),
        (ska.Euler(0.02), {"t1": 3.0}),
        (ska.Euler(1), {"steps": 300}),
    ],
    "published": [
        (ska.Published(0.1), {"t1": 0.5}),
        (ska.Published(0.02), {"t1": 3.0}),
        (ska.Published(jnp.float32(0.3)), {"steps": 200}),
    ],
    "adaptive": [
        (ska.Adaptive(rtol=1e-3, atol=1e-5), {"t1": 0.5, "save_at": [0.1, 0.5]}),
        (ska.Adaptive(rtol=1e-5, atol=1e-6), {"t1": 2.0, "save_at": [0.0, 1.5]}),
        (ska.Adaptive(rtol=1e-4), {"t1": 1, "save_at": np.array([0.0, 1.0])}),
    ],
    "constant steps": [
        (constant(0.1), {"t1": 0.5, "save_at": [0.1, 0.5]}),
        (constant(0.05), {"t1": 1.5, "save_at": [0.0, 0.7]}),
    ],
    "descent": [(SGD, {"steps": 5}), (SGD, {"steps": 300})],
}


@pytest.mark.parametrize("name", AGAIN)
def test_other_numbers_compile_nothing(name, compilations):
    first, *others = AGAIN[name]
    _, other_weights, other_x = ref.Problem("", 4, (5, 3), 7, seed=1).arrays(jnp.float32)
    run(method=first[0], **first[1])
    with compilations() as found:
        for method, span in others:
            assert bool(run(method=method, **span).outcome.completed)
        run(weights=other_weights, x=other_x, method=first[0], **first[1])
        run(network=ska.mlp([5, 3], scale=0.7), method=first[0], **first[1])
    assert found == []
    with compilations() as found:
        jax.jit(lambda a: a + 1)(X)
    assert len(found) == 1  # or the count above counted nothing


RULE = ska.stop.FlowConverged(0.01)
MANY = {
    "euler": (ska.Euler(0.01), RULE, {"steps": 300}, "jit(_steps)"),
    "published": (ska.Published(0.01), None, {"steps": 300}, "jit(_steps)"),
    "descent": (SGD, RULE, {"steps": 300}, "jit(_steps)"),
    "own": (own_parts.Heun(0.01), None, {"steps": 300}, "jit(_steps)"),
    "adaptive": (constant(0.01), RULE, {"t1": 2.0}, "jit(advance)"),
    "its steps": (constant(0.01), None, {"t1": 2.0, "save_at": "steps"}, "jit(advance)"),
}
"""Runs of several chunks."""


@pytest.mark.parametrize("name", MANY)
def test_a_loop_is_compiled_once(name, compilations):
    method, rule, span, loop = MANY[name]
    # A network of this test's own, so that nothing was compiled before.
    network, weights, x = ref.Problem("", 6, (5, 4), 9).arrays(jnp.float32)
    with compilations() as found:
        first = ska.simulate(
            network, weights, x, method, until=rule, observe=("flow_norm",), **span
        )
        assert int(first.stats.steps) > 100  # several chunks
    assert found.count(loop) == 1
    # What was compiled is gone on with.
    longer = {"steps": 350} if "steps" in span else {"t1": 2.5}
    with compilations() as found:
        ska.extend(first, until=rule, **longer)
    assert loop not in found


# Memory.


@pytest.mark.parametrize("method", [ska.Euler(0.01), ska.Published(0.01)], ids=lambda m: m.name)
def test_a_compiled_run_holds_its_records_and_no_more(method):
    observe = ("entropy", "flow_norm", "tensor_net", "output_mean")

    def program(steps):
        function = jax.jit(lambda w, x: run(NETWORK, w, x, method, steps=steps, observe=observe))
        return function.lower(WEIGHTS, X).compile().memory_analysis()

    few, many = program(50), program(5000)
    # 3 observables of 2 layers, 3 outputs and t, in float32.
    record = 4 * (3 * 2 + 3 + 1)
    assert many.output_size_in_bytes - few.output_size_in_bytes <= 4950 * record * 1.01
    # While it runs: the records once more, before they are put together.
    assert many.temp_size_in_bytes - few.temp_size_in_bytes <= 4950 * record * 2


def test_recording_2000_steps_takes_no_more_memory_than_50_but_for_the_records():
    # In a process of its own, as the high-water mark of memory only rises.
    program = """
        import resource, jax, jax.numpy as jnp, numpy as np, skajax as ska

        network = ska.mlp([128, 16])
        x = jnp.asarray(np.random.default_rng(0).uniform(size=(32, 128)), jnp.float32)
        weights = tuple(
            ska.DenseWeights(jnp.full((128, n), 0.01), jnp.zeros(n)) for n in (128, 16)
        )

        def peak(steps):
            run = ska.simulate(network, weights, x, ska.Euler(1e-4), steps=steps, observe=("entropy",))
            assert len(run.t) == steps + 1
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        peak(200)
        before = peak(50)
        print(peak(2000) - before)
    """
    output = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    kilobytes = int(output.stdout)
    # The records are 2000 · 12 bytes, 24 kB, held up to three times while they are gathered.
    # One copy of the weights, Z or D a step would be 2000 · 20 to 80 kB, 40 to 160 MB.
    assert kilobytes < 20_000
