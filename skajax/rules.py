"""Rules of learning by name: what to give as ``energy`` to :func:`skajax.simulate`, and compare.

    SKA                         :func:`ska`                        a local energy, no labels
    global entropy flow         :func:`global_entropy`             a global energy, no labels
    supervised gradient flow    :func:`supervised`                 a global energy
    forward-forward             :func:`forward_forward`            a local energy
    layer-wise local losses     :func:`layerwise`                  a local energy
    feedback alignment          :func:`feedback_alignment`         a flow, no gradient
    direct feedback alignment   :func:`direct_feedback_alignment`  a flow, no gradient

Those with labels take ``Batch(x, y)``; forward-forward takes what :func:`positive_negative` makes of it.
"""

from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import as_array, as_key, is_whole, require, require_positive
from skajax._types import Array, Float, Inputs, Int, Key, PerLayer, ScalarLike, Tensors, Weights
from skajax.decisions import Decision
from skajax.energies import (
    AbstractEnergy,
    CrossEntropy,
    Entropy,
    Goodness,
    check_labels,
    cross_entropy,
)
from skajax.flows import Flow
from skajax.inputs import Batch
from skajax.network import Network, Trace, check_inputs, expected_knowledge

__all__ = [
    "DirectFeedbackAlignment",
    "FeedbackAlignment",
    "LayerwiseCrossEntropy",
    "direct_feedback_alignment",
    "embed_labels",
    "feedback_alignment",
    "forward_forward",
    "global_entropy",
    "layerwise",
    "positive_negative",
    "ska",
    "supervised",
]


def ska() -> Entropy:
    """E^(l) = H^(l) / B, local: each layer descends its own entropy (eq. 1-4).

    Source: B. Mahi, "Structured Knowledge Accumulation: The Principle of Entropic Least Action in
    Forward-Only Neural Learning", arXiv:2504.03214 (2025).

    >>> velocity = ska.flow(network, weights, x, ska.rules.ska())
    """
    return Entropy()


def global_entropy() -> Entropy:
    """E = Σ_l H^(l) / B, global: the same entropy, with gradients that cross the layers.

    >>> velocity = ska.flow(network, weights, x, ska.rules.global_entropy())
    """
    return Entropy(local=False)


def supervised() -> CrossEntropy:
    """E = -mean log softmax(z^(L))_y, global: ordinary gradient flow on labels.

    >>> velocity = ska.flow(network, weights, ska.Batch(x, y), ska.rules.supervised())
    """
    return CrossEntropy()


def forward_forward(threshold: ScalarLike = 0.25) -> Goodness:
    """E^(l) = mean softplus(-s (Σ D² - θ n_l)), local: each layer tells positive from negative samples.

    Main argument: the threshold θ of one neuron's D². The samples are those of :func:`positive_negative`.
    Layers read the decisions below as they are, not divided by their length as in Hinton's own runs.

    Source: G. Hinton, "The Forward-Forward Algorithm", arXiv:2212.13345 (2022).

    >>> batch = ska.rules.positive_negative(x, y, jax.random.key(0))
    >>> velocity = ska.flow(network, weights, batch, ska.rules.forward_forward())
    """
    return Goodness(threshold)


def feedback_alignment(
    network: Network,
    x: Inputs,
    key: Key,
    *,
    energy: AbstractEnergy | None = None,
    scale: ScalarLike = 1.0,
) -> Flow:
    """Backpropagation through fixed random matrices: δ^(l) = D'^(l) (δ^(l+1) B^(l)ᵀ), Ẇ^(l) = -x^(l)ᵀ δ^(l).

    δ^(L) = ∇_z E of the last layer. With B^(l) = W^(l+1), which moves, this would be the gradient flow of E.

    - ``network``: layers (samples, n_l) one upon another, with no stage between them.
    - ``x``: its inputs; only their shape and dtype are read.
    - ``key``: B^(l) (n_l, n_{l+1}) is drawn from ``fold_in(key, l)``, l = 0..L-2, N(0, scale² / n_{l+1}).
    - ``energy``: of the last layer alone, :class:`skajax.energies.CrossEntropy` unless given. It is watched.
    - ``scale``: 1 leaves errors about their size on the way down.

    Returns a :class:`skajax.Flow` whose ``function`` is a :class:`FeedbackAlignment`. Raises ValueError for
    a network of another kind.

    Source: T. P. Lillicrap, D. Cownden, D. B. Tweed and C. J. Akerman, "Random synaptic feedback
    weights support error backpropagation for deep learning", Nature Communications 7, 13276 (2016).

    >>> x, y = ska.data.mnist_subset(per_class=2)
    >>> network = ska.mlp([16, 10], scale=0.1)
    >>> weights = network.init(jax.random.key(0), x)
    >>> rule = ska.rules.feedback_alignment(network, x, jax.random.key(1))
    >>> run = ska.simulate(network, weights, ska.Batch(x, y), ska.Euler(0.1), steps=9, energy=rule)
    >>> bool(run.energy[-1, -1] < run.energy[0, -1])
    True
    """
    widths, dtype = _widths(network, x)
    matrices = _draw(key, list(pairwise(widths)), scale, dtype)
    energy = CrossEntropy() if energy is None else energy
    function = FeedbackAlignment(network.running(), matrices, energy)
    return Flow(function, energy=energy, reads_weights=False)


