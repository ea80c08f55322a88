"""Small graphs whose nodes have labels, from networkx."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32, Int32

from skajax._checks import require
from skajax._extras import take
from skajax.layers import edges_of

Graph: TypeAlias = tuple[
    Float32[np.ndarray, "nodes features"], Int32[np.ndarray, " nodes"], Int32[np.ndarray, "edges 2"]
]

SETS: Mapping[str, tuple[str, str, tuple[Any, Any]]] = MappingProxyType({
    "karate": ("karate_club_graph", "club", ("Mr. Hi", "Officer")),
    "southern_women": ("davis_southern_women_graph", "bipartite", (0, 1)),
})  # fmt: skip
"""Names: networkx's function, the attribute of nodes that is the label, and its values in order."""


def graph(name: str = "karate") -> Graph:
    """A graph whose nodes have labels, as networkx ships it; needs no network.

    ``"karate"``: the 34 members of a karate club and the 78 friendships among them; labels tell which club a
    member belonged to after it split, 0 the instructor's ("Mr. Hi") and 1 the officer's.
    ``"southern_women"``: 18 women (label 0) and the 14 events (1) that they attended; 89 edges, each from a
    woman to an event.

    Returns ``(x, y, edges)``: x float32 (nodes, nodes), the identity, for nodes have no features but who they
    are (Kipf and Welling's choice); y int32 (nodes,); edges int32 (edges, 2), each pair of neighbours once.
    Nodes and edges are in networkx's order; how often friends met is left out.

    Raises ValueError for another name.

    Source: W. W. Zachary, Journal of Anthropological Research 33 (1977) 452-473; A. Davis, B. B. Gardner and
    M. R. Gardner, Deep South, University of Chicago Press (1941). As networkx has them (A. Hagberg, D. Schult
    and P. Swart, SciPy 2008, 11-15), under its BSD 3-clause licence.

    >>> x, y, edges = ska.data.graph("karate")
    >>> x.shape, edges.shape
    ((34, 34), (78, 2))
    """
    require(name in SETS, "name", f"be one of {list(SETS)}", f"it was {name!r}")
    function, attribute, classes = SETS[name]
    networkx = take("skajax.data.graph", "study", "networkx")  # slow to import
    make: Callable[[], Any] = getattr(networkx, function)
    found = make()
    edges, nodes = edges_of(found)
    y = [classes.index(found.nodes[node][attribute]) for node in found.nodes]
    return np.eye(nodes, dtype=np.float32), np.asarray(y, np.int32), edges
