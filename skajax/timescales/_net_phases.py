"""The phases of a run in the picture of rising and falling knowledge; and what is measured for it."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from skajax._checks import require
from skajax._types import Array, Float, PerLayer
from skajax.entropy import BITS
from skajax.observables import Observable
from skajax.system import Instant
from skajax.trajectory import Trajectory

LINEAR = 0.5
"""Root mean square of z up to which D' is within 6 % of 1/4."""
SATURATED = 1.5434046384182085
"""Where z tanh(z/2) = 1: there z D'(z), which drives the flow, is largest."""


def _part(instant: Instant, choose: Callable[[Array], Array]) -> PerLayer:
    slopes = instant.network.slopes(instant.Z, instant.Zdot)
    rows = zip(instant.Z, instant.D, instant.Zdot, slopes, strict=True)
    return jnp.stack(
        [jnp.sum(choose(zdot) * (D * zdot - BITS * (z * s))) for z, D, zdot, s in rows]
    )


def _rising(instant: Instant) -> PerLayer:
    return _part(instant, lambda zdot: (zdot > 0).astype(zdot.dtype))


def _falling(instant: Instant) -> PerLayer:
    return _part(instant, lambda zdot: (zdot < 0).astype(zdot.dtype))


NET_PARTS = (
    Observable(
        "tensor_net_rising",
        _rising,
        "Tensor Net rate of rising knowledge, published sign", r"$\dot{\mathrm{Net}}_+$", "1/time",
        "Σ (D + ∇_z H) ż over ż > 0",
        signed=True,
    ),
    Observable(
        "tensor_net_falling",
        _falling,
        "Tensor Net rate of falling knowledge, published sign", r"$\dot{\mathrm{Net}}_-$", "1/time",
        "Σ (D + ∇_z H) ż over ż < 0",
        signed=True,
    ),
)  # fmt: skip
"""Observables: the published rate's part where knowledge rises, which is positive, and where it falls,
negative. Together they are ``tensor_net_rate``."""


class NetPhases(NamedTuple):
    """When phases end, one time a layer; NaN where the run does not get there."""

    linear: Float[np.ndarray, " layers"]
    """Linear growth: until ‖Z‖ / √(B n), the root mean square of z, is 0.5."""
    overtaking: Float[np.ndarray, " layers"]
    """Until it is 1.5434, where the flow of a single z is strongest: rising knowledge gains weight."""
    saturation: Float[np.ndarray, " layers"]
    """Until the flow is down at half of its peak; what remains is slow decay."""


def net_phases(run: Trajectory) -> NetPhases:
    """When each layer's linear growth, overtaking and saturation end: a = 0.5, a = 1.5434, half of the flow.

    a = ‖Z‖ / √(B n) is the root mean square of z. What the phases are to the Tensor Net:

    1. linear growth: D' = 1/4 to 6 %, and f(z) about 1/2: the rate's sign is that of Σ ż;
    2. overtaking: falling knowledge gains weight up to a = 0.80, then rising knowledge: a layer near balance
       crosses zero here;
    3. saturation: from z tanh(z/2) = 1 on, until the flow is at half of its peak: rising knowledge outweighs;
    4. slow decay.

    ``run``: one run, with ``knowledge_norm`` and ``flow_norm`` recorded. Times are linear between records; a
    phase that is over at the first record ends there. Raises ValueError for what does not fit.

    >>> ska.timescales.net_phases(run).linear.shape
    (2,)
    """
    t = np.asarray(run.t, float)
    require(t.ndim == 1, "run", "be one run", f"its times have the shape {t.shape}")
    for name in ("knowledge_norm", "flow_norm"):
        known = name in run.records
        require(known, "run", f"have recorded {name}", f"it has {list(run.records)}")
    sizes = np.sqrt([z.size for z in run.final.Z])
    a, flow = np.asarray(run.knowledge_norm, float) / sizes, np.asarray(run.flow_norm, float)
    columns = range(a.shape[1])
    linear, overtaking = (
        np.array([_first(t, a[:, k] - limit) for k in columns]) for limit in (LINEAR, SATURATED)
    )
    saturation = []
    for k in columns:
        top = int(np.argmax(flow[:, k]))
        saturation.append(_first(t[top:], flow[top, k] / 2 - flow[top:, k]))
    return NetPhases(linear, overtaking, np.array(saturation))


def _first(t: np.ndarray, series: np.ndarray) -> float:
    """When a series is first above 0."""
    (above,) = np.nonzero(series > 0)
    if not above.size:
        return np.nan
    k = int(above[0])
    if k == 0:
        return float(t[0])
    low, high = series[k - 1], series[k]
    return float(t[k - 1] + low / (low - high) * (t[k] - t[k - 1]))
