"""How fast knowledge grows while it is small: the spectrum of the batch."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import as_array, is_traced, is_whole, require
from skajax._types import Array, Float, Inputs, Scalar
from skajax.entropy import growth_rate
from skajax.network import check_inputs
from skajax.timescales._krylov import EXACT, largest

DENSE = 2048
"""Up to so many samples, or inputs, the whole spectrum costs no more than a few of its modes."""


class Spectrum(eqx.Module):
    """The growth rates of one batch, and their modes: X̃ = [x 1] = U s Vᵀ, rate = s² / (4 B ln 2).

    The bias is a weight of a constant input 1. Ordered from the fastest; those that are 0 to
    rounding have modes too, which do not grow.

    >>> print(f"{ska.timescales.spectrum(x).rates[0]:.2f}")
    14.39
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
    They are the eigenvectors of the smaller of x xᵀ + 1 and [x 1]ᵀ[x 1], in float64 on the host, with an
    error of the rates of about ε λ_1, ε that of float64; inside jit and vmap, that of x. A few of more than
    2048 are found without forming either, by a block Krylov method with products by x and xᵀ alone.

    Raises ValueError for arguments that do not fit: their names, what they must be, what they were.

    >>> print(f"{ska.timescales.spectrum(x).rates[0]:.2f}")
    14.39
    """
    x = as_array("x", x)
    check_inputs(x)
    require(
        x.ndim == 2,
        "x",
        "be of shape (samples, inputs), as a dense layer reads it",
        f"its shape was {x.shape} (skajax.timescales.growth has the rates of any layer)",
    )
    most = min(x.shape[0], x.shape[1] + 1)
    require(
        rank is None or (is_whole(rank) and rank <= most),
        "rank",
        f"be None, or a whole number from 1 to {most}",
        f"it was {rank!r}",
    )
    kept = most if rank is None else int(rank)
    if is_traced(x):
        return _dense(x, kept)
    return _on_host(np.asarray(x), kept, x.dtype)


@eqx.filter_jit
def _dense(x: Array, rank: int) -> Spectrum:
    extended = jnp.concatenate([x, jnp.ones((x.shape[0], 1), x.dtype)], axis=1)
    with jax.default_matmul_precision("highest"):
        rows = _rows(extended)
        squares, vectors = jnp.linalg.eigh(rows @ rows.T)
        found = _complete(extended, squares[::-1][:rank], vectors[:, ::-1][:, :rank], x.dtype, jnp)
    return Spectrum(**found)


def _on_host(x: np.ndarray, rank: int, dtype: Any) -> Spectrum:
    """The same in NumPy's float64: nothing is compiled, whatever the shape."""
    extended = np.ones((x.shape[0], x.shape[1] + 1))
    extended[:, :-1] = x
    rows, leading = _rows(extended), None
    # To iterate pays off for a small part of a large spectrum.
    if len(rows) > DENSE and 4 * rank <= len(rows):
        squares, vectors, error = largest(lambda v: rows @ (rows.T @ v), len(rows), rank, EXACT)
        leading = (squares, vectors) if error <= EXACT * squares[0] else None
    if leading is None:
        squares, vectors = np.linalg.eigh(rows @ rows.T)
        leading = squares[::-1][:rank], vectors[:, ::-1][:, :rank]
    found = _complete(extended, *leading, np.float64, np)
    return Spectrum(**{name: jnp.asarray(value, dtype) for name, value in found.items()})


def _rows(extended: Any) -> Any:
    """Of X̃ or its transpose, the one with fewer rows."""
    return extended if extended.shape[0] <= extended.shape[1] else extended.T


def _complete(extended: Any, squares: Any, vectors: Any, dtype: Any, xp: Any) -> dict[str, Any]:
    """The parts of a spectrum, of s² and the vectors of X̃'s shorter side; of JAX's arrays or NumPy's."""
    rows = _rows(extended)
    # Of a mode that is 0 to rounding the other side's vector would be noise over noise. It is any that is
    # orthogonal to all before it, as Householder's reflections make of a column of zeros; of modes hardly
    # above rounding they take away what the larger ones have mixed into them.
    squares = xp.maximum(squares, 0)
    live = squares > 8 * rows.shape[0] * float(jnp.finfo(dtype).eps) * squares[0]
    values = xp.sqrt(xp.where(live, squares, 1))
    others, triangle = xp.linalg.qr(xp.where(live[None, :], rows.T @ vectors, 0) / values[None, :])
    others = xp.where(xp.diag(triangle)[None, :] < 0, -others, others)
    wide = extended.shape[0] <= extended.shape[1]
    modes, directions = (vectors, others) if wide else (others, vectors)
    coordinates = xp.where(live[None, :], modes * values[None, :], 0)
    lengths = (extended**2).sum(axis=1)
    tail = lengths - (coordinates**2).sum(axis=1)
    return {
        "rates": growth_rate(xp.where(live, squares, 0) / extended.shape[0]),
        "modes": modes,
        "directions": directions,
        "coordinates": coordinates,
        "tail": xp.where(tail > 1e-5 * lengths, tail, 0),
    }
