"""Self-attention on sequences, z = concat_heads(softmax(q kᵀ / √d) v) O + b."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import as_array, is_traced, require
from skajax._types import Array, Bool, Float, Inputs, Key, Knowledge
from skajax.layers._fields import DECISIONS, usual, whole
from skajax.layers._product import matrix_product


class SelfAttentionWeights(NamedTuple):
    """Weights of a self-attention: ``Q``, ``K``, ``V`` (features, width), ``O`` (width, width), ``b``
    (width,).

    Columns h d to (h + 1) d - 1 of Q, K and V, and those rows of O, are head h's, h = 0, 1, ...
    """

    Q: Float[Array, "features width"]
    K: Float[Array, "features width"]
    V: Float[Array, "features width"]
    O: Float[Array, "width width"]  # noqa: E741
    b: Float[Array, " width"]


class SelfAttention(eqx.Module):
    """Knowledge at every time t of a sequence, of what it finds at all times s:

        z = concat_heads(A v) O + b,    A = softmax_s(q kᵀ / √d),    q = x Q,  k = x K,  v = x V

    on sequences x (samples, times, features). Each of the ``heads`` has d = width / heads columns of q, k
    and v, and its own weights A (times, times), which sum to 1 over s; z is (samples, times, width).

    - ``width``: numbers of knowledge at each time; ``heads`` must divide it.
    - ``causal``: whether time t attends to times s ≤ t alone.
    - ``mask``: (samples, times), True where a sequence has a position and False where it is padding, for
      sequences of different lengths: ``jnp.arange(times) < lengths[:, None]``. Nobody attends to
      padding, and its own knowledge is 0: it never moves, so it has no part in the flow, nor in any rate
      or change that is observed, nor in ‖Z‖. Its decisions are ½ at all times (of the sigmoid), which
      are one bit each in H, a constant. A layer above that takes no mask reads those as any others. The
      mask is an array of the layer, one row for each sample, so it goes with a batch at rest, and
      not with mini-batches.
    - ``scale``, ``bias``: initially Q, K, V, O ~ N(0, scale²), independently, and b = ``bias``. Since z is a
      product of V and O, small ones move slowly at first: 1 / √width is usual in attention.
    - ``precision``, ``decision``: as of :class:`Dense`.

    The flow differentiates the whole of z(x) with x held fixed, A too. Beside arrays like z, a flow
    evaluation holds three of (samples, heads, times, times) and half of one more for each further layer, its
    tangents one more (what XLA plans on a CPU).

    Raises ValueError where heads do not divide the width, for inputs or a mask of another shape, and for
    a mask that hides all of a sample, where its values are known.

    Source: A. Vaswani et al., "Attention Is All You Need", NeurIPS (2017), arXiv:1706.03762, eq. 1.

    >>> x, y = ska.data.mnist(per_class=1, layout="rows")  # sequences of 28 rows of pixels
    >>> layer = ska.layers.SelfAttention(8, heads=2, causal=True, scale=0.3)
    >>> network = ska.Network((layer, ska.layers.Pool(None), ska.Dense(10)))
    >>> weights = network.init(jax.random.key(0), x)
    >>> run = ska.simulate(network, weights, x, ska.Adaptive(), t1=2.0)
    >>> maps = layer.attention(run.final.weights[0], x)  # (10, 2, 28, 28)
    """

    width: int = eqx.field(static=True)
    heads: int = eqx.field(static=True, default=1)
    causal: bool = eqx.field(static=True, default=False)
    mask: Bool[Array | np.ndarray, "samples times"] | None = eqx.field(default=None, kw_only=True)
    scale: float = eqx.field(static=True, default=0.01)
    bias: float = eqx.field(static=True, default=0.0)
    precision: str = eqx.field(static=True, default="highest")
    decision: str = eqx.field(static=True, default="sigmoid")

    def __post_init__(self) -> None:
        whole(self, "width", "neurons")
        whole(self, "heads", "heads")
        require(
            self.width % self.heads == 0,
            "heads",
            f"divide the width of {self.width}",
            f"it was {self.heads}",
        )
        require(
            isinstance(self.causal, bool), "causal", "be True or False", f"it was {self.causal!r}"
        )
        usual(self)
        if self.mask is not None:
            object.__setattr__(self, "mask", as_array("mask", self.mask))
            _check_mask(self.mask)

    def init(self, key: Key, x: Inputs | jax.ShapeDtypeStruct) -> SelfAttentionWeights:
        """Initial weights for inputs of x's features and dtype; x's values are not read."""
        self._check(x)
        features, width = x.shape[2], self.width
        reading, writing = jax.random.split(key)
        Q, K, V = self.scale * jax.random.normal(reading, (3, features, width), x.dtype)
        O = self.scale * jax.random.normal(writing, (width, width), x.dtype)  # noqa: E741
        return SelfAttentionWeights(Q, K, V, O, jnp.full((width,), self.bias, x.dtype))

    def knowledge(self, weights: SelfAttentionWeights, x: Inputs) -> Knowledge:
        """Knowledge z, of shape (samples, times, width); 0 at padding."""
        A, v = self._attend(weights, x), self._heads(x, weights.V)
        found = jnp.einsum("bhts,bshd->bthd", A, v, precision=self.precision)
        found = found.reshape(*x.shape[:2], self.width)
        z = matrix_product(found, weights.O, self.precision) + weights.b[None, None, :]
        return z if self.mask is None else jnp.where(self.mask[:, :, None], z, 0)

    def attention(
        self, weights: SelfAttentionWeights, x: Inputs
    ) -> Float[Array, "samples heads times times"]:
        """How much time t attends to time s: A[sample, head, t, s], whose sum over s is 1.

        Of a position t that is padding, 0.
        """
        A = self._attend(weights, x)
        return A if self.mask is None else jnp.where(self.mask[:, None, :, None], A, 0)

    def decide(self, z: Knowledge) -> Knowledge:
        """Decisions D, of the shape of z (eq. 13)."""
        return DECISIONS[self.decision](z)

    def running(self) -> "SelfAttention":
        """The layer without its initial values: layers that compute the same are the same."""
        return dataclasses.replace(self, scale=0.01, bias=0.0)

    def _heads(self, x: Inputs, W: Any) -> Array:
        """x W, (samples, times, heads, d)."""
        return matrix_product(x, W, self.precision).reshape(*x.shape[:2], self.heads, -1)

    def _attend(self, weights: SelfAttentionWeights, x: Inputs) -> Array:
        """A, (samples, heads, times, times)."""
        self._check(x)
        times = x.shape[1]
        q, k = self._heads(x, weights.Q), self._heads(x, weights.K)
        q = q * (self.heads / self.width) ** 0.5  # fewer numbers than q kᵀ has
        scores = jnp.einsum("bthd,bshd->bhts", q, k, precision=self.precision)
        # Of hidden scores the exponential is 0. They are finite, so that a row of padding which sees
        # nothing at all is no NaN.
        hidden = jnp.finfo(scores.dtype).min
        if self.causal:
            past = jnp.tril(jnp.ones((times, times), bool))
            scores = jnp.where(past[None, None], scores, hidden)
        if self.mask is not None:
            scores = jnp.where(self.mask[:, None, None, :], scores, hidden)
        return jax.nn.softmax(scores, axis=-1)

    def _check(self, x: Any) -> None:
        require(
            len(x.shape) == 3,
            "x",
            "be of shape (samples, times, features) for an attention layer",
            f"its shape was {tuple(x.shape)}"
            + (" (x[:, :, None] has one feature at each time)" if len(x.shape) == 2 else ""),
        )
        require(
            self.mask is None or self.mask.shape == x.shape[:2],
            "mask",
            f"have one value for each position of x, {tuple(x.shape[:2])} (samples, times)",
            lambda: f"its shape was {getattr(self.mask, 'shape', None)}, and x's {tuple(x.shape)}",
        )


def _check_mask(mask: Any) -> None:
    """Refuse what is no mask, and, where its values are known, one that hides all of a sample."""
    require(
        mask.ndim == 2 and mask.dtype == bool,
        "mask",
        "be booleans of shape (samples, times), True where a sequence has a position",
        f"it was {mask.dtype} of shape {mask.shape}",
    )
    if is_traced(mask):
        return
    empty = np.flatnonzero(~np.asarray(mask).any(axis=1))
    require(
        empty.size == 0,
        "mask",
        "leave every sample at least one position",
        lambda: f"it hid all of {empty.size} samples (sample {empty[0]} first)",
    )
