"""What a network asks of its layers, and what a layer need not say."""

import functools
import inspect
from typing import Any, Protocol, runtime_checkable

import jax

from skajax._checks import require
from skajax._types import Array, Inputs, Key, Knowledge, ScalarLike
from skajax.decisions import DECISIONS, SIGMOID, Decision, Own


@runtime_checkable
class Layer(Protocol):
    """A configuration with two pure functions: what learns.

    A frozen dataclass, or an ``equinox.Module`` if it has arrays of its own (an adjacency, say), which
    are then traced. Weights are any pytree of floating-point arrays. A layer may also have

    - ``inputs(weights, below)``: what its knowledge takes as given (default: ``below``, the decisions
      of the layer below). The local flow does not differentiate it; tangents go through it.
    - ``decision``: what D is of z (default: the sigmoid, eq. 13), by its name in
      :data:`skajax.decisions.DECISIONS` or as a :class:`skajax.decisions.Decision`;
    - or ``potential(z)``, a decision of its own: φ, whose gradient D is, of the shape of z, or with one
      number for each group of neurons that decide together (then φ's axes are the first of z's). Entropy,
      flow and Tensor Net follow: H = (φ(z) - z·D) / ln 2. With it perhaps ``decide(z)``, the
      gradient in closed form; by default it is taken by autodiff;
    - or ``decide(z)`` alone: D is known, and nothing of the entropy. Such a layer runs under other
      energies, and ``simulate`` records by default what else there is (not ``entropy``, ``tensor_net``,
      ``tensor_net_equation``); whatever asks for the entropy raises ValueError;
    - ``rows``: the number of outputs, of a layer whose weights have a field ``W`` (inputs, outputs)
      that acts as x W on x (samples, inputs), and in no other way: it is simulated in x's row space
      where that pays;
    - ``rate``: r in dW/dt = -r ∇E (default: 1);
    - ``joins_samples(z)``: whether, where its knowledge has z's shape, one sample's depends on other
      samples (default: no), so that they cannot be taken apart into mini-batches;
    - ``running()``: the same layer without what only ``init`` reads, so that networks which
      differ in nothing else share their compiled programs;
    - ``reads = "integers"``, of the first layer or stage of a network: its x are whole numbers, such as
      token ids, and its weights are of JAX's default floating-point dtype (default: floating-point x);
    - ``check(x)``, of the first layer or stage: raises ValueError for values that it cannot read. It is
      called outside of jit, once for all samples.

    >>> isinstance(ska.Dense(4), ska.layers.Layer)
    True
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

    >>> isinstance(ska.layers.Flatten(), ska.layers.Stage)
    True
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


def decision_of(layer: Any) -> Decision:
    """What the layer's decisions D are of its knowledge; the sigmoid's unless it says otherwise.

    What its class says itself counts before what it inherits; of that, ``potential`` before ``decision``
    before ``decide``.
    """
    words = _words(layer)
    if "decision" in words and "potential" not in words:
        return _named(layer.decision)
    return Own(layer, decides="decide" in words) if words else SIGMOID


_WORDS = frozenset(("potential", "decision", "decide"))


def _words(layer: Any) -> frozenset[str]:
    """By which words the layer tells what it decides: those of the nearest class that has any."""
    said = _said(type(layer))
    return said or frozenset(word for word in _WORDS if hasattr(layer, word))


@functools.lru_cache(maxsize=1024)
def _said(kind: type) -> frozenset[str]:
    each = (_WORDS & {*vars(base), *inspect.get_annotations(base)} for base in kind.__mro__)
    return next((words for words in each if words), frozenset())


def _named(decision: Any) -> Decision:
    if isinstance(decision, Decision):
        return decision
    require(
        isinstance(decision, str) and decision in DECISIONS,
        "decision",
        f"be a decision function, or one of {list(DECISIONS)}",
        f"it was {decision!r}",
    )
    return DECISIONS[decision]


def decide(layer: Any, z: Knowledge) -> Knowledge:
    """The layer's decisions D."""
    return decision_of(layer).decide(z)


def rate_of(layer: Any) -> ScalarLike:
    """r in dW/dt = -r ∇E."""
    return getattr(layer, "rate", 1.0)


def joins_samples(layer: Any, z: Any) -> bool:
    """Whether one sample's knowledge depends on other samples, where it has the shape of z."""
    own = getattr(layer, "joins_samples", None)
    return own is not None and own(z)


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
