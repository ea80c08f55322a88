"""Growth rates of any layer, and of whole networks, by products with the Jacobian alone."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from skajax._checks import as_array, is_traced, is_whole, require
from skajax._modes import working
from skajax._summary import Summarised, Summary, numbered
from skajax._types import Array, Inputs, Tensors, Weights
from skajax.energies import AbstractEnergy, Entropy
from skajax.inputs import Batch, as_inputs
from skajax.network import Network, Trace, check_inputs, check_weights, expected_knowledge
from skajax.timescales._krylov import EXACT, SPARE, largest

WHOLE = 256
"""Up to this size a matrix is made of its products with all unit vectors, and diagonalised."""
ROUNDING = 64
"""So many ε, relative to what they are of, count as 0."""


class Growth(Summarised, eqx.Module):
    """How knowledge moves near a state, as a sum of modes, each as e^{λt}: one entry a layer.

    Under a global energy all layers move together: rates and errors are then the same in each entry.
    """

    rates: Tensors
    """λ (modes,), per unit of time, the largest in size first; negative where the mode decays."""
    directions: Tensors
    """What each mode moves of the layer's knowledge: (modes, *shape of Z), of norm 1, under a global energy
    over all layers. Where neurons are alike that of one, and the last axis has length 1."""
    errors: Tensors
    """Bounds on the rates' errors: the residuals ‖A v - λ v‖."""
    neurons: tuple[int, ...] = eqx.field(static=True)
    """How many neurons have these modes, each for itself; 1 where the modes are of all neurons together."""
    local: bool = eqx.field(static=True)
    """Whether each layer moves by its own weights alone."""

    @property
    def times(self) -> Tensors:
        """1 / |λ|: in which a mode grows, or decays, by a factor e."""
        return tuple(1 / jnp.abs(rates) for rates in self.rates)

    def summary(self) -> Summary:
        """Of each layer the rates, the leading mode's time, and how many neurons have them."""
        columns = [np.asarray(rates) for rates in (self.rates if self.local else self.rates[:1])]
        head = numbered(len(columns)) if self.local else ("layer", "all")
        many = max(map(len, columns), default=0)
        cell = lambda column, n: f"{column[n]:.4g}" if n < len(column) else "–"
        rows = [(f"rate {n + 1}", *(cell(c, n) for c in columns)) for n in range(many)]
        leading = ("time of the first", *(cell(1 / np.abs(c), 0) for c in columns))
        neurons = ("neurons alike", *map(str, self.neurons[: len(columns)]))
        told = "each layer by its own weights" if self.local else "all layers together"
        return Summary((f"Growth rates, {told}",), (head, *rows, leading, neurons))


