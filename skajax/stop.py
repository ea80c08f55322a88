"""Stop rules: when learning is done, or has begun, by a rule that means something.

A rule looks at one instant after another, in order, and says whether it holds; a run with
``until=rule`` ends at the first instant where it does. ``rule | other`` holds where either does, and
``rule & other`` where both do at once. :func:`compare` asks of one run where each of several rules
would have ended it, and what was left undone there.
"""

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import as_number, as_whole, is_traced, is_whole, require, require_positive
from skajax._numbers import as_arrays
from skajax._types import Array, Bool, Count, PerLayer, Scalar, ScalarLike
from skajax.observables import BY_NAME, Observable, Observables, choose, merged

if TYPE_CHECKING:
    import xarray

    from skajax.trajectory import Trajectory

__all__ = [
    "AllOf",
    "AnyOf",
    "EntropyConverged",
    "ErrorBudget",
    "FlowConverged",
    "Idle",
    "ResidenceTime",
    "Rule",
    "Seen",
    "Span",
    "StructureStart",
    "Verdict",
    "compare",
]


class Seen(NamedTuple):
    """What a rule sees of one instant."""

    t: Scalar
    observables: Observables
    """Those that the rule needs, by name, each (layers,)."""
    error: Scalar
    """‖ΔW‖ / ‖W‖ so far: the sum of every step's own estimate of its error (see ErrorBudget)."""


class Verdict(NamedTuple):
    """What a rule says of an instant."""

    holds: Bool[Array, ""]
    layer: Count
    """The layer that decided it, from 1; 0 where no single one did."""
    rule: Count
    """Which of the rule's ``names`` it was, from 0."""


class Span(NamedTuple):
    """What is known of a step before it is sampled: bounds of each observable, (layers,) each."""

    start: Observables
    """At its start."""
    low: Observables
    high: Observables
    rising: Observables
    """Where it surely rises all the way, ..."""
    falling: Observables
    """... or falls."""
    error: Scalar
    """As an instant has it, at the step's end."""


class Idle(NamedTuple):
    """Of a step: whether a rule need not look within it."""

    memory: Bool[Array, ""]
    """All that it would remember of the step is what the end shows."""
    verdict: Bool[Array, ""]
    """It surely does not hold anywhere within."""


class Rule(eqx.Module):
    """A condition on instants that are looked at in order; what it must remember is its memory.

    >>> isinstance(ska.stop.FlowConverged() & ska.stop.StructureStart(), ska.stop.Rule)
    True
    """

    @abc.abstractmethod
    def start(self, layers: int, dtype: Any) -> Any:
        """The memory before the first instant: a pytree of arrays."""

    @abc.abstractmethod
    def look(self, memory: Any, instant: Seen) -> tuple[Any, Verdict]:
        """The memory after an instant, and whether the rule holds there."""

    def peaks(self, observables: Observables) -> tuple[PerLayer, ...]:
        """Of one instant, the numbers whose largest values so far it remembers: none, unless it says so."""
        return ()

    def idle(self, memory: Any, span: Span) -> Idle:
        """Whether it need not look within a step; a rule that does not say looks at every one."""
        return Idle(jnp.zeros((), bool), jnp.zeros((), bool))

    def needs(self) -> tuple[Observable, ...]:
        """The observables that it looks at: all of the paper's that are per layer, unless it says less."""
        return choose([name for name, each in BY_NAME.items() if each.per_layer])

    def names(self) -> tuple[str, ...]:
        """What the rules in here are called."""
        numbers = (f"{name}={_plain(value)}" for name, value in vars(self).items())
        return (f"{type(self).__name__}({', '.join(numbers)})",)

    def __or__(self, other: "Rule") -> "AnyOf":
        """Where either holds."""
        return AnyOf(self, other)

    def __and__(self, other: "Rule") -> "AllOf":
        """Where both hold at once."""
        return AllOf(self, other)


