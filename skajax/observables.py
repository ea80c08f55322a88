"""What is measured of every layer at one instant."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from skajax import entropy as ent
from skajax._types import (
    Array,
    Inputs,
    LayerSeries,
    OutputSeries,
    PerLayer,
    ScalarLike,
    Tensors,
    Weights,
)
from skajax.flow import tangents
from skajax.network import Network

_LN2 = math.log(2.0)


class Observables(eqx.Module):
    """The paper's diagnostics: per layer, summed over samples and neurons, as rates in time.

    Each is of shape (layers,) at one instant and (times, layers) in a trajectory, but for
    ``output_mean``, which has the last layer's neurons instead. ż and Ḋ are the rates of Z and D:
    exact tangents along an ODE, backward differences (Z_k - Z_{k-1}) / Δt under the published
    rule. The paper's values per step are the rates times Δt.
    """

    entropy: LayerSeries
    """H = Σ h(z), Shannon's entropy of the decisions, bits (eq. 9, see :func:`skajax.entropy`)."""
    entropy_rate: LayerSeries
    """-(1/ln 2) Σ z Ḋ, bits per time (eq. 10): transport - dissipation; figure 1 shows it times Δt."""
    dissipation: LayerSeries
    """-⟨∇_W H, Ẇ⟩, bits per time: what the layer's own weights take off its entropy."""
    transport: LayerSeries
    """Σ ∇_z H (ẋ W), bits per time: what the motion of the layer's input adds to its entropy.

    It is recorded as entropy_rate + dissipation, so that rounding leaves an error of about ε times the
    dissipation. Of ``Published`` runs it is what else the differences over a step are made of, with an
    error of order dt that the first layer shows: its input rests, and yet at dt = 0.02 it is some 9 % of the
    largest entropy rate (784-32-16), at 0.001 0.4 %. :func:`skajax.variational.energy_rates` has it directly.
    """
    alignment: LayerSeries
    """cos(z, Ḋ) = Σ z Ḋ / (‖z‖ ‖Ḋ‖), figure 2; 0 where z or Ḋ is 0."""
    knowledge_norm: LayerSeries
    """‖Z‖_F."""
    flow_norm: LayerSeries
    """‖Φ‖_F = ‖ż‖_F, per time (eq. 6-7), figures 3 and 4."""
    weight_norm: LayerSeries
    """‖W‖_F, without the bias."""
    tensor_net_rate: LayerSeries
    """Σ (D + ∇_z H) ż, per time, in the sign of the published figures 5 and 6."""
    tensor_net: LayerSeries
    """Net since the run's start (eq. 8, 26), in the sign of the published figures."""
    tensor_net_rate_equation: LayerSeries
    """Σ (D - ∇_z H) ż, per time, in the sign of eq. 8 and 26-28."""
    tensor_net_equation: LayerSeries
    """Net since the run's start (eq. 8, 26), in the sign of the equation."""
    lagrangian: LayerSeries
    """L = -Σ z D' ż, nats per time (eq. 14)."""
    output_mean: OutputSeries
    """Mean over the samples of each output neuron's decision."""

    def per_time(self, dt: ScalarLike) -> "Observables":
        """The same, where ż and Ḋ stood for differences over dt: rates are linear in them."""
        rates = lambda o: (
            o.entropy_rate,
            o.dissipation,
            o.transport,
            o.flow_norm,
            o.tensor_net_rate,
            o.tensor_net_rate_equation,
            o.lagrangian,
        )
        return eqx.tree_at(rates, self, tuple(rate / dt for rate in rates(self)))


class Label(NamedTuple):
    """What an observable is called on axes and in files."""

    text: str
    symbol: str
    unit: str


LABELS = {
    "entropy": Label("entropy", "$H$", "bit"),
    "entropy_rate": Label("entropy rate", r"$\dot H$", "bit/time"),
    "dissipation": Label("dissipation", r"$-\langle\nabla_W H, \dot W\rangle$", "bit/time"),
    "transport": Label("transport", r"$\nabla_z H\cdot\dot x W$", "bit/time"),
    "alignment": Label("alignment", r"$\cos(z, \dot D)$", "1"),
    "knowledge_norm": Label("knowledge", r"$\Vert Z\Vert_F$", "1"),
    "flow_norm": Label("knowledge flow", r"$\Vert\Phi\Vert_F$", "1/time"),
    "weight_norm": Label("weights", r"$\Vert W\Vert_F$", "1"),
    "tensor_net_rate": Label("Tensor Net rate, published sign", r"$\dot{\mathrm{Net}}$", "1/time"),
    "tensor_net": Label("Tensor Net, published sign", r"$\mathrm{Net}$", "1"),
    "tensor_net_rate_equation": Label(
        "Tensor Net rate, equation's sign", r"$\dot{\mathrm{Net}}$", "1/time"
    ),
    "tensor_net_equation": Label("Tensor Net, equation's sign", r"$\mathrm{Net}$", "1"),
    "lagrangian": Label("Lagrangian", r"$\mathcal{L}$", "nat/time"),
    "output_mean": Label("mean output decision", r"$\bar D$", "1"),
}
"""Of every observable: its name in words, its symbol, and its unit (time is that of the flow)."""


