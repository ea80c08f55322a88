"""What a device's shortened matrix products do to a run, found by running."""

import copy
import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from skajax import landmarks
from skajax._checks import as_array, require, require_positive
from skajax._messages import unwarned, warn
from skajax._modes import enable_x64
from skajax._simulate import simulate
from skajax._types import Inputs, ScalarLike, Weights
from skajax.inputs import refuse_weights
from skajax.layers._fields import PRECISIONS
from skajax.methods import Euler
from skajax.network import Network

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["check_precision"]

STEPS = 50
"""Of Euler's method, the same at every precision: what differs is rounding alone."""


def check_precision(
    network: Network,
    x: Inputs,
    weights: Weights | None = None,
    *,
    t1: ScalarLike = 0.5,
    tolerance: ScalarLike = 0.01,
) -> "xr.Dataset":
    """What each precision of matrix products does on this device: drift = ‖W - W₆₄‖ / ‖W₆₄ - W(0)‖.

    Accelerators may shorten the factors of float32 products: to TF32 on NVIDIA's GPUs, to bfloat16 on
    TPUs. So the network is run in float32 at the precisions "default", "high" and "highest" of its
    layers, and once in float64, W₆₄: 50 steps of Euler's method, from the same weights.

    Arguments:

    - ``network``, and its inputs ``x`` (samples, ...), on the device that is to be judged.
    - ``weights``: initial ones; by default those of ``network.init(jax.random.key(0), x)``.
    - ``t1``: the end of the runs, in the flow's time. The peaks of the layers' flows should lie before it.
    - ``tolerance``: how far a peak may move, relative to its time, before it counts as spoilt.

    Returns an ``xarray.Dataset`` over (precision, layer): ``drift``, relative; ``peak_shift``, by how much
    later the flow ‖Φ‖ (eq. 6) is largest than in float64, in the flow's time, NaN where a layer has no peak
    before t1; ``entropy_error``, of the entropy at t1, relative; and over (layer,) float64's own ``peak``.
    Its attributes name the device. A layer whose own ``precision`` cannot be set (a user's) runs as it is.

    Warns where a layer has no peak before t1, and where a precision moves a peak by more than ``tolerance``.
    Raises ValueError for inputs that do not fit.

    >>> found = ska.check_precision(ska.mlp([6, 4], scale=0.3), jnp.ones((5, 3)), t1=4.0)
    >>> bool((found.drift < 1e-4).all())  # on a CPU every product is exact to float32's rounding
    True
    """
    import xarray as xr

    require_positive("t1", t1, "an end")
    require_positive("tolerance", tolerance, "a share of the peak's time")
    refuse_weights(x)
    batch = as_array("x", x)
    start = network.init(jax.random.key(0), batch) if weights is None else weights
    batch, start = jax.tree.map(np.asarray, (batch, start))
    with enable_x64(True):
        exact = _run(network, start, batch, np.float64, t1)
    runs = [_run(_at(network, precision), start, batch, np.float32, t1) for precision in PRECISIONS]

    start = [start[row] for row in network.rows]
    moved = [_distance(*pair) for pair in zip(exact.weights, start, strict=True)]
    drift = [
        [
            _distance(w, w64) / m if m > 0 else 0.0
            for w, w64, m in zip(run.weights, exact.weights, moved, strict=True)
        ]
        for run in runs
    ]
    shift = np.stack([run.peaks - exact.peaks for run in runs])
    off = np.stack([np.abs(run.entropy / exact.entropy - 1) for run in runs])
    peak = exact.peaks
    unseen = [str(1 + layer) for layer in np.flatnonzero(np.isnan(peak))]
    if unseen:
        layers = f"layer {unseen[0]}" if len(unseen) == 1 else f"layers {', '.join(unseen)}"
        warn(
            f"Before t1 = {float(t1):.4g} there is no peak of the flow of {layers}, and peak_shift is NaN:"
            " take a later t1 (skajax.timescales.predict foresees the peaks)"
        )
    device = jax.devices()[0].device_kind
    # A peak that is there at one precision only has been moved beyond any tolerance.
    lost = np.isnan(shift) & ~np.isnan(peak)
    spoilt = lost | (np.abs(shift) > float(tolerance) * peak)
    if spoilt.any():
        names = " and ".join(
            repr(p) for p, bad in zip(PRECISIONS, spoilt, strict=True) if bad.any()
        )
        which, layer = map(int, np.argwhere(spoilt)[0])
        where = "is gone" if lost[which, layer] else f"moves by {shift[which, layer]:.2g}"
        warn(
            f"Matrix products of precision {names} spoil landmarks on {device}: at "
            f"{PRECISIONS[which]!r} the peak of layer {layer + 1}'s flow, in float64 at t = "
            f"{peak[layer]:.4g}, {where}"
        )
    over = ("precision", "layer")
    return xr.Dataset(
        {
            "drift": (over, np.asarray(drift, float)),
            "peak_shift": (over, shift, {"units": "time"}),
            "entropy_error": (over, off),
            "peak": ("layer", peak, {"units": "time"}),
        },
        {"precision": list(PRECISIONS), "layer": 1 + np.arange(len(peak))},
        {"device": device, "t1": float(t1), "steps": STEPS},
    )


class _Seen(NamedTuple):
    """What is compared of a run: the end's weights, of layers; when flows peak; the end's entropy."""

    weights: list[Any]
    peaks: Any
    entropy: Any


def _run(network: Network, weights: Any, x: Any, dtype: Any, t1: ScalarLike) -> _Seen:
    """A run in one precision of numbers; whole numbers stay as they are."""
    cast = lambda a: a.astype(dtype) if np.issubdtype(a.dtype, np.floating) else a
    weights, x = jax.tree.map(cast, (weights, x))
    with unwarned():
        run = simulate(
            network, weights, x, Euler(float(t1) / STEPS), steps=STEPS,
            observe=("entropy", "flow_norm"), reduction="off",
        )  # fmt: skip
    require(
        bool(run.outcome.completed),
        "t1",
        f"be an end that {STEPS} steps of Euler's method reach",
        str(run.outcome),
    )
    peaks = [each.t if each.interior else np.nan for each in landmarks.peaks(run, "flow_norm")]
    final = jax.tree.map(np.asarray, run.final.weights)
    return _Seen(
        [final[row] for row in network.rows], np.asarray(peaks), np.asarray(run.entropy)[-1]
    )


def _at(part: Any, precision: str) -> Any:
    """A copy of a network, or of a part of it, whose products all have this precision."""
    if isinstance(part, tuple):
        parts = [_at(each, precision) for each in part]
        return type(part)(*parts) if hasattr(part, "_fields") else tuple(parts)
    if not dataclasses.is_dataclass(part):
        return part
    changed = copy.copy(part)
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        new = precision if field.name == "precision" else _at(value, precision)
        object.__setattr__(changed, field.name, new)
    return changed


def _distance(a: Any, b: Any) -> float:
    """‖a - b‖_F over all arrays of a layer's weights, in float64."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return float(np.sqrt(sum(np.sum((np.float64(u) - np.float64(v)) ** 2) for u, v in pairs)))