def direct_feedback_alignment(
    network: Network,
    x: Inputs,
    key: Key,
    *,
    energy: AbstractEnergy | None = None,
    scale: ScalarLike = 1.0,
) -> Flow:
    """The output's error straight to every layer: δ^(l) = D'^(l) (δ^(L) B^(l)ᵀ), Ẇ^(l) = -x^(l)ᵀ δ^(l).

    Arguments and result as of :func:`feedback_alignment`, but for B^(l) (n_l, n_L), N(0, scale² / n_L); and
    ``function`` is a :class:`DirectFeedbackAlignment`. With one hidden layer both are the same rule.

    Source: A. Nøkland, "Direct feedback alignment provides learning in deep neural networks", NeurIPS
    29 (2016), arXiv:1609.01596.

    >>> rule = ska.rules.direct_feedback_alignment(network, x, jax.random.key(1))
    >>> velocity = ska.flow(network, weights, ska.Batch(x, y), rule)
    """
    widths, dtype = _widths(network, x)
    matrices = _draw(key, [(n, widths[-1]) for n in widths[:-1]], scale, dtype)
    energy = CrossEntropy() if energy is None else energy
    function = DirectFeedbackAlignment(network.running(), matrices, energy)
    return Flow(function, energy=energy, reads_weights=False)


def layerwise(
    network: Network, x: Inputs, key: Key, *, scale: ScalarLike = 1.0
) -> "LayerwiseCrossEntropy":
    """Each hidden layer descends the cross-entropy of its own fixed random readout to the classes.

    - ``network``, ``x``: as for :func:`skajax.flow`; of x only shape and dtype are read. The last
      layer's outputs are the classes.
    - ``key``: the readout R^(l) (n_l, n_L) is drawn from ``fold_in(key, l)``, l = 0..L-2, N(0, scale² / n_l).

    Returns a :class:`LayerwiseCrossEntropy`.

    >>> rule = ska.rules.layerwise(network, x, jax.random.key(1))
    >>> velocity = ska.flow(network, weights, ska.Batch(x, y), rule)
    """
    Z = _knowledge(network, x)
    sizes = [(Z[-1].shape[-1], int(np.prod(z.shape[1:]))) for z in Z[:-1]]
    drawn = _draw(key, sizes, scale, Z[-1].dtype)
    return LayerwiseCrossEntropy(tuple(R.T for R in drawn))


def positive_negative(x: Inputs, y: Int[Any, " samples"], key: Key, *, classes: int = 10) -> Batch:
    """Samples for forward-forward: each image with its label in its first pixels, and with a wrong one.

    - ``x`` (samples, inputs), of at least as many inputs as classes: the first ones are overwritten.
    - ``y`` (samples,): class labels from 0 to classes - 1.
    - ``key``: the wrong labels are drawn uniformly from the other classes.

    Returns ``Batch(x, sign)`` of twice as many samples: first all positive ones, sign 1, in the order of
    x, then the negative ones, sign -1. Raises ValueError for labels outside of the classes.

    Source: Hinton (2022), section 3.3.

    >>> x, y = ska.data.mnist_subset(per_class=2)
    >>> batch = ska.rules.positive_negative(x, y, jax.random.key(0))
    >>> batch.x.shape, float(batch.y.sum())
    ((40, 784), 0.0)
    """
    require(is_whole(classes, 2), "classes", "be a whole number, at least 2", f"it was {classes!r}")
    right = embed_labels(x, y, classes=classes)
    y = as_array("y", y)
    away = jax.random.randint(as_key("key", key), y.shape, 1, classes, y.dtype)
    wrong = embed_labels(x, (y + away) % classes, classes=classes)
    sign = jnp.repeat(jnp.asarray([1, -1]), len(y))
    return Batch(jnp.concatenate([right, wrong]), sign)