@working()
def growth(
    network: Network,
    weights: Weights,
    x: Inputs | Batch,
    energy: AbstractEnergy | None = None,
    *,
    count: int = 6,
) -> Growth:
    """Leading rates λ of the linearised flow, of any layer: the eigenvalues of A = -J r Jᵀ H.

        ż = J ẇ = -J r Jᵀ ∇_z E,    so that near a state    d(δz)/dt = A δz,

    with J = ∂z/∂w, r the layers' rates and H = ∂²E/∂z². Matrix-free: A is applied by one product with Jᵀ
    (vjp) and one with J (jvp), and its leading eigenvalues come from a block Krylov method. No Jacobian is
    made.

    - *Local energies*: one A for each layer, of its own weights, its inputs held as they are: no gradient
      crosses a layer. H is that at z = 0, the linear regime: for the entropy -D'(0) / (B ln 2), D'(0) being
      1/4 for the sigmoid (1 for tanh; 0, and no mode, for ReLU), and

          ż = J Jᵀ z / (4 B ln 2),

      exact at each instant up to relative order z². For a dense layer J Jᵀ is x xᵀ + 1 in each neuron:
      rates are those of :func:`spectrum`, growth times of each layer those of the linear regime (eq. 3, 31).
      Where z is linear in the weights (dense, convolution, recurrence with inputs given, graph), they
      hold for as long as the layer's input rests. Where it is not (attention), J moves with the weights,
      and rates are those of the given ones: the change of J along the way is what is neglected.
    - *Global energies*: one A for the network, of all weights, with H at the given weights' own z. J Jᵀ is
      the neural tangent kernel. For the squared error of decisions that are z itself, H = 1/B, and
      rates are -eig(J Jᵀ) / B of the outputs; for the cross-entropy H is the softmax's covariance / B. In
      general A's nonzero eigenvalues are those of minus the Gauss-Newton matrix Jᵀ H J: what
      is neglected is the curvature of z in the weights.

    Main arguments: the network, its weights, and inputs x, or ``Batch(x, y)`` with targets; the energy, by
    default SKA's ``Entropy()``.

    - ``count``: how many modes are wanted of each layer. There may be fewer: what is 0 to rounding is
      no mode. An eigenvalue that occurs several times is given several times.

    A layer's neurons (last axis of z) are alike where they share no weights and read the same inputs, as in
    dense layers, convolutions and graphs. A is then the same matrix for each neuron, which a product with
    random numbers tells, and rates are of one neuron; ``neurons`` says of how many.

    Returns a :class:`Growth`. Each vector of a block of count + 8 costs about an evaluation of the flow, and
    it takes from 2 blocks to some tens. Up to 10 blocks are kept, each vector of as many float64
    numbers as the layer has weights, or knowledge where that is less and H a multiple of 1. In the precision
    of the weights. Works outside of jit, vmap and grad: the host reads off values how many modes there are,
    whether neurons are alike, and when the Krylov method has converged, and results have the shapes that
    these say. Raises ValueError for arguments that do not fit, for energies that read weights otherwise than
    through knowledge, and for sums of local and global ones.

    Source: A. Jacot, F. Gabriel, C. Hongler, "Neural tangent kernel", arXiv:1806.07572 (2018).

    >>> network = ska.mlp([3]); x = jnp.ones((4, 2)); weights = network.init(jax.random.key(0), x)
    >>> float(ska.timescales.growth(network, weights, x).rates[0][0])  # (2 + 1) / (4 ln 2)
    1.0820...
    """
    batch, weights, energy = _checked(network, weights, x, energy)
    require(is_whole(count), "count", "be a whole number, at least 1", f"it was {count!r}")
    network = network.running()
    rows = range(len(network.rows)) if energy.local else (None,)
    here = network, weights, batch, _trace(network, weights, batch.x), energy
    found = [_modes(_Linear(*here, row), int(count)) for row in rows]
    many = 1 if energy.local else len(network.rows)
    return Growth(
        tuple(one.rates for one in found) * many,
        tuple(part for one in found for part in one.directions),
        tuple(one.errors for one in found) * many,
        tuple(one.neurons for one in found) * many,
        bool(energy.local),
    )


@eqx.filter_jit
def _trace(network: Network, weights: Weights, x: Array) -> Trace:
    return network.trace(weights, x)


class _Linear(eqx.Module):
    """The linearised flow: of one layer by its own weights, or of the network."""

    network: Network
    weights: Weights
    batch: Batch
    trace: Trace
    energy: AbstractEnergy
    row: int | None = eqx.field(static=True)

    def products(self) -> "_Products":
        """What A is made of, as linear functions."""
        network, weights, trace = self.network, self.weights, self.trace
        rates = network.rates(trace.Z[0].dtype)
        if self.row is None:
            function = lambda w: network.trace(w, self.batch.x).Z
            moving, point, every = weights, trace.Z, lambda Z: Z
        else:
            row, place = self.row, network.rows[self.row]
            layer, given = network.learning[row], trace.inputs[row]
            function = lambda w: (layer.knowledge(w[0], given),)
            moving, rates = (weights[place],), (rates[place],)
            point = (jnp.zeros_like(trace.Z[row]),)
            every = lambda Z: (*trace.Z[:row], *Z, *trace.Z[row + 1 :])

        def gradient(Z: Tensors) -> Tensors:
            def total(Z: Tensors) -> Array:
                here = network.knowing(trace.inputs, every(Z))
                return jnp.sum(self.energy(weights, here, self.batch))

            return jax.grad(total)(Z)

        def paced(entries: Any) -> Any:
            pairs = zip(entries, rates, strict=True)
            root = lambda w, r: w if r is None else jnp.sqrt(r).astype(w.dtype) * w
            return tuple(jax.tree.map(lambda w, r=r: root(w, r), entry) for entry, r in pairs)

        flat, unravel = ravel_pytree(moving)
        Z, forward = jax.linearize(function, moving)
        backward = jax.vjp(function, moving)[1]
        curved = jax.linearize(gradient, point)[1]
        return _Products(
            push=lambda v: forward(paced(unravel(v))),
            pull=lambda U: ravel_pytree(paced(backward(U)[0]))[0],
            curve=lambda U: jax.tree.map(jnp.negative, curved(U)),
            weights=flat.size,
            Z=Z,
        )


