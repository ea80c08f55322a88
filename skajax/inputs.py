"""What a network reads over time: a batch at rest, mini-batches that take turns, or inputs that move.

All have ``at(t)``, the batch at a time; and ``next_jump(t)``, the next time at which it changes at
once, where an adaptive step must end. Methods of fixed steps use the batch at a step's start.
"""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import as_array, as_number, is_whole, require, require_finite, require_positive
from skajax._types import Array, Inputs, Key, Scalar, ScalarLike

__all__ = ["Batch", "MiniBatches", "Moving"]


class Batch(eqx.Module):
    """One batch at rest: inputs x of shape (samples, ...), and targets y, if the energy asks for them.

    ``y`` has the samples in front too: class labels (samples,), or values of the last layer's shape.

    >>> labelled = ska.Batch(x, y)
    >>> ska.flow(network, weights, labelled, ska.energies.CrossEntropy())[-1].b.shape
    (10,)
    """

    x: Any
    y: Any = None

    def at(self, t: ScalarLike) -> "Batch":
        """Itself, at any time."""
        return self

    def next_jump(self, t: Scalar) -> None:
        """It never jumps."""
        return None

    def moves(self) -> bool:
        """Whether x(t) has a derivative other than 0."""
        return False


class MiniBatches(eqx.Module):
    """Mini-batches, each for one ``period`` of time: piecewise constant x(t), shuffled anew each epoch.

        x(t) = the samples n = 0, 1, ... of the k-th mini-batch, k = floor(t / period).

    An epoch is as many mini-batches as ``x`` has samples for; epoch e is shuffled by ``fold_in(key,
    e)``, so that the batch at any time is a function of t alone: runs go on, and start again, with the
    same ones.

    - ``x``, ``y``: all samples, (samples, ...), and their targets.
    - ``size``: samples of one mini-batch, at most all.
    - ``period``: how long each lasts, in the flow's time.
    - ``key``: of the shuffling, ``jax.random.key(seed)``; None keeps the order.
    - ``last``: where ``size`` does not divide the samples, "drop" leaves out the rest of each epoch
      (others the next time), and "wrap" fills the last mini-batch up with the epoch's first samples.

    >>> batches = ska.MiniBatches(x, y, size=10, period=0.1, key=jax.random.key(1))
    >>> run = ska.simulate(network, weights, batches, ska.Euler(0.05), t1=1.0)  # a batch lasts two steps
    """

    x: Any
    y: Any = None
    size: int = eqx.field(static=True, kw_only=True)
    period: ScalarLike = eqx.field(kw_only=True, converter=as_number)
    key: Key | None = eqx.field(kw_only=True, default=None)
    last: Literal["drop", "wrap"] = eqx.field(static=True, kw_only=True, default="drop")

    def __check_init__(self) -> None:
        """Refuse sizes and periods that are none."""
        samples = np.shape(self.x)[0]
        require(
            is_whole(self.size) and self.size <= samples,
            "size",
            f"be a whole number of samples, from 1 to the {samples} that there are",
            f"it was {self.size!r}",
        )
        require_positive("period", self.period, "a length of time")
        require(
            self.last in ("drop", "wrap"), "last", "be 'drop' or 'wrap'", f"it was {self.last!r}"
        )

    @property
    def per_epoch(self) -> int:
        """How many mini-batches there are in an epoch."""
        samples = np.shape(self.x)[0]
        return samples // self.size if self.last == "drop" else -(-samples // self.size)

    def at(self, t: ScalarLike) -> Batch:
        """The mini-batch at time t; at a jump, the new one."""
        samples = self.x.shape[0]
        k = self._turn(t)
        epoch, place = k // self.per_epoch, k % self.per_epoch
        order = jnp.arange(samples)
        if self.key is not None:
            order = jax.random.permutation(jax.random.fold_in(self.key, epoch), samples)
        rows = order[(place * self.size + jnp.arange(self.size)) % samples]
        return Batch(*jax.tree.map(lambda a: a[rows], (self.x, self.y)))

    def next_jump(self, t: Scalar) -> Scalar:
        """The next multiple of the period."""
        return (self._turn(t) + 1).astype(t.dtype) * jnp.asarray(self.period, t.dtype)

    def _turn(self, t: ScalarLike) -> Array:
        """Which mini-batch it is at time t, since the beginning."""
        t = jnp.asarray(t)
        t = t if jnp.issubdtype(t.dtype, jnp.floating) else t.astype(float)
        turns = t / jnp.asarray(self.period, t.dtype)
        # A time that was added up may be a rounding below the jump.
        return jnp.floor(turns * (1 + 8 * jnp.finfo(turns.dtype).eps)).astype(int)

    def moves(self) -> bool:
        """Between its jumps it rests."""
        return False


