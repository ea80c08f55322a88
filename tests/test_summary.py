"""What is printed of a result, and what help says of it."""

import html
import pydoc
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import skajax as ska
from skajax.observables import PAPER

NETWORK = ska.mlp([6, 4], scale=0.3)
X = jax.random.uniform(jax.random.key(0), (10, 8))
WEIGHTS = NETWORK.init(jax.random.key(1), X)


def numbers(text, name):
    """The numbers of a table's row."""
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return [float(number) for number in line.removeprefix(name).split()]


def test_a_run_is_summed_up():
    run = ska.simulate(NETWORK, WEIGHTS, X, ska.Adaptive(rtol=1e-5), 6.0)
    text = str(run)
    lines = text.splitlines()
    assert lines[0] == "Adaptive(Tsit5, PIDController): atol = 1e-06, rtol = 1e-05, float32"
    assert lines[1] == f"101 records, {run.outcome}"
    assert lines[2] == str(run.stats)
    assert len(lines) == 6
    assert numbers(text, "layer") == [1, 2]
    at = np.asarray(run.flow_norm).argmax(axis=0)
    np.testing.assert_allclose(numbers(text, "flow largest at t"), run.t[at], rtol=1e-3)
    left = run.entropy[-1] / run.entropy[0]
    np.testing.assert_allclose(numbers(text, "entropy left"), left, rtol=1e-2)


def test_a_notebook_shows_a_table_of_the_same():
    run = ska.simulate(NETWORK, WEIGHTS, X, ska.Euler(0.1), steps=3)
    shown = run._repr_html_()
    cells = [html.unescape(cell) for cell in re.findall(r"<t[hd]>(.*?)</t[hd]>", shown)]
    words = [re.split(r"\s{2,}", line) for line in str(run).splitlines()[-3:]]
    assert cells == [word for line in words for word in line]
    assert html.escape(str(run.outcome)) in shown


def test_the_published_rule_says_why_its_end_lies_a_step_before():
    run = ska.simulate(NETWORK, WEIGHTS, X, ska.Published(0.1), 0.5)
    told = "completed: reached t = 0.4 (K passes make K - 1 steps)"
    assert str(run.outcome) == told and told in str(run)
    assert str(jax.jit(lambda w: ska.simulate(NETWORK, w, X, ska.Published(0.1), steps=5))(
        WEIGHTS
    ).outcome) == told  # fmt: skip


def test_a_peak_at_an_edge_of_the_run_is_told_as_one():
    run = ska.simulate(NETWORK, WEIGHTS, X, ska.Euler(0.1), steps=3, observe=("flow_norm",))
    told = lambda *flows: str(run.replace(flow_norm=jnp.array(flows).T)).splitlines()
    rising, falling, peaked = [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], [1.0, 4.0, 3.0, 2.0]
    row = lambda lines: re.split(r"\s{2,}", lines[-1])
    assert row(told(rising, peaked)) == ["flow largest at t", "> 0.3", "0.1"]
    assert row(told(falling, peaked)) == ["flow largest at t", "0 (start)", "0.1"]
    none = "no layer's flow has peaked within the run"
    assert not any(none in line for line in told(rising, peaked))
    assert told(falling, falling)[-3] == none
    assert told(falling, rising)[-3].startswith(none + ": a later t1 shows when")
    alone = run.replace(t=run.t[-1:], flow_norm=run.flow_norm[-1:])  # nothing to compare with
    assert "flow largest" not in str(alone)


def test_a_state_prints_as_shapes():
    final = ska.simulate(NETWORK, WEIGHTS, X, ska.Euler(0.1), steps=3, observe=()).final
    assert str(final).startswith("State(t=0.3, weights=(DenseWeights(W=f32[8,6], b=f32[6])")
    assert str(final).endswith("D=(f32[10,6], f32[10,4]))") and len(str(final)) < 300


def test_what_was_not_observed_is_not_told():
    run = ska.simulate(NETWORK, WEIGHTS, X, ska.Euler(0.1), steps=3, observe=())
    assert len(str(run).splitlines()) == 3
    run = ska.simulate(NETWORK, WEIGHTS, X, ska.Euler(0.1), steps=3, observe=("entropy",))
    assert "entropy left" in str(run) and "flow" not in str(run).splitlines()[-1]


def test_a_batch_of_runs_is_counted():
    lane = lambda s: ska.simulate(
        NETWORK, jax.tree.map(lambda w: s * w, WEIGHTS), X, ska.Euler(0.1), steps=3
    )
    text = str(jax.vmap(lane)(jnp.array([1.0, 2.0, 1e38])))
    assert "3 lanes of at most 4 records, 2 of them completed" in text


def test_inside_jit_it_is_the_pytree_that_it_is():
    printed = []
    jax.jit(lambda w: printed.append(str(ska.simulate(NETWORK, w, X, ska.Euler(0.1), steps=3))))(
        WEIGHTS
    )
    assert printed[0].startswith("Trajectory(")


def test_costs_in_words():
    run = ska.simulate(NETWORK, WEIGHTS, X, ska.Euler(0.1), steps=3)
    assert str(run.stats) == "3 steps; 3 evaluations of the flow"
    one = ska.simulate(NETWORK, WEIGHTS, X, ska.Euler(0.1), steps=1)
    assert str(one.stats) == "1 step; 1 evaluation of the flow"


def test_a_prediction_is_summed_up():
    found = ska.timescales.predict(NETWORK, WEIGHTS, X)
    text = str(found)
    np.testing.assert_allclose(numbers(text, "flow peaks at t"), found.peak, rtol=1e-3)
    np.testing.assert_allclose(numbers(text, "first growth rate"), found.rates, rtol=1e-3)
    assert "<table>" in found._repr_html_()


@pytest.mark.parametrize("observable", PAPER, ids=lambda o: o.name)
def test_help_defines_every_observable(observable):
    told = pydoc.render_doc(ska.Trajectory, renderer=pydoc.plaintext)
    assert f"``{observable.name}`` [{observable.unit}]: {observable.formula}" in told