class StructureStart(Rule):
    """The Tensor Net's rate has crossed zero: dNet/dt = Σ (D + ∇_z H) ż = 0 (eq. 8, section 3.3).

    The paper reads the crossing as the start of structured learning. In the published sign, of
    ``layer`` (from 1), or, with None, of the first layer that crosses; holds from there on.

    >>> found = ska.stop.compare(run, [ska.stop.StructureStart()])
    >>> bool(found.fired[0])
    True
    """

    layer: int | None = eqx.field(static=True, default=None, converter=as_whole)

    def __check_init__(self) -> None:
        """Refuse what is no layer."""
        require(
            self.layer is None or is_whole(self.layer),
            "layer",
            "be a layer's number, from 1, or None for any",
            f"it was {self.layer!r}",
        )

    def needs(self) -> tuple[Observable, ...]:
        """What it compares."""
        return choose(["tensor_net_rate"])

    def start(self, layers: int, dtype: Any) -> tuple[PerLayer, Bool[Array, " layers"]]:
        """The last sign of each layer's Net, and whether it has changed."""
        require(
            self.layer is None or self.layer <= layers,
            "layer",
            f"be one of the network's {layers} layers",
            f"it was {self.layer}",
        )
        return jnp.zeros(layers, dtype), jnp.zeros(layers, bool)

    def idle(self, memory: Any, span: Span) -> Idle:
        """While every sign stays what it was."""
        before, crossed = memory
        low, high = span.low.tensor_net_rate, span.high.tensor_net_rate
        same = ((low > 0) & (before > 0)) | ((high < 0) & (before < 0))
        same, crossed = (
            each if self.layer is None else each[self.layer - 1] for each in (same, crossed)
        )
        return Idle(same.all(), same.all() & ~crossed.any())

    def look(self, memory: Any, instant: Seen) -> tuple[Any, Verdict]:
        """A change of sign; a zero is no sign."""
        before, crossed = memory
        sign = jnp.sign(instant.observables.tensor_net_rate)
        crossed = crossed | (before * sign < 0)
        seen = crossed if self.layer is None else crossed & _only(crossed, self.layer)
        verdict = Verdict(seen.any(), jnp.argmax(seen) + 1, jnp.asarray(0))
        return (jnp.where(sign == 0, before, sign), crossed), verdict


class FlowConverged(Rule):
    """Every layer's flow is below a fraction of its own peak so far: ‖Φ‖ < fraction · max ‖Φ‖.

    >>> found = ska.stop.compare(run, [ska.stop.FlowConverged(0.5)])
    >>> bool(found.fired[0])
    True
    """

    fraction: ScalarLike = eqx.field(converter=as_number, default=0.1)

    def __check_init__(self) -> None:
        """Refuse a fraction that is none."""
        require_positive("fraction", self.fraction, "a fraction of the peak, below 1")
        if not is_traced(self.fraction):
            below = float(self.fraction) < 1
            require(below, "fraction", "be below 1", f"it was {self.fraction!r}")

    def needs(self) -> tuple[Observable, ...]:
        """What it compares."""
        return choose(["flow_norm"])

    def start(self, layers: int, dtype: Any) -> PerLayer:
        """The peak of each layer's flow."""
        return jnp.zeros(layers, dtype)

    def peaks(self, observables: Observables) -> tuple[PerLayer, ...]:
        """Each layer's flow."""
        return (observables.flow_norm,)

    def idle(self, memory: PerLayer, span: Span) -> Idle:
        """While no layer turns above its peak, and one is far from its end, or still rises to its peak."""
        low, high, rising = span.low.flow_norm, span.high.flow_norm, span.rising.flow_norm
        plain = rising | span.falling.flow_norm | (high <= memory)
        gains = rising & (span.start.flow_norm >= memory)
        far = low >= self.fraction * jnp.maximum(memory, high)
        return Idle(plain.all(), (gains | far).any())

    def look(self, memory: Any, instant: Seen) -> tuple[Any, Verdict]:
        """The layer that decides is the last to come down."""
        flow = instant.observables.flow_norm
        peak = jnp.maximum(memory, flow)
        return peak, _every(flow < self.fraction * peak, flow / jnp.where(peak > 0, peak, 1))


