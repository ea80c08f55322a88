"""The polynomial through the readings of a step that are nearest to where one looks."""

from typing import NamedTuple

import jax.numpy as jnp

from skajax._types import Array, Bool, Int, Scalar

ORDER = 6
"""Readings that a polynomial goes through at most."""


class Curve(NamedTuple):
    """The polynomial through a few readings, in Newton's form."""

    x: Array
    terms: Array
    """Divided differences: (ORDER, numbers of a reading)."""
    known: Int[Array, ""]
    """Through how many it goes."""

    def value(self, x: Scalar) -> Array:
        """At one place."""
        return self._weights(x) @ self.terms

    def doubts(self, x: Scalar) -> tuple[Array, Array]:
        """What the last reading, and the one before it, have added to the value."""
        weights = self._weights(x)
        last, before = (jnp.maximum(self.known - n, 0) for n in (1, 2))
        return weights[last] * self.terms[last], weights[before] * self.terms[before]

    def _weights(self, x: Scalar) -> Array:
        return jnp.cumprod(jnp.append(jnp.ones_like(x), x - self.x[:-1]))


def through(x: Array, rows: Array, valid: Bool[Array, " readings"], k: Int[Array, ""]) -> Curve:
    """Through readings k and k + 1, and those nearest to them that are not too close to each other."""
    gap = jnp.finfo(x.dtype).eps ** (1 / 3)  # closer, and their differences are rounding
    chosen, known, near = [k, k + 1], jnp.asarray(2), jnp.abs(x - (x[k] + x[k + 1]) / 2)
    for _ in range(ORDER - 2):
        gaps = jnp.stack([jnp.abs(x - x[n]) for n in chosen]).min(axis=0)
        far = jnp.where(valid & (gaps >= gap), near, jnp.inf)
        chosen.append(jnp.argmin(far))
        known += jnp.isfinite(far[chosen[-1]]).astype(int)
    nodes, table = x[jnp.stack(chosen)], rows[jnp.stack(chosen)]
    terms = [table[0]]
    for n in range(1, ORDER):
        apart = nodes[n:] - nodes[:-n]
        table = (table[1:] - table[:-1]) / jnp.where(apart == 0, 1, apart)[:, None]
        terms.append(jnp.where(n < known, table[0], 0))
    return Curve(nodes, jnp.stack(terms), known)


def size_of(doubts: tuple[Array, Array]) -> Array:
    """By how much a polynomial may be wrong: twice its last term, and a tenth of the one before."""
    return 2 * jnp.abs(doubts[0]) + 0.1 * jnp.abs(doubts[1])
