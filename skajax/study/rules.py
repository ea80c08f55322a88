"""Named rules as dynamical systems: one network, one start, the same images; what each does with them."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from scipy.special import expit, log_softmax

from skajax import landmarks
from skajax import rules as named
from skajax._checks import as_seeds
from skajax._files import image, netcdf, put
from skajax._messages import unwarned
from skajax._progress import each
from skajax._simulate import simulate
from skajax._types import PerLayer, Weights
from skajax._version import versions
from skajax.data import mnist_subset
from skajax.energies import AbstractEnergy, CrossEntropy
from skajax.inputs import Batch
from skajax.methods import Adaptive
from skajax.network import Network, inner
from skajax.observables import Observable
from skajax.plot import rules as draw
from skajax.study.kept import kept, open_folder
from skajax.study.separation import fisher_ratio, probe_accuracy
from skajax.study.settings import Setting
from skajax.study.words import number
from skajax.system import Instant, flow
from skajax.trajectory import Trajectory

__all__ = ["rules", "rules_table"]

RTOL = 1e-4
MAX_STEPS = 100_000
"""Forward-forward is stiff: its steps are as long as is stable, however little moves."""
RECORDS = 41
FIRST = 1e-3
"""The first record after t = 0, as a part of the horizon; from there on evenly spaced in ln t."""
EVERY = 5
"""Classes are looked at in every so many records."""
CLASSES = 10


class _Rule(NamedTuple):
    """A rule of the study."""

    text: str
    make: Callable[[Network, Any, Any], AbstractEnergy]
    horizon: float
    """How long it is simulated, in its own unit of time."""
    labels: bool = True
    through: bool = True
    """Whether it has come to rest by then."""


RULES: Mapping[str, _Rule] = {
    "ska": _Rule("SKA", lambda network, x, key: named.ska(), 20.0, labels=False),
    "global_entropy": _Rule(
        "global entropy", lambda network, x, key: named.global_entropy(), 20.0, labels=False
    ),
    "supervised": _Rule("gradient flow", lambda network, x, key: named.supervised(), 2000.0),
    "feedback_alignment": _Rule("feedback alignment", named.feedback_alignment, 2000.0),
    "direct_feedback_alignment": _Rule("direct feedback", named.direct_feedback_alignment, 2000.0),
    "layerwise": _Rule("local losses", named.layerwise, 2000.0),
    "forward_forward": _Rule(
        "forward-forward", lambda network, x, key: named.forward_forward(), 200.0, through=False
    ),
}
"""By name. Horizons see a rule through, but for forward-forward: it is stiff, and stopped while it learns."""


class _Size(NamedTuple):
    """How large the study is."""

    widths: tuple[int, ...]
    train: int
    """Images of each class that the rules see,"""
    test: int
    """and others, which none does."""


SIZES = {True: _Size((32, 16, CLASSES), 8, 4), False: _Size((64, 32, CLASSES), 40, 30)}


def rules(
    out: str | os.PathLike[str] | None = None,
    *,
    quick: bool = False,
    seeds: Sequence[int] | None = None,
) -> xr.Dataset:
    """SKA beside ordinary gradient flow and its relatives: the same network, start and images.

    - ``out``: a folder for results, or None to keep nothing.
    - ``quick``: a small network and few images, in less than a minute.
    - ``seeds``: of the initial weights, and of feedback matrices and readouts; by default 0, 1, 2 (quick:
      0). Each seed's initial weights W ~ N(0, 0.01²) and images are the same for all rules.

    Every rule (:mod:`skajax.rules`) is simulated adaptively (Tsit5, rtol 1e-4, float32) over a
    ``horizon`` of its own, because the unit of time is that of its energy: nats of a loss and bits of
    an entropy are no common clock. ``time``, from 0 to 1, is the part of the horizon that has gone by.
    Images are MNIST's with a neutral label in the first ten pixels; forward-forward, which has to be shown
    labels, has them there, and twice as many samples. Other images of the same classes are held out.

    Returns a dataset over (rule, seed, time, layer), with

    - ``energy``, ``dissipation``, ``transport``: of the rule's own energy, a mean over samples; of the
      feedback rules, which have none, the cross-entropy;
    - ``flow_norm`` ‖ż‖_F and ``speed`` ‖Ẇ‖_F, per unit of the rule's time; ``peak``, when ‖ż‖ is largest, in
      the rule's time: 0 where it falls from the start, NaN where it rises to the end;
    - ``cosine``: of the rule's Ẇ with minus the gradient of the cross-entropy, layer by layer, at the weights
      that the rule has come to; ``cosine_all`` of all layers together; 0 where either is 0;
    - ``loss``, ``error``, ``test_error`` (rule, seed, time): the cross-entropy of the last layer's knowledge
      as logits, and the share of wrong answers on the images seen and held out;
    - ``fisher``, ``probe`` (rule, seed, look, layer): Fisher ratio of the decisions, and the accuracy of
      a linear probe that learned from the images seen, on those held out; ``inputs_fisher``,
      ``inputs_probe``: of the images themselves. ``look``: some of the times;
    - ``evaluations`` of the flow; ``relative_cost`` of one, over one of SKA's, as timed in turn; ``cost`` =
      evaluations · relative_cost / (100 · (the probe's error in the last hidden layer at the start less its
      least)): evaluations of SKA's flow per percentage point, infinite where nothing was gained.

    In ``out``: a file for each rule and seed, so that the same call goes on where it was killed;
    ``rules.nc``, ``rules.md``, the table, and ``rules.png``, the figure.

    ::

        data = ska.study.rules(quick=True)
        print(ska.study.rules_table(data))

    >>> data = ska.study.rules("rules", quick=True)  # doctest: +SKIP
    """
    chosen = as_seeds(seeds, (0,) if quick else (0, 1, 2))
    folder, size = open_folder(out), SIZES[quick]
    lanes = [(name, int(seed)) for name in RULES for seed in chosen]
    found = {}
    for name, seed in each(lanes, "runs", len(lanes)):
        setting = Setting("mnist", CLASSES * size.train, size.widths, seed=seed)
        about = {
            "test": size.test, "rtol": RTOL, "records": RECORDS, "first": FIRST, "every": EVERY,
            "horizon": RULES[name].horizon,
        }  # fmt: skip
        found[name, seed] = kept(folder, name, setting, about, partial(_measured, name, seed, size))
    rows = [_row([found[name, seed] for seed in chosen], "seed") for name in RULES]
    data = _assembled(_row(rows, "rule"), chosen, size)
    if folder is not None:
        put(netcdf(data), folder / "rules.nc")
        put(rules_table(data).encode(), folder / "rules.md")
        with matplotlib.rc_context({"backend": "agg"}):
            figure = draw(data)[0, 0].get_figure(root=True)
            put(image(figure), folder / "rules.png")
            plt.close(figure)
    return data


def rules_table(data: xr.Dataset) -> str:
    """Markdown: a line for each rule, medians over the seeds, and what they come to.

    Of several seeds also the least and the most: of probe and test error at the end, evaluations, and the
    cost of a point.

    >>> print(ska.study.rules_table(ska.study.rules(quick=True)))  # doctest: +SKIP
    """
    head = [
        "rule", "horizon", "flow peaks, layer by layer", "energy a sample, start to end",
        "cosine with the gradient",
        "probe, last hidden layer: start, best, end", "Fisher ratio: start, end", "own test error, end",
        "evaluations", "cost of one", "cost of a point",
    ]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    hidden = int(data["layer"][-2])
    for name in data["rule"].values:
        of = data.sel(rule=name)
        probes = of["probe"].sel(layer=hidden)
        probe = probes.median("seed").values
        fisher = of["fisher"].sel(layer=hidden).median("seed").values
        energy = of["energy"].sum("layer").median("seed").values
        cosine = of["cosine"].median(["seed", "time"]).values
        peaks = [
            number(np.median(t), 2) if np.isfinite(t).all() else "–" for t in of["peak"].values.T
        ]
        percent = lambda value: f"{100 * value:.0f} %"
        cost = lambda value: number(value, 2) if np.isfinite(value) else "no gain"
        cells = [
            str(of["text"].item()) + ("" if RULES[str(name)].through else " *"),
            number(of["horizon"].item()),
            ", ".join(peaks),
            f"{number(energy[0])} to {number(energy[-1])}",
            ", ".join(f"{value:+.2f}" for value in cosine),
            f"{percent(probe[0])}, {percent(probe.max())}, {_spread(probes.isel(look=-1), percent)}",
            f"{number(fisher[0], 2)}, {number(fisher[-1], 2)}",
            _spread(of["test_error"].isel(time=-1), percent),
            _spread(of["evaluations"], lambda value: f"{value:.0f}"),
            number(of["relative_cost"].median("seed").item(), 2),
            _spread(of["cost"], cost),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    images = data["inputs_probe"].item()
    notes = [
        f"A probe of the images themselves: {100 * images:.0f} %.",
        "* Stopped while it learns still.",
    ]
    return "\n".join([*lines, "", *notes, ""])


def _spread(values: xr.DataArray, text: Callable[[float], str]) -> str:
    """The median over the seeds; of several, from the least to the most."""
    of = np.sort(np.asarray(values, float))
    middle = text(float(np.median(of)))
    ends = text(float(of[0])), text(float(of[-1]))
    return middle if ends[0] == ends[1] else f"{middle} ({ends[0]} to {ends[1]})"


class _Images(NamedTuple):
    """The images of the study, float32."""

    x: Any
    y: Any
    test_x: Any
    test_y: Any

    @property
    def all(self) -> tuple[Any, np.ndarray, np.ndarray]:
        """All images, their labels, and which of them are held out."""
        labels = np.concatenate([self.y, self.test_y])
        held = np.arange(len(labels)) >= len(self.y)
        return jnp.concatenate([self.x, self.test_x]), labels, held


def _images(size: _Size) -> _Images:
    """Of each class the first images to be seen, and the next ones held out."""
    x, y = mnist_subset(per_class=size.train + size.test)
    x = named.embed_labels(x, None, classes=CLASSES)
    held = np.arange(len(y)) % (size.train + size.test) >= size.train
    return _Images(x[~held], jnp.asarray(y[~held]), x[held], jnp.asarray(y[held]))


def _problem(seed: int, size: _Size) -> tuple[Network, Weights, _Images]:
    images = _images(size)
    network = Setting("mnist", len(images.y), size.widths).network()
    return network, network.init(jax.random.key(seed), images.x), images


def _given(name: str, seed: int, network: Network, images: _Images) -> tuple[AbstractEnergy, Batch]:
    """What a rule descends, and the samples that it sees."""
    key = jax.random.fold_in(jax.random.key(seed), 1000)
    energy = RULES[name].make(network, images.x, key)
    if name == "forward_forward":
        return energy, named.positive_negative(images.x, images.y, key, classes=CLASSES)
    return energy, Batch(images.x, images.y)


def observables(images: _Images) -> tuple[Observable, ...]:
    """What the study records of every instant, beside the paper's."""
    seen = Batch(images.x, images.y)
    everything, _, _ = images.all
    loss = CrossEntropy()

    def gradient_flow(i: Instant) -> Weights:
        return flow(i.network, i.weights, seen, loss)

    def cosine(i: Instant) -> PerLayer:
        there = gradient_flow(i)
        pairs = list(zip(i.velocity, there, strict=True))
        return jnp.stack([_cosine(a, b) for a, b in pairs])

    def knowledge(i: Instant) -> Any:
        return jnp.concatenate(i.network.forward(i.weights, everything)[0], axis=1)

    def speed(i: Instant) -> PerLayer:
        return jnp.stack([jnp.sqrt(inner(v, v)) for v in i.velocity])

    return (
        Observable("cosine", cosine, label="cosine with the gradient flow", signed=True),
        Observable("cosine_all", lambda i: _cosine(i.velocity, gradient_flow(i)), dims=()),
        Observable("speed", speed, label="speed of the weights", unit="1/time"),
        Observable("knowledge", knowledge, dims=("sample", "neuron")),
    )


