"""Layers: a configuration and two pure functions, ``init`` and ``knowledge``."""

from skajax.layers._dense import Dense, DenseWeights
from skajax.layers._layer import Layer, Stage
from skajax.layers._paced import Paced

__all__ = ["Dense", "DenseWeights", "Layer", "Paced", "Stage"]
