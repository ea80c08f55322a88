"""Runs, and the exceptions that carry them, cross processes by the caller's own pickle."""

import copy
import multiprocessing
import pickle

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference as ref

import skajax as ska
from skajax import stop

RUNS = {
    "Euler": (ska.Euler(0.1), {"steps": 3}),
    "Published": (ska.Published(0.1), {"steps": 3}),
    "Adaptive": (ska.Adaptive(rtol=1e-3), {"t1": 0.5, "save_at": "steps"}),
    "dense, with a rule": (
        ska.Adaptive(rtol=1e-3),
        {"t1": 0.5, "dense": True, "until": stop.FlowConverged(0.1)},
    ),
    "SGD": (ska.Descent(optax.sgd(0.1)), {"steps": 3}),
    "noise": (ska.Descent(optax.noisy_sgd(0.1, key=jax.random.key(0))), {"steps": 3}),
}
ONWARDS = {"steps": 5, "t1": 0.8}


def simulated(name, **options):
    method, span = RUNS[name]
    network, weights, x = ref.SMALL.arrays(jnp.float32)
    return ska.simulate(network, weights, x, method, observe=("entropy",), **span, **options)


def extended(run, name):
    given = RUNS[name][1]
    onwards = {key: ONWARDS[key] for key in given if key in ONWARDS}
    return ska.extend(run, **onwards, until=given.get("until"))


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (got.path is None) == (want.path is None)
    for a, b in zip(jax.tree.leaves(got.path), jax.tree.leaves(want.path), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_the_same_after_pickling_and_copying(name):
    run = simulated(name)
    for pickler in (pickle, cloudpickle):
        back = pickle.loads(pickler.dumps(run))
        assert_same(back, run)
        assert back.dense == run.dense
        if isinstance(RUNS[name][0], ska.Descent):
            for late in (back, copy.deepcopy(back)):
                with pytest.raises(
                    ValueError, match=r"Argument run must .* it was pickled, and its"
                ):
                    extended(late, name)
    copied = copy.deepcopy(run)
    assert_same(copied, run)
    assert_same(extended(copied, name), extended(run, name))


def test_what_a_method_that_pickles_goes_on_from_is_pickled():
    for name in ("Euler", "dense, with a rule"):
        run = simulated(name)
        back = pickle.loads(pickle.dumps(run))
        assert_same(extended(back, name), extended(run, name))
    np.testing.assert_array_equal(back.at(0.2).Z[0], run.at(0.2).Z[0])


def fail(name):
    """In another process: a run that fails raises."""
    network, weights, x = ref.SMALL.arrays(jnp.float32)
    method = {"SGD": ska.Descent(optax.sgd(1e37)), "Euler": ska.Euler(1e37)}[name]
    return ska.simulate(network, weights, x, method, steps=5, throw=True, observe=("entropy",))


def test_a_failure_is_the_same_after_pickling():
    with pytest.raises(ska.RunFailed) as caught:
        fail("SGD")
    for error in (pickle.loads(pickle.dumps(caught.value)), copy.deepcopy(caught.value)):
        assert type(error) is ska.RunFailed
        assert str(error) == str(caught.value)
        assert_same(error.run, caught.value.run)


def test_results_and_failures_come_from_other_processes():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        run = pool.apply(simulated, ("SGD",))
        with pytest.raises(ska.RunFailed, match="diverged") as caught:
            pool.apply(fail, ("SGD",))
    np.testing.assert_allclose(run.entropy, simulated("SGD").entropy, rtol=1e-6)
    assert int(caught.value.run.outcome.layer) >= 1
