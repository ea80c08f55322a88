"""The convolution, one linear map of every patch: z = x * W + b."""

import dataclasses
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import as_whole, is_whole, require
from skajax._types import Array, Float, Inputs, Key, Knowledge
from skajax.layers._fields import DECISIONS, usual, whole
from skajax.layers._product import matrix_product

SHAPES = {1: "(samples, length, channels)", 2: "(samples, height, width, channels)"}
"""Of what a convolution reads, by its number of axes in space."""


class ConvWeights(NamedTuple):
    """Weights of a convolution: ``W`` (*window, inputs / groups, outputs) and ``b`` (outputs,)."""

    W: Float[Array, "*window inputs outputs"]
    b: Float[Array, " outputs"]


@dataclasses.dataclass(frozen=True)
class Conv:
    """Knowledge z = x * W + b: at every position, one and the same linear map of a patch of x.

        z_spo = b_o + Σ_q Σ_c x_s,r(p,q),c W_qco,    r(p, q) = strides · p + dilation · q - padding

    s is the sample, p the position of the patch, q the place within the window, c the channel that is read
    and o the one that is made. This is section 1.1's z = x W + b with a patch in the place of x, so that
    entropy and decisions are of each sample, position and channel. Where r lies outside of the image, x is 0.
    W belongs to all positions: in its local flow positions add up, and samples are averaged,

        dW/dt = -(1/B) Σ_s Σ_p patch_spᵀ ∇_z H_sp,    db/dt = -(1/B) Σ_s Σ_p ∇_z H_sp.

    Arguments:

    - ``channels``: how many the layer makes, n;
    - ``window``: the size of a patch, (height, width) for images (samples, height, width, channels), or one
      number for sequences (samples, length, channels): its length says how many axes there are in space;
    - ``strides``: how far neighbouring patches are apart, one number for all axes or one for each;
    - ``padding``: "VALID" takes the patches that lie within the image; "SAME" adds zeros around it, the odd
      one at the end, so that there are ⌈size / strides⌉ positions; or how many zeros to add, a pair (before,
      after) for each axis;
    - ``dilation``: how far neighbours within a patch are apart, one number or one for each axis;
    - ``groups``: channels are cut into so many groups in order, and each group of outputs reads one group
      of inputs. Each group is a convolution of its own in the compiled program: compiling takes longer
      the more there are;
    - ``scale``, ``bias``: initially W ~ N(0, scale²), independently, and b = bias;
    - ``precision``: of the products, in the words of ``jax.lax.Precision``;
    - ``decision``: D of z, "sigmoid", "identity", "tanh" or "relu" (see :class:`skajax.layers.Dense`).

    Raises ValueError where an argument, or the shape of what it reads, does not fit.

    >>> x = jax.random.uniform(jax.random.key(0), (5, 28, 28, 1))
    >>> network = ska.Network((ska.layers.Conv(16, (3, 3), strides=2), ska.layers.Conv(8, (3, 3))))
    >>> Z, D = network.forward(network.init(jax.random.key(1), x), x)  # 13 x 13 and 11 x 11 positions
    """

    channels: int
    window: int | tuple[int, ...]
    strides: int | tuple[int, ...] = 1
    padding: str | tuple[tuple[int, int], ...] = "VALID"
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    scale: float = 0.01
    bias: float = 0.0
    precision: str = "highest"
    decision: str = "sigmoid"

    def __post_init__(self) -> None:
        whole(self, "channels", "channels")
        whole(self, "groups", "groups")
        require(
            self.channels % self.groups == 0,
            "groups",
            f"divide the {self.channels} channels",
            f"it was {self.groups}",
        )
        window = _numbers(self.window)
        require(
            len(window) in SHAPES and all(map(is_whole, window)),
            "window",
            "be a whole number of positions, at least 1, or one for each of 1 or 2 axes",
            f"it was {self.window!r}",
        )
        object.__setattr__(self, "window", window)
        for name in ("strides", "dilation"):
            given = getattr(self, name)
            sizes = _numbers(given)
            sizes = sizes if isinstance(given, Sequence) else sizes * len(window)
            require(
                len(sizes) == len(window) and all(map(is_whole, sizes)),
                name,
                f"be a whole number, at least 1, or one for each axis of the window {window}",
                f"it was {given!r}",
            )
            object.__setattr__(self, name, sizes)
        object.__setattr__(self, "padding", self._checked_padding())
        usual(self)

    def init(self, key: Key, x: Inputs | jax.ShapeDtypeStruct) -> ConvWeights:
        """Initial weights for inputs of x's channels and dtype; x's values are not read.

        Raises ValueError where the window is larger than the padded image, the number of axes another, or
        the groups do not divide x's channels.
        """
        require(
            len(x.shape) == len(self._window) + 2,
            "x",
            f"be of shape {SHAPES[len(self._window)]} for a convolution with the window {self.window}",
            f"its shape was {x.shape}",
        )
        *space, inputs = x.shape[1:]
        require(
            inputs % self.groups == 0,
            "groups",
            "divide the channels of x",
            f"there were {self.groups} groups, and x had {inputs} channels (shape {x.shape})",
        )
        pads = ((0, 0),) * len(space) if isinstance(self.padding, str) else self.padding
        padded = tuple(size + sum(pad) for size, pad in zip(space, pads, strict=True))
        spans = tuple(_spans(self))
        require(
            self.padding == "SAME" or all(map(int.__le__, spans, padded)),
            "window",
            f"be at most as large as the padded image, {padded} for x of shape {x.shape}",
            f"it was {self.window}" + (f", {spans} dilated" if spans != self.window else ""),
        )
        shape = (*self._window, inputs // self.groups, self.channels)
        W = self.scale * jax.random.normal(key, shape, x.dtype)
        return ConvWeights(W, jnp.full((self.channels,), self.bias, x.dtype))

    def knowledge(self, weights: ConvWeights, x: Inputs) -> Knowledge:
        """Knowledge z = x * W + b, of shape (samples, *positions, channels)."""
        # A convolution for each group: of one with groups, XLA's gradient by W takes ten to a hundred
        # times as long on CPUs.
        pairs = zip(*(jnp.split(a, self.groups, axis=-1) for a in (x, weights.W)), strict=True)
        z = jnp.concatenate([_convolved(*pair, self.running()) for pair in pairs], axis=-1)
        return z + weights.b.reshape(*[1] * (z.ndim - 1), -1)

    def decide(self, z: Knowledge) -> Knowledge:
        """Decisions D, of the shape of z (eq. 13)."""
        return DECISIONS[self.decision](z)

    def running(self) -> "Conv":
        """The layer without its initial values: layers that compute the same are the same."""
        return dataclasses.replace(self, scale=0.01, bias=0.0)

    @property
    def _window(self) -> tuple[int, ...]:
        return _numbers(self.window)

    def _checked_padding(self) -> str | tuple[tuple[int, ...], ...]:
        given = self.padding
        if isinstance(given, str) and given in ("VALID", "SAME"):
            return given
        pairs = given if isinstance(given, Sequence) and not isinstance(given, str) else ()
        pairs = tuple(_numbers(pair) for pair in pairs)
        require(
            len(pairs) == len(self._window)
            and all(len(pair) == 2 and all(is_whole(n, 0) for n in pair) for pair in pairs),
            "padding",
            f"be 'VALID', 'SAME' or pairs (before, after) of whole numbers, one for each axis of the"
            f" window {self.window}",
            f"it was {given!r}",
        )
        return pairs


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _convolved(x: Array, W: Array, layer: Conv) -> Array:
    """x * W, of one group."""
    space = "HW"[: len(_numbers(layer.window))]
    return jax.lax.conv_general_dilated(
        x, W, _numbers(layer.strides), layer.padding, rhs_dilation=_numbers(layer.dilation),
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"), precision=layer.precision,
    )  # fmt: skip


@partial(_convolved.defjvp, symbolic_zeros=True)
def _convolved_jvp(layer: Conv, primals: Any, tangents: Any) -> tuple[Array, Array]:
    """ẋ * W + x * Ẇ, in a form whose gradients are fast.

    XLA's own gradients of a convolution are convolutions over other axes, for which it has fast code on CPUs
    outside of loops alone: within, where all runs are, they take ten times as long, and more for lanes.
    """
    (x, W), (xdot, Wdot) = primals, tangents
    still = lambda dot: isinstance(dot, jax.custom_derivatives.SymbolicZero)
    # Gradients read x again, and not all the places that were cut of it.
    convolve = jax.checkpoint(
        lambda *pair: jax.lax.platform_dependent(
            *pair, cpu=partial(_by_rows, layer), default=lambda x, W: _convolved(x, W, layer)
        ),
        prevent_cse=False,
    )
    z = _convolved(x, W, layer)
    parts = [
        convolve(*pair) for dot, pair in ((xdot, (xdot, W)), (Wdot, (x, Wdot))) if not still(dot)
    ]
    return z, sum(parts[1:], start=parts[0]) if parts else jnp.zeros_like(z)


def _by_rows(layer: Conv, x: Array, W: Array) -> Array:
    """x * W as a sum over the rows of the window: of products of matrices, as their gradients are."""
    strides, dilation, spans = _numbers(layer.strides), _numbers(layer.dilation), _spans(layer)
    pads = layer.padding
    if isinstance(pads, str):
        pads = jax.lax.padtype_to_pads(x.shape[1:-1], spans, strides, pads)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    last = [(n - span) // s * s for n, span, s in zip(x.shape[1:-1], spans, strides, strict=True)]

    def read(place: tuple[int, ...]) -> Array:
        """What is at this place of every patch."""
        first = [q * d for q, d in zip(place, dilation, strict=True)]
        end = [a + b + 1 for a, b in zip(first, last, strict=True)]
        return jax.lax.slice(x, (0, *first, 0), (x.shape[0], *end, x.shape[-1]), (1, *strides, 1))

    def product(row: tuple[int, ...]) -> Array:
        """The places of a row side by side, as more channels: a matrix of one column is slow to multiply."""
        places = [read((*row, column)) for column in range(W[row].shape[0])]
        return matrix_product(
            jnp.concatenate(places, -1), W[row].reshape(-1, W.shape[-1]), layer.precision
        )

    # One after another, so that they are not all there at once.
    rows = np.ndindex(*_numbers(layer.window)[:-1])
    return reduce(lambda z, more: jax.lax.optimization_barrier(z + more), map(product, rows))


def _spans(layer: Conv) -> list[int]:
    """How many positions a patch spans along each axis."""
    pairs = zip(_numbers(layer.window), _numbers(layer.dilation), strict=True)
    return [(size - 1) * apart + 1 for size, apart in pairs]


def _numbers(given: Any) -> tuple[int, ...]:
    """One number, or several, as ints of Python's."""
    several = isinstance(given, Sequence) and not isinstance(given, str)
    return tuple(map(as_whole, given)) if several else (as_whole(given),)
