"""What is measured of every layer at one instant: the paper's diagnostics, and a user's own."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from skajax import entropy as ent
from skajax._checks import require
from skajax._messages import nearest
from skajax._types import Array
from skajax.energies import AbstractEnergy
from skajax.network import Network
from skajax.system import Instant

__all__ = ["PAPER", "Observable", "Observables", "choose"]

_LN2 = math.log(2.0)


@dataclasses.dataclass(frozen=True)
class Observable:
    """A quantity of one instant: ``function(instant)`` gives it, as an array with the axes ``dims``.

    - ``name``: by which results, files and rules know it.
    - ``function``: of an :class:`skajax.Instant`, which has t, weights, velocity, flow, batch, Z, D,
      Zdot, Ddot.
    - ``label``, ``symbol``, ``unit``: for axes; time is that of the flow.
    - ``formula``: what it is, for people.
    - ``dims``: names of its axes, ``("layer",)`` unless given; one number: ``()``.
    - ``signed``: whether it has both signs, for plots.
    - ``from_start``: whether it reads ``instant.before``, the knowledge at the run's start.

    >>> spread = ska.Observable("spread", lambda instant: jnp.stack([z.std() for z in instant.Z]), unit="1")
    >>> run = ska.simulate(network, weights, x, ska.Euler(0.05), t1=1.0, observe=("entropy", spread))
    >>> run["spread"].shape
    (21, 2)
    """

    name: str
    function: Callable[[Instant], Array]
    label: str = ""
    symbol: str = ""
    unit: str = "1"
    formula: str = ""
    dims: tuple[str, ...] = ("layer",)
    signed: bool = False
    from_start: bool = False

    def __post_init__(self) -> None:
        require(
            isinstance(self.name, str) and self.name.isidentifier(),
            "name",
            "be a name, such as 'sparsity'",
            f"it was {self.name!r}",
        )
        require(
            callable(self.function),
            "function",
            "be a function of an Instant",
            f"it was {self.function!r}",
        )
        require(
            isinstance(self.dims, tuple) and all(isinstance(dim, str) for dim in self.dims),
            "dims",
            "be a tuple of axis names, such as ('layer',)",
            f"it was {self.dims!r}",
        )

    def __reduce__(self) -> Any:
        """Of the paper's, the name alone: their functions have none by which pickle could find them."""
        if BY_NAME.get(self.name) is self:
            return _named, (self.name,)
        return type(self), tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    @property
    def per_layer(self) -> bool:
        """Whether it gives one number a layer."""
        return self.dims == ("layer",)

    def describe(self) -> dict[str, str]:
        """Its attributes in a dataset."""
        return {"long_name": self.label or self.name, "units": self.unit}


class Observables(eqx.Module):
    """Values of observables, by name: of one instant, or over time with the times in front.

    ``observables.entropy`` and ``observables["entropy"]`` are the same. A pytree of the arrays.

    >>> run.records.entropy.shape == run.entropy.shape
    True
    """

    values: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        values = {} if name.startswith("__") else self.__dict__.get("values", {})
        if name in values:
            return values[name]
        raise AttributeError(
            f"{name!r} was not observed; what was observed: {', '.join(values) or 'nothing'}"
        )

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)


class _Unread(dict[str, Any]):
    """Observables by name, each computed when it is read."""

    def __init__(self, observables: Sequence[Observable], instant: Instant) -> None:
        super().__init__({each.name: each for each in observables})
        self._instant = instant

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name).function(self._instant)


def unread(observables: Sequence[Observable], instant: Instant) -> Observables:
    """Observables of one instant that are computed as they are asked for."""
    return Observables(_Unread(observables, instant))


def _named(name: str) -> Observable:
    return BY_NAME[name]


def observe(observables: Sequence[Observable], instant: Instant) -> Observables:
    """What the observables are at one instant."""
    found = {}
    for each in observables:
        value = jnp.asarray(each.function(instant))
        require(
            value.ndim == len(each.dims),
            "observe",
            f"give as many axes as it names ({each.name}: {each.dims})",
            f"its shape was {value.shape}",
        )
        found[each.name] = value
    return Observables(found)