class EntropyConverged(Rule):
    """Every layer loses entropy at a relative rate below ``rate``, past its fastest: |Ḣ| < rate · H.

    ``rate`` is per unit of time. Before learning sets in |Ḣ| is small as well, and still grows: only
    a layer whose |Ḣ| has been larger before has converged.

    >>> found = ska.stop.compare(run, [ska.stop.EntropyConverged(0.5)])
    >>> bool(found.fired[0])
    True
    """

    rate: ScalarLike = eqx.field(converter=as_number, default=0.1)

    def __check_init__(self) -> None:
        """Refuse a rate that is none."""
        require_positive("rate", self.rate, "a relative rate per unit of time")

    def needs(self) -> tuple[Observable, ...]:
        """What it compares."""
        return choose(["entropy", "entropy_rate"])

    def start(self, layers: int, dtype: Any) -> PerLayer:
        """The largest |Ḣ| of each layer."""
        return jnp.zeros(layers, dtype)

    def peaks(self, observables: Observables) -> tuple[PerLayer, ...]:
        """Each layer's |Ḣ|."""
        return (jnp.abs(observables.entropy_rate),)

    def idle(self, memory: PerLayer, span: Span) -> Idle:
        """While no layer's |Ḣ| turns above its largest, and one is fast, or still gains speed."""
        low, high = span.low.entropy_rate, span.high.entropy_rate
        one_sign = (low > 0) | (high < 0)
        least = jnp.where(one_sign, jnp.minimum(jnp.abs(low), jnp.abs(high)), 0)
        most = jnp.maximum(jnp.abs(low), jnp.abs(high))
        up, down = span.rising.entropy_rate, span.falling.entropy_rate
        gains = ((up & (low > 0)) | (down & (high < 0))) & (
            jnp.abs(span.start.entropy_rate) >= memory
        )
        plain = (one_sign & (up | down)) | (most <= memory)
        return Idle(plain.all(), (gains | (least > self.rate * span.high.entropy)).any())

    def look(self, memory: Any, instant: Seen) -> tuple[Any, Verdict]:
        """The layer that decides is the fastest that is left."""
        speed, entropy = jnp.abs(instant.observables.entropy_rate), instant.observables.entropy
        fastest = jnp.maximum(memory, speed)
        done = (speed < fastest) & (speed <= self.rate * entropy)
        return fastest, _every(done, speed / jnp.where(entropy > 0, entropy, 1))


class ResidenceTime(Rule):
    """Every layer's residence time ‖Z‖ / ‖Φ‖ (eq. 5) has reached ``time``.

    It is the time in which knowledge would change by as much as there is of it.

    >>> found = ska.stop.compare(run, [ska.stop.ResidenceTime(1.0)])
    >>> bool(found.fired[0])
    True
    """

    time: ScalarLike = eqx.field(converter=as_number)

    def __check_init__(self) -> None:
        """Refuse a time that is none."""
        require_positive("time", self.time, "a residence time")

    def needs(self) -> tuple[Observable, ...]:
        """What it compares."""
        return choose(["knowledge_norm", "flow_norm"])

    def start(self, layers: int, dtype: Any) -> tuple[()]:
        """Nothing to remember."""
        return ()

    def idle(self, memory: Any, span: Span) -> Idle:
        """While one layer surely flows too fast."""
        fast = self.time * span.low.flow_norm > span.high.knowledge_norm
        return Idle(jnp.ones((), bool), fast.any())

    def look(self, memory: Any, instant: Seen) -> tuple[Any, Verdict]:
        """Where nothing flows (the published rule's first record), nothing is known."""
        Z, flow = instant.observables.knowledge_norm, instant.observables.flow_norm
        done = (flow > 0) & (self.time * flow <= Z)
        return memory, _every(done, flow / jnp.where(Z > 0, Z, 1))


