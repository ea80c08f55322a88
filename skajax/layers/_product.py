"""The product that layers are made of."""

import math

import jax.numpy as jnp
import numpy as np

from skajax._types import Array


def matrix_product(x: Array | np.ndarray, W: Array, precision: str) -> Array:
    """x W over the last axis of x, (..., inputs), at every place of the others: (..., outputs).

    As one product of two matrices, whose gradient by W is one too. Of a product over three axes XLA would
    transpose the gradient's factors first, on processors, and take up to four times as long.
    """
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return jnp.matmul(rows, W, precision=precision).reshape(*x.shape[:-1], W.shape[-1])