def choose(wanted: Any, network: Any = None, energy: Any = None) -> tuple[Observable, ...]:
    """Observables by name or as they are; None: all of the paper's that there are.

    Of a network whose entropy is not known, and under a flow that watches no energy, some are left out.

    >>> [each.name for each in ska.observables.choose(["entropy", "flow_norm"])]
    ['entropy', 'flow_norm']
    """
    if wanted is None:
        decisions = network.decisions if isinstance(network, Network) else ()
        absent = () if all(decision.known for decision in decisions) else OF_POTENTIAL
        if isinstance(energy, AbstractEnergy) and energy.watched is None:
            absent += BALANCE
        return PAPER if not absent else tuple(each for each in PAPER if each.name not in absent)
    require(
        isinstance(wanted, Sequence) and not isinstance(wanted, str),
        "observe",
        "be a sequence of names and observables, such as ('flow_norm',); () for none",
        f"it was {wanted!r}",
    )
    found: dict[str, Observable] = {}
    for each in wanted:
        known = BY_NAME.get(each) if isinstance(each, str) else each
        require(
            isinstance(known, Observable),
            "observe",
            f"hold observables, or names among {list(BY_NAME)}",
            f"it held {nearest(each, BY_NAME)}",
        )
        assert isinstance(known, Observable)
        require(
            known.name not in found, "observe", "hold each name once", f"{known.name!r} was twice"
        )
        require(
            known.name not in RESERVED,
            "observe",
            f"hold names other than a run's own, {sorted(RESERVED)}",
            f"it held {known.name!r}",
        )
        found[known.name] = known
    return tuple(found.values())


RESERVED = frozenset(
    ("t", "time", "layer", "output", "record", "step", "final", "stats", "outcome", "parameters",
     "method", "network", "observe", "path", "at", "resume", "dense", "save", "records")
)  # fmt: skip
"""Names that results have for something else."""