def embed_labels(
    x: Inputs, y: Int[Any, " samples"] | None, *, classes: int = 10
) -> Float[Array, "samples inputs"]:
    """Images whose first pixels are their labels: 1 at the label's place, 0 at the other classes'.

    ``y=None``: the neutral label, 1 / classes everywhere (Hinton 2022). The largest pixel of x should be 1.

    >>> ska.rules.embed_labels(x, y).shape
    (20, 784)
    """
    x = as_array("x", x)
    check_inputs(x)
    require(
        x.ndim == 2 and x.shape[1] >= classes,
        "x",
        f"be of shape (samples, inputs) with at least {classes} inputs, one for each class",
        f"its shape was {x.shape}",
    )
    label = jnp.full((len(x), classes), 1 / classes, x.dtype)
    if y is not None:
        y = as_array("y", y)
        require(
            y.shape == x.shape[:1] and jnp.issubdtype(y.dtype, jnp.integer),
            "y",
            f"hold one class label, a whole number, for each of the {len(x)} samples",
            f"it was {y.shape}, {y.dtype}",
        )
        check_labels(y, classes, "embedded labels")
        label = jax.nn.one_hot(y, classes, dtype=x.dtype)
    return x.at[:, :classes].set(label)


class FeedbackAlignment(eqx.Module):
    """The function of :func:`feedback_alignment`; ``matrices`` has B^(l) (n_l, n_{l+1}), l = 1..L-1.

    >>> rule = ska.rules.feedback_alignment(network, x, jax.random.key(1))
    >>> [B.shape for B in rule.function.matrices]
    [(8, 10)]
    """

    network: Network
    matrices: Tensors
    energy: AbstractEnergy = eqx.field(default_factory=CrossEntropy)

    def __call__(self, weights: Weights, trace: Trace, batch: Batch) -> Weights:
        """Ẇ of every layer."""
        by_Z = [_output_error(self.network, self.energy, weights, trace, batch)]
        below = zip(trace.decisions, trace.Z, self.matrices, strict=False)
        for decision, z, B in reversed(list(below)):
            by_Z.insert(0, _before_deciding(decision, z, _product(by_Z[0], B.T)))
        pulled = self.network.pull(weights, trace.inputs, tuple(by_Z))
        return jax.tree.map(jnp.negative, pulled)

    def check(self, batch: Batch, Z: Any) -> None:
        """Matrices from each layer to the one below."""
        above = [z.shape[-1] for z in Z[1:]]
        _check_shapes("matrices", self.matrices, Z, above)


class DirectFeedbackAlignment(eqx.Module):
    """The function of :func:`direct_feedback_alignment`; ``matrices`` has B^(l) (n_l, n_L), l = 1..L-1.

    >>> rule = ska.rules.direct_feedback_alignment(network, x, jax.random.key(1))
    >>> type(rule.function).__name__
    'DirectFeedbackAlignment'
    """

    network: Network
    matrices: Tensors
    energy: AbstractEnergy = eqx.field(default_factory=CrossEntropy)

    def __call__(self, weights: Weights, trace: Trace, batch: Batch) -> Weights:
        """Ẇ of every layer."""
        error = _output_error(self.network, self.energy, weights, trace, batch)
        below = zip(trace.decisions, trace.Z, self.matrices, strict=False)
        by_Z = [_before_deciding(decision, z, _product(error, B.T)) for decision, z, B in below]
        pulled = self.network.pull(weights, trace.inputs, (*by_Z, error))
        return jax.tree.map(jnp.negative, pulled)

    def check(self, batch: Batch, Z: Any) -> None:
        """Matrices from the last layer to each one below."""
        _check_shapes("matrices", self.matrices, Z, [Z[-1].shape[-1]] * (len(Z) - 1))


