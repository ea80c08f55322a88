"""A network: a stack of layers, each deciding on what the one below has decided."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import as_array, as_key, as_number, is_traced, require, require_finite
from skajax._modes import cached, working
from skajax._types import Inputs, Key, PerLayer, Tensors, Weights
from skajax.decisions import Decision
from skajax.layers import Dense, Layer, Stage
from skajax.layers._layer import (
    decide,
    decision_of,
    inputs_of,
    joins_samples,
    learns,
    rate_of,
    reads_integers,
    running,
)
from skajax.layers._routing import Route, balanced, flat, nested, written

__all__ = ["Motion", "Network", "Trace", "mlp"]


class Trace(eqx.Module):
    """What a network makes of its inputs: one entry a layer, from the first; stages have none.

    >>> trace = network.trace(weights, x)
    >>> [z.shape for z in trace.Z]
    [(20, 8), (20, 10)]
    """

    inputs: tuple[Any, ...]
    """What each layer's knowledge takes as given."""
    Z: Tensors
    """Knowledge."""
    D: Tensors
    """Decisions."""
    rows: tuple[int, ...] = eqx.field(static=True)
    """Where among the network's layers and stages, and so in its weights, the layers are."""
    decisions: tuple[Decision, ...]
    """What D is of Z, and the entropy with it."""

    @property
    def entropies(self) -> PerLayer:
        """H of each layer, summed over samples and neurons, in bits (eq. 9, 30)."""
        pairs = zip(self.decisions, self.Z, strict=True)
        return jnp.stack([jnp.sum(decision.entropy(z)) for decision, z in pairs])

    @property
    def entropy_gradients(self) -> Tensors:
        """∇_z H = -(1/ln 2) D' z of each layer, bits (eq. 31)."""
        pairs = zip(self.decisions, self.Z, strict=True)
        return tuple(decision.entropy_gradient(z) for decision, z in pairs)


class Motion(NamedTuple):
    """How a trace moves, per unit of time: one entry a layer."""

    given: tuple[Any, ...]
    """The rates of what each layer takes as given; None where it rests."""
    own: Tensors
    """The part of ż that the layer's own weights make: of a dense layer, x Ẇ + ḃ."""
    carried: tuple[Any, ...]
    """The part of ż that its inputs make: of a dense layer, ẋ W; None where they rest."""
    Zdot: Tensors
    """Knowledge flow Φ = ż, their sum (eq. 6)."""
    Ddot: Tensors
    """Ḋ = D' ż."""


def _stack(items: Any) -> Any:
    """Layers, stages and routes as one tuple; what is no sequence of them, for the check, as it is."""
    return tuple(flat(items)) if isinstance(items, tuple | list) else items


