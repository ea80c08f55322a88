"""How fast knowledge grows while it is small: the spectrum of the batch."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from scipy.sparse.linalg import LinearOperator, svds

from skajax._checks import as_array, is_traced, is_whole, require
from skajax._types import Array, Float, Inputs, Scalar
from skajax.network import check_inputs

FOUR_LN2 = 4 * math.log(2.0)
DENSE = 512
"""Up to so many samples, or inputs, the whole spectrum costs next to nothing."""


class Spectrum(eqx.Module):
    """The growth rates of one batch, and their modes: X̃ = [x 1] = U s Vᵀ, rate = s² / (4 B ln 2).

    The bias is a weight of a constant input 1. Ordered from the fastest; those that are 0 to
    rounding have modes too, which do not grow.
    """

    rates: Float[Array, " modes"]
    """λ_k, per unit of time."""
    modes: Float[Array, "samples modes"]
    """U: how each mode is spread over the samples. Orthonormal columns."""
    directions: Float[Array, "inputs_and_one modes"]
    """V: the weights, the bias last, that each mode moves. Orthonormal columns."""
    coordinates: Float[Array, "samples modes"]
    """X̃ V = U s: each sample in the modes' own axes."""
    tail: Float[Array, " samples"]
    """|x̃|² - |x̃ V|²: what of each sample is in no mode that was asked for."""

    @property
    def growth_time(self) -> Scalar:
        """1 / λ_1, the shortest time in which knowledge grows e-fold."""
        return 1 / self.rates[0]


def spectrum(x: Inputs, rank: int | None = None) -> Spectrum:
    """Rates of the linear regime: λ = eig((x xᵀ + 1) / (4 B ln 2)), the largest first (eq. 3, 31).

    Where |z| is small D' = 1/4, so that the flow of a first dense layer is linear in z,

        dz/dt = (x xᵀ + 1) z / (4 B ln 2),

    with 1 the matrix of ones, which the bias brings in. A mode grows as e^{λt} whatever the
    neuron; the published data have λ_1 = 13.8.

    ``rank`` is how many modes are wanted, of at most min(samples, inputs + 1); None stands for all.
    A few of many are found by Lanczos' method with products by x and xᵀ alone, neither x xᵀ nor xᵀx
    being formed (SciPy's ``svds``, in float64); otherwise, and inside jit and vmap, by the
    eigenvectors of the smaller of the two, with an error of the rates of about ε λ_1.

    Raises ValueError for arguments that do not fit: their names, what they must be, what they were.
    """
    x = as_array("x", x)
    check_inputs(x)
    most = min(x.shape[0], x.shape[1] + 1)
    require(
        rank is None or (is_whole(rank) and rank <= most),
        "rank",
        f"be None, or a whole number from 1 to {most}",
        f"it was {rank!r}",
    )
    kept = most if rank is None else int(rank)
    # Lanczos pays off for a small part of a large spectrum.
    if is_traced(x) or most <= DENSE or 4 * kept > most:
        return _dense(x, kept)
    return _lanczos(np.asarray(x, np.float64), kept, x.dtype)


@eqx.filter_jit
def _dense(x: Array, rank: int) -> Spectrum:
    extended = jnp.concatenate([x, jnp.ones((x.shape[0], 1), x.dtype)], axis=1)
    wide = extended.shape[0] <= extended.shape[1]
    rows = extended if wide else extended.T
    gram = jnp.matmul(rows, rows.T, precision="highest")
    squares, vectors = jnp.linalg.eigh(gram)
    squares, vectors = squares[::-1][:rank], vectors[:, ::-1][:, :rank]
    # Of a mode that is 0 to rounding the other side's vector would be noise over noise.
    squares = jnp.maximum(squares, 0)
    live = squares > 8 * rows.shape[0] * jnp.finfo(x.dtype).eps * squares[0]
    values = jnp.sqrt(jnp.where(live, squares, 1))
    across = jnp.where(live[None, :], jnp.matmul(rows.T, vectors, precision="highest"), 0)
    others = across / values[None, :]
    modes, directions = (vectors, others) if wide else (others, vectors)
    coordinates = jnp.where(live[None, :], modes * values[None, :], 0)
    return _spectrum(extended, jnp.where(live, squares, 0), modes, directions, coordinates)


def _spectrum(
    extended: Array, squares: Array, modes: Array, directions: Array, coordinates: Array
) -> Spectrum:
    lengths = (extended**2).sum(axis=1)
    tail = lengths - (coordinates**2).sum(axis=1)
    return Spectrum(
        rates=squares / (FOUR_LN2 * extended.shape[0]),
        modes=modes,
        directions=directions,
        coordinates=coordinates,
        tail=jnp.where(tail > 1e-5 * lengths, tail, 0),
    )


def _lanczos(x: np.ndarray, rank: int, dtype: Any) -> Spectrum:
    samples = x.shape[0]
    start = np.ones(min(samples, x.shape[1] + 1))  # the same result every time
    decomposed: Any = svds(_WithOnes(x), k=rank, v0=start)
    U, s, Vt = decomposed
    order = np.argsort(-s)
    U, s, V = U[:, order], s[order], Vt[order].T
    extended = np.append(x, np.ones((samples, 1)), axis=1)
    return _spectrum(*(jnp.asarray(a, dtype) for a in (extended, s**2, U, V, U * s)))


class _WithOnes(LinearOperator):
    """[x 1], by products with x alone."""

    def __init__(self, x: np.ndarray) -> None:
        super().__init__(x.dtype, (x.shape[0], x.shape[1] + 1))
        self.inputs = x

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        weights = np.ravel(x)
        return self.inputs @ weights[:-1] + weights[-1]

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        return np.append(np.ravel(x) @ self.inputs, x.sum())
