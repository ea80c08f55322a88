"""Layers: a frozen configuration and two pure functions, ``init`` and ``knowledge``."""

from skajax.layers._dense import Dense, DenseWeights
from skajax.layers._layer import Layer
from skajax.layers._paced import Paced

__all__ = ["Dense", "DenseWeights", "Layer", "Paced"]
