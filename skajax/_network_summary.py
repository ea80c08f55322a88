"""What a network is made of, and what it costs: a row for each of its layers and stages."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from skajax._checks import as_array, require
from skajax._memory import in_words
from skajax._summary import Summarised, Summary
from skajax._types import Inputs
from skajax.costs import Costs, Count, Item, counted
from skajax.entropy import entropy_gradient
from skajax.inputs import Batch, MiniBatches, as_inputs, shape_of
from skajax.layers._layer import inputs_of, learns
from skajax.layers._routing import nested, written
from skajax.network import Network, check_inputs, outputs

__all__ = ["NetworkSummary", "Row", "multiply_adds", "summary"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer or stage of a network, in numbers."""

    place: int
    """Where it is among ``network.layers``."""
    name: str
    """What it is called: its class; where arrays meet, Residual or Merge."""
    layer: int | None
    """Its number l = 1..L in results; None of a stage."""
    inputs: tuple[int, ...]
    """The shape of what it reads, samples in front."""
    outputs: tuple[int, ...]
    """The shape of what it gives: of a layer, its decisions'."""
    parameters: int
    """How many numbers its weights are."""
    forward: int
    """Multiply-adds of a forward pass, over all samples."""
    flow: int
    """Those of its share of one evaluation of the local entropy's flow, the forward pass included."""
    weight_bytes: int
    """What its weights take."""
    knowledge_bytes: int
    """What its knowledge takes; of a stage, what it gives."""


@dataclasses.dataclass(frozen=True)
class NetworkSummary(Summarised):
    """A table that prints, and its numbers: ``rows``, one :class:`Row` for each layer and stage."""

    rows: tuple[Row, ...]
    counts: Mapping[str, Count] | None = None
    """What a step of "SKA", "backprop" and "pipeline" takes, where costs were given (:mod:`skajax.costs`)."""

    def total(self, name: str) -> int:
        """The sum over all rows of one of their numbers, such as ``total("parameters")``."""
        return sum(getattr(row, name) for row in self.rows)

    def summary(self) -> Summary:
        """One line a layer or stage, and the totals."""
        head = ("layer", "reads", "gives", "parameters", "forward", "flow", "weights", "knowledge")
        numbers = ("parameters", "forward", "flow")
        sizes = ("weight_bytes", "knowledge_bytes")
        told = lambda get: (
            *(f"{get(name):,}" for name in numbers),
            *(in_words(get(name)) for name in sizes),
        )
        shape = lambda axes: " x ".join(map(str, axes[1:]))
        lines = [
            (
                f"{row.layer or ''} {row.name}".strip(), shape(row.inputs), shape(row.outputs),
                *told(lambda name, row=row: getattr(row, name)),
            )
            for row in self.rows
        ]  # fmt: skip
        layers = sum(row.layer is not None for row in self.rows)
        first = (
            f"{layers} layers with knowledge, {len(self.rows) - layers} stages,"
            f" {self.rows[0].inputs[0]} samples; forward and flow in multiply-adds"
        )
        costs = tuple(_said(count) for count in (self.counts or {}).values())
        return Summary((first, *costs), (head, *lines, ("total", "", "", *told(self.total))))


def _said(count: Count) -> str:
    return (
        f"a step of {count.rule}: {count.operations:,} multiply-adds, {count.span:,} of them one after"
        f" another; {count.moved:,} words moved, {count.held:,} held; {count.energy:.3g} J"
    )


def summary(
    network: Network,
    x: Inputs | Batch | MiniBatches | jax.ShapeDtypeStruct,
    *,
    costs: Costs | None = None,
) -> NetworkSummary:
    """What each layer and stage reads, gives, holds and costs, for inputs like x.

    Costs are the multiply-adds of matrix products and convolutions, and the additions of sums by index (a
    graph's), counted in the program that JAX traces; elementwise functions do not count. Of a dense layer
    B n_{l-1} n_l forward, and twice that for the flow, which has xᵀ g beside. Nothing is computed or
    compiled, and of x only the shape and dtype are read.

    - ``network``: a :class:`Network`.
    - ``x``: inputs as ``simulate`` takes them, or a ``jax.ShapeDtypeStruct``.
    - ``costs``: those of hardware, such as ``skajax.costs.FLOAT32`` or your own; then ``counts`` has the
      operations, words and energy of a step of SKA, of backpropagation and of the pipeline.

    Returns a :class:`NetworkSummary`: it prints as a table, and has its numbers in ``rows``, ``total(name)``
    and ``counts``. Raises ValueError where x does not fit the network, and for costs that are none.

    >>> x = jax.ShapeDtypeStruct((1000, 784), jnp.float32)
    >>> found = ska.summary(ska.mlp([256, 128, 64, 10]), x)  # print(found) is a table
    >>> found.total("parameters"), found.total("forward")
    (242762, 242304000)
    >>> priced = ska.summary(ska.mlp([256, 128, 64, 10]), x, costs=ska.costs.FLOAT32)
    >>> priced.counts["SKA"].held, priced.counts["backprop"].held
    (1282762, 1740762)
    """
    require(isinstance(network, Network), "network", "be a Network", f"it was {network!r}")
    require(
        costs is None or isinstance(costs, Costs),
        "costs",
        "be None or Costs, such as skajax.costs.FLOAT32",
        f"it was {costs!r}",
    )
    if not isinstance(x, jax.ShapeDtypeStruct):
        inputs = as_inputs(x)
        if not inputs.moves():
            check_inputs(as_array("x", inputs.x), network)
        x = shape_of(inputs).x
    below: Any = x
    every = jax.eval_shape(network.init, jax.random.key(0), below)
    rows, items, held = [], [], ()
    names = [type(item).__name__ for _, item in written(nested(network.layers))]
    for place, (item, weights) in enumerate(zip(network.layers, every, strict=True)):
        held, above = outputs(item, weights, held, below)
        number = network.rows.index(place) + 1 if learns(item) else None
        knowledge, forward, flow = _costs(item, weights, below, above)
        leaves = jax.tree.leaves(weights)
        rows.append(
            Row(
                place, names[place], number, below.shape, above.shape, sum(w.size for w in leaves),
                forward, flow, sum(map(_bytes, leaves)), _bytes(knowledge),
            )
        )  # fmt: skip
        if costs is not None:
            items.append(_item(item, weights, below, above))
        below = above
    return NetworkSummary(tuple(rows), None if costs is None else counted(items, costs))