class ErrorBudget(Rule):
    """The estimated error of the weights has used up its budget: Σ ‖error of a step‖ / ‖W‖ > limit.

    Adaptive steps: the solver's own embedded estimates. Fixed steps: those of Euler's method, half
    the second difference of the weights, ‖W_{k+1} - 2 W_k + W_{k-1}‖ / 2. Relative, in the
    Frobenius norm over all weights. A sum of local errors: it does not know how the flow
    amplifies or damps them.

    >>> run = ska.simulate(network, weights, x, ska.Euler(0.05), t1=1.0, until=ska.stop.ErrorBudget(0.05))
    >>> str(run.outcome)
    'completed: reached t = 1; ErrorBudget(limit=0.05) never held. Try a later end, or a looser rule'
    """

    limit: ScalarLike = eqx.field(converter=as_number)

    def __check_init__(self) -> None:
        """Refuse a budget that is none."""
        require_positive("limit", self.limit, "a relative error")

    def needs(self) -> tuple[Observable, ...]:
        """What it compares."""
        return choose([])

    def start(self, layers: int, dtype: Any) -> tuple[()]:
        """Nothing to remember: the method keeps the sum."""
        return ()

    def idle(self, memory: Any, span: Span) -> Idle:
        """Until the step's end has used it up."""
        return Idle(jnp.ones((), bool), span.error <= self.limit)

    def look(self, memory: Any, instant: Seen) -> tuple[Any, Verdict]:
        """Of no layer in particular."""
        return memory, Verdict(instant.error > self.limit, jnp.asarray(0), jnp.asarray(0))


class AnyOf(Rule):
    """Holds where any of the rules does; the first of those listed that hold is named.

    >>> ska.stop.FlowConverged(0.5) | ska.stop.StructureStart(layer=1)
    AnyOf(rules=(FlowConverged(fraction=0.5), StructureStart(layer=1)))
    """

    rules: tuple[Rule, ...]

    def __init__(self, *rules: Rule) -> None:
        """At least one rule."""
        self.rules = _checked(rules)

    def needs(self) -> tuple[Observable, ...]:
        """Those of the rules."""
        return merged((), [each for rule in self.rules for each in rule.needs()])

    def names(self) -> tuple[str, ...]:
        """Those of the rules."""
        return tuple(name for rule in self.rules for name in rule.names())

    def start(self, layers: int, dtype: Any) -> tuple[Any, ...]:
        """Every rule's memory."""
        return tuple(rule.start(layers, dtype) for rule in self.rules)

    def peaks(self, observables: Observables) -> tuple[PerLayer, ...]:
        """Those of the rules."""
        return tuple(each for rule in self.rules for each in rule.peaks(observables))

    def idle(self, memory: Any, span: Span) -> Idle:
        """Where all are."""
        each = [rule.idle(m, span) for rule, m in zip(self.rules, memory, strict=True)]
        return Idle(
            jnp.stack([jnp.asarray(e.memory) for e in each]).all(),
            jnp.stack([jnp.asarray(e.verdict) for e in each]).all(),
        )

    def look(self, memory: Any, instant: Seen) -> tuple[Any, Verdict]:
        """Every rule looks, so that none forgets."""
        memories, verdicts = _look(self.rules, memory, instant)
        holds = jnp.stack([verdict.holds for verdict in verdicts])
        first = jnp.argmax(holds)
        offsets = np.cumsum([0, *(len(rule.names()) for rule in self.rules[:-1])])
        numbers = [o + v.rule for o, v in zip(offsets.tolist(), verdicts, strict=True)]
        layers = jnp.stack([jnp.asarray(verdict.layer) for verdict in verdicts])
        return memories, Verdict(holds.any(), layers[first], jnp.stack(numbers)[first])


class AllOf(Rule):
    """Holds where all of the rules do at once; its layer is that of the last to begin to hold.

    >>> ska.stop.FlowConverged(0.5) & ska.stop.EntropyConverged(0.5)
    AllOf(rules=(FlowConverged(fraction=0.5), EntropyConverged(rate=0.5)))
    """

    rules: tuple[Rule, ...]

    def __init__(self, *rules: Rule) -> None:
        """At least one rule."""
        self.rules = _checked(rules)

    def needs(self) -> tuple[Observable, ...]:
        """Those of the rules."""
        return merged((), [each for rule in self.rules for each in rule.needs()])

    def names(self) -> tuple[str, ...]:
        """One name, of all."""
        each = (" | ".join(rule.names()) for rule in self.rules)
        return (" & ".join(f"({name})" if " | " in name else name for name in each),)

    def start(self, layers: int, dtype: Any) -> tuple[Any, ...]:
        """Every rule's memory, and for how long it has held."""
        memories = tuple(rule.start(layers, dtype) for rule in self.rules)
        return memories, jnp.zeros(len(self.rules), int)

    def peaks(self, observables: Observables) -> tuple[PerLayer, ...]:
        """Those of the rules."""
        return tuple(each for rule in self.rules for each in rule.peaks(observables))

    def idle(self, memory: Any, span: Span) -> Idle:
        """Where none has anything to remember, and one surely does not hold."""
        each = [rule.idle(m, span) for rule, m in zip(self.rules, memory[0], strict=True)]
        return Idle(
            jnp.stack([jnp.asarray(e.memory) for e in each]).all(),
            jnp.stack([jnp.asarray(e.verdict) for e in each]).any(),
        )

    def look(self, memory: Any, instant: Seen) -> tuple[Any, Verdict]:
        """Every rule looks, so that none forgets."""
        memories, held = memory
        memories, verdicts = _look(self.rules, memories, instant)
        holds = jnp.stack([verdict.holds for verdict in verdicts])
        held = jnp.where(holds, held + 1, 0)
        layers = jnp.stack([jnp.asarray(verdict.layer) for verdict in verdicts])
        verdict = Verdict(holds.all(), layers[jnp.argmin(held)], jnp.asarray(0))
        return (memories, held), verdict


