"""Numbers at the nodes of a graph."""

from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from skajax._checks import as_array, require
from skajax._extras import take
from skajax._types import ArrayLike, Float
from skajax.layers import GraphConv, Paced, edges_of
from skajax.layers._edges import as_edges
from skajax.plot._axes import colour_bar, legend_above, single
from skajax.plot._style import INK, shades

_MARKERS = "osD^vP*X"
_SIZE = 70.0


def graph(
    edges: Any,
    values: Float[ArrayLike, " nodes"],
    *,
    positions: Float[ArrayLike, "nodes 2"] | None = None,
    labels: Any = None,
    name: str = "knowledge $z$",
    ax: Axes | None = None,
) -> Axes:
    """A graph whose nodes have the colours of their values: a neuron's knowledge, flow or decisions.

    Values of both signs are white at 0, purple below and orange above; others go from dark at 0 to light.

    Args:
        edges: A :class:`skajax.layers.GraphConv`, a networkx graph, or whole numbers (edges, 2) or
            (2, edges): senders and receivers.
        values: One for each node.
        positions: Where the nodes are, (nodes, 2); by default where springs along the edges pull them
            (``networkx.spring_layout``), always the same of the same graph.
        labels: One for each node, which the nodes' shapes tell.
        name: What the values are, at the bar of colours.
        ax: By default those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: Values, positions or labels are not one for each node; or no edges are given.

    Example:
        >>> x, y, edges = ska.data.graph("karate")
        >>> network = ska.Network((ska.layers.GraphConv(2, edges, scale=0.3),))
        >>> run = ska.simulate(network, network.init(jax.random.key(0), x), x, ska.Euler(0.1), steps=20)
        >>> ax = ska.plot.graph(edges, run.final.D[0][:, 1], labels=y, name="decision of neuron 1")
    """
    values = np.asarray(as_array("values", values), float)
    must = "be one number for each node"
    require(values.ndim == 1 and len(values) > 0, "values", must, f"its shape was {values.shape}")
    senders, receivers, nodes = _arcs(edges, len(values))
    require(len(values) == nodes, "values", f"{must}, {nodes}", f"there were {len(values)}")
    places = _layout(senders, receivers, nodes) if positions is None else positions
    places = np.asarray(as_array("positions", places), float)
    must = f"be of shape ({nodes}, 2)"
    require(places.shape == (nodes, 2), "positions", must, f"its shape was {places.shape}")
    kinds = np.zeros(nodes, int) if labels is None else np.asarray(labels)
    must = f"be one for each node, {nodes}"
    require(kinds.shape == (nodes,), "labels", must, f"the shape was {kinds.shape}")

    ax = single(ax, size=(5.8, 4.4))
    lines = places[np.stack([senders, receivers], axis=1)]
    ax.add_collection(LineCollection(list(lines), colors="0.75", linewidths=0.8, zorder=1))
    colours = shades(values, signed=bool((values < 0).any()))
    points, key = [], []
    for kind, marker in zip(np.unique(kinds), cycle(_MARKERS), strict=False):
        at = kinds == kind
        style: dict[str, Any] = {"marker": marker, "linewidths": 0.8, "zorder": 2}
        look: dict[str, Any] = {"marker": marker, "linestyle": "", "markerfacecolor": "white"}
        x, y = places[at].T
        points.append(ax.scatter(x, y, _SIZE, values[at], edgecolors=INK, **style, **colours))
        key.append(Line2D([], [], label=f"{kind}", markeredgecolor=INK, **look))
    if labels is not None:
        legend_above(ax, key)
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    ax.margins(0.06)
    colour_bar(points[0], [ax], name)
    return ax


def _arcs(edges: Any, nodes: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Senders, receivers and the number of nodes, without what goes from a node to itself."""
    edges = edges.layer if isinstance(edges, Paced) else edges
    if isinstance(edges, GraphConv):
        senders, receivers, nodes = edges.senders, edges.receivers, edges.nodes
    else:
        if hasattr(edges, "nodes"):
            edges, nodes = edges_of(edges)
        senders, receivers, nodes = as_edges(edges, nodes, False, False)
    senders, receivers = np.asarray(senders), np.asarray(receivers)
    between = senders != receivers
    return senders[between], receivers[between], nodes


def _layout(senders: np.ndarray, receivers: np.ndarray, nodes: int) -> np.ndarray:
    networkx = take("skajax.plot.graph", "study", "networkx")  # slow to import
    made = networkx.Graph()
    made.add_nodes_from(range(nodes))
    made.add_edges_from(zip(senders.tolist(), receivers.tolist(), strict=True))
    placed = networkx.spring_layout(made, seed=0)
    found = np.array([placed[node] for node in range(nodes)])
    # Springs know no direction: the longest side lies along the page.
    found -= found.mean(axis=0)
    return found @ np.linalg.svd(found, full_matrices=False)[2].T if nodes > 1 else found
