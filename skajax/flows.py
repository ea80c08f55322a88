"""Flows that need be no gradients: dW/dt as a function of weights, trace and batch."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import wadler_lindig as wl

from skajax._checks import require
from skajax._types import PerLayer, Weights
from skajax.energies import AbstractEnergy, as_made
from skajax.inputs import Batch
from skajax.network import Trace

__all__ = ["Flow"]


class Flow(AbstractEnergy):
    """dW^(l)/dt = r_l F^(l)(W, x, y): a rule of learning that need be no gradient.

    It is given where an energy is given, and adds up with energies: ``Entropy() + 0.1 * Flow(...)``.

    - ``function(weights, trace, batch)`` returns F in the structure of the weights, each array of its
      weights' shape and dtype. ``weights`` have an entry for each layer and stage; ``trace`` has the
      layers' ``inputs``, knowledge ``Z`` and decisions ``D`` (:class:`skajax.network.Trace`), ``batch``
      has x and y. Gradients by knowledge become flows by ``network.pull(weights, trace.inputs, by_Z)``,
      and D' times an error by ``network.slopes(trace.Z, errors)``. It must be pure and written in
      ``jax.numpy``; arrays of its own are traced if it is an ``equinox.Module``.
    - ``energy``: an energy to watch. It moves nothing: the run records it as ``energy``, with
      ``dissipation`` -⟨∇_W B E, Ẇ⟩ and ``transport``, so that the balance d(B E)/dt = transport -
      dissipation holds. Where the flow climbs the dissipation is negative. None: these three are not
      recorded, and are refused where they are asked for.
    - ``reads_weights=False`` promises that the first layer's weights are read through the trace alone, and
      that their F is xᵀ times a matrix: then few samples are simulated in their row space.

    ``Published`` refuses it, and Descent with an optimiser that asks for the energy's value (line searches).

    >>> x, y = ska.data.mnist_subset(per_class=1)
    >>> network = ska.mlp([8, 10])
    >>> weights = network.init(jax.random.key(0), x)
    >>> decay = ska.Flow(lambda weights, trace, batch: jax.tree.map(lambda w: -w, weights))
    >>> run = ska.simulate(network, weights, x, ska.Euler(0.1), steps=5, energy=decay)
    >>> print(f"{run.weight_norm[-1, 0] / run.weight_norm[0, 0]:.4f}")  # 0.9 ** 5
    0.5905
    """

    function: Callable[[Weights, Trace, Batch], Weights]
    energy: AbstractEnergy | None
    reads: bool = eqx.field(static=True)

    def __init__(
        self,
        function: Callable[[Weights, Trace, Batch], Weights],
        *,
        energy: AbstractEnergy | None = None,
        reads_weights: bool = True,
    ) -> None:
        """See the class."""
        require(
            callable(function) and not isinstance(function, AbstractEnergy),
            "function",
            "be a function of weights, trace and batch that gives dW/dt",
            f"it was {function!r}",
        )
        require(
            energy is None
            or (
                isinstance(energy, AbstractEnergy)
                and all(part.local is not None for _, part in energy.terms)
            ),
            "energy",
            "be an energy to watch, such as CrossEntropy(), or None",
            f"it was {energy!r}",
        )
        self.function, self.energy, self.reads = function, energy, reads_weights

    def __pdoc__(self, **options: Any) -> wl.AbstractDoc:
        arguments = {"function": self.function, "energy": self.energy}
        return as_made(self, options, **arguments, reads_weights=self.reads)

    @property
    def local(self) -> None:
        """It descends nothing."""
        return None

    @property
    def reads_weights(self) -> bool:
        """As it was made; or as what it watches does."""
        return self.reads or (self.energy is not None and self.energy.reads_weights)

    @property
    def watched(self) -> AbstractEnergy | None:
        """As it was made."""
        return self.energy

    def __call__(self, weights: Weights, trace: Trace, batch: Batch) -> PerLayer:
        """What is watched."""
        require(self.energy is not None, "energy", "be an energy to watch", "it was None")
        assert self.energy is not None
        return self.energy(weights, trace, batch)

    def velocity(self, weights: Weights, trace: Trace, batch: Batch) -> Weights:
        """F, in the structure of the weights."""
        found = self.function(weights, trace, batch)
        require(
            _shapes(found) == _shapes(weights),
            "function",
            f"give dW/dt in the weights' structure, shapes and dtypes, {_shapes(weights)}",
            lambda: f"it gave {_shapes(found)}",
        )
        return found

    def check(self, batch: Batch, Z: Any) -> None:
        """What is watched, and what the function says of itself by a ``check`` of its own."""
        if self.energy is not None:
            self.energy.check(batch, Z)
        own = getattr(self.function, "check", None)
        if own is not None:
            own(batch, Z)


def _shapes(tree: Any) -> Any:
    """The tree with each array's dtype and shape in its place."""
    describe = lambda leaf: f"{leaf.dtype}{list(leaf.shape)}"
    return jax.tree.map(lambda a: describe(a) if hasattr(a, "dtype") else repr(a), tree)