PAPER = (
    Observable(
        "entropy",
        lambda i: i.entropies,
        "entropy", "$H$", "bit",
        "H = Σ h(z), Shannon's entropy of the decisions (eq. 9, 30); where they are not sigmoid,"
        " Σ (φ(z) - z·D) / ln 2",
    ),
    Observable(
        "entropy_rate",
        lambda i: -ent.BITS * i.Z_Ddot,
        "entropy rate", r"$\dot H$", "bit/time",
        "-(1/ln 2) Σ z Ḋ (eq. 10); figure 1 shows it times Δt",
        signed=True,
    ),
    Observable(
        "energy",
        lambda i: i.energy,
        "energy", r"$B\,E$", "1",
        "B E, of the energy that drives: d(B E)/dt = transport - dissipation; by default the entropy",
    ),
    Observable(
        "dissipation",
        lambda i: i.dissipation,
        "dissipation", r"$-\langle\nabla_W H, \dot W\rangle$", "bit/time",
        "-⟨∇_W B E, Ẇ⟩: what the layer's own weights take off its energy",
        signed=True,
    ),
    Observable(
        "transport",
        lambda i: i.transport,
        "transport", r"$\nabla_z H\cdot\dot x W$", "bit/time",
        "Σ ∇_z H (ẋ W): what the motion of the layer's input adds to its energy; under Published it is"
        " entropy_rate + dissipation, with an error of order dt",
        signed=True,
    ),
    Observable(
        "alignment",
        lambda i: i.alignment,
        "alignment", r"$\cos(z, \dot D)$", "1",
        "Σ z Ḋ / (‖z‖ ‖Ḋ‖), figure 2; 0 where z or Ḋ is 0",
        signed=True,
    ),
    Observable(
        "knowledge_norm", lambda i: i.Z_norm, "knowledge", r"$\Vert Z\Vert_F$", "1", "‖Z‖_F"
    ),
    Observable(
        "flow_norm",
        lambda i: i.Zdot_norm,
        "knowledge flow", r"$\Vert\Phi\Vert_F$", "1/time",
        "‖Φ‖_F = ‖ż‖_F (eq. 6-7), figures 3 and 4",
    ),
    Observable(
        "weight_norm",
        lambda i: i.weight_norm,
        "weights", r"$\Vert W\Vert_F$", "1",
        "‖W‖_F over all weights with two axes or more: without biases",
    ),
    Observable(
        "tensor_net_rate",
        lambda i: i.D_Zdot - ent.BITS * i.Z_slope_Zdot,
        "Tensor Net rate, published sign", r"$\dot{\mathrm{Net}}$", "1/time",
        "Σ (D + ∇_z H) ż, in the sign of the published figures 5 and 6",
        signed=True,
    ),
    Observable(
        "tensor_net",
        lambda i: i.net(+1),
        "Tensor Net, published sign", r"$\mathrm{Net}$", "1",
        "Net since the run's start (eq. 8, 26), in the sign of the published figures",
        signed=True, from_start=True,
    ),
    Observable(
        "tensor_net_rate_equation",
        lambda i: i.D_Zdot + ent.BITS * i.Z_slope_Zdot,
        "Tensor Net rate, equation's sign", r"$\dot{\mathrm{Net}}$", "1/time",
        "Σ (D - ∇_z H) ż, in the sign of eq. 8 and 26-28",
        signed=True,
    ),
    Observable(
        "tensor_net_equation",
        lambda i: i.net(-1),
        "Tensor Net, equation's sign", r"$\mathrm{Net}$", "1",
        "Net since the run's start (eq. 8, 26), in the sign of the equation",
        signed=True, from_start=True,
    ),
    Observable(
        "lagrangian",
        lambda i: -i.Z_slope_Zdot,
        "Lagrangian", r"$\mathcal{L}$", "nat/time",
        "L = -Σ z D' ż (eq. 14)",
        signed=True,
    ),
    Observable(
        "output_mean",
        lambda i: jnp.mean(i.D[-1], axis=tuple(range(i.D[-1].ndim - 1))),
        "mean output decision", r"$\bar D$", "1",
        "mean over the samples of each output neuron's decision",
        dims=("output",),
    ),
)  # fmt: skip
"""The paper's observables: what a run records unless it is told otherwise."""

OF_POTENTIAL = ("entropy", "tensor_net", "tensor_net_equation")
"""What there is only where the decisions' potential is known."""
NAMES = tuple(each.name for each in PAPER)
BALANCE = ("energy", "dissipation", "transport")
"""What there is only where an energy drives, or is watched."""
DIAGNOSTICS = tuple(name for name in NAMES if name != "energy")
"""What there is of SKA's own rule, whose energy is the entropy."""
BY_NAME = {each.name: each for each in PAPER}
PER_LAYER = tuple(each.name for each in PAPER if each.per_layer)


def described(observables: Sequence[Observable]) -> Mapping[str, Mapping[str, Any]]:
    """What a file says of each observable, beside its values."""
    return {
        each.name: {
            "label": each.label, "symbol": each.symbol, "unit": each.unit,
            "formula": each.formula, "dims": list(each.dims), "signed": each.signed,
        }
        for each in observables
    }  # fmt: skip


def catalogue(observables: Sequence[Observable]) -> str:
    """Names, units and formulas, a line each, for docstrings."""
    lines = [
        f"    - ``{each.name}`` [{each.unit}]: {each.formula}"
        + ("" if each.per_layer else f" (times, {', '.join(each.dims)})")
        for each in observables
    ]
    return "\n".join(lines)


def merged(observables: Sequence[Observable], more: Sequence[Observable]) -> tuple[Observable, ...]:
    """Both, each once."""
    named = {each.name: each for each in more} | {each.name: each for each in observables}
    return tuple(named.values())


def needs_start(observables: Sequence[Observable]) -> bool:
    """Whether any of them compares with the run's start."""
    return any(each.from_start for each in observables)
