"""The same run in fewer inputs: only the row space of X moves the first layer.

Let Q (inputs, rank) have orthonormal columns that span the rows of X, so that X = X_r Qᵀ with
X_r = X Q. Then the first dense layer's z = X W + b = X_r W_r + b with W_r = Qᵀ W, and its flow
(eq. 3-4) is

    dW/dt = -(1/B) Xᵀ g = Q (-(1/B) X_rᵀ g),    so    W(t) = W_⊥ + Q W_r(t),

where W_⊥ = W(0) - Q Qᵀ W(0) never moves. The network on (W_r, X_r) is the network on (W, X), to
rounding: Z, D and all that is made of them agree, and ‖W‖² = ‖W_⊥‖² + ‖W_r‖².

So it is for every rule whose update of W is Xᵀ times something, and linear in it: the flow in any
solver, the published rule, SGD with momentum or without. It is *not* so for optimisers that treat
each weight by itself, such as Adam, Lion or Adagrad: they do not commute with the rotation Q.
"""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import is_traced, require
from skajax._types import Array, Float, Inputs, Int, LayerSeries, Weights
from skajax.network import Network

__all__ = ["RowSpace", "Rows", "find", "reducible", "rows"]

BLOCK = 16
"""Inputs are kept in blocks: a batch with a few zero columns more or less compiles nothing anew."""
SHARE = 0.9
"""Of the inputs, at most this many are worth keeping."""
SAVING = 10_000_000
"""Operations that must be saved at each evaluation of the flow: about 0.1 ms, on two cores."""
PATIENCE = 5
"""Evaluations that must have saved the decomposition's operations."""


class RowSpace(eqx.Module):
    """The inputs' row space, and what of the first layer's weights lies outside of it.

    >>> space, reduced, coordinates = ska.reduction.find(network, weights, x, "full")
    >>> space.rank
    20
    """

    basis: Float[Array, "inputs rank"] | Int[Array, " rank"]
    """Q; or, where its columns are those of the identity, which: the inputs that were kept."""
    outside: Float[Array, "inputs outputs"]
    """W_⊥, which never moves."""

    @property
    def inputs(self) -> int:
        """Of X."""
        return self.outside.shape[-2]

    @property
    def rank(self) -> int:
        """Of the basis: the inputs of X_r. At least that of X; no less than 1."""
        return self.basis.shape[-1]

    @eqx.filter_jit
    def lift(self, weights: Weights) -> Weights:
        """The network's weights W = W_⊥ + Q W_r, from the reduced ones; b and all else as it is."""
        first, *rest = self.lift_increment(weights)
        return (first._replace(W=self.outside + first.W), *rest)

    @eqx.filter_jit
    def lift_increment(self, weights: Weights) -> Weights:
        """Q V_r, without W_⊥: for velocities, differences and errors of the weights."""
        first, *rest = weights
        if self.basis.ndim == 1:
            lifted = jnp.zeros_like(self.outside).at[self.basis].set(first.W)
        else:
            lifted = jnp.matmul(self.basis, first.W, precision="highest")
        return (first._replace(W=lifted), *rest)

    @eqx.filter_jit
    def weight_norm(self, norms: LayerSeries) -> LayerSeries:
        """Each layer's ‖W‖, from that of the reduced weights: √(‖W_r‖² + ‖W_⊥‖²) in the first."""
        first = jnp.hypot(norms[..., 0], jnp.linalg.norm(self.outside))
        return norms.at[..., 0].set(first)


class Rows(NamedTuple):
    """Inputs in their row space: what all runs on one batch share."""

    basis: Float[Array, "inputs rank"] | Int[Array, " rank"]
    """Q, as :class:`RowSpace` has it."""
    x: Inputs
    """X_r = X Q."""
    host: np.ndarray
    """Q where weights are taken apart."""

    def reduce(self, weights: Weights) -> tuple[RowSpace, Weights]:
        """The row space, with what of these weights lies outside of it, and the weights within it."""
        first = weights[0]
        W_r, outside = _split(np.asarray(first.W), self.host)
        space = RowSpace(self.basis, _like(first.W, outside))
        return space, (first._replace(W=_like(first.W, W_r)), *weights[1:])


def find(
    network: Network, weights: Weights, x: Inputs, effort: Literal["auto", "full"] = "auto"
) -> tuple[RowSpace, Weights, Float[Array | np.ndarray, "samples rank"]] | None:
    """The row space of x, and weights and inputs reduced to it; None if there is nothing to gain.

    See :func:`rows`, which looks at x alone.

    >>> space, reduced, coordinates = ska.reduction.find(network, weights, x, "full")
    >>> weights[0].W.shape, reduced[0].W.shape
    ((784, 8), (20, 8))
    """
    if not reducible(network, weights):
        return None
    found = rows(network, x, effort)
    return None if found is None else (*found.reduce(weights), found.x)


def reducible(network: Network, weights: Weights) -> bool:
    """Whether the first layer's weights can be taken apart: dense, known, its inputs in one piece.

    >>> ska.reduction.reducible(network, weights)
    True
    """
    if getattr(network.layers[0], "rows", None) is None:
        return False
    return not (is_traced(weights) or _cut(weights[0].W, 0))


