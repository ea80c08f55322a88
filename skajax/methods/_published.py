"""The discrete rule of the published experiments, step for step."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from skajax._checks import as_number, require, require_positive
from skajax._types import PerLayer, ScalarLike, Tensors, Weights
from skajax.energies import Entropy
from skajax.entropy import BITS
from skajax.inputs import Batch
from skajax.methods._fixed import Method, Now, Step, whole_steps
from skajax.system import Changes, System, dots


class _Memory(NamedTuple):
    Z: Tensors  # of the previous pass
    D: Tensors
    net: tuple[
        PerLayer, PerLayer
    ]  # accumulated up to the previous pass, in the published and the equation's sign
    lost: PerLayer  # dissipated in the previous update, per unit of time


class Published(Method):
    """The published rule: K forward passes k = 0..K-1, of which pass 0 only forwards.

    At each pass k ≥ 1, with ΔD = D_k - D_{k-1} and ΔZ = Z_k - Z_{k-1},

        g = -(1/ln 2) (z_k D'_k + ΔD),    W ← W - dt xᵀ g / B,    b ← b - dt mean(g),

    where x is X for the first layer and D_{k-1} of the layer below, that of the *previous* pass,
    for the others. Pass k is recorded before its update, at t = (k - 1) dt, with the backward
    differences ż = ΔZ / dt and Ḋ = ΔD / dt (eq. 7) and the Tensor Net as the sum of eq. 8. The
    dissipation is backward too, B ‖xᵀ g / B‖² (with the bias) of the update that led to pass k, and the
    transport is what else the entropy's rate is made of: in the first layer an error of order dt. So
    pass 1 has no flow, there are K - 1 records, and the run ends K - 1 updates after its start.
    ``simulate`` takes t1 = K dt, or steps = K; the paper's T = 0.5 is t1.

    Of a recurrent layer (:class:`skajax.layers.Recurrent`) only what it reads from below lags so. Its own
    decisions at the steps before, D_{t-1}, are made anew in pass k, by the weights of pass k, from x: neither
    those of the pass before, nor, in a hidden layer, those that pass k records.

    Differs from :class:`Euler` in two terms of order dt: the ΔD in g, and the input that lags one
    pass behind. Both vanish with dt, so its limit is the same ODE, with order 1. Of layers that decide by
    other than the sigmoid (:mod:`skajax.decisions`), D' is theirs.

    >>> run = ska.simulate(network, weights, x, ska.Published(dt=0.05), t1=1.0)
    """

    dt: ScalarLike = eqx.field(converter=as_number)

    records_end: ClassVar[bool] = False
    rotates: ClassVar[bool] = True
    note: ClassVar[str] = " (K passes make K - 1 steps)"

    def __check_init__(self) -> None:
        """Refuse a step that is no step."""
        require_positive("dt", self.dt, "a time step")

    def count_steps(self, t1: ScalarLike | None, steps: int | None) -> int:
        """K - 1 updates, K = t1 / dt."""
        K = whole_steps(t1, steps, self.dt)
        require(
            K >= 2,
            "t1" if steps is None else "steps",
            "give at least 2 passes, because the first only forwards",
            f"it gave {K}",
        )
        return K - 1

    def accepts(self, system: System) -> None:
        """The rule is that of the local entropy, on one batch at rest."""
        require(
            isinstance(system.energy, Entropy) and system.energy.local,
            "energy",
            "be Entropy() with Published, which is a rule of the local entropy by its definition",
            f"it was {system.energy!r}",
        )
        require(
            isinstance(system.inputs, Batch),
            "x",
            "be one batch at rest with Published, whose differences are between passes of the same samples",
            f"it was {type(system.inputs).__name__}",
        )

    def init(self, system: System, weights: Weights) -> _Memory:
        """Pass 0: forward only."""
        trace = system.trace(0.0, weights)
        zero = jnp.zeros(len(trace.Z), system.dtype)
        return _Memory(trace.Z, trace.D, (zero, zero), zero)

    def step(self, system: System, now: Now) -> Step:
        """Pass k + 1, for k updates done: forward, record, update."""
        dt, network, before = self.dt, system.network, now.memory
        batch = system.inputs.at(now.t)
        trace = network.trace(now.weights, batch.x)
        # Nothing has moved between pass 0 and pass 1, whatever the rounding of the two.
        change = lambda new, old: jnp.where(now.k == 0, 0, new - old)
        delta_Z, delta_D = jax.tree.map(change, (trace.Z, trace.D), (before.Z, before.D))

        by_entropy = trace.entropy_gradients
        D_dZ, H_dZ = dots(trace.D, delta_Z), dots(by_entropy, delta_Z)
        net = (before.net[0] + (D_dZ + H_dZ), before.net[1] + (D_dZ - H_dZ))
        changes = Changes(trace, delta_Z, delta_D, dt, before.lost, {+1: net[0], -1: net[1]})

        by_Z = tuple(
            (g - BITS * dD) * (1 / g.shape[0]) for g, dD in zip(by_entropy, delta_D, strict=True)
        )
        lagging = network.trace(now.weights, batch.x, decided=before.D).inputs
        gradients = network.pull(now.weights, lagging, by_Z)
        rates = network.rates(system.dtype)
        paced = tuple(
            g if rate is None else jax.tree.map(lambda leaf, r=rate: r * leaf, g)
            for g, rate in zip(gradients, rates, strict=True)
        )
        weights = jax.tree.map(lambda w, g: w - dt * g, now.weights, paced)
        lost = batch.x.shape[0] * network.inner(paced, paced)
        return Step(weights, changes=changes, memory=_Memory(trace.Z, trace.D, net, lost))