def compare(run: "Trajectory", rules: Sequence[Rule]) -> "xarray.Dataset":
    """When each rule would have ended this run, and what it would have left undone.

    Looks at the run's records, in order (their spacing is the resolution; after the run, an
    ErrorBudget has nothing to look at, and is refused). Dimensions ``rule`` and ``layer``:

    - ``fired``: whether the rule ever held; ``t``: when it first did, NaN if never;
      ``layer_that_decided``: from 1, 0 if never or if no single layer did;
    - ``entropy_left`` = (H(t) - H(end)) / (H(0) - H(end)): the share of the run's loss of entropy
      that was still to come, per layer;
    - ``flow_left`` = ‖Φ(t)‖ / max ‖Φ‖, per layer;
    - ``time_saved`` = 1 - t / t_end.

    >>> found = ska.stop.compare(run, [ska.stop.FlowConverged(0.5), ska.stop.EntropyConverged(0.5)])
    >>> found.fired.values.tolist()
    [True, True]
    """
    import xarray as xr

    require(isinstance(rules, Sequence), "rules", "be a list of stop rules", f"it was {rules!r}")
    rules = _checked(tuple(rules))
    names = [" | ".join(rule.names()) for rule in rules]
    budget = any(
        isinstance(node, ErrorBudget)
        for node in jax.tree.leaves(rules, is_leaf=lambda node: isinstance(node, ErrorBudget))
    )
    require(not budget, "rules", "be read off records", "an ErrorBudget can only run with a method")
    require(np.ndim(run.t) == 1 and len(run.t) >= 1, "run", "be one run", "it was a batch or empty")
    # A lane of a batch that failed, or was stopped, is NaN from there on.
    good = int(np.cumprod(np.isfinite(np.asarray(run.entropy)).all(axis=1)).sum())
    require(good >= 1, "run", "have at least one finite record", "it had none")
    t = np.asarray(run.t)[:good]
    series = jax.tree.map(lambda a: jnp.asarray(a)[:good], run.observables)
    for rule in rules:
        _check_recorded(rule, series)
    said = [
        _watch(as_arrays(rule, series.entropy.dtype), jnp.asarray(t), series)[1] for rule in rules
    ]
    fired = np.asarray([verdict.holds.any() for verdict in said])
    at = np.asarray([verdict.holds.argmax() if verdict.holds.any() else -1 for verdict in said])
    layer = np.asarray([jnp.asarray(verdict.layer)[k] for verdict, k in zip(said, at, strict=True)])
    H, flow = np.asarray(series.entropy, float), np.asarray(series.flow_norm, float)
    lost, peak = H[0] - H[-1], flow.max(axis=0)
    share = np.divide(H[at] - H[-1], lost, out=np.zeros_like(H[at]), where=lost != 0)
    still = np.divide(flow[at], peak, out=np.zeros_like(flow[at]), where=peak != 0)
    only = lambda values: np.where(fired.reshape(-1, *[1] * (values.ndim - 1)), values, np.nan)
    end = float(t[-1])
    return xr.Dataset(
        {
            "fired": ("rule", fired),
            "t": ("rule", only(t[at].astype(float)), {"long_name": "time", "units": "time"}),
            "layer_that_decided": ("rule", np.where(fired, layer, 0)),
            "entropy_left": (("rule", "layer"), only(share)),
            "flow_left": (("rule", "layer"), only(still)),
            "time_saved": ("rule", only(1 - t[at] / end if end else 0 * t[at])),
        },
        {"rule": names, "layer": np.arange(1, H.shape[1] + 1)},
        {"method": run.method, "t_end": end},
    )