def rows(network: Network, x: Inputs, effort: Literal["auto", "full"] = "auto") -> Rows | None:
    """The row space of x; None if this network has nothing to gain.

    - "auto" takes what is cheap and pays: it leaves out inputs that are zero in every sample, and
      turns to as many coordinates as there are samples, where these are few (a QR decomposition).
      Nothing is neglected, and the shapes hardly depend on x's values.
    - "full" also decides on the numerical rank (by the pivots of that QR), and reduces whatever can be. It
      neglects of each sample at most 1e-13 of the largest sample's norm, or 8 ε in x's precision ε
      where that is more (1e-6 in float32).

    Decomposed in float64 on the host; the results have the dtypes and devices of the arguments. Only
    for a first layer with ``rows``, as :class:`skajax.layers.Dense` has them, and for known values:
    inside jit, vmap and grad of weights or x there is None, nor where the axis of inputs is divided
    among devices.

    >>> ska.reduction.rows(network, x, "full").x.shape
    (20, 20)
    """
    require(effort in ("auto", "full"), "effort", "be 'auto' or 'full'", f"it was {effort!r}")
    layer = network.layers[0]
    width = getattr(layer, "rows", None)
    if width is None or x.ndim != 2 or is_traced(x) or _cut(x, 1):
        return None
    values, full = np.asarray(x), effort == "full"
    samples, inputs = values.shape
    live = (values != 0).any(axis=0)
    block = 1 if full else BLOCK
    kept = min(inputs, max(block, -(-int(live.sum()) // block) * block))

    # 4 samples² live operations, against 4 samples width an evaluation for every input that goes.
    rotate = full or samples * live.sum() <= PATIENCE * (kept - samples) * width
    rank = min(samples, kept) if rotate else kept
    saving = 4 * samples * width * (inputs - rank)
    if not full and (rank > SHARE * inputs or saving < SAVING):
        return None

    basis = np.sort(np.argsort(~live, stable=True)[:kept])  # all that live, and zeros to fill up
    x_r = values[:, basis]
    if rotate and live.any():
        Q, coordinates = _rows(values[:, live], full)
        if Q.shape[1] < kept:
            basis, x_r = np.zeros((inputs, Q.shape[1]), values.dtype), coordinates
            basis[live] = Q
    if basis.shape[-1] == inputs:
        return None
    return Rows(jax.device_put(basis), _like(x, x_r), basis)


def _rows(x: np.ndarray, full: bool) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal Q that spans the rows of x, and x Q = Rᵀ, where xᵀ = Q R; in float64."""
    import scipy.linalg

    quick = None if full else _cholesky_rows(x)
    if quick is not None:
        return quick
    decomposed: Any = scipy.linalg.qr(
        x.T.astype(np.float64), mode="economic", pivoting=True, check_finite=False
    )
    Q, R, order = decomposed
    # What the first r columns of Q leave of any sample is no longer than the next pivot.
    pivots = np.abs(np.diag(R))
    tolerance = max(1e-13, 8 * float(jnp.finfo(x.dtype).eps))
    rank = int((pivots > tolerance * pivots[0]).sum()) if full else pivots.size
    coordinates = np.empty((x.shape[0], rank))
    coordinates[order] = R[:rank].T
    return Q[:, :rank], coordinates


def _cholesky_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The same by Cholesky's decomposition of x xᵀ; None where samples are nearly dependent.

    A few large operations instead of two for each sample: on a busy machine, where every one of them
    waits for all threads, that is milliseconds instead of seconds. Done twice, Q is orthogonal to rounding
    where cond(x)² ε is well below 1 (CholeskyQR2: Yamamoto et al., ETNA 44 (2015) 306-326).
    """
    import scipy.linalg

    rows, triangle = x.astype(np.float64), np.eye(x.shape[0])
    for _ in range(2):
        try:
            L = np.linalg.cholesky(rows @ rows.T)
        except np.linalg.LinAlgError:
            return None
        if L.diagonal().min() < 1e-6 * L.diagonal().max():
            return None
        rows = scipy.linalg.solve_triangular(L, rows, lower=True, check_finite=False)
        triangle = triangle @ L
    return rows.T, triangle


def _split(W: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """W_r and W_⊥."""
    if basis.ndim == 1:
        outside = W.copy()
        outside[basis] = 0
        return W[basis], outside
    # By Q and W_r as rounded, so that W_⊥ + Q W_r is W whatever the rounding; but in float64.
    Q, exact = basis.astype(np.float64), W.astype(np.float64)
    W_r = (Q.T @ exact).astype(W.dtype)
    return W_r, exact - Q @ W_r.astype(np.float64)


def _cut(array: Array | np.ndarray, axis: int) -> bool:
    """Whether the axis is divided among devices."""
    if not isinstance(array, jax.Array):
        return False
    return array.sharding.shard_shape(array.shape)[axis] < array.shape[axis]


def _like(array: Array | np.ndarray, value: np.ndarray) -> Array:
    """The value in an array's dtype, and on its devices where it was put there."""
    placed = array.sharding if isinstance(array, jax.Array) and array.committed else None
    return jax.device_put(value.astype(array.dtype), placed)
