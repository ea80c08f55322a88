"""The graph convolution: against dense NumPy matrices, and as a layer among others."""

import equinox as eqx
import jax
import jax.numpy as jnp
import layer_checks as checks
import networkx as nx
import numpy as np
import pytest
import scipy.sparse

import skajax as ska
from skajax.layers import GraphConv, edges_of

KINDS = ("symmetric", "mean", "attention")
KEY = jax.random.key(3)
EULER = {"method": ska.Euler(0.1), "steps": 3, "observe": ("entropy",)}
each_kind = pytest.mark.parametrize("kind", KINDS)


def adjacency(edges, nodes, undirected=True, self_loops=True):
    """A[i, j] = 1 for edges j → i."""
    A = np.zeros((nodes, nodes))
    for sender, receiver in edges:
        A[receiver, sender] = 1
        if undirected:
            A[sender, receiver] = 1
    if self_loops:
        np.fill_diagonal(A, 1)
    return A


def by_numpy(layer, weights, x, A):
    """z = A x W + b with a dense matrix, of one sample; and the matrix."""
    W, b = np.asarray(weights.W), np.asarray(weights.b)
    if layer.kind == "symmetric":
        d, o = np.maximum(A.sum(axis=1), 1), np.maximum(A.sum(axis=0), 1)
        A = A / np.sqrt(np.outer(d, o))
    elif layer.kind == "mean":
        A = A / np.maximum(A.sum(axis=1, keepdims=True), 1)
    else:
        h = x @ W
        e = h @ np.asarray(weights.a)[:, :1] + (h @ np.asarray(weights.a)[:, 1:]).T
        e = np.where(e > 0, e, layer.slope * e)
        p = np.where(A > 0, np.exp(e - np.where(A > 0, e, -np.inf).max(initial=-1e300)), 0)
        A = p / np.where(A.any(axis=1), p.sum(axis=1), 1)[:, None]
    return A @ x @ W + b, A


def problem(kind, nodes=6, features=3, width=4, samples=None, seed=0, **options):
    """A layer on a random graph, float64 weights of order one, and inputs."""
    rng = np.random.default_rng(seed)
    edges = rng.integers(0, nodes, size=(2 * nodes, 2))
    layer = GraphConv(width, edges, nodes, kind=kind, scale=0.7, bias=0.1, **options)
    shape = (nodes, features) if samples is None else (samples, nodes, features)
    x = jnp.asarray(rng.normal(size=shape))
    return layer, layer.init(jax.random.key(seed), x), x, edges


def network_of(kind, samples=None, edges=((0, 1), (1, 2), (2, 0), (2, 3), (4, 4)), **options):
    """Two layers, or three with a stage and a dense one over (samples, nodes, features)."""
    shape = (6, 3) if samples is None else (samples, 6, 3)
    x = 0.5 + jax.random.uniform(jax.random.key(1), shape)
    options = {"kind": kind, "scale": 0.6} | options
    layers = (GraphConv(4, edges, 6, **options), GraphConv(2, edges, 6, **options))
    if samples is not None:
        layers = (*layers, ska.layers.Flatten(), ska.Dense(3, scale=0.4))
    network = ska.Network(layers)
    return network, network.init(KEY, x), x


# What it computes.


@each_kind
@pytest.mark.parametrize(
    ("undirected", "self_loops", "width", "seed"),
    [(True, True, 4, 0), (True, False, 1, 1), (False, True, 1, 2), (False, False, 4, 3)],
)
def test_it_is_the_product_with_a_dense_matrix(kind, x64, undirected, self_loops, width, seed):
    options = {"undirected": undirected, "self_loops": self_loops}
    layer, weights, x, edges = problem(kind, width=width, seed=seed, **options)
    A = adjacency(edges, 6, **options)
    want, weighed = by_numpy(layer, weights, np.asarray(x), A)
    np.testing.assert_allclose(layer.knowledge(weights, x), want, rtol=1e-12, atol=1e-13)
    assert len(layer.senders) == A.sum()
    if kind == "attention":
        got = layer.attention(weights, x)
        want = weighed[np.asarray(layer.receivers), np.asarray(layer.senders)]
        np.testing.assert_allclose(got, want, rtol=1e-12)
        sums = np.bincount(layer.receivers, got, minlength=6)
        np.testing.assert_allclose(sums, A.any(axis=1), rtol=1e-12)