class Moving(eqx.Module):
    """Smooth inputs x(t), and targets y if they move too: ``function(t)`` is x, or a :class:`Batch`.

    Written in ``jax.numpy``: its derivative dx/dt is taken exactly, and is part of the first layer's
    tangents (ż = x Ẇ + ẋ W + ḃ) and of its transport. Its shape must not depend on t.

    >>> fading = ska.Moving(lambda t: ska.Batch(x * jnp.exp(-t)))
    >>> run = ska.simulate(network, weights, fading, ska.Euler(0.05), t1=1.0)
    """

    function: Callable[[Scalar], Any]

    def __check_init__(self) -> None:
        """Refuse what is no function."""
        require(
            callable(self.function), "function", "be a function of t", f"it was {self.function!r}"
        )

    def at(self, t: ScalarLike) -> Batch:
        """The batch at time t."""
        found = self.function(jnp.asarray(t))
        return found if isinstance(found, Batch) else Batch(found)

    def next_jump(self, t: Scalar) -> None:
        """It never jumps."""
        return None

    def moves(self) -> bool:
        """It does."""
        return True


def shape_of(inputs: Any) -> Batch:
    """A batch of shapes and dtypes: what the inputs are at any time."""
    if isinstance(inputs, Batch):
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), inputs)
    return jax.eval_shape(inputs.at, 0.0)


def as_inputs(x: Any) -> Any:
    """Inputs as they are, or an array as a batch at rest; arrays as JAX's."""
    if isinstance(x, Moving):
        return x
    if isinstance(x, Batch | MiniBatches):
        y = None if x.y is None else as_array("y", x.y)
        x = eqx.tree_at(lambda i: i.x, x, as_array("x", x.x))
        if y is not None:
            _check_targets(x.x, y)
            x = eqx.tree_at(lambda i: i.y, x, y)
        return x
    refuse_weights(x)
    return Batch(as_array("x", x))


def refuse_weights(x: Any) -> None:
    """Refuse x that is a tree of arrays, as weights are; arrays in one list or tuple may be samples."""
    leaves = jax.tree.leaves(x)
    arrays = {leaf.shape for leaf in leaves if getattr(leaf, "ndim", 0)}
    only = len(leaves) > 0 and all(getattr(leaf, "ndim", 0) for leaf in leaves)
    flat = isinstance(x, tuple | list) and jax.tree_util.all_leaves(x)
    samples = flat and (isinstance(x, list) or len(arrays) == 1)
    require(
        not only or samples or jax.tree_util.all_leaves([x]),
        "x",
        "be an array (samples, ...)",
        "it was weights (are weights and x swapped?)",
    )


def _check_targets(x: Inputs, y: Array) -> None:
    require(
        y.ndim >= 1 and y.shape[0] == x.shape[0],
        "y",
        f"have one target for each of the {x.shape[0]} samples",
        f"its shape was {y.shape}",
    )
    if jnp.issubdtype(y.dtype, jnp.floating):
        require_finite("y", y)
