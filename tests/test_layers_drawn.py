"""The local flow of layers of shapes that hypothesis draws: autodiff with each layer's inputs held fixed."""

from functools import partial

import hypothesis
import jax
import layer_checks as checks
import numpy as np
import pytest
from hypothesis import strategies as st

import skajax as ska
from skajax.layers import Conv, GraphConv, Recurrent, SelfAttention

# A family's strategy draws two layers to be made, and the shape of what the first reads.
few, pair = st.integers(1, 3), lambda numbers: st.tuples(numbers, numbers)


@st.composite
def dense(draw):
    layers = tuple(partial(ska.Dense, draw(few), pointwise=True) for _ in "ab")
    return layers, (draw(few), *draw(st.lists(few, max_size=2)), draw(few))


@st.composite
def conv(draw):
    """The second reads what positions the first one leaves, of which there must be enough."""
    axes, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    several = lambda numbers: draw(st.tuples(*[numbers] * axes))
    layer = lambda padding: partial(
        Conv, groups * draw(few), several(few), strides=several(st.integers(1, 2)),
        dilation=several(st.integers(1, 2)), padding=padding, groups=groups,
    )  # fmt: skip
    edges = tuple(draw(pair(st.integers(0, 2))) for _ in range(axes))
    paddings = draw(st.sampled_from([("VALID", "SAME"), ("SAME", "SAME"), (edges, "SAME")]))
    x = (draw(few), *several(st.integers(5, 7)), groups * draw(few))
    return tuple(map(layer, paddings)), x


@st.composite
def recurrent(draw):
    layer = lambda: partial(Recurrent, draw(few), gated=draw(st.booleans()), window=draw(few))
    return (layer(), layer()), (draw(few), draw(st.integers(1, 5)), draw(few))


@st.composite
def graph(draw):
    nodes = draw(st.integers(1, 6))
    edges = draw(st.lists(pair(st.integers(0, nodes - 1)), max_size=8))
    layer = lambda: partial(
        GraphConv, draw(few), np.array(edges, int).reshape(-1, 2), nodes,
        kind=draw(st.sampled_from(["symmetric", "mean", "attention"])),
        undirected=draw(st.booleans()), self_loops=draw(st.booleans()),
    )  # fmt: skip
    return (layer(), layer()), (nodes, draw(few))


@st.composite
def attention(draw):
    samples, times = draw(few), draw(st.integers(1, 5))
    lengths = draw(st.lists(st.integers(1, times), min_size=samples, max_size=samples))
    mask = draw(st.sampled_from([None, np.arange(times) < np.array(lengths)[:, None]]))

    def layer():
        heads = draw(few)
        return partial(
            SelfAttention, heads * draw(few), heads, causal=draw(st.booleans()), mask=mask
        )

    return (layer(), layer()), (samples, times, draw(few))


@pytest.mark.parametrize("family", [dense, conv, recurrent, graph, attention])
def test_the_local_flow_is_autodiff_with_inputs_held_fixed(x64, family):
    @hypothesis.settings(max_examples=5)
    @hypothesis.given(drawn=family(), seed=st.integers(0, 10**6))
    def check(drawn, seed):
        layers, shape = drawn
        network, rng = ska.Network(tuple(make() for make in layers)), np.random.default_rng(seed)
        x = jax.numpy.asarray(rng.normal(size=shape))
        start = network.init(jax.random.key(0), x)
        weights = jax.tree.map(lambda w: jax.numpy.asarray(rng.normal(size=w.shape)), start)
        velocity = jax.jit(lambda w: ska.flow(network, w, x))(weights)
        checks.check_local_flow(network, weights, x, velocity)

    check()