@each_kind
def test_attention_is_large_scores_softmax_and_isolated_nodes_know_the_bias(kind, x64):
    # Scores of ± 1e4, whose exponentials overflow or vanish; and node 5 without an edge.
    edges = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [4, 2]])
    layer = GraphConv(4, edges, 6, kind=kind, self_loops=False, bias=0.3)
    x = 100 * jax.random.normal(KEY, (6, 3))
    weights = layer.init(KEY, x)
    weights = jax.tree.map(lambda w: w if w.ndim == 1 else 1000 * w, weights)
    z = np.asarray(layer.knowledge(weights, x))
    np.testing.assert_array_equal(z[5], np.full(4, 0.3))
    A = adjacency(edges, 6, self_loops=False)
    if kind == "attention":  # with the shift at each node by itself
        h = np.asarray(x @ weights.W)
        e = (h @ np.asarray(weights.a))[:, :1] + (h @ np.asarray(weights.a))[:, 1:].T
        e = np.where(A > 0, np.where(e > 0, e, 0.2 * e), -np.inf)
        assert np.abs(e[A > 0]).max() > 1e4
        p = np.exp(e[:5] - e[:5].max(axis=1, keepdims=True))
        want = p / p.sum(axis=1, keepdims=True) @ h + 0.3
        np.testing.assert_allclose(z[:5], want, rtol=1e-10)
    flow = eqx.filter_jit(ska.flow)(ska.Network((layer,)), (weights,), x)
    assert all(np.isfinite(f).all() for f in jax.tree.leaves(flow))


@each_kind
def test_without_edges_it_is_dense(kind, x64):
    none = np.zeros((0, 2), int)
    layer, dense = GraphConv(4, none, 6, kind=kind, scale=0.7), ska.Dense(4, scale=0.7)
    x = jax.random.normal(KEY, (6, 3))
    weights, plain = layer.init(KEY, x), dense.init(KEY, x)
    np.testing.assert_array_equal(weights.W, plain.W)
    np.testing.assert_allclose(
        layer.knowledge(weights, x), dense.knowledge(plain, x), rtol=1e-12, atol=1e-14
    )
    flow = eqx.filter_jit(ska.flow)(ska.Network((layer,)), (weights,), x)[0]
    want = eqx.filter_jit(ska.flow)(ska.Network((dense,)), (plain,), x)[0]
    checks.close((flow.W, flow.b), (want.W, want.b), 1e-12)
    if kind == "attention":
        np.testing.assert_allclose(flow.a, 0, atol=1e-14)  # there is nothing to choose


@each_kind
def test_samples_are_graphs_of_the_same_edges(kind, x64):
    layer, weights, x, _ = problem(kind, samples=3)
    together = layer.knowledge(weights, x)
    alone = jnp.stack([layer.knowledge(weights, each) for each in x])
    np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-13)


@each_kind
def test_other_numbers_of_the_nodes_are_the_same_graph(kind, x64):
    """Knowledge goes along with a permutation of the nodes, and the flow does not change."""
    layer, weights, x, edges = problem(kind)
    order = np.array([3, 0, 5, 1, 4, 2])
    place = np.argsort(order)
    moved = GraphConv(4, place[edges], 6, kind=kind)
    np.testing.assert_allclose(
        moved.knowledge(weights, x[order]), layer.knowledge(weights, x)[order], rtol=1e-12
    )
    flows = [
        eqx.filter_jit(ska.flow)(ska.Network((each,)), (weights,), inputs)
        for each, inputs in ((layer, x), (moved, x[order]))
    ]
    checks.close(flows[0], flows[1], 1e-12)


