"""Any method on hardware that holds its numbers in formats of its own."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from skajax._checks import require
from skajax._types import Array, Int, Key, Knowledge, ScalarLike, Weights
from skajax.decisions import Decision
from skajax.formats import Format
from skajax.layers._layer import decision_of, inputs_of, learns, rate_of
from skajax.methods._fixed import Method, Now, Step
from skajax.network import Network
from skajax.system import System


class Rounded(Method):
    """A method of fixed steps on hardware whose numbers are not real: each kind in a format of its own.

        W_{k+1} = weights(W_k + ΔW),    z = knowledge(reads(x) reads(W) + b),    g = gradient(∇_z E)

    where ΔW is the update that ``method`` makes of such z and g. Sums of products are wide, as accumulators
    are: they are not rounded until they are complete. Formats are functions (:mod:`skajax.formats`); what has
    none is exact.

    - ``method``: such as ``Euler(dt)``, ``Pipelined(dt)``, ``Published(dt)``, or one of your own.
    - ``weights``: how weights and biases are held after each step. The initial ones are taken as they are.
    - ``reads``: how what a layer reads, and its weights and biases, enter the products: with wider
      ``weights`` these are a master copy. Noise here is that of reading.
    - ``knowledge``: how z is held, and ``gradient``: how ∇_z E of each sample, before the mean over samples.
    - ``seed``: of stochastic rounding and noise, from which every step and place draws its own.

    Records are of the weights that are held, as an exact observer sees them: Z, D and entropies without the
    other formats; rates are those of the motion that the method makes, before it is rounded. ``simulate``
    takes what it takes with ``method``, in float32 or float64. Does not reduce to a row space, whose
    coordinates would be rounded otherwise. Derivatives in reverse (``jax.grad``) go through formats as if
    they were not there, but for ``gradient``; there are none forward (``jax.jvp``).

    Raises ValueError for arguments that are no method of fixed steps, and no formats.

    >>> x = jnp.ones((1, 3))
    >>> network = ska.mlp([4, 2])
    >>> weights = network.init(jax.random.key(0), x)
    >>> byte = ska.formats.Fixed(8, 6)
    >>> run = ska.simulate(network, weights, x, ska.Rounded(ska.Euler(0.1), weights=byte), steps=5)
    >>> bool((run.final.weights[0].W * 64 % 1 == 0).all())
    True
    """

    method: Method
    weights: Format | None = None
    reads: Format | None = None
    knowledge: Format | None = None
    gradient: Format | None = None
    seed: Int[Array, ""] = eqx.field(
        default=0, converter=lambda seed: jnp.asarray(seed).astype(jnp.uint32), kw_only=True
    )

    rotates: ClassVar[bool] = False

    def __check_init__(self) -> None:
        """Refuse what cannot be rounded, or does not round."""
        require(
            isinstance(self.method, Method),
            "method",
            "be a method of fixed steps, such as Euler(0.01)",
            f"it was {type(self.method).__name__}",
        )
        for name in ("weights", "reads", "knowledge", "gradient"):
            value = getattr(self, name)
            require(
                value is None or isinstance(value, Format),
                name,
                "be None or a format, such as skajax.formats.Fixed(8, 6)",
                f"it was {value!r}",
            )

    @property
    def name(self) -> str:
        """The method's, and that it is rounded."""
        return f"{self.method.name}, rounded"

    @property
    def dt(self) -> Any:
        """The method's."""
        return self.method.dt  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def records_end(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The method's."""
        return self.method.records_end

    @property
    def note(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The method's."""
        return self.method.note

    def count_steps(self, t1: ScalarLike | None, steps: int | None) -> int:
        """The method's."""
        return self.method.count_steps(t1, steps)

    def accepts(self, system: System) -> None:
        """What the method accepts."""
        self.method.accepts(system)

    def init(self, system: System, weights: Weights) -> Any:
        """The method's, of what the hardware computes before its first step."""
        return self.method.init(self._on(system, self._key(jnp.zeros((), int) - 1)), weights)

    def step(self, system: System, now: Now) -> Step:
        """The method's step in these formats, and the weights in theirs."""
        key = self._key(now.k)
        step = self.method.step(self._on(system, key), now)
        if self.weights is None:
            return step
        own = jax.random.fold_in(key, len(system.network.layers))
        held = _through(lambda w: _each(self.weights, w, own), step.weights)
        return step._replace(weights=held)

    def _key(self, k: Int[Array, ""]) -> Key:
        return jax.random.fold_in(jax.random.key(self.seed), k.astype(jnp.uint32))

    def _on(self, system: System, key: Key) -> System:
        """The system as this hardware computes it at one step."""
        layers = tuple(
            _Held(layer, self.reads, self.knowledge, self.gradient, jax.random.fold_in(key, place))
            if learns(layer)
            else layer
            for place, layer in enumerate(system.network.layers)
        )
        return System(Network(layers), system.inputs, system.energy)


class _Held(eqx.Module):
    """A layer whose numbers are in formats: three draws of one key for what it reads, z and ∇_z E."""

    layer: Any
    reads: Format | None
    written: Format | None
    pulled: Format | None
    key: Key

    def init(self, key: Key, x: Any) -> Any:
        """The layer's."""
        return self.layer.init(key, x)

    def inputs(self, weights: Any, below: Any) -> Any:
        """As they are read."""
        given = inputs_of(self.layer, weights, below)
        return _through(lambda g: _each(self.reads, g, jax.random.fold_in(self.key, 0)), given)

    def knowledge(self, weights: Any, given: Any) -> Knowledge:
        """As it is written, of the weights as they are read; its gradient as it is pulled back."""
        keys = [jax.random.fold_in(self.key, n) for n in (1, 2, 3)]
        read = _through(lambda w: _each(self.reads, w, keys[0]), weights)
        z = self.layer.knowledge(read, given)
        samples = z.shape[
            0
        ]  # energies are means over them, and hardware has the sample's own gradient
        pull = lambda g: _each(self.pulled, samples * g, keys[2]) / samples
        return _through(lambda z: _each(self.written, z, keys[1]), z, pull if self.pulled else None)

    @property
    def decision(self) -> Decision:
        """The layer's."""
        return decision_of(self.layer)

    @property
    def rate(self) -> Any:
        """The layer's."""
        return rate_of(self.layer)


def _each(number: Format | None, tree: Any, key: Key) -> Any:
    """Every array of a tree in a format, with a key of its own."""
    if number is None:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    real = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)
    return structure.unflatten(
        [
            number.apply(leaf, jax.random.fold_in(key, n)) if real(leaf) else leaf
            for n, leaf in enumerate(leaves)
        ]
    )


def _through(forward: Any, tree: Any, backward: Any = None) -> Any:
    """A function's value, whose derivative is 1; or what ``backward`` makes of it."""

    @jax.custom_vjp
    def passed(tree: Any) -> Any:
        return forward(tree)

    def back(_: None, by: Any) -> tuple[Any]:
        return (by if backward is None else backward(by),)

    passed.defvjp(lambda tree: (forward(tree), None), back)
    return passed(tree)
