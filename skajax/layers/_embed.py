"""A stage that reads whole numbers: what each token stands for."""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import as_array, require
from skajax._types import AnyArray, Array, Inputs, Key
from skajax.layers._fields import real, whole


class Embed(eqx.Module):
    """y_t = table[x_t], perhaps + p_t: token ids (samples, times) as (samples, times, width).

    The first of a network's layers and stages, on x of integers from 0 to ``vocabulary`` - 1. Three tables:

    - ``Embed(vocabulary)``: the identity, so that y_t is a vector of 0 with a 1 (one-hot), of width
      ``vocabulary``;
    - ``Embed(vocabulary, width)``: the stage's own weights, at first N(0, ``scale``²). As those of every
      stage they have no knowledge, and so no entropy: they move under global energies alone;
    - ``Embed(table=table)``: given numbers (vocabulary, width), which never move.

    An embedding that *learns under SKA* is a layer with knowledge: ``Embed(vocabulary)`` followed by
    ``Dense(width, pointwise=True)``, whose z_t = W[x_t] + b.

    ``positions=True`` adds the sinusoids p_t of the time t = 0, 1, ..., for i = 0, 1, ...,

        p_t[2i] = sin(t / 10000^(2i / width)),    p_t[2i + 1] = cos(t / 10000^(2i / width)).

    Weights and what it gives have JAX's default floating-point dtype. Raises ValueError for a token
    outside of the vocabulary; inside jit, where nobody knows the tokens, it gives NaN for one, which
    the run's outcome reports.

    Source: A. Vaswani et al., "Attention is all you need", arXiv:1706.03762 (2017), section 3.5.

    >>> x = jnp.array([[0, 2, 1], [1, 1, 0]])
    >>> network = ska.Network((ska.layers.Embed(3), ska.layers.Flatten(), ska.Dense(2)))
    >>> weights = network.init(jax.random.key(0), x)  # of the dense layer W has the shape (9, 2)
    """

    vocabulary: int | None = eqx.field(static=True, default=None)
    width: int | None = eqx.field(static=True, default=None)
    scale: float = eqx.field(static=True, default=1.0)
    table: AnyArray | None = eqx.field(
        kw_only=True, default=None, converter=lambda t: None if t is None else as_array("table", t)
    )
    positions: bool = eqx.field(static=True, default=False, kw_only=True)

    reads: ClassVar[str] = "integers"

    def __check_init__(self) -> None:
        """Refuse what is no table."""
        real(self, "scale", "standard deviation", least=0)
        if self.table is None:
            whole(self, "vocabulary", "tokens")
            if self.width is not None:
                whole(self, "width", "numbers for each token")
            return
        require(
            self.table.ndim == 2 and min(self.table.shape) >= 1,
            "table",
            "have one row for each token, (vocabulary, width)",
            f"its shape was {self.table.shape}",
        )
        given = (self.vocabulary, self.width)
        require(
            all(g in (None, n) for g, n in zip(given, self.table.shape, strict=True)),
            "table",
            f"be of the vocabulary and width that are given, {given}",
            f"its shape was {self.table.shape}",
        )

    @property
    def tokens(self) -> int:
        """How many there are."""
        known = self.vocabulary if self.table is None else self.table.shape[0]
        assert known is not None
        return known

    def init(self, key: Key, x: Inputs | jax.ShapeDtypeStruct) -> Any:
        """The table where it is the stage's own, else no weights; x's values are not read."""
        require(
            jnp.issubdtype(x.dtype, jnp.integer) and len(x.shape) == 2,
            "x",
            "be token ids, integers of shape (samples, times), for an embedding",
            f"it was {x.dtype} of shape {x.shape}",
        )
        if self.table is not None or self.width is None:
            return ()
        return self.scale * jax.random.normal(key, (self.tokens, self.width), float)

    def check(self, x: Inputs) -> None:
        """Refuse tokens outside of the vocabulary."""
        low, high = int(np.min(x)), int(np.max(x))
        require(
            low >= 0 and high < self.tokens,
            "x",
            f"hold tokens from 0 to {self.tokens - 1}, a vocabulary of {self.tokens}",
            f"one was {low if low < 0 else high}",
        )

    def apply(self, weights: Any, x: Inputs) -> Array:
        """The row of each token, (samples, times, width)."""
        dtype = jnp.result_type(float)
        x = jnp.asarray(x)
        known = (x >= 0) & (x < self.tokens)
        if self.table is None and self.width is None:
            rows = jax.nn.one_hot(x, self.tokens, dtype=dtype)
        else:
            table = weights if self.table is None else self.table.astype(dtype)
            rows = table[jnp.where(known, x, 0)]
        rows = jnp.where(known[..., None], rows, jnp.asarray(jnp.nan, rows.dtype))
        if not self.positions:
            return rows
        _, times, width = rows.shape
        return rows + sinusoids(times, width, rows.dtype)[None]

    def running(self) -> "Embed":
        """Without what only ``init`` reads."""
        return dataclasses.replace(self, scale=1.0)


def sinusoids(times: int, width: int, dtype: Any) -> Array:
    """p_t of the times t = 0, 1, ...: sines in the even places, cosines in the odd ones."""
    place = np.arange(width)
    angles = np.arange(times)[:, None] / 10000.0 ** (2 * (place // 2) / width)[None, :]
    return jnp.asarray(np.where(place % 2 == 0, np.sin(angles), np.cos(angles)), dtype)
