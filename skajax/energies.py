"""Energies: what the weights descend, dW^(l)/dt = -r_l ∇_{W^(l)} E.

An energy gives one number a layer, a mean over the samples of a batch. It is *local* if each layer
descends its own number, its inputs taken as given, so that no gradient crosses a layer: SKA's entropy,
the goodness of forward-forward. It is *global* if each layer descends the sum over all layers, through
all that lies above it: ordinary gradient flow. Energies add up, and can be multiplied by numbers:
``CrossEntropy() + 0.1 * Entropy()``.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import wadler_lindig as wl

from skajax._checks import as_number, is_traced, require, require_positive
from skajax._types import PerLayer, ScalarLike, Weights
from skajax.inputs import Batch
from skajax.network import Trace, matrices

__all__ = [
    "AbstractEnergy",
    "CrossEntropy",
    "Energy",
    "Entropy",
    "Goodness",
    "SquaredError",
    "Sum",
    "WeightDecay",
]


class AbstractEnergy(eqx.Module):
    """E(weights, trace, batch): one number a layer, averaged over the samples.

    >>> isinstance(0.1 * ska.energies.WeightDecay(), ska.energies.AbstractEnergy)
    True
    """

    @property
    @abc.abstractmethod
    def local(self) -> bool | None:
        """Whether each layer descends its own number alone, its inputs taken as given.

        None: it is no energy but a :class:`skajax.Flow`, whose gradient nothing descends.
        """

    @property
    def reads_weights(self) -> bool:
        """Whether it depends on weights otherwise than through the trace."""
        return False

    @property
    def watched(self) -> "AbstractEnergy | None":
        """The energy whose balance is recorded: itself; of a :class:`skajax.Flow` what it names, or None."""
        return self

    @abc.abstractmethod
    def __call__(self, weights: Weights, trace: Trace, batch: Batch) -> PerLayer:
        """The energy of each layer."""

    def check(self, batch: Batch, Z: Any) -> None:
        """Raise ValueError where the batch, or the network, is none for this energy.

        ``batch`` has all samples; of those that move, and inside jit, only the shapes are known. ``Z``
        has the shapes of the layers' knowledge of it.
        """

    @property
    def terms(self) -> tuple[tuple[ScalarLike, "AbstractEnergy"], ...]:
        """Factors and energies that add up to this one."""
        return ((1.0, self),)

    def __add__(self, other: "AbstractEnergy") -> "Sum":
        if not isinstance(other, AbstractEnergy):
            return NotImplemented
        return Sum((*self.terms, *other.terms))

    def __mul__(self, factor: ScalarLike) -> "Sum":
        return Sum(tuple((as_number(factor) * f, energy) for f, energy in self.terms))

    __rmul__ = __mul__


class Sum(AbstractEnergy):
    """A sum of energies, each with a factor; made by ``+`` and ``*``. Its local terms stay local.

    >>> ska.energies.Entropy() + 0.1 * ska.energies.WeightDecay()
    Sum(parts=((1.0, Entropy(local=True)), (0.1, WeightDecay(strength=1.0))))
    """

    parts: tuple[tuple[ScalarLike, AbstractEnergy], ...]

    @property
    def local(self) -> bool:
        """Whether all of its terms are."""
        return all(energy.local for _, energy in self.parts)

    @property
    def reads_weights(self) -> bool:
        """Whether any of its terms does."""
        return any(energy.reads_weights for _, energy in self.parts)

    @property
    def terms(self) -> tuple[tuple[ScalarLike, AbstractEnergy], ...]:
        """Its parts."""
        return self.parts

    @property
    def watched(self) -> AbstractEnergy | None:
        """The sum of what its terms watch; None if one of them watches nothing."""
        each = [(factor, energy.watched) for factor, energy in self.parts]
        found = tuple((factor, energy) for factor, energy in each if energy is not None)
        return Sum(found) if len(found) == len(each) else None

    def __call__(self, weights: Weights, trace: Trace, batch: Batch) -> PerLayer:
        """Σ factor · energy."""
        each = [factor * energy(weights, trace, batch) for factor, energy in self.parts]
        return jnp.sum(jnp.stack(each), axis=0)

    def check(self, batch: Batch, Z: Any) -> None:
        """Each of its terms."""
        for _, energy in self.parts:
            energy.check(batch, Z)


class Entropy(AbstractEnergy):
    """F^(l) = H^(l) / B, bits: the layer's entropy (eq. 9, 30), averaged over the samples.

    Of sigmoid neurons H = Σ h(z); of other decisions it is theirs, with D' and z·D in the same places
    (:mod:`skajax.decisions`). It is Shannon's for sigmoid, softmax and tanh; for relu and identity H
    is -½ Σ D² / ln 2, and descent on it has no end.

    ``local=True`` is SKA: each layer descends its own entropy (eq. 1-4). ``local=False`` is the same energy
    without the wall between layers: every layer descends the entropy of all layers above it too.

    >>> velocity = ska.flow(network, weights, x, ska.energies.Entropy(local=False))
    """

    own: bool = eqx.field(static=True)

    def __init__(self, *, local: bool = True) -> None:
        """``local``: whether no gradient crosses a layer."""
        require(isinstance(local, bool), "local", "be True or False", f"it was {local!r}")
        self.own = local

    def __pdoc__(self, **options: Any) -> wl.AbstractDoc:
        return as_made(self, options, local=self.own)

    @property
    def local(self) -> bool:
        """As it was made."""
        return self.own

    def __call__(self, weights: Weights, trace: Trace, batch: Batch) -> PerLayer:
        """H / B of each layer."""
        rows = zip(trace.decisions, trace.Z, strict=True)
        return jnp.stack([jnp.sum(each.entropy(z)) * (1 / z.shape[0]) for each, z in rows])


class CrossEntropy(AbstractEnergy):
    """E = -mean log softmax(z)_y, nats: of the last layer's knowledge as logits, on the batch's targets.

    So the gradient by z is softmax(z) - y, whatever the last layer decides; with ``Dense(n,
    decision="softmax")`` its decisions D are these probabilities.

    Global: the loss of ordinary supervised learning. ``Batch(x, y)`` has class labels y (samples,) from
    0 to n_L - 1, or probabilities (samples, n_L). It is the last layer's number; the others' are 0.

    >>> energy = ska.energies.CrossEntropy()
    >>> velocity = ska.flow(network, weights, ska.Batch(x, y), energy)
    """

    @property
    def local(self) -> bool:
        """It is not."""
        return False

    def __call__(self, weights: Weights, trace: Trace, batch: Batch) -> PerLayer:
        """The loss in the last place."""
        return _in_last(cross_entropy(trace.Z[-1], batch.y), trace)

    def check(self, batch: Batch, Z: Any) -> None:
        """Targets for each sample, within the classes."""
        _check_targets("CrossEntropy", batch.y, Z[-1])


class SquaredError(AbstractEnergy):
    """E = mean ½ ‖D - y‖²: of the last layer's decisions, on the batch's targets.

    Global. ``Batch(x, y)`` has y of the shape of the last layer's decisions, or class labels
    (samples,), which stand for vectors of 0 with a 1. For linear networks: ``Dense(n,
    decision="identity")``, whose D is z.

    >>> velocity = ska.flow(network, weights, ska.Batch(x, y), ska.energies.SquaredError())
    """

    @property
    def local(self) -> bool:
        """It is not."""
        return False

    def __call__(self, weights: Weights, trace: Trace, batch: Batch) -> PerLayer:
        """The error in the last place."""
        D = trace.D[-1]
        error = jnp.sum(jnp.square(D - _targets(batch.y, D))) * (0.5 / D.shape[0])
        return _in_last(error, trace)

    def check(self, batch: Batch, Z: Any) -> None:
        """Targets for each sample, of the last layer's shape."""
        _check_targets("SquaredError", batch.y, Z[-1])