class _Products(NamedTuple):
    push: Callable[[Array], Tensors]
    """v → J √r v, of all weights that move in one row."""
    pull: Callable[[Tensors], Array]
    """Its transpose, U → √r Jᵀ U."""
    curve: Callable[[Tensors], Tensors]
    """U → -H U."""
    weights: int
    """How many move."""
    Z: Tensors
    """What knowledge they move."""


class _Form(NamedTuple):
    """Which symmetric matrix has A's eigenvalues.

    √r Jᵀ (-H) J √r of the weights; or, where H is a number on some layers' knowledge, and 0 on that of
    others, A itself, of the first layers' knowledge.
    """

    live: tuple[bool, ...]
    """On which layers' knowledge H is not 0."""
    neurons: int
    """How many are alike, so that A is one matrix for each; otherwise 1."""
    by_knowledge: bool
    size: int


class _Found(NamedTuple):
    rates: Array
    directions: Tensors
    errors: Array
    neurons: int


def _modes(flow: _Linear, count: int) -> _Found:
    form, dtype = _form(flow), flow.trace.Z[0].dtype
    width = min(form.size, count + SPARE)

    def apply(vectors: np.ndarray) -> np.ndarray:
        """A few products, always as many at a time: one program."""
        images = np.empty(vectors.shape)
        for n in range(0, vectors.shape[1], width):
            part = vectors[:, n : n + width].T
            some = np.zeros((width, form.size))
            some[: len(part)] = part
            found = _applied(flow, form, jnp.asarray(some, dtype))
            images[:, n : n + width] = np.asarray(found)[: len(part)].T
        return images

    wanted = min(count, form.size)
    if form.size <= WHOLE:
        matrix = apply(np.eye(form.size))
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        order = np.argsort(-np.abs(values), kind="stable")[:wanted]
        values, vectors = values[order], vectors[:, order]
    else:
        values, vectors, _ = largest(apply, form.size, wanted, max(EXACT, _exact(flow)))
    moves = np.abs(values) > _exact(flow) * np.abs(values).max()
    values, vectors = values[moves], vectors[:, moves]
    errors = np.linalg.norm(apply(vectors) - vectors * values, axis=0)
    directions = _directions(flow, form, jnp.asarray(vectors.T, dtype))
    return _Found(jnp.asarray(values, dtype), directions, jnp.asarray(errors, dtype), form.neurons)