@pytest.mark.parametrize("kind", ["symmetric", "mean"])
def test_either_order_of_the_products_is_the_same(kind, x64):
    # A narrow layer multiplies by W first, a wide one by A: side by side they are the wide one.
    layer, weights, x, edges = problem(kind, features=9, width=8)
    z = layer.knowledge(weights, x)
    for n in (0, 4):
        part = GraphConv(4, edges, 6, kind=kind)
        own = weights._replace(W=weights.W[:, n : n + 4], b=weights.b[n : n + 4])
        np.testing.assert_allclose(part.knowledge(own, x), z[:, n : n + 4], rtol=1e-11, atol=1e-13)


def test_there_is_no_matrix_of_nodes_by_nodes():
    """A path of 100,000 nodes, whose matrix would take 40 GB."""
    nodes = 100_000
    path = np.stack([np.arange(nodes - 1), np.arange(1, nodes)])
    x = jnp.arange(nodes, dtype=jnp.float32)[:, None] / nodes
    for kind in KINDS:
        layer = GraphConv(1, path, kind=kind, scale=1.0)
        z = layer.knowledge(layer.init(KEY, x), x)
        assert z.shape == (nodes, 1) and bool(jnp.isfinite(z).all())
    mean = GraphConv(1, path, kind="mean")
    weights = mean.init(KEY, x)._replace(W=jnp.ones((1, 1)))
    np.testing.assert_allclose(mean.knowledge(weights, x)[1:-1], x[1:-1], rtol=1e-6)


# As a layer.


@pytest.mark.parametrize(
    ("kind", "samples"),
    [
        ("symmetric", None),
        ("mean", 3),
        pytest.param("attention", None, marks=pytest.mark.thorough),
        ("attention", 3),
    ],
)
def test_flow_walls_and_tangents(kind, samples, x64):
    checks.check_flow(*network_of(kind, samples))


@pytest.mark.parametrize("kind", [pytest.param("mean", marks=pytest.mark.thorough), "attention"])
def test_closed_forms(kind, x64):
    # LeakyReLU with slope 1: rates without kinks, as Gauss's rule asks for.
    checks.check_closed_forms(*network_of(kind, slope=1.0))


def test_every_method(x64, tmp_path):
    network, _, x = network_of("attention")
    checks.check_methods(ska.Network(network.layers[:1]), x, tmp_path)


def test_a_layer_with_arrays_has_a_rate_too(x64):
    network, weights, x = network_of("mean")
    paced = ska.Network((ska.Paced(network.layers[0], 2.0), network.layers[1]))
    flow = eqx.filter_jit(ska.flow)
    got, plain = flow(paced, weights, x), flow(network, weights, x)
    checks.close(got, (jax.tree.map(lambda f: 2 * f, plain[0]), plain[1]), 1e-14)
    run = ska.simulate(paced, weights, x, **EULER | {"steps": 2})
    first = jax.tree.map(lambda w, f: w + 0.1 * f, weights, got)
    second = jax.tree.map(lambda w, f: w + 0.1 * f, first, flow(paced, first, x))
    checks.close(run.final.weights, second, 1e-12)


# Arrays in a network.


@pytest.mark.parametrize("method", [ska.Euler(0.1), ska.Adaptive()], ids=["euler", "adaptive"])
def test_other_edges_and_initial_values_compile_nothing(method, compilations):
    span = {"t1": 0.5, "observe": ("entropy",)}
    network, weights, x = network_of("symmetric")
    ska.simulate(network, weights, x, method, **span)
    with compilations() as found:
        again = ska.simulate(network, weights, x, method, **span)
        scaled, _, _ = network_of("symmetric", scale=0.1, bias=-1.0)
        ska.simulate(scaled, weights, x, method, **span)
        edges = ((0, 2), (1, 5), (2, 4), (2, 3), (3, 3))  # as many, between others
        other, _, _ = network_of("symmetric", edges=edges)
        changed = ska.simulate(other, weights, x, method, **span)
    assert found == []
    assert np.abs(changed.entropy[-1] - again.entropy[-1]).max() > 1e-3