class Network(eqx.Module):
    """Layers l = 1..L: z^(l) = knowledge(weights^(l), x^(l)), D^(l) = decide(z^(l)), x^(l+1) = D^(l).

    Among the layers there may be stages, which have no knowledge (:class:`skajax.layers.Stage`): they
    map what the layer above reads. ``weights`` have an entry for each, results a row for layers only.
    A :class:`skajax.layers.Residual` or :class:`skajax.layers.Merge` stands in ``layers`` as the items that
    it is made of, and is printed as it was written; errors name the place in which it was.

    >>> network = ska.Network((ska.Dense(16, decision="relu"), ska.Dense(10)))
    >>> weights = network.init(jax.random.key(0), x)
    >>> [z.shape for z in network.trace(weights, x).Z]
    [(20, 16), (20, 10)]
    """

    layers: tuple[Any, ...] = eqx.field(converter=_stack)

    def __check_init__(self) -> None:
        """Refuse what is no stack of layers."""
        for place, layer in enumerate(self.layers if isinstance(self.layers, tuple) else ()):
            require(
                not isinstance(layer, type),
                "layers",
                "hold layers and stages themselves",
                lambda place=place, layer=layer: (
                    f"layers[{place}] was the class {layer.__name__} ({layer.__name__}(...) makes one of it)"
                ),
            )
            require(
                _has_hash(layer),
                "layers",
                "be hashable: of @dataclass(frozen=True), with numbers, text and tuples for fields; or an"
                " equinox.Module, for a layer with arrays of its own",
                lambda place=place: f"{name_of(self.layers, place)} was not",
            )
        require(
            isinstance(self.layers, tuple)
            and any(isinstance(layer, Layer) for layer in self.layers)
            and all(isinstance(layer, Layer | Stage | Route) for layer in self.layers),
            "layers",
            "be a tuple or list of layers (with init and knowledge) and stages (init and apply), of which at"
            " least one is a layer",
            f"it was {self.layers!r}",
        )
        require(
            balanced(self.layers),
            "layers",
            "have one Join for each Hold, above it, and Swap between them",
            f"it was {self.layers!r}",
        )

    def __repr__(self) -> str:
        """Layers, stages, residuals and branches; arrays by their shapes."""
        return eqx.tree_pformat(_Written(nested(self.layers)))

    @property
    def rows(self) -> tuple[int, ...]:
        """Where in ``layers``, and in weights, those with knowledge are: row l - 1 of any result."""
        return tuple(n for n, layer in enumerate(self.layers) if learns(layer))

    @property
    def learning(self) -> tuple[Any, ...]:
        """The layers with knowledge, l = 1..L."""
        return tuple(layer for layer in self.layers if learns(layer))

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What each layer with knowledge decides on it."""
        return tuple(decision_of(layer) for layer in self.learning)

    @working()
    def init(self, key: Key, x: Inputs) -> Weights:
        """Initial weights, one entry a layer or stage, in x's dtype.

        Layer l draws from ``fold_in(key, l)``, l = 0..L-1, so that its weights do not change when
        layers are put on top of it. Only the shape and dtype of x are read; of x of integers, for a
        first layer or stage that reads them, the weights have JAX's default dtype.
        """
        key, x = as_key("key", key), as_array("x", x)
        check_inputs(x, self)
        below = jax.ShapeDtypeStruct(x.shape, x.dtype)
        weights, held = [], ()
        for place, layer in enumerate(self.layers):
            with _placed(self.layers, place):
                made = layer.init(jax.random.fold_in(key, place), below)
                _check_made(made)
                weights.append(made if jax.tree.leaves(made) else nothing(x.dtype))
                held, below = outputs(layer, weights[-1], held, below)
        return tuple(weights)

    def trace(self, weights: Weights, x: Inputs, decided: Tensors | None = None) -> Trace:
        """What every layer takes as given, its knowledge and its decisions.

        With ``decided``, layers read those decisions of the layers below, instead of what these decide now.
        """
        inputs, Z, D, held = [], [], [], ()
        for place, layer in enumerate(self.layers):
            with _placed(self.layers, place):
                if isinstance(layer, Route):
                    held, x = layer.route(held, x, lambda join, a, b: join(a, b))
                    continue
                if not learns(layer):
                    x = layer.apply(weights[place], x)
                    continue
                inputs.append(inputs_of(layer, weights[place], x))
                Z.append(layer.knowledge(weights[place], inputs[-1]))
                D.append(decide(layer, Z[-1]))
                x = D[-1] if decided is None else decided[len(D) - 1]
        return Trace(tuple(inputs), tuple(Z), tuple(D), self.rows, self.decisions)

    def forward(self, weights: Weights, x: Inputs) -> tuple[Tensors, Tensors]:
        """Knowledge and decisions of every layer, (Z, D), each entry (samples, ...)."""
        trace = self.trace(weights, x)
        return trace.Z, trace.D

    def given(self, weights: Weights, inputs: tuple[Any, ...]) -> Trace:
        """The trace where every layer takes these inputs as given."""
        rows = zip(self.learning, (weights[place] for place in self.rows), inputs, strict=True)
        return self.knowing(inputs, tuple(layer.knowledge(w, a) for layer, w, a in rows))

    def knowing(self, inputs: tuple[Any, ...], Z: Tensors) -> Trace:
        """The trace where layers have this knowledge of these inputs."""
        return Trace(inputs, Z, self.decide(Z), self.rows, self.decisions)

    def decide(self, Z: Tensors) -> Tensors:
        """The decisions on any knowledge."""
        return tuple(each.decide(z) for each, z in zip(self.decisions, Z, strict=True))

    def pull(self, weights: Weights, inputs: tuple[Any, ...], by_Z: Tensors) -> Weights:
        """Gradients by each layer's weights, its inputs held fixed, from those by its knowledge.

        Of stages, which have no knowledge of their own, zero.
        """
        pulled: list[Any] = []
        rows = iter(zip(inputs, by_Z, strict=True))
        for layer, w in zip(self.layers, weights, strict=True):
            if not learns(layer):
                pulled.append(jax.tree.map(jnp.zeros_like, w))
                continue
            given, by_z = next(rows)
            _, pullback = jax.vjp(lambda w, layer=layer, given=given: layer.knowledge(w, given), w)
            pulled += pullback(by_z)
        return tuple(pulled)

    def motion(
        self, weights: Weights, velocity: Weights, x: Inputs, xdot: Any = None
    ) -> tuple[Trace, Motion]:
        """The trace, and its exact rates of change where weights move at ``velocity`` and x at ``xdot``.

        Of each layer apart by what moves it: its own weights, and what it takes as given. ``xdot=None``: the
        inputs rest.
        """
        traced, moved, held = [], [], ()
        for place, layer in enumerate(self.layers):
            w, wdot = weights[place], velocity[place]
            if isinstance(layer, Route):
                held, (x, xdot) = layer.route(
                    held, (x, xdot), lambda join, *pairs: _push(join, *zip(*pairs, strict=True))
                )
                continue
            if not learns(layer):
                x, xdot = _push(layer.apply, (w, x), (wdot if _has_numbers(w) else None, xdot))
                continue
            if hasattr(layer, "inputs"):
                given, given_dot = _push(layer.inputs, (w, x), (wdot, xdot))
            else:
                given, given_dot = x, xdot
            z, own = _push(layer.knowledge, (w, given), (wdot, None))
            _, carried = _push(layer.knowledge, (w, given), (None, given_dot))
            zdot = own if carried is None else own + carried
            x, xdot = _push(functools.partial(decide, layer), (z,), (zdot,))
            traced.append((given, z, x))
            moved.append((given_dot, own, carried, zdot, xdot))
        inputs, Z, D = zip(*traced, strict=True)
        return Trace(inputs, Z, D, self.rows, self.decisions), Motion(*zip(*moved, strict=True))  # pyright: ignore[reportCallIssue]

    def slopes(self, Z: Tensors, changes: Tensors) -> Tensors:
        """D' times changes of the knowledge."""
        pairs = zip(self.decisions, Z, changes, strict=True)
        return tuple(jax.jvp(each.decide, (z,), (c,))[1] for each, z, c in pairs)

    def rates(self, dtype: Any) -> tuple[Any, ...]:
        """r of each layer and stage, dW/dt = -r ∇E; None where it is 1."""
        found = [rate_of(layer) for layer in self.layers]
        return tuple(
            None if isinstance(r, float) and r == 1.0 else jnp.asarray(r, dtype) for r in found
        )

    def inner(self, a: Weights, b: Weights) -> PerLayer:
        """Σ a b / r over all weights of each layer, r its rate: by this product -r ∇E is steepest descent."""
        rates = [rate_of(layer) for layer in self.layers]
        products = [inner(u, v) / r for u, v, r in zip(a, b, rates, strict=True)]
        return self.per_layer(products)

    def per_layer(self, values: Sequence[Any]) -> PerLayer:
        """Sums of ``values``, one for each layer or stage, to one number for each layer with knowledge.

        A stage's value is added to that of the next layer above it, or to the last layer's.
        """
        sums: list[Any] = []
        waiting: Any = None
        for place, value in enumerate(values):
            value = value if waiting is None else waiting + value
            waiting = None
            if place in self.rows:
                sums.append(value)
            else:
                waiting = value
        if waiting is not None:
            sums[-1] = sums[-1] + waiting
        return jnp.stack(sums)

    def running(self) -> "Network":
        """The network as it runs, without what only :meth:`init` reads: alike for alike programs."""
        return Network(tuple(running(layer) for layer in self.layers))


