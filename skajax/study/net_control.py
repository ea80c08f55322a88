"""Whether it matters that a Tensor Net crosses zero: the same weights with their signs chosen."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from skajax import data, landmarks, timescales
from skajax._checks import is_whole, require
from skajax._progress import each
from skajax._types import Weights
from skajax._version import versions
from skajax.methods import Adaptive
from skajax.network import mlp
from skajax.study.separation import fisher_ratio, held_out, probe_accuracy
from skajax.sweeps import grid, sweep

__all__ = ["net_control"]

KINDS: dict[str, float | None] = {"as drawn": None, "all cross": 0.4, "none crosses": 0.75}
"""The share of each layer that rises."""
T1 = 1.0
RECORDS = 81


def net_control(*, seeds: int = 8, quick: bool = False) -> xr.Dataset:
    """What a network learns if every layer's Tensor Net crosses zero, or none: from weights of chosen signs.

    The paper's network and images, from the same ``seeds`` (from 0 on), each with the signs of its
    neurons as drawn, and so changed by :func:`skajax.timescales.signed` that a share p = 0.4 or 0.75 of each
    layer rises; solved adaptively (rtol 1e-4) to t = 1. ``quick``: 784-32-16 on 100 images.

    Over (kind, seed, layer): ``crossings`` of the published rate; ``left``, the fraction of the entropy at
    the end; ``peak``, the time of the flow's peak; ``fisher`` and ``probe``, how well D separates the classes
    at the end (:func:`skajax.study.fisher_ratio`, :func:`skajax.study.probe_accuracy`; 30 % held out); over
    (seed,) ``inputs_fisher`` and ``inputs_probe``, the same of the images.

    Example::

        data = ska.study.net_control(seeds=2, quick=True)
        print(data.crossings.mean("seed"))

    >>> data = ska.study.net_control(seeds=2, quick=True)  # doctest: +SKIP
    """
    require(is_whole(seeds), "seeds", "be a whole number, at least 1", f"it was {seeds!r}")
    x, y = data.mnist_subset(per_class=10 if quick else 100)
    images, network = jnp.asarray(x), mlp([32, 16] if quick else [256, 128, 64, 10])

    def draw(kind: str, seed: int) -> Weights:
        weights, share = network.init(jax.random.key(seed), images), KINDS[kind]
        return weights if share is None else timescales.signed(network, weights, images, share)

    lanes: Any = sweep(
        network, draw, images, Adaptive(), T1, over=grid(seed=range(seeds), kind=list(KINDS)),
        save_at=np.linspace(0, T1, RECORDS), final=True,
        observe=("entropy", "flow_norm", "knowledge_norm", "tensor_net_rate"),
    )  # fmt: skip
    rows, inputs = [], []
    for seed in each(range(seeds), "seeds", seeds):
        test = held_out(y, 0.3, seed)
        inputs.append((fisher_ratio(x, y), probe_accuracy(x, y, test)))
        for kind in KINDS:
            run = lanes.sel(seed=seed, kind=kind)
            found = landmarks.crossings(run)
            D = [run[f"final_D_{n}"].values for n in range(len(network.layers))]
            rows.append(
                (
                    [sum(c.layer == layer for c in found) for layer in run.layer.values],
                    run.entropy[-1] / run.entropy[0],
                    [peak.t for peak in landmarks.peaks(run)],
                    [fisher_ratio(d, y) for d in D],
                    [probe_accuracy(d, y, test) for d in D],
                )
            )
    table = np.array(rows, float).reshape(seeds, len(KINDS), 5, -1)
    names = ("crossings", "left", "peak", "fisher", "probe")
    variables: dict[str, Any] = {
        name: (("seed", "kind", "layer"), table[:, :, k]) for k, name in enumerate(names)
    }
    for k, name in enumerate(("inputs_fisher", "inputs_probe")):
        variables[name] = ("seed", np.array(inputs)[:, k])
    coords = {"kind": list(KINDS), "layer": 1 + np.arange(table.shape[-1])}
    return xr.Dataset(variables, coords, {"t1": T1, **versions()}).transpose("kind", "seed", ...)
