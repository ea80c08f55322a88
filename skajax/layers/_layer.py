"""What a network asks of its layers, and what a layer need not say."""

import functools
from typing import Any, Protocol, runtime_checkable

import jax

from skajax._types import Array, Inputs, Key, Knowledge, ScalarLike
from skajax.entropy import decision


@runtime_checkable
class Layer(Protocol):
    """A configuration with two pure functions: what learns.

    A frozen dataclass, or an ``equinox.Module`` if it has arrays of its own (an adjacency, say), which
    are then traced. Weights are any pytree of floating-point arrays. A layer may also have

    - ``inputs(weights, below)``: what its knowledge takes as given (default: ``below``, the decisions
      of the layer below). The local flow does not differentiate it; tangents go through it.
    - ``decide(z)``: decisions, elementwise (default: the sigmoid, eq. 13);
    - ``rows``: the number of outputs, of a layer whose weights have a field ``W`` (inputs, outputs)
      that acts as x W on x (samples, inputs), and in no other way: it is simulated in x's row space
      where that pays;
    - ``rate``: r in dW/dt = -r ∇E (default: 1);
    - ``running()``: the same layer without what only ``init`` reads, so that networks which
      differ in nothing else share their compiled programs;
    - ``reads = "integers"``, of the first layer or stage of a network: its x are whole numbers, such as
      token ids, and its weights are of JAX's default floating-point dtype (default: floating-point x);
    - ``check(x)``, of the first layer or stage: raises ValueError for values that it cannot read. It is
      called outside of jit, once for all samples.
    """

    def init(self, key: Key, x: Inputs | jax.ShapeDtypeStruct) -> Any:
        """Initial weights for inputs of x's shape and dtype; must not read x's values."""
        ...

    def knowledge(self, weights: Any, x: Any) -> Knowledge:
        """Knowledge z = Z^(l) of shape (samples, ...), before the decision, of what ``inputs`` gave."""
        ...


@runtime_checkable
class Stage(Protocol):
    """A map between layers that has no knowledge, and no row in the results: a pooling, a flattening.

    Its weights, if it has any, move under global energies only; one without returns ``()`` from ``init``.
    ``reads`` and ``check(x)`` as of a :class:`Layer`.
    """

    def init(self, key: Key, x: Inputs | jax.ShapeDtypeStruct) -> Any:
        """Initial weights for inputs of x's shape and dtype; must not read x's values."""
        ...

    def apply(self, weights: Any, x: Inputs) -> Array:
        """What the next layer reads."""
        ...


def learns(item: object) -> bool:
    """Whether this is a layer, and not a stage."""
    return hasattr(item, "knowledge")


def reads_integers(item: object) -> bool:
    """Whether a layer or stage takes whole numbers for its inputs."""
    return getattr(item, "reads", None) == "integers"


def inputs_of(layer: Any, weights: Any, below: Any) -> Any:
    """What the layer's knowledge takes as given."""
    given = getattr(layer, "inputs", None)
    return below if given is None else given(weights, below)


def decide(layer: Any, z: Knowledge) -> Knowledge:
    """The layer's decisions D; σ(z) unless it says otherwise."""
    own = getattr(layer, "decide", None)
    return decision(z) if own is None else own(z)


def rate_of(layer: Any) -> ScalarLike:
    """r in dW/dt = -r ∇E."""
    return getattr(layer, "rate", 1.0)


def running(layer: Any) -> Any:
    """The layer as it runs, without what only ``init`` reads."""
    if not hasattr(layer, "running"):
        return layer
    try:
        hash(layer)
    except TypeError:  # a layer with arrays of its own
        return layer.running()
    return _running(layer)


@functools.lru_cache
def _running(layer: Any) -> Any:
    return layer.running()