_Written: Any = dataclasses.make_dataclass("Network", ["layers"])
"""What a network prints."""


def name_of(layers: tuple[Any, ...], place: int) -> str:
    """Where one of a network's items was written, and as what: "layers[1].stack[0] (Dense)"."""
    where, item = list(written(nested(layers)))[place]
    return f"{where} ({type(item).__name__})"


def _has_hash(layer: Any) -> bool:
    """Whether it can be static under jit, but for its own arrays, which are traced."""
    try:
        hash(tuple(a for a in jax.tree.leaves(layer) if not isinstance(a, jax.Array | np.ndarray)))
    except TypeError:
        return False
    return True


class _placed:
    """Adds the layer's place in the network to what it complains about."""

    def __init__(self, layers: tuple[Any, ...], place: int) -> None:
        self.layers, self.place = layers, place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, ValueError | TypeError) and not hasattr(error, "_placed"):
            if type(error) not in (ValueError, TypeError):
                return  # what another library raises may need other arguments to be made
            name = name_of(self.layers, self.place)
            kind = ValueError if isinstance(error, ValueError) else TypeError
            placed: Any = kind(f"{str(error).removesuffix('.')} ({name} of the network).")
            placed._placed = True
            raise placed from error


def _has_numbers(weights: Any) -> bool:
    return any(leaf.size for leaf in jax.tree.leaves(weights))