def _costs(item: Any, weights: Any, below: Any, above: Any) -> tuple[Any, int, int]:
    """Knowledge, or what a stage gives; and the multiply-adds of a forward pass and of the flow."""
    if not hasattr(item, "knowledge"):
        if not hasattr(item, "apply"):
            return above, 0, 0  # routes compute nothing
        passed = multiply_adds(jax.make_jaxpr(item.apply)(weights, below))
        return above, passed, passed

    def forward(weights: Any, below: Any) -> Any:
        return item.knowledge(weights, inputs_of(item, weights, below))

    def flow(weights: Any, below: Any) -> Any:
        given = inputs_of(item, weights, below)
        z, pullback = jax.vjp(lambda w: item.knowledge(w, given), weights)
        return pullback(entropy_gradient(z))

    count = lambda function: multiply_adds(jax.make_jaxpr(function)(weights, below))
    return jax.eval_shape(forward, weights, below), count(forward), count(flow)


def _item(item: Any, weights: Any, below: Any, above: Any) -> Item:
    """What costs are counted from: products forward, and those of its gradients."""

    def forward(weights: Any, below: Any) -> Any:
        if learns(item):
            return item.knowledge(weights, inputs_of(item, weights, below))
        return item.apply(weights, below)

    def pulled(function: Callable[[Any], Any], argument: Any) -> Any:
        """The forward pass and the gradient by one argument."""
        out, pullback = jax.vjp(function, argument)
        return pullback(jnp.ones_like(out))

    by_weights = lambda w, a: pulled(lambda w: forward(w, a), w)
    by_inputs = lambda w, a: pulled(lambda a: forward(w, a), a)
    nothing = (0, 0)
    size = sum(w.size for w in jax.tree.leaves(weights))
    one = partial(Item, reads=below.size, gives=above.size, parameters=size, learns=learns(item))
    if not hasattr(item, "knowledge") and not hasattr(item, "apply"):
        return one(nothing, nothing, nothing)  # routes compute nothing

    count = lambda function: products(jax.make_jaxpr(function)(weights, below))
    ahead = count(forward)

    def more(function: Any) -> tuple[int, int]:
        operations, moved = count(function)
        return operations - ahead[0], moved - ahead[1]

    real = jnp.issubdtype(below.dtype, jnp.floating)
    return one(ahead, more(by_weights) if size else nothing, more(by_inputs) if real else nothing)


def multiply_adds(program: Any) -> int:
    """Of a jaxpr: those of matrix products and convolutions, and the additions of sums by index.

    Loops count as often as they turn, where that is known, else once; of branches the dearest.
    """
    return products(program)[0]


def products(program: Any) -> tuple[int, int]:
    """The same, and the words that they move: every factor read once, what they give written once."""
    total, moved = 0, 0
    for equation in getattr(program, "jaxpr", program).eqns:
        name, within = equation.primitive.name, list(_programs(equation.params))
        shapes: list[Any] = [
            getattr(v.aval, "shape", ()) for v in (*equation.invars, *equation.outvars)
        ]
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += math.prod(shapes[-1]) * math.prod(shapes[0][axis] for axis in contracted)
            moved += sum(map(math.prod, shapes))
        elif name == "conv_general_dilated":
            channels = equation.params["dimension_numbers"].rhs_spec[0]
            total += math.prod(shapes[-1]) * math.prod(shapes[1]) // shapes[1][channels]
            moved += sum(map(math.prod, shapes))
        elif name == "scatter-add":
            total += math.prod(shapes[2])
            moved += math.prod(shapes[2]) + math.prod(shapes[-1])
        elif within:
            each = [products(one) for one in within]
            if name == "cond":
                found = max(each)
            else:
                times = equation.params.get("length", 1)
                found = (times * sum(a for a, _ in each), times * sum(b for _, b in each))
            total, moved = total + found[0], moved + found[1]
    return total, moved


def _programs(params: Any) -> Iterator[Any]:
    """The programs within one: of loops, branches, and functions with their own derivatives."""
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if hasattr(each, "eqns") or hasattr(each, "jaxpr"):
                yield each


def _bytes(array: Any) -> int:
    return array.size * jnp.dtype(array.dtype).itemsize
