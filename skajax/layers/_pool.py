"""A stage that takes means or maxima over windows of space or time."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import as_whole, is_whole, require
from skajax._types import Array, Inputs, Key
from skajax.layers._fields import choice


@dataclasses.dataclass(frozen=True)
class Pool:
    """y_p = mean, or maximum, of x_q over the positions q of the window at p, channel by channel.

    A stage, without weights, on x of shape (samples, times, channels) or (samples, height, width,
    channels).

    - ``window``: how many positions, one number for all axes or a tuple with one for each, such as
      (2, 2); None pools over all positions, to (samples, channels).
    - ``strides``: how far apart windows begin; by default as far as they are long.
    - ``kind``: "mean" or "max".
    - ``padding``: "VALID" takes windows that lie within x; "SAME" one for every stride, of whose
      positions those outside of x do not count: a mean is over the positions that there are.

    Raises ValueError where a window is larger than x.

    >>> x = jax.random.uniform(jax.random.key(0), (5, 6, 6, 1))
    >>> network = ska.Network((ska.layers.Pool(2), ska.layers.Flatten(), ska.Dense(3)))
    >>> run = ska.simulate(network, network.init(jax.random.key(1), x), x, ska.Euler(0.1), steps=5)
    """

    window: int | tuple[int, ...] | None
    strides: int | tuple[int, ...] | None = None
    kind: str = "mean"
    padding: str = "VALID"

    def __post_init__(self) -> None:
        for name in ("window", "strides"):
            given = getattr(self, name)
            sizes = tuple(map(as_whole, given)) if isinstance(given, list | tuple) else given
            sizes = sizes if isinstance(sizes, tuple) else as_whole(sizes)
            object.__setattr__(self, name, sizes)
            each = sizes if isinstance(sizes, tuple) else (sizes,)
            require(
                sizes is None or (len(each) in (1, 2) and all(map(is_whole, each))),
                name,
                "be a whole number of positions, at least 1, or one for each of 1 or 2 axes, or None",
                f"it was {given!r}",
            )
        require(
            self.window is not None or (self.strides is None and self.padding == "VALID"),
            "window",
            "be given where there are strides or padding",
            "it was None, which pools over all positions",
        )
        choice(self, "kind", ("mean", "max"))
        choice(self, "padding", ("VALID", "SAME"))

    def init(self, key: Key, x: Inputs | jax.ShapeDtypeStruct) -> tuple[()]:
        """It has no weights. Raises ValueError where its window does not fit x's shape."""
        axes = len(x.shape) - 2
        given = [size for size in (self.window, self.strides) if isinstance(size, tuple)]
        require(
            axes in (1, 2) and all(len(size) == axes for size in given),
            "x",
            "be of shape (samples, times, channels) or (samples, height, width, channels), with as many"
            f" axes of positions as there are in the window {self.window!r} and strides {self.strides!r}",
            f"its shape was {x.shape}",
        )
        require(
            self.window is None or all(map(int.__le__, self._sizes(x)[0], x.shape[1:-1])),
            "window",
            f"be at most as large as what it reads, {x.shape[1:-1]}",
            f"it was {self.window!r} for x of shape {x.shape}",
        )
        return ()

    def apply(self, weights: object, x: Inputs) -> Array:
        """Means or maxima, (samples, windows..., channels); over all positions, (samples, channels)."""
        x = jnp.asarray(x)
        if self.window is None:
            positions = tuple(range(1, x.ndim - 1))
            return x.mean(positions) if self.kind == "mean" else x.max(positions)
        window, strides = ((1, *sizes, 1) for sizes in self._sizes(x))
        if self.kind == "max":
            least = np.array(-np.inf, x.dtype)
            return jax.lax.reduce_window(x, least, jax.lax.max, window, strides, self.padding)
        add = lambda a: jax.lax.reduce_window(
            a, np.zeros((), a.dtype), jax.lax.add, window, strides, self.padding
        )
        if self.padding == "VALID":
            return add(x) / math.prod(window)
        there = add(jnp.ones((1, *x.shape[1:-1], 1), x.dtype))
        return add(x) / jnp.broadcast_to(there, (*x.shape[:1], *there.shape[1:-1], x.shape[-1]))

    def _sizes(self, x: Inputs | jax.ShapeDtypeStruct) -> list[tuple[int, ...]]:
        """Window and strides along each axis of positions."""
        axes = len(x.shape) - 2
        strides = self.window if self.strides is None else self.strides
        return [
            size if isinstance(size, tuple) else (size,) * axes for size in (self.window, strides)
        ]  # pyright: ignore[reportReturnType]