class Net(NamedTuple):
    """The accumulated Tensor Net of every layer, in both signs."""

    published: PerLayer
    equation: PerLayer


def net_potential(Z: Tensors, D: Tensors) -> Net:
    """The functions of the state whose change is the Tensor Net (eq. 26): 0 at Z = 0.

    Σ softplus(z) - ln 2 ± (h(z) - 1), see :func:`skajax.entropy.tensor_net_potential`.
    """
    entropy = _per_layer([jnp.sum(ent.entropy(z)) for z in Z])
    return _net_potential(Z, D, entropy)


def observe(
    weights: Weights,
    Z: Tensors,
    D: Tensors,
    Zdot: Tensors,
    Ddot: Tensors,
    slope_Zdot: Tensors,
    dissipation: PerLayer,
    origin: Net,
) -> Observables:
    """Observables of one instant, from knowledge, decisions and their rates of change.

    ``slope_Zdot`` is D' ż, for the Lagrangian -z D' ż (eq. 14). Along an ODE that is Ḋ itself; of
    differences over a step it is not. ``dissipation`` is as :func:`dissipation` has it, and the
    transport is what else the entropy's rate is made of. ``origin`` is :func:`net_potential` where the
    run began: the Net counts from there.
    """
    # Sums first, then one formula for all layers: what an instant costs is its sums.
    entropy = _per_layer([jnp.sum(ent.entropy(z)) for z in Z])
    D_zdot, z_Ddot, lagrangian = _dots(D, Zdot), _dots(Z, Ddot), -_dots(Z, slope_Zdot)
    Z_norm, Zdot_norm, Ddot_norm = _norms(Z), _norms(Zdot), _norms(Ddot)
    lengths = Z_norm * Ddot_norm
    aligned = lengths > 0
    net = _net_potential(Z, D, entropy)
    entropy_rate = -z_Ddot / _LN2
    return Observables(
        entropy=entropy,
        entropy_rate=entropy_rate,
        dissipation=dissipation,
        transport=entropy_rate + dissipation,
        alignment=jnp.where(aligned, z_Ddot / jnp.where(aligned, lengths, 1), 0),
        knowledge_norm=Z_norm,
        flow_norm=Zdot_norm,
        weight_norm=_norms([w.W for w in weights]),
        tensor_net_rate=D_zdot + lagrangian / _LN2,
        tensor_net=net.published - origin.published,
        tensor_net_rate_equation=D_zdot - lagrangian / _LN2,
        tensor_net_equation=net.equation - origin.equation,
        lagrangian=lagrangian,
        output_mean=jnp.mean(D[-1], axis=0),
    )


def observe_along(
    network: Network,
    weights: Weights,
    velocity: Weights,
    x: Inputs,
    origin: Net,
    flow: Weights | None = None,
) -> Observables:
    """Observables of weights that move at ``velocity``, with the exact tangents ż and Ḋ.

    ``flow`` is that of the weights, where their velocity is another.
    """
    Z, D = network.forward(weights, x)
    Zdot, Ddot = tangents(network, weights, velocity, x)
    lost = dissipation(velocity if flow is None else flow, velocity, x.shape[0])
    seen = observe(weights, Z, D, Zdot, Ddot, Ddot, lost, origin)
    # The inputs rest: what a difference leaves of the first layer's transport is rounding.
    return eqx.tree_at(lambda o: o.transport, seen, seen.transport.at[0].set(0))


def dissipation(flow: Weights, velocity: Weights, samples: int) -> PerLayer:
    """Of each layer, -⟨∇_W H, Ẇ⟩ = B ⟨flow, Ẇ⟩, bits per time: the entropy that its weights take off.

    The chain rule through z = knowledge(W, x), where W and the input x both move, gives

        dH/dt = Σ ∇_z H ż = ⟨∇_W H, Ẇ⟩ + Σ ∇_z H (∂z/∂x) ẋ = -dissipation + transport.

    H is summed over the B samples and the flow is -∇_W H / B. Along the flow the dissipation is therefore
    B ‖∇_W (H / B)‖² ≥ 0; and the transport is that of a dense layer's ẋ W, 0 in the first layer.
    """
    products = jax.tree.map(lambda f, v: jnp.sum(f * v), flow, velocity)
    return samples * _per_layer([jnp.stack(jax.tree.leaves(layer)).sum() for layer in products])


def _net_potential(Z: Tensors, D: Tensors, entropy: PerLayer) -> Net:
    # Summed as z D + (ln 2 ± 1) (h - 1), which is the same: one sum more than the entropy.
    change = entropy - jnp.asarray([z.size for z in Z], entropy.dtype)
    z_D = _dots(Z, D)
    return Net(z_D + (_LN2 + 1) * change, z_D + (_LN2 - 1) * change)


def _dots(a: Sequence[Array], b: Sequence[Array]) -> PerLayer:
    return _per_layer([jnp.sum(u * v) for u, v in zip(a, b, strict=True)])


def _norms(tensors: Sequence[Array]) -> PerLayer:
    # Differentiable at zero, where the norm has a corner: gradients there are 0, not NaN.
    squared = _dots(tensors, tensors)
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)


def _per_layer(sums: Sequence[Array]) -> PerLayer:
    return jnp.stack(list(sums))