def same_rule(rule: Rule | None, other: Rule | None) -> bool:
    """Whether what one has seen serves the other."""
    return rule is not None and other is not None and bool(eqx.tree_equal(rule, other))


def replay(rule: Rule | None, t: Array, series: Observables, records: int) -> Any:
    """The memory of a rule that has looked at the first so many records of a run."""
    if rule is None:
        return None
    _check_recorded(rule, series)
    if records == 0:
        return _fresh(rule, series)
    memory, _ = _watch(rule, *jax.tree.map(lambda a: jnp.asarray(a)[:records], (t, series)))
    return memory


def check_ahead(rule: Rule | None, t: Array, series: Observables) -> None:
    """Refuse a rule that holds already in the last record: it has nothing to end."""
    if rule is None or len(t) == 0:
        return
    _check_recorded(rule, series)
    arrays = as_arrays(rule, _like(rule, series).dtype)
    _, said = _watch(arrays, *jax.tree.map(jnp.asarray, (t, series)))
    require(
        not said.holds[-1],
        "until",
        "be a rule that does not hold yet where the run ended",
        f"{' | '.join(rule.names())} does, at t = {float(t[-1]):.6g}",
    )


@eqx.filter_jit
def _watch(rule: Rule, t: Array, series: Observables) -> tuple[Any, Verdict]:
    """What the rule says of every record, and remembers after the last."""

    def look(memory: Any, record: tuple[Scalar, Observables]) -> tuple[Any, Verdict]:
        time, observables = record
        memory, verdict = rule.look(memory, Seen(time, observables, jnp.zeros_like(time)))
        return memory, Verdict(*map(jnp.asarray, verdict))

    return jax.lax.scan(look, _fresh(rule, series), (t, series))


def _like(rule: Rule, series: Observables) -> Array:
    """A record that the rule looks at, or any other."""
    names = [each.name for each in rule.needs()] or list(series)
    return series[names[0]]


def _fresh(rule: Rule, series: Observables) -> Any:
    like = _like(rule, series)
    return rule.start(like.shape[-1], like.dtype)


def _check_recorded(rule: Rule, series: Observables) -> None:
    missing = [each.name for each in rule.needs() if each.name not in series]
    require(
        not missing,
        "until",
        "look at what the run has recorded (observe=)",
        f"{' | '.join(rule.names())} needs {', '.join(missing)}",
    )


def _look(
    rules: tuple[Rule, ...], memories: tuple[Any, ...], instant: Seen
) -> tuple[tuple[Any, ...], tuple[Verdict, ...]]:
    looked = [rule.look(m, instant) for rule, m in zip(rules, memories, strict=True)]
    return tuple(memory for memory, _ in looked), tuple(verdict for _, verdict in looked)


def _every(done: Bool[Array, " layers"], slowest: PerLayer) -> Verdict:
    """Holds where every layer is done; the layer that decides is the slowest."""
    return Verdict(done.all(), jnp.argmax(slowest) + 1, jnp.asarray(0))


def _only(layers: Bool[Array, " layers"], layer: int) -> Bool[Array, " layers"]:
    return jnp.arange(layers.shape[0]) == layer - 1


def _checked(rules: tuple[Any, ...]) -> tuple[Rule, ...]:
    require(
        len(rules) >= 1 and all(isinstance(rule, Rule) for rule in rules),
        "rules",
        "be at least one stop rule, such as FlowConverged(0.1)",
        f"they were {rules!r}",
    )
    return rules


def _plain(value: Any) -> str:
    if is_traced(value):
        return "?"
    scalar = isinstance(value, float | np.number | np.ndarray | jax.Array) and np.ndim(value) == 0
    return f"{float(value):.6g}" if scalar else repr(value)
