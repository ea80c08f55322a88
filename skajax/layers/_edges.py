"""Graphs as lists of edges: read from other forms, checked, and completed."""

from typing import Any

import numpy as np
from jaxtyping import Int32

from skajax._checks import as_array, as_whole, is_traced, is_whole, require, unmasked
from skajax._types import Edges


def edges_of(graph: Any) -> tuple[Int32[np.ndarray, "edges 2"], int]:
    """The edges of a graph, (sender, receiver) each, and the number of its nodes.

    What a layer on it is made of: ``GraphConv(8, *edges_of(graph))``. ``graph`` is a networkx graph, whose
    nodes are numbered as it lists them; or a square adjacency matrix of zeros and ones, dense or of
    ``scipy.sparse``, in which ``A[i, j] = 1`` is an edge from j to i, so that A x adds up what node i
    receives. Weights that a networkx graph has on its edges are left out.

    Raises ValueError for a matrix that is not square, or that holds other numbers than zeros and ones.

    >>> import networkx
    >>> edges, nodes = ska.layers.edges_of(networkx.path_graph(3))
    >>> edges.tolist(), nodes
    ([[0, 1], [1, 2]], 3)
    """
    if hasattr(graph, "nodes") and hasattr(graph, "edges"):
        place = {node: n for n, node in enumerate(graph.nodes)}
        pairs = [(place[a], place[b]) for a, b in graph.edges()]
        return np.asarray(pairs, np.int32).reshape(-1, 2), len(place)
    if hasattr(graph, "tocsr"):
        matrix = graph.tocsr().tocoo()  # with entries that were there twice added up
        values = matrix.data
    else:
        values = matrix = np.asarray(as_array("graph", graph))
    shape = matrix.shape
    require(
        len(shape) == 2 and shape[0] == shape[1],
        "graph",
        "be a networkx graph, or a square adjacency matrix",
        f"its shape was {shape}",
    )
    other = values[(values != 0) & (values != 1)]
    require(
        other.size == 0,
        "graph",
        "be an adjacency matrix of zeros and ones (A != 0 has the edges without their weights)",
        lambda: f"it held {other[0]}",
    )
    receivers, senders = matrix.nonzero()
    return np.stack([senders, receivers], axis=1).astype(np.int32), shape[0]


def as_edges(
    edges: Edges, nodes: int | None, undirected: bool, self_loops: bool
) -> tuple[Int32[np.ndarray, " arcs"], Int32[np.ndarray, " arcs"], int]:
    """Senders, receivers and the number of nodes: every edge once, in the order of the receivers.

    With ``undirected`` each edge goes both ways, with ``self_loops`` each node has one to itself. Without
    ``nodes`` there are as many as the edges name.
    """
    require(
        not is_traced(edges),
        "edges",
        "have known values (make the layer outside of jit and vmap)",
        "they were traced",
    )
    edges = unmasked("edges", edges)
    # NumPy's own stay as they are: without double precision JAX would cut long numbers.
    pairs: Any = edges if isinstance(edges, np.ndarray) else np.asarray(as_array("edges", edges))
    require(
        pairs.dtype.kind in "iu" and pairs.ndim == 2 and 2 in pairs.shape,
        "edges",
        "be whole numbers of shape (edges, 2) or (2, edges): senders and receivers",
        f"its shape was {pairs.shape}, its dtype {pairs.dtype}"
        + (
            " (edges_of(A) reads an adjacency matrix)" if pairs.shape[:1] == pairs.shape[1:] else ""
        ),
    )
    pairs = pairs if pairs.shape[1] == 2 else pairs.T
    if nodes is None:
        require(len(pairs) > 0, "nodes", "be given where there are no edges", "it was None")
        nodes = max(int(pairs.max()), 0) + 1
    count: Any = as_whole(nodes)
    require(is_whole(count), "nodes", "be a whole number, at least 1", f"it was {nodes!r}")
    strange = np.flatnonzero(((pairs < 0) | (pairs >= count)).any(axis=1))
    require(
        strange.size == 0,
        "edges",
        f"name nodes that are there, from 0 to {count - 1}",
        lambda: f"edge {strange[0]} was from {pairs[strange[0], 0]} to {pairs[strange[0], 1]}",
    )
    senders, receivers = pairs.T.astype(np.int64)
    if undirected:
        senders, receivers = np.append(senders, receivers), np.append(receivers, senders)
    places = receivers * count + senders
    if self_loops:
        places = np.append(places, np.arange(count) * (count + 1))
    receivers, senders = np.divmod(np.unique(places), count)
    return senders.astype(np.int32), receivers.astype(np.int32), count
