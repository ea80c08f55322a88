"""A network: a stack of layers, each deciding on what the one below has decided."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import as_array, is_traced, require
from skajax._types import Inputs, Key, Tensors, Weights
from skajax.entropy import decision
from skajax.layers import Dense, Layer


@dataclasses.dataclass(frozen=True)
class Network:
    """Layers l = 1..L: z^(l) = knowledge(weights^(l), x^(l)), D^(l) = σ(z^(l)), x^(l+1) = D^(l)."""

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        require(
            isinstance(self.layers, tuple)
            and len(self.layers) >= 1
            and all(isinstance(layer, Layer) for layer in self.layers),
            "layers",
            "be a tuple of at least one layer (with init and knowledge)",
            f"it was {self.layers!r}",
        )

    def init(self, key: Key, x: Inputs) -> Weights:
        """Initial weights, one entry a layer, in x's dtype.

        Layer l draws from ``fold_in(key, l)``, l = 0..L-1, so that its weights do not change when
        layers are put on top of it. Only the shape and dtype of x are read.
        """
        x = as_array("x", x)
        check_inputs(x)
        inputs = jax.ShapeDtypeStruct(x.shape, x.dtype)
        weights = []
        for index, layer in enumerate(self.layers):
            weights.append(layer.init(jax.random.fold_in(key, index), inputs))
            inputs = _outputs(layer, inputs.shape, inputs.dtype)
        return tuple(weights)

    def forward(self, weights: Weights, x: Inputs) -> tuple[Tensors, Tensors]:
        """Knowledge and decisions of every layer, (Z, D), each entry (samples, outputs)."""
        Z, D = [], []
        for layer, w in zip(self.layers, weights, strict=True):
            Z.append(layer.knowledge(w, x))
            D.append(decision(Z[-1]))
            x = D[-1]
        return tuple(Z), tuple(D)

    def running(self) -> "Network":
        """The network as it runs, without what only :meth:`init` reads: alike for alike programs."""
        return Network(tuple(_running(layer) for layer in self.layers))


def _running(layer: Layer) -> Layer:
    # Not of a class made from it, whose knowledge may depend on whatever it likes.
    return layer.running() if type(layer) is Dense else layer


@functools.lru_cache
def _outputs(layer: Layer, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Shape and dtype of a layer's knowledge."""
    x = jax.ShapeDtypeStruct(shape, dtype)
    return jax.eval_shape(layer.knowledge, jax.eval_shape(layer.init, jax.random.key(0), x), x)


def mlp(
    widths: Sequence[int],
    *,
    scale: float | Sequence[float] = 0.01,
    bias: float | Sequence[float] = 0.0,
    precision: str = "highest",
) -> Network:
    """Dense sigmoid layers of the given widths; the paper's network is ``mlp([256, 128, 64, 10])``.

    Initially W ~ N(0, scale²) and b = bias, both either one number for all layers or one a layer.
    ``precision`` is that of the matrix products (see :class:`skajax.layers.Dense`).
    """
    require(
        isinstance(widths, Sequence) and not isinstance(widths, str) and len(widths) >= 1,
        "widths",
        "be a sequence of at least one layer width",
        f"it was {widths!r}",
    )
    scales = _one_a_layer("scale", scale, len(widths))
    biases = _one_a_layer("bias", bias, len(widths))
    return Network(
        tuple(
            Dense(width, scale=s, bias=b, precision=precision)
            for width, s, b in zip(widths, scales, biases, strict=True)
        )
    )


def _one_a_layer(name: str, value: float | Sequence[float], layers: int) -> tuple[float, ...]:
    if not isinstance(value, Sequence):
        return (value,) * layers
    require(
        len(value) == layers,
        name,
        f"be one number, or one for each of the {layers} layers",
        f"it had {len(value)} entries",
    )
    return tuple(value)


def check_inputs(x: jax.Array) -> None:
    """Refuse inputs that are no batch of floating-point samples, or hold NaN or infinity."""
    require(
        jnp.issubdtype(x.dtype, jnp.floating),
        "x",
        "be floating-point inputs",
        f"its dtype was {x.dtype} (were the labels given instead? integers: x.astype('float32'))",
    )
    require(
        x.ndim == 2 and x.shape[0] >= 1 and x.shape[1] >= 1,
        "x",
        "be a non-empty batch of shape (samples, inputs)",
        f"its shape was {x.shape}",
    )
    _check_finite("x", x)


def check_weights(network: Network, weights: Weights, x: Inputs) -> None:
    """Refuse weights that ``network.init(key, x)`` could not have made: structure, shapes, dtype."""
    layers = len(network.layers)
    require(
        isinstance(weights, tuple) and len(weights) == layers,
        "weights",
        f"be a tuple with one entry for each of the network's {layers} layers",
        f"it was a {type(weights).__name__}"
        + (f" of {len(weights)}" if isinstance(weights, Sequence) else ""),
    )
    expected = expected_weights(network, x.shape, x.dtype)
    for number, (entry, shapes) in enumerate(zip(weights, expected, strict=True), start=1):
        got, want = jax.tree.structure(entry), jax.tree.structure(shapes)
        require(
            got == want,
            "weights",
            f"be what network.init makes (layer {number}: {want})",
            f"layer {number} was {got}",
        )
        for (path, leaf), shape in zip(
            jax.tree.leaves_with_path(entry), jax.tree.leaves(shapes), strict=True
        ):
            name = f"layer {number}'s {jax.tree_util.keystr(path, simple=True)}"
            require(
                leaf.shape == shape.shape and leaf.dtype == shape.dtype,
                "weights",
                f"fit the network and x ({name}: {shape.shape}, {shape.dtype})",
                f"{name} was {leaf.shape}, {leaf.dtype}",
            )
            _check_finite("weights", leaf, f" in {name}")


@functools.lru_cache
def expected_weights(network: Network, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Shapes and dtypes of what ``network.init`` makes for inputs like these."""
    return jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, dtype))


def _check_finite(name: str, value: jax.Array, where: str = "") -> None:
    if is_traced(value):
        return  # Values are unknown under jit and vmap; the run's outcome reports them instead.
    # On the host: inside jit even an operation on known values would be traced.
    bad = int(value.size - np.isfinite(np.asarray(value)).sum())
    require(bad == 0, name, "be finite", f"it held {bad} NaN or infinite values{where}")
