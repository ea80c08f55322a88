"""The table of a network: shapes, parameters, multiply-adds against counts by hand, and what is printed."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import own_parts as own
import pytest

import skajax as ska
from skajax._network_summary import multiply_adds
from skajax.layers import Embed, Flatten, Merge, Normalise, Pool, Residual


def test_a_dense_stack_by_hand():
    B, widths = 1000, [784, 256, 128, 64, 10]
    found = ska.summary(ska.mlp(widths[1:]), jax.ShapeDtypeStruct((B, 784), jnp.float32))
    assert [row.layer for row in found.rows] == [1, 2, 3, 4]
    for row, n, m in zip(found.rows, widths[:-1], widths[1:], strict=True):
        assert (row.name, row.inputs, row.outputs) == ("Dense", (B, n), (B, m))
        assert row.parameters == n * m + m and row.weight_bytes == 4 * row.parameters
        assert row.forward == B * n * m and row.flow == 2 * B * n * m
        assert row.knowledge_bytes == 4 * B * m
    # One flow evaluation of the paper's network: 8 matrix products, 0.97e9 operations.
    assert 2 * found.total("flow") == 8 * B * sum(n * m for n, m in itertools.pairwise(widths)) // 2


def test_layers_with_space_stages_and_routes(x64):
    x = jnp.ones((5, 6, 6, 2))
    network = ska.Network(
        (
            own.Convolution(3), Residual(own.Convolution(3, size=1)), Pool(2), Flatten(),
            Normalise(learned=True), ska.Dense(4),
        )
    )  # fmt: skip
    rows = ska.summary(network, x).rows
    assert [row.layer for row in rows] == [1, None, 2, None, None, None, None, 3]
    outputs = 5 * 4 * 4 * 3
    assert rows[0].forward == outputs * 9 * 2
    assert rows[0].outputs == (5, 4, 4, 3) and rows[0].knowledge_bytes == 8 * outputs
    # The kernel's gradient is a convolution with as many multiply-adds.
    assert rows[0].flow == 2 * rows[0].forward
    assert rows[2].forward == outputs * 3
    assert [row.forward for row in rows if row.layer is None] == [0] * 5
    assert rows[6].parameters == 24 and rows[5].outputs == (5, 12)
    assert rows[7].inputs == (5, 12) and rows[7].flow == 2 * 5 * 12 * 4
    weights = network.init(jax.random.key(0), x)
    assert sum(row.parameters for row in rows) == sum(w.size for w in jax.tree.leaves(weights))


def test_what_a_recurrence_repeats_is_counted_as_often():
    x = jnp.ones((5, 7, 3))
    row = ska.summary(ska.Network((own.Recurrent(4),)), x).rows[0]
    # Its inputs are computed by a scan, then its knowledge of all times at once: each x W and D V.
    assert row.forward == 2 * 5 * 7 * (3 * 4 + 4 * 4)


def test_programs_within_programs():
    a = jnp.ones((2, 3)), jnp.ones((3, 4))
    product = lambda a, b: a @ b
    assert multiply_adds(jax.make_jaxpr(product)(*a)) == 24
    assert multiply_adds(jax.make_jaxpr(jax.jit(product))(*a)) == 24
    branch = lambda a, b: jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: (a @ b) @ (b.T @ b))
    assert multiply_adds(jax.make_jaxpr(branch)(*a)) == 24 + 4 * 3 * 4 + 2 * 4 * 4
    grouped = lambda x, k: jax.lax.conv_general_dilated(
        x, k, (2,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=2
    )
    x, k = jnp.ones((3, 9, 4)), jnp.ones((3, 2, 6))
    assert multiply_adds(jax.make_jaxpr(grouped)(x, k)) == 3 * 4 * 6 * 3 * 2
    edges = jnp.array([0, 1, 1, 2])
    gathered = lambda m: jax.ops.segment_sum(m, edges, num_segments=3)
    assert multiply_adds(jax.make_jaxpr(gathered)(jnp.ones((4, 5)))) == 20


def test_it_prints_and_compiles_nothing(compilations):
    x = np.zeros((3, 4), int)
    network = ska.Network(
        (Embed(5, 6), Flatten(), Merge((ska.Dense(7), ska.Dense(7))), ska.Dense(2))
    )
    with compilations() as programs:
        found = ska.summary(network, x)
        text = str(found)
    assert not [name for name in programs if "flow" in name or "knowledge" in name]
    lines = text.splitlines()
    assert lines[0].startswith("3 layers with knowledge, 5 stages, 3 samples")
    assert lines[1].split()[:4] == ["layer", "reads", "gives", "parameters"]
    assert [line.split("  ")[0] for line in lines[2:]] == [
        "Embed", "Flatten", "Merge", "1 Dense", "Merge", "2 Dense", "Merge", "3 Dense", "total",
    ]  # fmt: skip
    assert f"{24 * 7 + 7:,}" in lines[5] and "4 x 6" in lines[2]
    assert f"{found.total('parameters'):,}" in lines[-1]
    html = found._repr_html_()
    assert html.count("<tr>") == 10 and "<th>gives</th>" in html and "<td>1 Dense</td>" in html


def test_what_does_not_fit(untyped):
    with pytest.raises(ValueError, match="Argument network must be a Network, but it was 3"):
        ska.summary(3, np.ones((2, 3), "f"))
    with pytest.raises(ValueError, match=r"\(2, 3, 4\).*layers\[0\] \(Dense\)"):
        ska.summary(ska.mlp([3]), np.ones((2, 3, 4), "f"))
    with pytest.raises(ValueError, match="tokens from 0 to 4"):
        ska.summary(ska.Network((Embed(5), Flatten(), ska.Dense(2))), np.full((2, 3), 7))