def _form(flow: _Linear) -> _Form:
    """The smallest symmetric form that there is, by what random vectors tell of the flow."""
    Z = flow.trace.Z if flow.row is None else (flow.trace.Z[flow.row],)
    random = np.random.default_rng(0)
    some = tuple(jnp.asarray(random.normal(size=z.shape), z.dtype) for z in Z)
    (live, bent, mixed), weights = _probed(flow, some)
    shapes = [z.shape for z in Z]
    if not live.any():  # nothing moves
        return _Form((True,) * len(shapes), 1, False, weights)
    lives = tuple(map(bool, live))
    number = float(bent) <= _exact(flow)
    neurons = shapes[0][-1] if number and float(mixed) <= _exact(flow) else 1
    size = sum(math.prod(shape) for shape, lives in zip(shapes, lives, strict=True) if lives)
    by_knowledge = number and size // neurons < weights
    return _Form(lives, neurons, by_knowledge, size // neurons if by_knowledge else weights)


def _exact(flow: _Linear) -> float:
    """What is rounding, relative to what it is of."""
    return ROUNDING * float(jnp.finfo(flow.trace.Z[0].dtype).eps)


@eqx.filter_jit
def _probed(flow: _Linear, some: Tensors) -> Any:
    """On which layers H is not 0, how far from one number it is there, how far A mixes neurons; and sizes.

    ``some`` are random numbers like the knowledge.
    """
    push, pull, curve, weights, Z = flow.products()
    images = curve(some)
    sizes = jnp.stack([_length([image]) for image in images])
    live = sizes > _exact(flow) * sizes.max()
    parts = [jnp.where(lives, u, 0) for u, lives in zip(some, live, strict=True)]
    number = sum(map(_dot, images, parts)) / sum(map(_dot, parts, parts))
    bent = _share([image - number * u for image, u in zip(images, parts, strict=True)], images)
    mixed = jnp.ones_like(bent)
    if flow.row is not None and Z[0].ndim > 1 and Z[0].shape[-1] > 1:
        # J r Jᵀ (v ⊗ a) = w ⊗ a for random v and a: it is one matrix in each neuron.
        v, a = some[0][..., :1], some[0][(slice(-1, None),) * (Z[0].ndim - 1)]
        (image,) = push(pull((v * a,)))
        w = jnp.sum(image * a, axis=-1, keepdims=True) / _dot(a, a)
        mixed = _share([image - w * a], [image])
    return (live, bent, mixed), weights


@eqx.filter_jit
def _applied(flow: _Linear, form: _Form, vectors: Array) -> Array:
    """The symmetric form times vectors, one after the other: in the memory of one."""
    push, pull, curve, _, Z = flow.products()
    narrow, widen = _between(form, Z)
    if form.by_knowledge:
        return jax.lax.map(lambda u: narrow(push(pull(curve(widen(u))))), vectors)
    return jax.lax.map(lambda v: pull(curve(widen(narrow(push(v))))), vectors)


@eqx.filter_jit
def _directions(flow: _Linear, form: _Form, vectors: Array) -> Tensors:
    """The knowledge that eigenvectors move."""
    push, pull, _, _, Z = flow.products()
    _, widen = _between(form, Z)

    def move(v: Array) -> Tensors:
        images = push(pull(widen(v)) if form.by_knowledge else v)
        parts = tuple(z[..., :1] for z in images) if form.neurons > 1 else images
        return tuple(z / _length(parts) for z in parts)

    return jax.lax.map(move, vectors)


def _between(form: _Form, Z: Tensors) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """From knowledge to flat vectors of what of it A is made for, and back, where all else is 0."""

    def narrow(U: Tensors) -> Array:
        parts = [u for u, lives in zip(U, form.live, strict=True) if lives]
        return jnp.concatenate([u[..., :1] if form.neurons > 1 else u for u in parts], axis=None)

    return narrow, lambda v: jax.linear_transpose(narrow, Z)(v)[0]


def _length(parts: Sequence[Array]) -> Array:
    return jnp.sqrt(jnp.stack([_dot(part, part) for part in parts]).sum())


def _share(part: Sequence[Array], of: Sequence[Array]) -> Array:
    """How large a part is of a whole; of nothing, 1."""
    whole = _length(of)
    return jnp.where(whole > 0, _length(part), 1) / jnp.where(whole > 0, whole, 1)


def _dot(a: Array, b: Array) -> Array:
    return jnp.sum(a * b)


def _checked(
    network: Any, weights: Any, x: Any, energy: Any
) -> tuple[Batch, Weights, AbstractEnergy]:
    """The arguments as arrays of JAX's; raises ValueError where one does not fit."""
    require(isinstance(network, Network), "network", "be a Network", lambda: f"it was {network!r}")
    energy = Entropy() if energy is None else energy
    kinds = isinstance(energy, AbstractEnergy) and {part.local for _, part in energy.terms}
    require(
        kinds in ({True}, {False}) and not energy.reads_weights,
        "energy",
        "be an energy of knowledge and decisions, such as skajax.energies.Entropy(), local in all of its"
        " terms or in none (an own one that reads no weights says so by reads_weights=False)",
        lambda: f"it was {energy!r}",
    )
    inputs = as_inputs(x)
    require(
        isinstance(inputs, Batch),
        "x",
        "be inputs at rest, or a Batch(x, y) of them",
        f"it was {type(inputs).__name__}",
    )
    require(
        not is_traced(inputs, weights),
        "x",
        "be known: how many modes there are depends on values, outside of jit, vmap and grad only",
        "it, or the weights, were traced",
    )
    check_inputs(inputs.x, network)
    weights = jax.tree.map(lambda leaf: as_array("weights", leaf), weights)
    check_weights(network, weights, inputs.x)
    shape, dtype = inputs.x.shape, inputs.x.dtype
    energy.check(inputs, expected_knowledge(network, shape, dtype))
    return inputs, weights, energy