def _cosine(a: Any, b: Any) -> Any:
    """⟨a, b⟩ / (‖a‖ ‖b‖) of two trees; 0 where one is 0."""
    # Norms first: products of two small ones would vanish in float32.
    sizes = jnp.sqrt(inner(a, a)), jnp.sqrt(inner(b, b))
    there = (sizes[0] > 0) & (sizes[1] > 0)
    unit = lambda tree, size: jax.tree.map(lambda leaf: leaf / jnp.where(there, size, 1), tree)
    return jnp.where(there, inner(unit(a, sizes[0]), unit(b, sizes[1])), 0)


_OF_THE_RUN = ("energy", "dissipation", "transport")


def _measured(name: str, seed: int, size: _Size) -> xr.Dataset:
    """One rule from one start."""
    network, weights, images = _problem(seed, size)
    energy, batch = _given(name, seed, network, images)
    part = _parts()
    own = observables(images)
    method = Adaptive(rtol=RTOL, atol=RTOL / 100, max_steps=MAX_STEPS)
    with unwarned():
        run = simulate(
            network, weights, batch, method, RULES[name].horizon, energy=energy,
            observe=(*_OF_THE_RUN, "flow_norm", *own),
            save_at=part * RULES[name].horizon, reduction="off", throw=True,
        )  # fmt: skip
    _, labels, held = images.all
    looks = np.arange(0, RECORDS, EVERY)
    ends = np.cumsum(size.widths)
    knowledge = np.split(np.asarray(run["knowledge"]), ends[:-1], axis=2)
    layers = [[expit(Z[look]) for Z in knowledge] for look in looks]
    wrong = knowledge[-1].argmax(axis=-1) != labels
    right = log_softmax(knowledge[-1], axis=-1)[:, np.arange(len(labels)), labels]
    samples = len(batch.x)
    by_layer = ("time", "layer")
    variables: dict[str, Any] = {
        key: (by_layer, np.asarray(run[key]) / samples) for key in _OF_THE_RUN
    }
    variables |= {key: (by_layer, np.asarray(run[key])) for key in ("flow_norm", "cosine", "speed")}
    variables |= {
        "cosine_all": ("time", np.asarray(run["cosine_all"])),
        "loss": ("time", -right[:, ~held].mean(axis=1)),
        "error": ("time", wrong[:, ~held].mean(axis=1)),
        "test_error": ("time", wrong[:, held].mean(axis=1)),
    }
    fisher = [[fisher_ratio(D, labels) for D in one] for one in layers]
    probe = [[probe_accuracy(D, labels, held) for D in one] for one in layers]
    return xr.Dataset(
        variables
        | {
            "fisher": (("look", "layer"), np.array(fisher)),
            "probe": (("look", "layer"), np.array(probe)),
            "peak": ("layer", _peaks(run)),
            "evaluations": int(run.stats.evaluations),  # pyright: ignore[reportArgumentType]
            "relative_cost": _relative_cost(network, weights, energy, batch, images),
        },
        {"time": part, "look": part[looks], "layer": np.arange(1, len(size.widths) + 1)},
    )


