"""A few eigenvalues of a symmetric matrix that is known by its products alone."""

from collections.abc import Callable
from typing import Any

import numpy as np

SPARE = 8
"""Vectors of a block beyond those that are wanted."""
EXACT = 1e-12
"""A residual, relative to the largest eigenvalue, that in float64 is rounding, or nearly."""
ITERATIONS = 500


def largest(
    apply: Callable[[np.ndarray], np.ndarray], size: int, count: int, tolerance: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """The eigenvalues of a symmetric matrix that are largest in size, their vectors, and the worst residual.

    By Krylov's spaces of a block, until ‖A v - λ v‖ is at most ``tolerance`` times the largest |λ|. A block
    of more vectors than are wanted, because from a single one (Lanczos) there is no telling how
    often an eigenvalue occurs: of one-hot inputs, or of rows that are repeated, many are equal.
    """
    import scipy.linalg

    block = count + SPARE
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(size, min(block, size))))
    images = apply(basis)
    tries = 0
    while True:
        tries += 1
        values, turn = np.linalg.eigh(basis.T @ images)
        order = np.argsort(-np.abs(values), kind="stable")
        values, turn = values[order], turn[:, order]
        vectors = basis @ turn[:, :block]
        rest = images @ turn[:, :block] - vectors * values[:block]
        error = float(np.linalg.norm(rest[:, :count], axis=0).max())
        scale = abs(values[0])
        if error <= tolerance * scale or tries == ITERATIONS:
            break
        if basis.shape[1] > 8 * block:  # go on from the best of what there is
            basis, images = basis @ turn[:, : 3 * block], images @ turn[:, : 3 * block]
        for _ in range(2):
            rest = rest - basis @ (basis.T @ rest)
            decomposed: Any = scipy.linalg.qr(rest, mode="economic", pivoting=True)
            rest, triangle, _ = decomposed
            rest = rest[:, np.abs(np.diag(triangle)) > tolerance / 100 * scale]
        if not rest.shape[1]:
            break
        basis, images = np.hstack([basis, rest]), np.hstack([images, apply(rest)])
    return values[:count], vectors[:, :count], error
