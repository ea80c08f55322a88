"""Data sets as NumPy arrays, in an order that never changes: labelled ones, class by class."""

from skajax.data._mnist import mnist, mnist_subset
from skajax.data._sequences import series, text
from skajax.data._sklearn import sklearn
from skajax.data._synthetic import known_spectrum
from skajax.data._tfds import tfds

__all__ = ["known_spectrum", "mnist", "mnist_subset", "series", "sklearn", "text", "tfds"]