class Goodness(AbstractEnergy):
    """E^(l) = mean softplus(-s (G - θ n_l)), nats, with G = Σ D² over the layer's n_l neurons:
    forward-forward.

    Local. Each layer learns to tell positive from negative samples by its goodness G, whose logistic
    regression this is: P(positive) = σ(G - θ n_l). ``Batch(x, y)`` has y (samples,): s = +1 where y >
    0, positive, else -1. The ``threshold`` θ is that of one neuron; 1/4 is the goodness at D = 1/2.

    Source: G. Hinton, "The Forward-Forward Algorithm", arXiv:2212.13345 (2022), with logistic decisions.

    >>> batch = ska.rules.positive_negative(x, y, jax.random.key(0))
    >>> velocity = ska.flow(network, weights, batch, ska.energies.Goodness())
    """

    threshold: ScalarLike = eqx.field(converter=as_number, default=0.25)

    @property
    def local(self) -> bool:
        """It is."""
        return True

    def __call__(self, weights: Weights, trace: Trace, batch: Batch) -> PerLayer:
        """Of each layer."""
        found = []
        for D in trace.D:
            excess = jnp.square(D) - self.threshold
            each = jnp.sum(excess, axis=tuple(range(1, D.ndim)))
            sign = jnp.where(batch.y > 0, 1, -1).astype(D.dtype)
            found.append(jnp.sum(jax.nn.softplus(-sign * each)) * (1 / D.shape[0]))
        return jnp.stack(found)

    def check(self, batch: Batch, Z: Any) -> None:
        """One sign for each sample."""
        require(
            batch.y is not None and jnp.shape(batch.y) == (Z[-1].shape[0],),
            "y",
            "have the sign of each sample for Goodness: Batch(x, y) with y (samples,), positive above 0",
            f"it was {None if batch.y is None else jnp.shape(batch.y)}",
        )