def _push(function: Callable[..., Any], primals: Any, tangents: Any) -> tuple[Any, Any]:
    """A function's value and rate, where arguments whose tangent is None rest."""
    moving = [n for n, tangent in enumerate(tangents) if tangent is not None]

    def of_moving(*values: Any) -> Any:
        every = list(primals)
        for n, value in zip(moving, values, strict=True):
            every[n] = value
        return function(*every)

    if not moving:
        return function(*primals), None
    return jax.jvp(of_moving, tuple(primals[n] for n in moving), tuple(tangents[n] for n in moving))


def outputs(layer: Any, weights: Any, held: tuple[Any, ...], below: Any) -> tuple[Any, Any]:
    """Shapes and dtypes of what waits to be joined, and of what the layer above will read."""
    if isinstance(layer, Route):
        return layer.route(held, below, jax.eval_shape)

    def read(weights: Any, below: Any) -> Any:
        if not learns(layer):
            return _kept("output", layer.apply(weights, below), below)
        z = layer.knowledge(weights, inputs_of(layer, weights, below))
        _check_floating(z)
        return _kept("decisions", decide(layer, _kept("knowledge", z, below)), below)

    return held, jax.eval_shape(read, weights, below)


def _check_made(made: Any) -> None:
    """Refuse weights of ``init`` that cannot move."""
    for leaf in jax.tree.leaves(made):
        dtype = getattr(leaf, "dtype", None)
        require(
            isinstance(leaf, float) if dtype is None else jnp.issubdtype(dtype, jnp.floating),
            "weights",
            "be floating-point arrays, which can move",
            f"init made some of type {type(leaf).__name__ if dtype is None else dtype}",
        )


def _check_floating(z: Any) -> None:
    """Refuse knowledge that is no array of numbers which can move."""
    dtype = getattr(z, "dtype", None)
    kind = type(z).__name__ if dtype is None else f"array of dtype {dtype}"
    require(
        dtype is not None and jnp.issubdtype(dtype, jnp.floating),
        "knowledge",
        "be one floating-point array",
        f"it was {'None' if z is None else kind}",
    )


def _kept(name: str, made: Any, below: Any) -> Any:
    """What a layer or stage makes of what it reads; refused unless it is an array of as many samples."""
    require(hasattr(made, "shape"), name, "be one array", f"it was a {type(made).__name__}")
    require(
        made.shape[:1] == below.shape[:1],
        name,
        f"have {below.shape[0]} samples in front, as what it reads, of shape {below.shape}",
        f"its shape was {made.shape}",
    )
    return made


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

    >>> [layer.width for layer in ska.mlp([256, 128, 64, 10]).layers]
    [256, 128, 64, 10]
    """
    require(
        _is_list(widths) and len(widths) >= 1,
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
    if not _is_list(value):
        return (as_number(value),) * layers
    require(
        len(value) == layers,
        name,
        f"be one number, or one for each of the {layers} layers",
        f"it had {len(value)} entries",
    )
    return tuple(value)


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether it is a list, in any library's words, and no text."""
    sequence = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return sequence or (hasattr(value, "__array__") and np.ndim(value) == 1)


def check_inputs(x: jax.Array, network: Network | None = None) -> None:
    """Refuse inputs that are no batch of samples, hold NaN or infinity, or that the network cannot read."""
    first = None if network is None else network.layers[0]
    if reads_integers(first):
        require(
            jnp.issubdtype(x.dtype, jnp.integer),
            "x",
            f"be integers, which {type(first).__name__} reads",
            f"its dtype was {x.dtype}",
        )
    else:
        _check_numbers(x)
    require(
        x.ndim >= 2 and min(x.shape) >= 1,
        "x",
        "be a non-empty batch of shape (samples, inputs)",
        f"its shape was {x.shape}" + (" (x[None, :])" if x.ndim == 1 and x.size else ""),
    )
    require_finite("x", x)
    check = getattr(first, "check", None)
    if network is not None and check is not None and not is_traced(x):
        with _placed(network.layers, 0):
            check(np.asarray(x))


def _check_numbers(x: jax.Array) -> None:
    hint = "were the labels given instead? integers: x.astype('float32')"
    if x.dtype == np.uint8:
        hint = "images: x.astype('float32') / 255"
    require(
        jnp.issubdtype(x.dtype, jnp.floating),
        "x",
        "be floating-point inputs",
        f"its dtype was {x.dtype} ({hint})",
    )
    require(
        x.dtype.itemsize >= 4,
        "x",
        "be float32 or float64 inputs",
        f"its dtype was {x.dtype}, in which small steps vanish (x.astype('float32'))",
    )