class LayerwiseCrossEntropy(AbstractEnergy):
    """E^(l) = -mean log softmax(D^(l) R^(l))_y, nats, and of the last layer -mean log softmax(z^(L))_y.

    Local: no gradient crosses a layer. ``readouts`` has R^(l) (n_l, classes) of each layer but the last,
    fixed; a layer with several axes is read as one long vector. ``Batch(x, y)`` as for
    :class:`skajax.energies.CrossEntropy`.

    Source: H. Mostafa, V. Ramesh and G. Cauwenberghs, "Deep supervised learning using local errors",
    Frontiers in Neuroscience 12, 608 (2018), whose readouts are fixed and random; A. Nøkland and L. H.
    Eidnes, "Training neural networks with local error signals", ICML (2019), arXiv:1901.06656.

    >>> ska.rules.layerwise(network, x, jax.random.key(1)).readouts[0].shape
    (8, 10)
    """

    readouts: Tensors

    @property
    def local(self) -> bool:
        """It is."""
        return True

    def __call__(self, weights: Weights, trace: Trace, batch: Batch) -> PerLayer:
        """Of each layer."""
        flat = [D.reshape(D.shape[0], -1) for D in trace.D[:-1]]
        logits = [*map(_product, flat, self.readouts), trace.Z[-1]]
        return jnp.stack([cross_entropy(z, batch.y) for z in logits])

    def check(self, batch: Batch, Z: Any) -> None:
        """Targets for each sample, within the classes; readouts of the layers' sizes."""
        CrossEntropy().check(batch, Z)
        require(
            Z[-1].ndim == 2,
            "network",
            "end in a layer (samples, classes) for layer-wise losses",
            f"its shape was {Z[-1].shape}",
        )
        _check_shapes("readouts", self.readouts, Z, [Z[-1].shape[-1]] * (len(Z) - 1))


def _output_error(
    network: Network, energy: AbstractEnergy, weights: Weights, trace: Trace, batch: Batch
) -> Array:
    """δ^(L) = ∇_z E by the last layer's knowledge."""

    def total(z: Array) -> Array:
        Z = (*trace.Z[:-1], z)
        return jnp.sum(energy(weights, network.knowing(trace.inputs, Z), batch))

    return jax.grad(total)(trace.Z[-1])


def _before_deciding(decision: Decision, z: Array, error: Array) -> Array:
    """D' times the error in a layer's decisions."""
    return jax.vjp(decision.decide, z)[1](error)[0]


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def _knowledge(network: Network, x: Inputs) -> Any:
    """Shapes of the layers' knowledge."""
    require(isinstance(network, Network), "network", "be a Network", f"it was {network!r}")
    x = as_array("x", x)
    check_inputs(x, network)
    return expected_knowledge(network, x.shape, x.dtype)


def _widths(network: Network, x: Inputs) -> tuple[list[int], Any]:
    """n_l of a stack of layers (samples, n_l), and their precision."""
    Z = _knowledge(network, x)
    first = network.rows[0]
    require(
        network.rows == tuple(range(first, len(network.layers))) and all(z.ndim == 2 for z in Z),
        "network",
        "be layers (samples, n_l) one upon another, with no stage between them",
        f"their shapes were {[z.shape for z in Z]}, at the places {network.rows} of"
        f" {len(network.layers)}",
    )
    return [z.shape[1] for z in Z], Z[-1].dtype


def _draw(
    key: Key, sizes: list[tuple[int, int]], scale: ScalarLike, dtype: Any
) -> tuple[Array, ...]:
    """N(0, scale² / columns) for each size."""
    key, factor = as_key("key", key), _scale(scale)
    return tuple(
        jax.random.normal(jax.random.fold_in(key, n), size, dtype) * (factor * size[1] ** -0.5)
        for n, size in enumerate(sizes)
    )


def _scale(scale: ScalarLike) -> Any:
    return require_positive("scale", scale, "a size")


def _check_shapes(argument: str, found: Any, Z: Any, columns: list[int]) -> None:
    want = [(int(np.prod(z.shape[1:])), n) for z, n in zip(Z[:-1], columns, strict=True)]
    shapes = [tuple(matrix.shape) for matrix in found]
    require(
        shapes == want, argument, f"have the shapes {want} for this network", f"they had {shapes}"
    )
