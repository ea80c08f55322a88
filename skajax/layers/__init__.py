"""Layers: a configuration and two pure functions, ``init`` and ``knowledge``; and the stages between them."""

from skajax.layers._attention import SelfAttention, SelfAttentionWeights
from skajax.layers._conv import Conv, ConvWeights
from skajax.layers._dense import Dense, DenseWeights
from skajax.layers._edges import edges_of
from skajax.layers._embed import Embed
from skajax.layers._flatten import Flatten
from skajax.layers._graph import GraphAttentionWeights, GraphConv, GraphWeights
from skajax.layers._layer import Layer, Stage
from skajax.layers._normalise import Normalise, NormaliseWeights
from skajax.layers._paced import Paced
from skajax.layers._pool import Pool
from skajax.layers._recurrent import GatedWeights, Recurrent, RecurrentWeights
from skajax.layers._routing import Hold, Join, Merge, Residual, Swap

__all__ = [
    "Conv",
    "ConvWeights",
    "Dense",
    "DenseWeights",
    "Embed",
    "Flatten",
    "GatedWeights",
    "GraphAttentionWeights",
    "GraphConv",
    "GraphWeights",
    "Hold",
    "Join",
    "Layer",
    "Merge",
    "Normalise",
    "NormaliseWeights",
    "Paced",
    "Pool",
    "Recurrent",
    "RecurrentWeights",
    "Residual",
    "SelfAttention",
    "SelfAttentionWeights",
    "Stage",
    "Swap",
    "edges_of",
]
