"""The graph convolution, z = A x W + b: each node reads its neighbours' features."""

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import require
from skajax._types import Array, Edges, Float, Inputs, Int, Key, Knowledge
from skajax.layers._edges import as_edges
from skajax.layers._fields import DECISIONS, choice, real, usual, whole
from skajax.layers._product import matrix_product

KINDS = ("symmetric", "mean", "attention")
"""How A weighs a node's neighbours."""


class GraphWeights(NamedTuple):
    """Weights of a graph convolution: ``W`` (features, width) and ``b`` (width,)."""

    W: Float[Array, "features width"]
    b: Float[Array, " width"]


class GraphAttentionWeights(NamedTuple):
    """The same with attention: ``a`` (width, 2) has the columns a_dst and a_src.

    By them a node scores itself as a receiver, and as a sender.
    """

    W: Float[Array, "features width"]
    b: Float[Array, " width"]
    a: Float[Array, "width 2"]


class GraphConv(eqx.Module):
    """Knowledge z = A x W + b on a graph, for ``width`` neurons at each node.

    Σ_j A_ij x_j is what node i receives along its edges. By ``kind``, where j → i are the edges, d_i is
    how many come in at node i, and o_j how many go out of node j:

    - "symmetric": A_ij = 1 / √(d_i o_j); on an undirected graph with self-loops, D^{-1/2} (A + I) D^{-1/2} of
      Kipf and Welling;
    - "mean": A_ij = 1 / d_i, the mean over the neighbours (and the node itself, by its self-loop), as
      GraphSAGE has it;
    - "attention": A_ij = softmax over j of LeakyReLU(a_dst·h_i + a_src·h_j), h = x W, one head of a graph
      attention network.

    x is (nodes, features): then the nodes are the samples, and energies are averages over the nodes. Or it is
    (samples, nodes, features), samples of features on one and the same graph: then energies are summed over
    the nodes of a sample, and averaged over the samples. Mini-batches are of the latter alone.

    The layer's knowledge takes x at all nodes as given: what the layer below has decided at the neighbours,
    too. Its local flow differentiates W, b and a, of attention also where they make A. A node without edges
    has z = b.

    Arguments:

    - ``width``: neurons at each node.
    - ``edges``: whole numbers (edges, 2), or (2, edges) unless that is (2, 2): senders and receivers. Of an
      edge that is there twice, one counts. :func:`edges_of` reads them off a networkx graph or an adjacency
      matrix: ``GraphConv(8, *edges_of(graph))``.
    - ``nodes``: how many there are; by default as many as the edges name.
    - ``undirected``: whether each edge goes both ways.
    - ``self_loops``: whether each node reads itself too.
    - ``slope``: of LeakyReLU below 0. Unless it is 1, the flow of "attention" jumps where a score changes its
      sign: an adaptive method takes smaller steps there.
    - ``scale``, ``bias``: initially W, a ~ N(0, scale²), and b = bias.
    - ``precision``, ``decision``: as of :class:`skajax.layers.Dense`.

    The edges are arrays: networks on other graphs of as many nodes and edges share their compiled programs.
    Costs are proportional to the edges: there is no (nodes, nodes) matrix.

    Raises ValueError for an edge that names no node, and for inputs of another number of nodes.

    Source: T. N. Kipf and M. Welling, ICLR 2017, arXiv:1609.02907; W. L. Hamilton, R. Ying and J. Leskovec,
    NeurIPS 2017, arXiv:1706.02216; P. Veličković et al., ICLR 2018, arXiv:1710.10903.

    >>> x, y, edges = ska.data.graph("karate")
    >>> club = ska.Network((ska.layers.GraphConv(8, edges), ska.layers.GraphConv(2, edges)))
    >>> club.trace(club.init(jax.random.key(0), x), x).Z[1].shape
    (34, 2)

    >>> layer = ska.layers.GraphConv(4, [(0, 1), (1, 2)])  # a path of three nodes
    >>> features = jnp.ones((5, 3, 2))
    >>> layer.knowledge(layer.init(jax.random.key(0), features), features).shape
    (5, 3, 4)
    """

    width: int = eqx.field(static=True)
    nodes: int = eqx.field(static=True)
    kind: str = eqx.field(static=True)
    senders: Int[Array, " arcs"]
    receivers: Int[Array, " arcs"]
    incoming: Int[Array, " nodes"]
    """d, how many edges come in at each node; ..."""
    outgoing: Int[Array, " nodes"]
    """... and o, how many go out."""
    slope: float = eqx.field(static=True)
    scale: float
    bias: float
    precision: str = eqx.field(static=True)
    decision: str = eqx.field(static=True)

    def __init__(
        self,
        width: int,
        edges: Edges,
        nodes: int | None = None,
        *,
        kind: Literal["symmetric", "mean", "attention"] = "symmetric",
        undirected: bool = True,
        self_loops: bool = True,
        slope: float | int = 0.2,
        scale: float | int = 0.01,
        bias: float | int = 0.0,
        precision: str = "highest",
        decision: str = "sigmoid",
    ) -> None:
        """See the class."""
        self.width, self.kind, self.slope = width, kind, slope
        self.scale, self.bias, self.precision, self.decision = scale, bias, precision, decision
        whole(self, "width", "neurons")
        choice(self, "kind", KINDS)
        real(self, "slope")
        usual(self)
        senders, receivers, self.nodes = as_edges(edges, nodes, undirected, self_loops)
        degrees = (np.bincount(ends, minlength=self.nodes) for ends in (receivers, senders))
        self.senders, self.receivers = jax.device_put((senders, receivers))
        self.incoming, self.outgoing = jax.device_put([d.astype(np.int32) for d in degrees])

    def init(
        self, key: Key, x: Inputs | jax.ShapeDtypeStruct
    ) -> GraphWeights | GraphAttentionWeights:
        """Initial weights for inputs of x's shape and dtype; x's values are not read."""
        self._check(x)
        W = self.scale * jax.random.normal(key, (x.shape[-1], self.width), x.dtype)
        b = jnp.full((self.width,), self.bias, x.dtype)
        if self.kind != "attention":
            return GraphWeights(W, b)
        a = self.scale * jax.random.normal(jax.random.fold_in(key, 1), (self.width, 2), x.dtype)
        return GraphAttentionWeights(W, b, a)

    def knowledge(self, weights: GraphWeights | GraphAttentionWeights, x: Inputs) -> Knowledge:
        """Knowledge z = A x W + b, of shape (..., nodes, width)."""
        self._check(x)
        if isinstance(weights, GraphAttentionWeights):
            h = self._product(x, weights.W)
            z = self._received(self._attention(h, weights.a)[..., None] * h[..., self.senders, :])
        elif x.shape[-1] <= 2 * self.width:
            # The gradient by W needs A x once; of A (x W), A of the width and its transpose.
            z = self._product(self._gathered(x), weights.W)
        else:
            z = self._gathered(self._product(x, weights.W))
        return z + _behind(z, weights.b)

    def attention(self, weights: GraphAttentionWeights, x: Inputs) -> Float[Array, "*samples arcs"]:
        """A_ij of each edge, from ``senders`` j to ``receivers`` i, of the kind "attention"."""
        return self._attention(self._product(x, weights.W), weights.a)

    def decide(self, z: Knowledge) -> Knowledge:
        """Decisions D, of the shape of z (eq. 13)."""
        return DECISIONS[self.decision](z)

    def joins_samples(self, z: Knowledge | jax.ShapeDtypeStruct) -> bool:
        """Whether the nodes are the samples."""
        return len(z.shape) == 2

    def running(self) -> "GraphConv":
        """The layer without its initial values: layers that compute the same are the same."""
        return eqx.tree_at(lambda layer: (layer.scale, layer.bias), self, (0.01, 0.0))

    def _gathered(self, x: Inputs) -> Array:
        """A x, of a kind without attention."""
        d, o = (n.astype(x.dtype) for n in (self.incoming, self.outgoing))
        if self.kind == "symmetric":
            d = jnp.sqrt(d)
            x = x * _behind(x, jax.lax.rsqrt(jnp.maximum(o, 1)), axes=2)
        return self._received(x[..., self.senders, :]) / _behind(x, jnp.maximum(d, 1), axes=2)

    def _attention(self, h: Array, a: Array) -> Array:
        """A of each edge: a softmax over those that come in at one node."""
        scores = self._product(h, a)
        own, others = scores[..., self.receivers, 0], scores[..., self.senders, 1]
        e = jax.nn.leaky_relu(own + others, self.slope)
        # A does not depend on what is subtracted, and so has no derivative by it: of all scores at a
        # node the largest, so that no exponential overflows and not all of them vanish.
        most = jnp.full(scores.shape[:-1], -jnp.inf, e.dtype)
        most = most.at[..., self.receivers].max(jax.lax.stop_gradient(e))
        p = jnp.exp(e - most[..., self.receivers])
        total = jnp.zeros_like(most).at[..., self.receivers].add(p)
        return p / total[..., self.receivers]

    def _received(self, messages: Inputs) -> Array:
        """At each node the sum of what comes in, of the messages of all edges."""
        *samples, _, features = messages.shape
        none = jnp.zeros((*samples, self.nodes, features), messages.dtype)
        return none.at[..., self.receivers, :].add(messages)

    def _product(self, x: Inputs, W: Array) -> Array:
        return matrix_product(x, W, self.precision)

    def _check(self, x: Inputs | jax.ShapeDtypeStruct) -> None:
        require(
            len(x.shape) in (2, 3) and x.shape[-2] == self.nodes,
            "x",
            f"be of shape (nodes, features) or (samples, nodes, features), of the graph's {self.nodes} nodes",
            f"its shape was {x.shape}",
        )


def _behind(x: Inputs, values: Array, axes: int = 1) -> Array:
    """Values of the last axis of x, or of the last but one, with the axes of x."""
    return values.reshape(*[1] * (x.ndim - axes), -1, *[1] * (axes - 1))
