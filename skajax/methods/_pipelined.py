"""All layers at once: each reads what the layer below decided a tick ago."""

from typing import ClassVar

import equinox as eqx
import jax

from skajax._checks import as_number, require, require_positive
from skajax._types import ScalarLike, Tensors, Weights
from skajax.inputs import Batch
from skajax.methods._fixed import Method, Now, Step
from skajax.system import System


class Pipelined(Method):
    """Explicit Euler in a pipeline: at tick k, layer l reads what layer l - 1 decided at tick k - 1,

        z_k = D^(l-1)_{k-1} W_k + b_k,    D^(l)_k = σ(z_k),    W_{k+1} = W_k - dt · r ∇_W E^(l)(z_k),

    and the first layer reads X. No layer waits for another within a tick: a tick takes as long as the
    slowest layer, not as all of them. That is possible because SKA is forward-only; a gradient that crosses
    layers would have to come back. The pipeline is full at the start: D_{-1} are the decisions of the initial
    weights.

    What layer l reads comes from X through the weights of l - 1 ticks, so its knowledge lags behind that of
    :class:`Euler`, to first order in dt by

        δD^(l) = D' (δD^(l-1) - dt Ḋ^(l-1)) W,    δD^(0) = 0, Ḋ^(0) = 0,

    which is O(l dt). Converges to the ODE with order 1 as dt → 0; the first layer's weights are Euler's own.

    Records K + 1 instants, the end included: the weights' own state and knowledge, without the lag, as they
    move at the pipeline's Ẇ. For local energies, on one batch at rest. ``simulate`` takes t1 = K dt, or
    steps = K. :mod:`skajax.pipeline` runs it with one layer on each device.

    - ``dt``: the time of a tick, positive.

    Raises ValueError for a ``dt`` that is no time step.

    >>> x = jnp.ones((1, 3))
    >>> network = ska.mlp([4, 2])
    >>> weights = network.init(jax.random.key(0), x)
    >>> run = ska.simulate(network, weights, x, ska.Pipelined(0.01), t1=0.5)
    >>> print(run.outcome)
    completed: reached t = 0.5
    """

    dt: ScalarLike = eqx.field(converter=as_number)

    rotates: ClassVar[bool] = True

    def __check_init__(self) -> None:
        """Refuse a step that is no step."""
        require_positive("dt", self.dt, "a time step")

    def accepts(self, system: System) -> None:
        """No gradient may cross layers, and all ticks must be of the same samples."""
        require(
            all(part.local for _, part in system.energy.terms),
            "energy",
            "be local with Pipelined, such as Entropy(): a gradient through all layers would have to wait for"
            " all of them",
            f"it was {system.energy!r}",
        )
        require(
            isinstance(system.inputs, Batch),
            "x",
            "be one batch at rest with Pipelined, whose layers would otherwise work at samples of different"
            " times",
            f"it was {type(system.inputs).__name__}",
        )

    def init(self, system: System, weights: Weights) -> Tensors:
        """The decisions of the initial weights: a full pipeline."""
        return system.trace(0.0, weights).D

    def step(self, system: System, now: Now) -> Step:
        """Tick k of all layers, each on the decisions of tick k - 1."""
        decided = now.memory
        velocity = system.flow(now.t, now.weights, decided)
        weights = jax.tree.map(lambda w, v: w + self.dt * v, now.weights, velocity)
        x = system.inputs.at(now.t).x
        memory = system.network.trace(now.weights, x, decided).D
        return Step(weights, velocity, memory=memory)
