"""Counts of operations, words and energy: by hand in closed form, and against what XLA counts."""

import itertools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
import reference as ref

import skajax as ska
from skajax import costs

B, WIDTHS = 50, (200, 120, 90, 60)
MINE = costs.Costs(multiply_add=2.0, near=3.0, far=100.0, capacity=1e9)


def dense(costs=MINE, samples=B, widths=WIDTHS):
    network = ska.mlp(widths[1:])
    x = jax.ShapeDtypeStruct((samples, widths[0]), jnp.float32)
    return ska.summary(network, x, costs=costs).counts


def test_a_dense_stack_in_closed_form():
    found = dense()
    sizes = list(itertools.pairwise(WIDTHS))
    weights = sum(n * m + m for n, m in sizes)
    macs = [B * n * m for n, m in sizes]
    product = [B * n + n * m + B * m for n, m in sizes]
    moved = 2 * sum(product) + 2 * weights
    ska_, back, pipe = (found[rule] for rule in costs.RULES)
    assert ska_.operations == ska_.span == 2 * sum(macs) and ska_.moved == moved
    assert ska_.held == weights + max(B * (n + m) for n, m in sizes)
    assert back.operations == back.span == 3 * sum(macs) - macs[0]
    assert back.moved == moved + sum(product[1:])
    assert back.held == weights + B * sum(WIDTHS) + B * max(WIDTHS[1:])
    assert (pipe.operations, pipe.moved) == (ska_.operations, ska_.moved)
    assert pipe.span == 2 * max(macs)
    assert pipe.held == weights + sum(B * (n + m) for n, m in sizes)
    for each in found.values():
        assert each.energy == pytest.approx(1e-12 * (2 * each.operations + 3 * each.moved))
        assert each.per_time(0.01) == pytest.approx(100 * each.energy)


def test_what_does_not_fit_moves_far():
    """Between what SKA holds and what backpropagation does, only the latter pays for memory off the chip."""
    found = dense()
    between = (found["SKA"].held + found["backprop"].held) / 2
    there = dense(costs.Costs(2.0, 3.0, 100.0, between))
    assert there["SKA"].energy == found["SKA"].energy
    back = there["backprop"]
    assert back.energy == pytest.approx(1e-12 * (2 * back.operations + 100 * back.moved))


def test_backpropagation_needs_memory_in_proportion_to_depth_and_ska_does_not():
    deep = {depth: dense(widths=(64,) * (depth + 1), samples=1000) for depth in (4, 8, 16)}
    own = {d: 64 * 64 * d + 64 * d for d in deep}
    ska_ = {d: counts["SKA"].held - own[d] for d, counts in deep.items()}
    back = {d: counts["backprop"].held - own[d] for d, counts in deep.items()}
    assert ska_ == dict.fromkeys(deep, 2 * 64_000)
    assert back == {d: 64_000 * (d + 2) for d in deep}
    assert len({counts["pipeline"].span for counts in deep.values()}) == 1


def test_operations_are_those_that_xla_counts():
    """To 6 %: XLA counts elementwise functions too, at these widths some ten for each 2 · 90 of products."""
    x = jnp.zeros((B, WIDTHS[0]))
    network = ska.mlp(WIDTHS[1:])
    weights = network.init(jax.random.key(0), x)
    for rule, energy in (("SKA", None), ("backprop", ska.energies.Entropy(local=False))):
        step = jax.jit(lambda w, energy=energy: ska.flow(network, w, x, energy))
        counted = step.lower(weights).compile().cost_analysis()["flops"]
        assert counted == pytest.approx(2 * dense()[rule].operations, rel=0.06)
        assert counted > 2 * dense()[rule].operations


def test_convolutions_stages_and_routes_by_hand():
    images = jax.ShapeDtypeStruct((5, 8, 8, 2), jnp.float32)
    network = ska.Network(
        (
            ska.layers.Conv(3, (3, 3)), ska.layers.Pool(2), ska.layers.Flatten(),
            ska.layers.Residual((ska.Dense(27),)), ska.Dense(4),
        )
    )  # fmt: skip
    found = ska.summary(network, images, costs=MINE)
    counts, gives = found.counts, [np.prod(row.outputs) for row in found.rows]
    assert gives[0] == 5 * 6 * 6 * 3
    conv, square, last = gives[0] * 9 * 2, 5 * 27 * 27, 5 * 27 * 4
    assert counts["SKA"].operations == 2 * (conv + square + last)
    assert counts["backprop"].operations == 2 * conv + 3 * (square + last)
    assert counts["pipeline"].span == 2 * conv
    weights = found.total("parameters")
    reads = [np.prod(row.inputs) for row in found.rows]
    assert counts["SKA"].held == weights + max(a + b for a, b in zip(reads, gives, strict=True))
    assert counts["backprop"].held == weights + reads[0] + sum(gives) + max(gives)


def test_it_prints_and_draws():
    found = ska.summary(*ref.SMALL.arrays(jnp.float32)[::2], costs=costs.FLOAT32)
    text = str(found)
    assert "a step of SKA" in text and "a step of pipeline" in text
    row = ska.plot.costs(found)
    heights = [bar.get_height() for bar in row[3].patches]
    assert heights == [found.counts[rule].held for rule in costs.RULES]
    assert [label.get_text() for label in row[3].get_xticklabels()] == list(costs.RULES)
    row = ska.plot.costs(found, dt={"SKA": 0.01, "pipeline": 0.005})
    heights = [bar.get_height() for bar in row[4].patches]
    want = [found.counts["SKA"].per_time(0.01), found.counts["pipeline"].per_time(0.005)]
    np.testing.assert_allclose(heights, want)
    plt.close("all")


def test_what_does_not_fit(untyped):
    x = jnp.ones((2, 3))
    with pytest.raises(ValueError, match="Argument costs must be None or Costs"):
        ska.summary(ska.mlp([2]), x, costs=3)
    with pytest.raises(ValueError, match="Argument near must be a finite number, at least 0"):
        costs.Costs(1.0, -1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="Argument found must be what"):
        ska.plot.costs(ska.summary(ska.mlp([2]), x))
    priced = ska.summary(ska.mlp([2]), x, costs=MINE)
    with pytest.raises(ValueError, match="Argument dt must have names of"):
        ska.plot.costs(priced, dt={"Adam": 0.1})
