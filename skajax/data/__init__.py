"""Data sets as NumPy arrays, in an order that never changes: labelled ones, class by class.

A graph's nodes, which its edges name, stay in their order.
"""

from skajax.data._graph import graph
from skajax.data._mnist import mnist, mnist_subset
from skajax.data._sequences import series, text
from skajax.data._sklearn import sklearn
from skajax.data._synthetic import known_spectrum
from skajax.data._tfds import tfds

__all__ = ["graph", "known_spectrum", "mnist", "mnist_subset", "series", "sklearn", "text", "tfds"]
