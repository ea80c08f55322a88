"""When networks of other families learn: dense, convolutional, recurrent, attention and graph."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import networkx
import numpy as np
import xarray as xr
from scipy.signal import find_peaks

from skajax import data as sets
from skajax import landmarks, timescales
from skajax._checks import is_whole, require
from skajax._files import image, netcdf, put
from skajax._progress import each
from skajax._simulate import simulate
from skajax._types import Array, Float, Key, Weights
from skajax._version import versions
from skajax.layers import Conv, Dense, Flatten, GraphConv, Pool, Recurrent, SelfAttention, edges_of
from skajax.methods import Adaptive
from skajax.network import Network, expected_knowledge
from skajax.plot import families as figure_of
from skajax.study.architectures import DONE, NAMES, REACH, RTOL, to_beyond_the_peaks
from skajax.study.families_table import families_table
from skajax.study.kept import kept, open_folder
from skajax.trajectory import Trajectory

__all__ = ["families"]

LAYOUTS: Mapping[str, str] = MappingProxyType(
    {
        "dense": "flat",
        "conv": "image",
        "recurrent": "rows",
        "attention": "patches",
        "graph": "patches",
    }
)
"""The families, and how each reads an image."""
OUTPUTS = 10
"""Neurons of the last layer, a dense one, of every family."""
MATCHED = 1.1
"""The largest number of weights over the smallest is at most this."""
START = 0.05
"""Root mean square of every layer's z at t = 0."""
RECORDS = 96
"""Evenly spaced in ln t."""
PROMINENT = 0.1
"""A maximum of the flow counts as a peak where it stands out by this fraction of the highest flow."""
OBSERVED = (
    "knowledge_norm",
    "flow_norm",
    "entropy",
    "entropy_rate",
    "tensor_net",
    "tensor_net_rate",
)
"""What is recorded, each over the number of decisions, or for a norm over its root."""


@dataclasses.dataclass(frozen=True)
class Form:
    """How large the study is."""

    per_class: int
    """Images of each digit."""
    widths: Mapping[str, tuple[int, ...]]
    """Neurons, or channels, of each family's layers below the last one."""