def test_shapes_are_worked_out_once(monkeypatch):
    network, weights, x = network_of("mean")
    run = lambda network: ska.simulate(network, weights, x, **EULER)
    run(network)
    calls = []
    init = GraphConv.init
    monkeypatch.setattr(GraphConv, "init", lambda *args: calls.append(args) or init(*args))
    run(network)
    run(network_of("mean")[0])
    assert calls.pop() and len(calls) == 1  # network_of drew weights, of two layers


def test_lanes_over_seeds_and_over_graphs():
    """One program for all; each lane as its own run."""
    _, _, x = network_of("mean")
    graphs = [((0, 1), (2, 3)), ((0, 5), (1, 4))]
    networks = [network_of("mean", edges=edges)[0] for edges in graphs]
    start = lambda seed: networks[0].init(jax.random.key(seed), x)
    over = ska.grid(graph=[0, 1], seed=[0, 1])
    lanes = {"x": x, "over": over} | EULER
    data = ska.sweep(lambda graph: networks[graph], start, **lanes)
    plan = ska.sweep(lambda graph: networks[graph], start, **lanes, dry=True)
    assert len(plan.groups) == 1
    for g in (0, 1):
        alone = ska.simulate(networks[g], start(1), x, **EULER)
        np.testing.assert_allclose(data.entropy[g, 1], alone.entropy, rtol=1e-5)
    assert np.abs(data.entropy[0] - data.entropy[1]).max() > 1e-3


def test_a_file_knows_its_graph(tmp_path):
    network, weights, x = network_of("mean")
    run = ska.simulate(network, weights, x, **EULER)
    run.save(tmp_path / "run.nc")
    back = ska.load(tmp_path / "run.nc", network=network)
    checks.close(back.final.weights, run.final.weights, 0)
    # A graph of other edges is another network.
    other, _, _ = network_of("mean", edges=((0, 2), (1, 5), (2, 4), (2, 3), (3, 3)))
    kind, _, _ = network_of("symmetric")
    for wrong in (other, kind, ska.mlp([4, 2])):
        with pytest.raises(ValueError, match="Argument network must be that of the file"):
            ska.load(tmp_path / "run.nc", network=wrong)


def test_a_store_and_a_checkpoint_know_their_graph(tmp_path):
    network, weights, x = network_of("mean")
    other, _, _ = network_of("mean", edges=((0, 2), (1, 5), (2, 4), (2, 3), (3, 3)))
    run = lambda network: ska.simulate(network, weights, x, **EULER, checkpoint=tmp_path / "run")
    first = run(network)
    np.testing.assert_array_equal(run(network).entropy, first.entropy)
    with pytest.raises(ValueError, match="Argument checkpoint must be that of this very run"):
        run(other)


# Graphs in other forms.


def test_edges_of_other_forms():
    graph = nx.Graph([("a", "b"), ("b", "c"), ("c", "c")])
    graph.add_node("alone")
    edges, nodes = edges_of(graph)
    assert (edges.tolist(), nodes) == ([[0, 1], [1, 2], [2, 2]], 4)
    A = nx.to_numpy_array(graph)
    for matrix in (A, A.astype(bool), jnp.asarray(A, jnp.float32), scipy.sparse.csr_array(A)):
        found, count = edges_of(matrix)
        assert count == 4
        assert sorted(found.tolist()) == [[0, 1], [1, 0], [1, 2], [2, 1], [2, 2]]
    whole = GraphConv(2, *edges_of(graph))
    for other in (
        GraphConv(2, *edges_of(A)),
        GraphConv(2, edges.T, 4),
        GraphConv(2, edges.tolist(), 4),
    ):
        np.testing.assert_array_equal(other.senders, whole.senders)
        np.testing.assert_array_equal(other.receivers, whole.receivers)
    # An edge from 0 to 1 is what node 1 receives: row 1 of the matrix.
    one, _ = edges_of(np.array([[0, 0], [1, 0]]))
    assert one.tolist() == [[0, 1]]
    assert edges_of(nx.DiGraph([(0, 1)]))[0].tolist() == [[0, 1]]
    directed = GraphConv(2, one, undirected=False, self_loops=False, kind="mean")
    assert (directed.senders.tolist(), directed.receivers.tolist()) == ([0], [1])