class WeightDecay(AbstractEnergy):
    """E^(l) = ½ strength ‖W^(l)‖², of all weights with two axes or more: biases do not decay.

    Local. Alone, weights fall as e^{-strength t}.

    >>> velocity = ska.flow(network, weights, x, ska.energies.WeightDecay(2.0))
    >>> bool(jnp.allclose(velocity[0].W, -2.0 * weights[0].W))
    True
    """

    strength: ScalarLike = eqx.field(converter=as_number, default=1.0)

    def __check_init__(self) -> None:
        """Refuse a strength that is none."""
        require_positive("strength", self.strength, "a rate of decay")

    @property
    def local(self) -> bool:
        """It is."""
        return True

    @property
    def reads_weights(self) -> bool:
        """It reads nothing else."""
        return True

    def __call__(self, weights: Weights, trace: Trace, batch: Batch) -> PerLayer:
        """Of each layer; a stage's weights do not decay."""
        each = [[jnp.sum(jnp.square(w)) for w in matrices(weights[place])] for place in trace.rows]
        squares = [sum(parts[1:], start=parts[0]) for parts in each]
        return 0.5 * self.strength * jnp.stack(squares)


class Energy(AbstractEnergy):
    """An energy of one's own: ``function(weights, trace, batch)`` gives one number a layer.

    Each a mean over the samples. ``weights`` have an entry for each layer and stage; ``trace`` has the
    layers' ``inputs``, knowledge ``Z`` and decisions ``D`` (:class:`skajax.network.Trace`); ``batch``
    has x and y. ``local``: whether each layer descends its own number, inputs held fixed, or all layers
    the sum. ``reads_weights=False`` promises that weights are read through the trace alone: then few
    samples are simulated in their row space.

    >>> mean = ska.Energy(lambda weights, trace, batch: jnp.stack([Z.mean() for Z in trace.Z]), local=True)
    >>> velocity = ska.flow(network, weights, x, ska.energies.Entropy() + 0.1 * mean)
    """

    function: Callable[[Weights, Trace, Batch], PerLayer]
    own: bool = eqx.field(static=True)
    reads: bool = eqx.field(static=True)

    def __init__(
        self,
        function: Callable[[Weights, Trace, Batch], PerLayer],
        *,
        local: bool,
        reads_weights: bool = True,
    ) -> None:
        """See the class."""
        require(
            callable(function),
            "function",
            "be a function of weights, trace and batch",
            f"it was {function!r}",
        )
        self.function, self.own, self.reads = function, local, reads_weights

    def __pdoc__(self, **options: Any) -> wl.AbstractDoc:
        arguments = {"function": self.function, "local": self.own}
        return as_made(self, options, **arguments, reads_weights=self.reads)

    @property
    def local(self) -> bool:
        """As it was made."""
        return self.own

    @property
    def reads_weights(self) -> bool:
        """As it was made."""
        return self.reads

    def __call__(self, weights: Weights, trace: Trace, batch: Batch) -> PerLayer:
        """The function's."""
        found = self.function(weights, trace, batch)
        shape = (len(trace.Z),)
        require(
            jnp.shape(found) == shape,
            "function",
            f"give one number a layer, an array of shape {shape}",
            f"it gave one of shape {jnp.shape(found)}",
        )
        return found

    def check(self, batch: Batch, Z: Any) -> None:
        """Nothing is known of it before it is called."""