def check_apart(network: Network, x: Any) -> None:
    """Refuse mini-batches of samples whose knowledge depends on each other: nodes of one graph."""
    Z = expected_knowledge(network, x.shape, x.dtype)
    for place, layer, z in zip(network.rows, network.learning, Z, strict=True):
        require(
            not joins_samples(layer, z),
            "x",
            "be one batch, x or Batch(x, y), where samples depend on each other: mini-batches would take"
            " them apart",
            f"it was MiniBatches, and {name_of(network.layers, place)} joins the"
            f" {x.shape[0]} samples",
        )


def check_weights(network: Network, weights: Weights, x: Any) -> None:
    """Refuse weights that ``network.init(key, x)`` could not have made: structure, shapes, dtype."""
    layers = len(network.layers)
    require(
        isinstance(weights, tuple) and len(weights) == layers,
        "weights",
        f"be a tuple with one entry for each of the network's {layers} layers",
        lambda: (
            f"it was a {type(weights).__name__}"
            + (f" of {len(weights)}" if isinstance(weights, Sequence) else "")
        ),
    )
    expected = expected_weights(network, x.shape, x.dtype)
    for number, (entry, shapes) in enumerate(zip(weights, expected, strict=True), start=1):
        got, want = jax.tree.structure(entry), jax.tree.structure(shapes)
        if got != want:
            must = f"be what network.init makes (layer {number}: {want})"
            require(False, "weights", must, f"layer {number} was {got}")
        leaves = zip(jax.tree.leaves(entry), jax.tree.leaves_with_path(shapes), strict=True)
        for leaf, (path, shape) in leaves:
            name = f"layer {number}'s {jax.tree_util.keystr(path, simple=True)}"
            if leaf.shape != shape.shape or leaf.dtype != shape.dtype:
                must = f"fit the network and x ({name}: {shape.shape}, {shape.dtype})"
                require(False, "weights", must, f"{name} was {leaf.shape}, {leaf.dtype}")
            require_finite("weights", leaf, f" in {name}")


def expected_weights(network: Network, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Shapes and dtypes of what ``network.init`` makes for inputs like these."""
    return by_shapes(_made, network, shape, dtype)[0]


def expected_knowledge(network: Network, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Shapes and dtypes of the layers' knowledge of inputs like these."""
    return by_shapes(_made, network, shape, dtype)[1]


def by_shapes(
    function: Callable[..., Any], network: Network, shape: tuple[int, ...], dtype: np.dtype
) -> Any:
    """``function(network, shape, dtype)`` by shapes alone, nothing computed; remembered."""
    # Arrays of the layers' own by their shapes, as whatever is compiled for a network knows them.
    form = jax.tree.map(lambda a: _like(a) if eqx.is_array(a) else a, network)
    leaves, structure = jax.tree.flatten(form)
    try:
        return _known(function, structure, tuple(leaves), shape, dtype)
    except (TypeError, jax.errors.ConcretizationTypeError):
        # A layer that has no hash, or whose init reads its own arrays' values.
        return function(network, shape, dtype)


@cached
def _known(
    function: Any, structure: Any, leaves: tuple[Any, ...], shape: Any, dtype: np.dtype
) -> Any:
    return eqx.filter_eval_shape(function, structure.unflatten(leaves), shape, dtype)


def _made(network: Network, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    x = jax.ShapeDtypeStruct(shape, dtype)
    weights = jax.eval_shape(network.init, jax.random.key(0), x)
    return weights, jax.eval_shape(network.forward, weights, x)[0]


def _like(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def nothing(dtype: Any) -> jax.Array:
    """The weights of a stage that has none: an array without numbers, so that every entry has a leaf."""
    real = jnp.issubdtype(dtype, jnp.floating)
    return jnp.zeros(0, dtype if real else jnp.result_type(float))


def inner(a: Any, b: Any) -> Any:
    """Σ a b over all numbers of two trees; of none, 0."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    sums = [jnp.sum(u * v) for u, v in pairs]
    return jnp.stack(sums).sum() if sums else jnp.zeros(())


def matrices(weights: Any) -> Iterator[Any]:
    """Of one layer's weights, the arrays whose norm is ‖W‖: all with two axes or more, else all.

    Biases have one axis, and are left out.
    """
    leaves = jax.tree.leaves(weights)
    return iter([leaf for leaf in leaves if leaf.ndim >= 2] or leaves)