def test_an_edge_counts_once():
    twice = GraphConv(2, [(0, 1), (1, 0), (0, 1), (1, 1)])
    assert twice.receivers.tolist() == [0, 0, 1, 1] and twice.senders.tolist() == [0, 1, 0, 1]
    assert twice.nodes == 2 and twice.incoming.tolist() == [2, 2]
    loops = GraphConv(2, [(0, 1), (1, 1)], undirected=False, self_loops=False)
    assert list(zip(loops.senders.tolist(), loops.receivers.tolist(), strict=True)) == [
        (0, 1), (1, 1)]  # fmt: skip


# Bad input.

BAD = {
    "no such node": (lambda: GraphConv(2, [(0, 1), (3, 7)], 5), "edges", "from 0 to 4", "3 to 7"),
    "a negative node": (lambda: GraphConv(2, [(0, -1)]), "edges", "from 0 to 0", "0 to -1"),
    "real numbers": (lambda: GraphConv(2, np.ones((3, 2))), "edges", "whole", "float64"),
    "triples": (lambda: GraphConv(2, np.ones((3, 3), int)), "edges", r"\(edges, 2\)", r"edges_of"),
    "no edges": (lambda: GraphConv(2, np.zeros((0, 2), int)), "nodes", "be given", "None"),
    "no nodes": (lambda: GraphConv(2, [(0, 1)], 0), "nodes", "at least 1", "0"),
    "no kind": (lambda: GraphConv(2, [(0, 1)], kind="sum"), "kind", "'mean'", "'sum'"),
    "no width": (lambda: GraphConv(0, [(0, 1)]), "width", "at least 1", "0"),
    "a scale": (lambda: GraphConv(2, [(0, 1)], scale=-1.0), "scale", "at least 0", "-1"),
    "a slope": (lambda: GraphConv(2, [(0, 1)], slope=np.inf), "slope", "finite", "inf"),
    "not square": (lambda: edges_of(np.zeros((3, 4))), "graph", "square", r"\(3, 4\)"),
    "sparse": (
        lambda: edges_of(scipy.sparse.coo_array((3, 4))), "graph", "square", r"\(3, 4\)"),
    "weights": (lambda: edges_of(np.array([[0, 0.5], [0.5, 0]])), "graph", "zeros", "0.5"),
    "other nodes": (
        lambda: ska.Network((GraphConv(2, [(0, 1)], 5),)).init(KEY, jnp.zeros((4, 3))),
        "x", "the graph's 5 nodes", r"\(4, 3\).*layers\[0\] \(GraphConv\)"),
    "no axis of nodes": (
        lambda: GraphConv(2, [(0, 1)]).init(KEY, jnp.zeros(2)), "x", "2 nodes", r"\(2,\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name, untyped):
    function, argument, must, but = BAD[name]
    with pytest.raises(ValueError, match=f"Argument {argument} must .*{must}.*, but .*{but}"):
        function()


def test_traced_edges_are_refused():
    with pytest.raises(ValueError, match="Argument edges must have known values"):
        jax.jit(lambda edges: GraphConv(2, edges, 3).senders)(jnp.array([[0, 1], [1, 2], [0, 2]]))


def test_mini_batches_do_not_cut_a_graph():
    """Where nodes are the samples; samples of a graph's features are samples."""
    network, weights, x = network_of("mean")
    paced = ska.Network((ska.Paced(network.layers[0]), network.layers[1]))
    for size in (3, 6):
        batches = ska.MiniBatches(x, size=size, period=0.1, key=KEY)
        for net in (network, paced):
            with pytest.raises(
                ValueError, match=r"Argument x must be one batch.*layers\[0\].*the 6"
            ):
                ska.simulate(net, weights, batches, **EULER)
    network, weights, x = network_of("mean", samples=4)
    batches = ska.MiniBatches(x, size=2, period=0.1, key=KEY)
    run = ska.simulate(network, weights, batches, **EULER)
    assert bool(run.outcome.completed)