def as_made(energy: AbstractEnergy, options: dict[str, Any], /, **arguments: Any) -> wl.AbstractDoc:
    """An energy by the arguments it was made with, as it prints; its fields keep the names that files know.

    Checkpoints and stores of sweeps know an energy by its fields (:mod:`skajax._fingerprint`).
    """
    begin, end = wl.TextDoc(f"{type(energy).__name__}("), wl.TextDoc(")")
    named = wl.named_objs(arguments.items(), **options)
    return wl.bracketed(begin, named, wl.comma, end, options["indent"])


def cross_entropy(z: Any, y: Any) -> Any:
    """-mean log softmax(z)_y, nats, of logits z (samples, classes) and targets."""
    logarithms = jax.nn.log_softmax(z, axis=-1)
    return -jnp.sum(_targets(y, z) * logarithms) * (1 / z.shape[0])


def _in_last(value: Any, trace: Trace) -> PerLayer:
    return jnp.zeros(len(trace.Z), value.dtype).at[-1].set(value)


def _targets(y: Any, like: Any) -> Any:
    """Class labels as vectors; values in the precision at hand."""
    if jnp.issubdtype(y.dtype, jnp.floating):
        return y.astype(like.dtype)
    return jax.nn.one_hot(y, like.shape[-1], dtype=like.dtype)


def _check_targets(energy: str, y: Any, z: Any) -> None:
    require(
        y is not None,
        "x",
        f"be a Batch(x, y), or MiniBatches(x, y, ...), with targets for {energy}",
        "it had none",
    )
    labels = not jnp.issubdtype(y.dtype, jnp.floating)
    want = z.shape[:-1] if labels else z.shape
    require(
        y.shape == want,
        "y",
        f"have the shape {z.shape[:-1]} as class labels, or {z.shape} as values, for {energy}",
        f"it was {y.shape}, {y.dtype}",
    )
    if labels:
        check_labels(y, z.shape[-1], energy)


def check_labels(y: Any, classes: int, energy: str) -> None:
    """Refuse class labels outside of 0 .. classes - 1, where their values are known."""
    if is_traced(y) or isinstance(y, jax.ShapeDtypeStruct):
        return
    values = np.asarray(y)
    outside = values[(values < 0) | (values >= classes)]
    require(
        outside.size == 0,
        "y",
        f"hold class labels from 0 to {classes - 1}, the network having {classes} outputs, for {energy}",
        lambda: f"it held {outside.flat[0]}",
    )
