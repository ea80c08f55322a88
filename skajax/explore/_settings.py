"""What can be chosen, as one configuration; and the script that it stands for, from which the run is made."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from skajax._checks import as_number, is_whole, require
from skajax.energies import AbstractEnergy
from skajax.methods._method import AbstractMethod
from skajax.network import Network
from skajax.trajectory import Trajectory


class _Set(NamedTuple):
    """A data set: how it is had, how many classes it has, and of images the side of a patch."""

    source: str
    samples: int
    classes: int
    patch: int | None = None
    patches: int = 0
    """Along a side."""


DATA: Mapping[str, _Set] = MappingProxyType(
    {
        "mnist": _Set("ska.data.mnist(100, {layout})", 1000, 10, 7, 4),
        "digits": _Set('ska.data.sklearn("digits", {layout})', 1797, 10, 4, 2),
        "breast_cancer": _Set('ska.data.sklearn("breast_cancer")', 569, 2),
        "wine": _Set('ska.data.sklearn("wine")', 178, 3),
        "iris": _Set('ska.data.sklearn("iris")', 150, 3),
    }
)
LAYERS: Mapping[str, str] = MappingProxyType(
    {
        "dense": "flat",
        "convolution": "image",
        "recurrent": "rows",
        "attention": "patches",
        "graph": "patches",
    }
)
"""Kinds of layers, and how each reads an image."""
ENERGIES: Mapping[str, str] = MappingProxyType(
    {
        "entropy": "ska.energies.Entropy()",
        "entropy, global": "ska.energies.Entropy(local=False)",
        "cross-entropy": "ska.energies.CrossEntropy()",
        "squared error": "ska.energies.SquaredError()",
    }
)
METHODS: Mapping[str, str] = MappingProxyType(
    {
        "adaptive": "ska.Adaptive(rtol={rtol!r}, atol={atol!r})",
        "euler": "ska.Euler({dt!r})",
        "published": "ska.Published({dt!r})",
    }
)
PANELS = ("flow_norm", "entropy", "tensor_net_rate")
"""What is always shown; a fourth observable is chosen."""
SUPERVISED = ("cross-entropy", "squared error")
RECORDS = 201
"""Of an adaptive run, evenly spaced."""
MOST_STEPS = 100_000
MOST_LAYERS = 8
MOST_NEURONS = 4096


@dataclasses.dataclass(frozen=True)
class Settings:
    """A run as the explorer offers it: data, network, energy, method, time and seed.

    - ``data``: "mnist", "digits", "breast_cancer", "wine" or "iris"; of its samples, at most
      ``samples``, evenly spaced in the order of the classes.
    - ``layer``: what the layers below the last are, "dense", "convolution" (windows of 3 x 3, 2 apart),
      "recurrent" (over the rows of an image), "attention" or "graph" (over its patches); all but dense ones
      read images, "mnist" or "digits". The last one is dense.
    - ``widths``: neurons, or channels, of each layer; ``scale``: the initial weights' deviation.
    - ``energy``: "entropy" (SKA: each layer its own), "entropy, global", "cross-entropy" or "squared error".
    - ``method``: "adaptive", with a tolerance ``rtol``, or "euler" or "published", with a step ``dt``.
    - ``t1``: the end time, of "euler" and "published" a whole number of steps.
    - ``seed``: of the initial weights.

    Raises ValueError for what does not fit.

    >>> settings = ska.explore.Settings(data="iris", widths=(4, 3), method="euler", dt=0.5, t1=10.0)
    >>> print(next(line for line in settings.code().splitlines() if line.startswith("run =")))
    run = ska.simulate(network, weights, inputs, method, steps=20, energy=energy)
    """

    data: str = "mnist"
    samples: int = 200
    layer: str = "dense"
    widths: tuple[int, ...] = (64, 32, 10)
    scale: float = 0.01
    energy: str = "entropy"
    method: str = "adaptive"
    rtol: float = 1e-4
    dt: float = 0.01
    t1: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (
            ("data", DATA),
            ("layer", LAYERS),
            ("energy", ENERGIES),
            ("method", METHODS),
        ):
            value = getattr(self, name)
            require(value in known, name, f"be one of {list(known)}", f"it was {value!r}")
        self._whole("samples", 2, DATA["digits"].samples)
        self._whole("seed", 0, 2**31 - 1)
        widths = self.widths
        fits = isinstance(widths, tuple | list) and 1 <= len(widths) <= MOST_LAYERS
        require(
            fits and all(is_whole(width) and width <= MOST_NEURONS for width in widths),
            "widths",
            f"be 1 to {MOST_LAYERS} whole numbers, 1 to {MOST_NEURONS}",
            f"it was {widths!r}",
        )
        object.__setattr__(self, "widths", tuple(int(width) for width in widths))
        self._number("scale", 0.0, 10.0)
        self._number("rtol", 1e-8, 0.1)
        self._number("dt", 1e-5, 10.0)
        self._number("t1", 1e-5, 1e6)
        self._together()

    def _together(self) -> None:
        chosen = DATA[self.data]
        images = [name for name, each in DATA.items() if each.patch]
        require(
            self.layer == "dense" or chosen.patch is not None,
            "layer",
            f"be 'dense' for {self.data}, whose samples are no images as those of {' and '.join(images)}",
            f"it was {self.layer!r}",
        )
        require(
            self.energy not in SUPERVISED or self.widths[-1] >= chosen.classes,
            "widths",
            f"end with {chosen.classes} neurons or more for {self.energy}, one for each class of {self.data}",
            f"it was {self.widths!r}",
        )
        require(
            self.method != "published" or self.energy == "entropy",
            "energy",
            "be 'entropy' with the published rule, which is one of it alone",
            f"it was {self.energy!r}",
        )
        if self.method != "adaptive":
            steps = self.t1 / self.dt
            require(
                abs(steps - round(steps)) <= 1e-6 * steps and 2 <= round(steps) <= MOST_STEPS,
                "t1",
                f"be a whole number of steps dt, from 2 to {MOST_STEPS}",
                f"t1 / dt was {self.t1!r} / {self.dt!r} = {steps:.8g}",
            )

    def _whole(self, name: str, least: int, most: int) -> None:
        value: Any = getattr(self, name)
        fits = is_whole(value, least) and value <= most
        require(fits, name, f"be a whole number, {least} to {most}", f"it was {value!r}")
        object.__setattr__(self, name, int(value))

    def _number(self, name: str, least: float, most: float) -> None:
        value = as_number(getattr(self, name))
        fits = isinstance(value, float) and math.isfinite(value) and least <= value <= most
        require(
            fits, name, f"be a number, {least:g} to {most:g}", f"it was {getattr(self, name)!r}"
        )
        object.__setattr__(self, name, value)

    @property
    def records(self) -> int:
        """How many records the whole run has."""
        more = {"adaptive": RECORDS, "euler": self._steps + 1, "published": self._steps - 1}
        return more[self.method]

    @property
    def _steps(self) -> int:
        return round(self.t1 / self.dt)

    def steps(self, records: int) -> int:
        """What ``simulate`` takes, of a method with steps, to make so many records."""
        return records - 1 if self.method == "euler" else records + 1

    def code(self, records: int | None = None, fourth: str = "entropy_rate") -> str:
        """A script that makes the run, of the first ``records`` alone if they are given, and its figure.

        It prints the run's summary, saves it as ``run.nc``, prints what theory foresees, and draws
        ``run.png``, with the observable ``fourth`` in the fourth panel.
        """
        records = self.records if records is None else records
        ends = "t1=times[-1], save_at=times"
        if self.method != "adaptive":
            ends = f"steps={self.steps(records)}"
        theory, predicted = "predict(network, weights, inputs)", ", predicted=foreseen.peak"
        if not self.predicts:
            theory, predicted = "growth(network, weights, inputs, energy, count=1)", ""
        panels = ", ".join(f'"{name}"' for name in (*PANELS, fourth))
        lines = [
            '"""A run as skajax\'s explorer showed it."""',
            "",
            *self._setup(),
            "",
            *self._times(records),
            f"run = ska.simulate(network, weights, inputs, method, {ends}, energy=energy)",
            "print(run)",
            f'run.save("run.nc", attrs={{"seed": {self.seed}, "data": "{self.data}"}})',
            "",
            f"foreseen = ska.timescales.{theory}",
            "print(foreseen)",
            f"axes = ska.plot.overview(run, ({panels}){predicted})",
            'axes[0].figure.savefig("run.png")',
        ]
        return "\n".join(lines) + "\n"

    @property
    def predicts(self) -> bool:
        """Whether times can be predicted: of dense layers under their own entropy. Of all, growth times."""
        return self.layer == "dense" and self.energy == "entropy"

    def problem(self) -> "Problem":
        """What the script simulates: its own lines, executed."""
        names: dict[str, Any] = {}
        exec("\n".join([*self._setup(), *self._times(self.records)]), names)
        made = {name: names[name] for name in ("network", "weights", "inputs", "method", "energy")}
        return Problem(self, **made, times=names.get("times"))

    def _times(self, records: int) -> list[str]:
        if self.method != "adaptive":
            return []
        part = "" if records == self.records else f"[:{records}]"
        return [f"times = np.linspace(0, {self.t1!r}, {RECORDS}){part}"]

    def _setup(self) -> list[str]:
        chosen = DATA[self.data]
        layout = f'"{LAYERS[self.layer]}"'
        if LAYERS[self.layer] == "patches":
            layout += f", size={chosen.patch}"
        every = -(-chosen.samples // self.samples)
        graph = self.layer == "graph" and len(self.widths) > 1
        numpy = self.method == "adaptive"
        lines = ["import jax"]
        lines += ["import networkx"] * graph + ["import numpy as np"] * numpy
        lines += ["import skajax as ska", "", f"x, y = {chosen.source.format(layout=layout)}"]
        lines += [f"x, y = x[::{every}], y[::{every}]"] * (every > 1)
        if graph:
            sides = f"{chosen.patches}, {chosen.patches}"
            lines.append(f"edges, nodes = ska.layers.edges_of(networkx.grid_2d_graph({sides}))")
        inputs = "ska.Batch(x, y)" if self.energy in SUPERVISED else "x"
        numbers = {"rtol": self.rtol, "atol": self.rtol / 100, "dt": self.dt}
        return [
            *lines,
            *self._network(),
            f"weights = network.init(jax.random.key({self.seed}), x)",
            f"inputs = {inputs}",
            f"energy = {ENERGIES[self.energy]}",
            f"method = {METHODS[self.method].format(**numbers)}",
        ]

    def _network(self) -> list[str]:
        scale = f"scale={self.scale!r}"
        if self.layer == "dense":
            return [f"network = ska.mlp({list(self.widths)}, {scale})"]
        layer: Callable[[int], str] = {
            "convolution": 'Conv({}, (3, 3), strides=2, padding="SAME", {})'.format,
            "recurrent": "Recurrent({}, {})".format,
            "attention": "SelfAttention({}, {})".format,
            "graph": "GraphConv({}, edges, nodes, {})".format,
        }[self.layer]
        rest = "Flatten()" if self.layer == "convolution" else "Pool(None)"
        parts = [f"ska.layers.{layer(width, scale)}" for width in self.widths[:-1]]
        parts += [f"ska.layers.{rest}", f"ska.Dense({self.widths[-1]}, {scale})"]
        return [
            "network = ska.Network(",
            "    (",
            *(f"        {part}," for part in parts),
            "    )",
            ")",
        ]


class Problem(NamedTuple):
    """The arguments of ``simulate``.

    >>> problem = ska.explore.Settings(data="iris", widths=(4, 3)).problem()
    >>> problem.weights[0].W.shape
    (4, 4)
    """

    settings: Settings
    network: Network
    weights: Any
    inputs: Any
    method: AbstractMethod
    energy: AbstractEnergy
    times: np.ndarray | None

    def arguments(self, records: int, run: Trajectory | None = None) -> dict[str, Any]:
        """What tells ``simulate`` to make so many records, or ``extend``, going on from a run."""
        if self.times is None:
            return {"steps": self.settings.steps(records)}
        times = self.times[:records]
        return {"t1": times[-1], "save_at": times[0 if run is None else len(run.t) :]}
