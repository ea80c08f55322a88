"""Recurrent layers: knowledge at every step of a sequence, simple or gated."""

import dataclasses
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from skajax._checks import require
from skajax._types import Array, Float, Inputs, Key, Knowledge
from skajax.entropy import decision
from skajax.layers._fields import DECISIONS, usual, whole
from skajax.layers._product import matrix_product


class RecurrentWeights(NamedTuple):
    """Of a simple recurrent layer: ``W`` (features, width), ``V`` (width, width) and ``b`` (width,)."""

    W: Float[Array, "features width"]
    V: Float[Array, "width width"]
    b: Float[Array, " width"]


class GatedWeights(NamedTuple):
    """Of a gated recurrent layer: those of its ``candidate``, and those of its ``gate``."""

    candidate: RecurrentWeights
    gate: RecurrentWeights


_Weights: TypeAlias = RecurrentWeights | GatedWeights
_Given: TypeAlias = tuple[Inputs, Float[Array, "samples starts width"]]


@dataclasses.dataclass(frozen=True)
class Recurrent:
    """Knowledge z_t = x_t W + D_{t-1} V + b at every step t = 1..T of sequences (samples, T, features).

    D_t = decide(z_t), and z_0 = 0: the first step reads the decision on zero knowledge, D_0 = 1/2 of the
    sigmoid and 0 of the other decision functions. Knowledge and decisions are (samples, T, width), one of
    each for every step; all of them count in the entropy Σ h(z_t) and its like.

    ``gated=True`` adds a gate g_t, in (0, 1), of weights of its own:

        g_t = σ(x_t W_g + D_{t-1} V_g + b_g),
        z_t = (1 - g_t) z_{t-1} + g_t (x_t W + D_{t-1} V + b).

    It is the update gate of Cho et al. (2014), applied to the knowledge where theirs is applied to the
    decisions, and without their reset gate. Their h_t = (1 - g_t) h_{t-1} + g_t h̃_t, in the letters of
    this page, is a mean of two decisions, and no decision on any knowledge of the layer's. Here D_t =
    decide(z_t) with z_t as above, so that entropy, Tensor Net and their closed forms are those of every
    other layer. The gate is a factor inside z_t: it has no entropy of its own, and its weights descend
    that of z_t. z_t is a weighted mean of z_0 = 0 and the candidates x_s W + D_{s-1} V + b, s ≤ t, and
    |z_t| is at most the largest of theirs.

    What the local flow takes as given is a window: z_t is computed from x and from z_{t-k}, the knowledge k
    = ``window`` steps before (and D_{t-k}, the decision on it), by k steps; the gradient goes through these
    k steps, and no further back. At t ≤ k it reaches back to z_0 = 0. With ``window=1``, the default,
    no gradient goes through time: of a simple layer, with e_t = ∇_{z_t} H,

        dW/dt = -(1/B) Σ_t x_tᵀ e_t,    dV/dt = -(1/B) Σ_t D_{t-1}ᵀ e_t,    db/dt = -(1/B) Σ_t Σ_samples e_t.

    With k ≥ T it is full backpropagation through time. An evaluation does the work of k (T - k + 1) steps
    beside those of the forward pass, and its program holds k steps one after the other, to be compiled.
    All this is about local energies: under a global one the gradient goes through all layers and all
    times, whatever the window. So do tangents, always.

    - ``width``: the number of neurons.
    - ``gated``: whether there is a gate.
    - ``window``: through how many steps the local flow's gradient goes, at least 1.
    - ``scale``: initially W, V, W_g, V_g ~ N(0, scale²), independently. One scale for all of them: D_{t-1} is
      of the size of inputs in [0, 1].
    - ``bias``: initially b = ``bias``, and b_g = 0: where weights are small, g is 1/2.
    - ``precision``: of the matrix products, "highest", "high" or "default" (:class:`skajax.layers.Dense`).
    - ``decision``: "sigmoid", "identity", "tanh" or "relu". Knowledge stays bounded in time if
      decisions are; of the identity and of "relu" it grows with T where V is large.

    Raises ValueError for fields that are none of these.

    Sources: J. L. Elman, "Finding structure in time", Cognitive Science 14 (1990); K. Cho et al., "Learning
    phrase representations using RNN encoder-decoder", arXiv:1406.1078 (2014); R. J. Williams and J. Peng,
    Neural Computation 2 (1990), for the window.

    >>> x = jax.random.uniform(jax.random.key(1), (8, 28, 3))
    >>> network = ska.Network((ska.layers.Recurrent(16, gated=True), ska.layers.Recurrent(4)))
    >>> weights = network.init(jax.random.key(0), x)
    >>> ska.simulate(network, weights, x, ska.Adaptive(), t1=0.5).final.Z[0].shape
    (8, 28, 16)
    """

    width: int
    gated: bool = False
    window: int = 1
    scale: float = 0.01
    bias: float = 0.0
    precision: str = "highest"
    decision: str = "sigmoid"

    def __post_init__(self) -> None:
        whole(self, "width", "neurons")
        whole(self, "window", "steps")
        require(isinstance(self.gated, bool), "gated", "be True or False", f"it was {self.gated!r}")
        usual(self)

    def init(self, key: Key, x: Inputs | jax.ShapeDtypeStruct) -> _Weights:
        """Initial weights for sequences of x's features and dtype; x's values are not read."""
        require(
            len(x.shape) == 3 and x.shape[1] >= 1,
            "x",
            "be of shape (samples, times, features), of at least one time, for a recurrent layer",
            f"its shape was {x.shape}",
        )
        if not self.gated:
            return self._draw(key, x, self.bias)
        candidate, gate = jax.random.split(key)
        return GatedWeights(self._draw(candidate, x, self.bias), self._draw(gate, x, 0.0))

    def inputs(self, weights: _Weights, below: Inputs) -> _Given:
        """What the knowledge takes as given: the sequences, and the knowledge at each window's start.

        z_0 = 0, z_1, ..., z_{T-k}: (samples, T - k + 1, width), where k is the window, or T if that is
        less.
        """
        samples, times, _ = below.shape
        later = times - min(self.window, times)  # windows that start after z_0
        read, V = self._read(weights, below)

        def tick(z: Array, read: Array) -> tuple[Array, Array]:
            z = self._next(read, V, z)
            return z, z

        start = jnp.zeros((samples, self.width), below.dtype)
        _, z = jax.lax.scan(tick, start, jnp.moveaxis(read[:, :later], 1, 0))
        return below, jnp.moveaxis(jnp.concatenate([start[None], z]), 0, 1)

    def knowledge(self, weights: _Weights, x: _Given) -> Knowledge:
        """Knowledge z_t, of shape (samples, times, width), by k steps from each window's start."""
        below, z = x
        starts = z.shape[1]
        read, V = self._read(weights, below)
        first = []  # of the window that starts at z_0 every step counts, of the others only the last
        for step in range(below.shape[1] - starts + 1):
            z = self._next(read[:, step : step + starts], V, z)
            first.append(z[:, :1])
        return jnp.concatenate([*first[:-1], z], axis=1)

    def decide(self, z: Knowledge) -> Knowledge:
        """Decisions D, of the shape of z (eq. 13)."""
        return DECISIONS[self.decision](z)

    def running(self) -> "Recurrent":
        """The layer without its initial values: layers that compute the same are the same."""
        return dataclasses.replace(self, scale=0.01, bias=0.0)

    def _draw(self, key: Key, x: Inputs | jax.ShapeDtypeStruct, bias: float) -> RecurrentWeights:
        W, V = jax.random.split(key)
        normal = lambda key, inputs: jax.random.normal(key, (inputs, self.width), x.dtype)
        return RecurrentWeights(
            self.scale * normal(W, x.shape[-1]),
            self.scale * normal(V, self.width),
            jnp.full((self.width,), bias, x.dtype),
        )

    def _read(self, weights: _Weights, below: Inputs) -> tuple[Array, Array]:
        """x_t W + b at all times, and V; of a gated layer, the gate's behind the candidate's."""
        parts = weights if isinstance(weights, GatedWeights) else (weights,)
        W, V, b = (jnp.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True))
        return matrix_product(below, W, self.precision) + b.reshape(1, 1, -1), V

    def _next(self, read: Array, V: Array, z: Array) -> Array:
        """z_t of what is read at t and of z_{t-1}, with any axes before that of the neurons."""
        made = read + matrix_product(self.decide(z), V, self.precision)
        if not self.gated:
            return made
        candidate, gate = jnp.split(made, 2, axis=-1)
        g = decision(gate)
        return (1 - g) * z + g * candidate
