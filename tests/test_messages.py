"""What is said beside results: runs that begin saturated, the size of dense runs; and NaN that is meant."""

import importlib
import logging
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import skajax as ska
from skajax import _messages, _saturation, stop

X = jax.random.uniform(jax.random.key(0), (6, 4))
EDGE = 1.5434046384182084  # z tanh(z/2) = 1, where z D'(z) is largest


def with_knowledge(*biases):
    """Layers in which all knowledge is one number at t = 0."""
    network = ska.mlp([5] * len(biases), scale=0.0, bias=biases)
    return network, network.init(jax.random.key(1), X)


METHODS = {
    "Euler": (ska.Euler(0.1), {"steps": 3}),
    "Published": (ska.Published(0.1), {"steps": 3}),
    "Descent": (ska.Descent(optax.sgd(0.1)), {"steps": 3}),
    "Adaptive": (ska.Adaptive(), {"t1": 0.1}),
    "Adaptive, its end": (ska.Adaptive(), {"t1": 0.1, "save_at": "end"}),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_begins_saturated_says_so_once_at_the_callers_line(name):
    method, span = METHODS[name]
    said = (
        r"^layer 2 begins saturated: its decisions hold 0.67 bit of entropy each .* try a smaller"
    )
    with pytest.warns(ska.SkajaxWarning, match=said) as caught:
        ska.simulate(*with_knowledge(0.1, 1.01 * EDGE), X, method, observe=(), **span)
    assert [each.filename for each in caught] == [__file__]
    # Here warnings are errors.
    ska.simulate(*with_knowledge(0.1, -0.99 * EDGE), X, method, observe=(), **span)


def test_all_layers_that_do_are_named():
    with pytest.warns(ska.SkajaxWarning, match=r"^layers 1, 2 and 4 begin .* layer 1's decisions"):
        ska.simulate(*with_knowledge(3.0, 3.0, 0.0, 3.0), X, ska.Euler(0.1), steps=2, observe=())


def test_pixel_values_are_recognised():
    network = ska.mlp([5], scale=0.05)
    weights = network.init(jax.random.key(0), X)
    pixels = jnp.round(255 * X)
    run = lambda x: ska.simulate(network, weights, x, ska.Euler(0.1), steps=2, observe=())
    with pytest.warns(ska.SkajaxWarning, match="max .x. is 2.*: x / 255 brings pixel values into"):
        run(pixels)
    with pytest.warns(ska.SkajaxWarning, match=r"max .x. is 3.*e.03\.$"):
        run(4000 * X)
    run(pixels / 255)


@pytest.mark.parametrize("decisions", [2**20, 100])
def test_the_rule_looks_at_the_mean_of_all_samples_or_of_evenly_spaced_ones(decisions, monkeypatch):
    # A third of the samples is undecided: a third of a bit each.
    monkeypatch.setattr(_saturation, "DECISIONS", decisions)
    network = ska.mlp([5])
    x = jnp.tile(jnp.array([[0.0], [40.0], [-40.0]]), (25, 1))
    weights = (ska.DenseWeights(jnp.ones((1, 5)), jnp.zeros(5)),)
    with pytest.warns(ska.SkajaxWarning, match=r"hold 0\.3[2-7] bit"):
        ska.simulate(network, weights, x, ska.Euler(0.1), steps=2, observe=())


def test_nothing_is_said_where_values_are_not_known():
    network, weights = with_knowledge(3.0)
    observe = {"observe": ("entropy",)}
    run = lambda w: ska.simulate(network, w, X, ska.Euler(0.1), steps=2, **observe).entropy
    jax.jit(run)(weights)
    jax.vmap(run)(jax.tree.map(lambda w: w[None], weights))
    jax.grad(lambda w: run(w)[-1].sum())(weights)


def test_looking_compiles_nothing(monkeypatch, compilations):
    network, weights = with_knowledge(0.1, 0.1)
    module, counts = importlib.import_module("skajax._simulate"), []
    silent = lambda *_: None
    for look in (silent, silent, module.warn_saturated):
        monkeypatch.setattr(module, "warn_saturated", look)
        jax.clear_caches()
        with compilations() as found:
            ska.simulate(network, weights, X, ska.Euler(0.1), steps=2, observe=())
        counts.append(len(found))
    assert counts[1] == counts[2] > 0


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_sweep_says_it_once_with_the_count_of_lanes(at_once):
    lanes = {
        "over": ska.grid(bias=[0.0, 2.0, 0.5, 1.6]),
        "at_once": at_once,
        "observe": ("entropy",),
    }
    weights = lambda bias: with_knowledge(0.0, bias)[1]
    network = with_knowledge(0.0, 0.0)[0]
    said = (
        "^2 of 4 lanes begin saturated, the first of them lane 1: its layer 2's decisions hold 0.53"
    )
    with pytest.warns(ska.SkajaxWarning, match=said) as caught:
        data = ska.sweep(network, weights, X, ska.Euler(0.1), steps=2, **lanes)
    assert [each.filename for each in caught] == [__file__]
    assert (data["outcome_code"] == 0).all()


def test_it_can_be_switched_off():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ska.SkajaxWarning)
        ska.simulate(*with_knowledge(3.0), X, ska.Euler(0.1), steps=2, observe=())


def test_how_much_a_dense_run_keeps_is_said_once_by_the_logger(caplog, capfd):
    _messages.tell_once.cache_clear()
    network, weights = with_knowledge(0.1)
    with caplog.at_level(logging.WARNING, "skajax"):
        for _ in range(2):
            ska.simulate(network, weights, X, ska.Adaptive(), t1=0.1, dense=True, observe=())
    said = [each.message for each in caplog.records if each.name == "skajax"]
    assert len(said) == 1 and "keeps the weights of every step, 100 bytes each" in said[0]
    assert capfd.readouterr().err == ""


def test_nan_that_is_meant_is_no_mistake():
    # Outside of jit there is none; inside, what comes after a stop is NaN, and JAX's check can be lifted.
    network = ska.mlp([5], scale=0.3)
    weights, rule = network.init(jax.random.key(1), X), stop.FlowConverged(0.9)
    asked = {"until": rule, "observe": ("entropy",)}
    for method, span in ((ska.Euler(0.2), {"steps": 60}), (ska.Adaptive(), {"t1": 12.0})):
        run = lambda w, m=method, s=span: ska.simulate(network, w, X, m, **asked, **s)
        with jax.debug_nans(True):
            outside = run(weights)
            with jax.debug_nans(False):
                inside = jax.jit(run)(weights)
        assert bool(outside.outcome.stopped) and bool(inside.outcome.stopped)
        assert np.isfinite(outside.entropy).all() and np.isnan(inside.entropy).any()