def _row(each: Sequence[xr.Dataset], dim: str) -> xr.Dataset:
    return xr.concat(each, dim, combine_attrs="drop")


def _parts() -> np.ndarray:
    """Times of the records, as parts of the horizon."""
    return np.append(0.0, np.geomspace(FIRST, 1.0, RECORDS - 1))


def _peaks(run: Trajectory) -> list[float]:
    """When each layer's flow peaks: 0 where it falls from the start, NaN where it rises to the end."""
    return [
        one.t if one.interior or one.t == 0 else np.nan for one in landmarks.peaks(run, "flow_norm")
    ]


_flow = eqx.filter_jit(flow)
"""One program for a rule, of all seeds; SKA's for all rules."""


def _relative_cost(
    network: Network, weights: Weights, energy: AbstractEnergy, batch: Batch, images: _Images
) -> float:
    """Time of one evaluation of the flow, over that of SKA's on the same images."""
    lanes = ((batch, energy), (Batch(images.x, images.y), named.ska()))
    timed: list[list[float]] = [[], []]
    for turn in range(12):
        for times, (x, rule) in zip(timed, lanes, strict=True):
            begin = time.perf_counter()
            jax.block_until_ready(_flow(network, weights, x, rule))
            if turn >= 2:  # the first ones compile
                times.append(time.perf_counter() - begin)
    mine, reference = map(np.array, timed)
    return float(np.median(mine / reference))


def _assembled(data: xr.Dataset, seeds: Sequence[int], size: _Size) -> xr.Dataset:
    """The whole study, with names, units and what the rules are compared with."""
    everything, labels, held = _images(size).all
    hidden = data["probe"].isel(layer=-2)
    gained = hidden.max("look") - hidden.isel(look=0)
    with np.errstate(divide="ignore"):
        spent = data["evaluations"] * data["relative_cost"]
        cost = spent / (100 * gained.clip(min=0))
    data = data.assign_coords(
        rule=list(RULES),
        seed=list(seeds),
        text=("rule", [rule.text for rule in RULES.values()]),
        horizon=("rule", [rule.horizon for rule in RULES.values()]),
        labels=("rule", [rule.labels for rule in RULES.values()]),
    ).assign(
        cost=cost,
        inputs_fisher=fisher_ratio(everything, labels),
        inputs_probe=probe_accuracy(everything, labels, held),
    )
    order = [dim for dim in ("rule", "seed", "time", "look", "layer") if dim in data.dims]
    return data.transpose(*order).assign_attrs(
        format="skajax rules 1", widths="-".join(map(str, size.widths)),
        train=size.train, test=size.test, rtol=RTOL, **versions(),
    )  # fmt: skip
