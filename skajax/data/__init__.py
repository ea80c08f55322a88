"""Labelled images as NumPy arrays, class by class, in an order that never changes."""

from skajax.data._mnist import mnist_subset
from skajax.data._tfds import tfds

__all__ = ["mnist_subset", "tfds"]