FULL = Form(
    10,
    MappingProxyType(
        {
            "dense": (8, 8),
            "conv": (8, 17),
            "recurrent": (40, 40),
            "attention": (24, 24),
            "graph": (55, 55),
        }
    ),
)
QUICK = Form(
    2,
    MappingProxyType(
        {"dense": (4,), "conv": (2,), "recurrent": (40,), "attention": (18,), "graph": (53,)}
    ),
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One network with weights from one seed, on one batch."""

    family: str
    widths: tuple[int, ...]
    per_class: int
    seed: int

    @property
    def name(self) -> str:
        """One word, that tells cases apart."""
        widths = "-".join(map(str, self.widths))
        return f"{self.family}_{widths}_images{10 * self.per_class}_seed{self.seed}"

    def network(self) -> Network:
        """Its layers, of which the last is dense; ``init`` draws weights of scale 1."""
        layers = [_layer(self.family, width) for width in self.widths]
        between = {"dense": (), "conv": (Flatten(),)}.get(self.family, (Pool(None),))
        return Network((*layers, *between, Dense(OUTPUTS, scale=1.0)))

    def inputs(self) -> Float[np.ndarray, "samples ..."]:
        """The images, as its family reads them."""
        return sets.mnist(self.per_class, LAYOUTS[self.family])[0]


def _layer(family: str, width: int) -> Any:
    match family:
        case "dense":
            return Dense(width, scale=1.0)
        case "conv":
            return Conv(width, (5, 5), strides=2, scale=1.0)
        case "recurrent":
            return Recurrent(width, scale=1.0)
        case "attention":
            return SelfAttention(width, heads=2, scale=1.0)
        case _:  # patches, each joined to those above, below and beside it
            edges, nodes = edges_of(networkx.grid_2d_graph(4, 4))
            return GraphConv(width, edges, nodes, scale=1.0)


def families(
    out: str | os.PathLike[str] | None = None,
    *,
    seeds: Sequence[int] = range(8),
    quick: bool = False,
) -> xr.Dataset:
    """When the layers of other than dense networks learn, by their local entropy.

    Five families see the same images, each by as many weights (within 10 %) and to a dense layer of 10:

    - ``dense``: rows of 784 pixels;
    - ``conv``: images; windows of 5 x 5 pixels, 2 apart; then all channels of all positions in one row;
    - ``recurrent``: sequences of 28 rows, the top one first; then the mean of D over the rows;
    - ``attention``: sets of 16 patches of 7 x 7 pixels, with two heads, without their places; then the mean;
    - ``graph``: the same patches as the nodes of a grid of 4 x 4, joined to those above, below and beside
      them (``"symmetric"``); then the mean over the nodes.

    All layers start alike: of a layer's weights, drawn from N(0, s²), s is such that the root mean square of
    its z at t = 0 is 0.05, for each seed. The flow is dW/dt = -∇E by each layer's own entropy E, summed over
    its positions and averaged over samples, so that weights that are shared by many positions move faster.
    What is compared is counted per decision: ``entropy`` and ``tensor_net`` (published sign) are divided by
    samples times numbers of z in a sample, in bits, ‖Z‖ and ‖Φ‖ by the root of that: root mean squares.

    Each run is solved adaptively (Tsit5, rtol 1e-4, float32), for three times as long as the slowest layer
    would take to grow to 3 by its 1/λ, and for twice as long, up to five times over, where a layer's flow is
    not yet below 0.7 of its highest. Records are evenly spaced in ln t.

    Arguments: a folder ``out``, or None to keep nothing; the ``seeds`` of the weights. ``quick=True``
    takes 20 images in place of 100, and one layer below the last in place of two, of half as many weights.

    Over (family, seed, layer), layers from 1: ``scale``, s; ``first_peak``, the time of the flow's first
    peak, NaN where there is none, and ``peaks``, how many there are: maxima within the run that stand out
    by a tenth of the highest flow at least; ``end``, the entropy per decision at the end. Over records too,
    ``t`` (family, seed, record), ``flow``, ``knowledge``, ``entropy``, ``tensor_net``. Over (family, seed,
    definition, layer), ``time`` and ``reason`` as of :func:`skajax.timescales.measure`. Over (family, layer)
    ``growth``, 1/λ by :func:`skajax.timescales.growth` at the start of seed 0, whichever are the seeds,
    and ``decisions``, numbers of z in a sample; over (family,) ``weights``, how many.

    In ``out``: a file a run, written whole or not at all, so that the same call goes on where it was
    killed; ``families.nc``; ``families.md``, the table (:func:`families_table`); ``families.png``, the figure
    (:func:`skajax.plot.families`). Raises ValueError for seeds that are no whole numbers, or come twice,
    and for a folder with the results of another study.

    Example::

        data = ska.study.families("families", seeds=range(2), quick=True)
        print(ska.study.families_table(data))

    >>> data = ska.study.families("families", seeds=range(2), quick=True)  # doctest: +SKIP
    """
    seeds = list(seeds)
    fits = len(seeds) >= 1 and all(is_whole(s, 0) for s in seeds) and len({*seeds}) == len(seeds)
    require(fits, "seeds", "be whole numbers from 0 on, each once", f"they were {seeds!r}")
    form = QUICK if quick else FULL
    folder = open_folder(out)
    case = {
        (family, int(seed)): Case(family, widths, form.per_class, int(seed))
        for family, widths in form.widths.items()
        for seed in {0, *seeds}
    }
    counts = [_count(case[family, 0]) for family in LAYOUTS]
    assert max(counts) <= MATCHED * min(counts), f"numbers of weights differ: {counts}"
    found = []
    for family in each(LAYOUTS, "families", len(LAYOUTS)):
        growth = kept(
            folder, "growth", case[family, 0], {"start": START}, partial(_growth, case[family, 0])
        )
        rows = []
        for one in each([case[family, seed] for seed in seeds], family, len(seeds)):
            make = partial(_measured, one, growth["growth"].values)
            rows.append(kept(folder, "runs", one, _NUMBERS, make))
        runs = xr.concat(rows, "seed", coords="minimal", compat="override", combine_attrs="drop")
        found.append(runs.assign_coords(seed=seeds).assign(growth.drop_attrs()))
    data = xr.concat(
        found, "family", data_vars="all", coords="minimal", compat="override", combine_attrs="drop"
    )
    data = data.assign_coords(family=list(LAYOUTS)).assign(weights=("family", counts))
    data = data.assign_attrs(
        format="skajax families 1", samples=10 * form.per_class, start=START, **versions()
    )
    if folder is not None:
        put(netcdf(data), folder / "families.nc")
        put(families_table(data).encode(), folder / "families.md")
        with matplotlib.rc_context({"backend": "agg"}):
            figure = figure_of(data)[0].get_figure(root=True)
            assert figure is not None
            put(image(figure), folder / "families.png")
            plt.close(figure)
    return data


_NUMBERS: Mapping[str, Any] = {
    "start": START, "rtol": RTOL, "records": RECORDS, "reach": REACH, "done": DONE,
    "prominent": PROMINENT, "times": list(NAMES),
}  # fmt: skip


def _count(case: Case) -> int:
    """How many numbers its weights are."""
    network, x = case.network(), case.inputs()
    drawn = jax.eval_shape(network.init, jax.random.key(0), x)
    return sum(leaf.size for leaf in jax.tree.leaves(drawn))


@eqx.filter_jit
def start(network: Network, key: Key, x: Array) -> tuple[Weights, Array]:
    """Drawn weights, each layer's times a number s, so that the root mean square of z is ``START``; and s.

    √ of what is missing, again and again: where z is linear in s half of it is gone each time, where z is
    quadratic all of it, as in attention.
    """
    weights = network.init(key, x)

    def scaled(s: Array) -> Weights:
        place = dict(zip(network.rows, s, strict=True))
        parts = enumerate(weights)
        return tuple(
            jax.tree.map(lambda w, n=n: place[n] * w, part) if n in place else part
            for n, part in parts
        )

    def closer(_: Any, s: Array) -> Array:
        sizes = [jnp.sqrt(jnp.mean(z * z)) for z in network.forward(scaled(s), x)[0]]
        return s * jnp.sqrt(START / jnp.stack(sizes))

    s = jax.lax.fori_loop(0, 30, closer, jnp.ones(len(network.rows), x.dtype))
    return scaled(s), s


def _problem(case: Case) -> tuple[Network, Weights, Array, Array]:
    network, x = case.network(), jnp.asarray(case.inputs())
    weights, s = start(network, jax.random.key(case.seed), x)
    return network, weights, x, s


def _growth(case: Case) -> xr.Dataset:
    """Each layer's growth time at the start, and how many decisions it makes of a sample."""
    network, weights, x, _ = _problem(case)
    found = timescales.growth(network, weights, x, count=1)
    decisions = [math.prod(z.shape[1:]) for z in expected_knowledge(network, x.shape, x.dtype)]
    times = [float(one[0]) for one in found.times]
    return xr.Dataset({"growth": ("layer", times), "decisions": ("layer", decisions)})


def _measured(case: Case, growth: np.ndarray) -> xr.Dataset:
    """The curves per decision, and the times that are read off them."""
    network, weights, x, s = _problem(case)
    end, first = float(REACH * np.log1p(3 / START) * growth.max()), 0.03 * float(growth.min())
    run = to_beyond_the_peaks(
        lambda t1: _run(network, weights, x, np.geomspace(first, t1, RECORDS - 1)), end
    )
    data = timescales.measure(run, [timescales.DEFINITIONS[name] for name in NAMES])
    peaks = _peaks(run)
    many = np.asarray([z.size for z in run.final.Z])
    curves = {
        "flow": np.asarray(run.flow_norm) / np.sqrt(many),
        "knowledge": np.asarray(run.knowledge_norm) / np.sqrt(many),
        "entropy": np.asarray(run.entropy) / many,
        "tensor_net": np.asarray(run.tensor_net) / many,
    }
    return data.assign(
        {name: (("record", "layer"), values) for name, values in curves.items()}
        | {
            "t": ("record", np.asarray(run.t)),
            "scale": ("layer", np.asarray(s)),
            "first_peak": ("layer", [times[0] if times else np.nan for times in peaks]),
            "peaks": ("layer", [len(times) for times in peaks]),
            "end": ("layer", curves["entropy"][-1]),
        }
    )


def _run(network: Network, weights: Weights, x: Array, times: np.ndarray) -> Trajectory:
    method = Adaptive(rtol=RTOL, atol=RTOL / 100, dt0=float(times[0]))
    return simulate(
        network, weights, x, method, float(times[-1]), save_at=np.append(0, times), observe=OBSERVED
    )


def _peaks(run: Trajectory) -> list[list[float]]:
    """Of each layer, the times of the maxima of its flow that stand out, in order."""
    maxima = landmarks.peaks(run, "flow_norm", every=True)
    found = []
    for layer, flow in enumerate(np.asarray(run.flow_norm, float).T, 1):
        places = find_peaks(flow, prominence=PROMINENT * flow.max())[0]
        near = lambda one, places=places: bool((np.abs(places - one.step) <= 1).any())
        found.append([one.t for one in maxima if one.layer == layer and near(one)])
    return found
