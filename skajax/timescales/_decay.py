"""Late times: the flow decays like a power of time, and how well a run tells which."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from skajax import landmarks
from skajax._checks import as_number, require, require_positive
from skajax._solution import Reading
from skajax._types import Float
from skajax.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray

FEWEST = 8
"""Records that a fit needs."""
PIECES = 3.0
"""Residuals of a straight line change sign twice at least: they hold no less than three pieces."""


class PowerLaw(NamedTuple):
    """y = C t^-p, fitted to a series."""

    exponent: float
    """p."""
    error: float
    """Its standard error; where the law bends, half of what lies between ``low`` and ``high``."""
    low: float
    high: float
    """Ends of its confidence interval; where the law bends, of ``early`` and ``late``."""
    early: float
    late: float
    """p of the first and of the second half of ln t alone: where they differ, it is no power law."""
    effective: float
    """How many independent records there are, as the residuals tell."""


def power_law(
    t: Float[np.ndarray, " times"], y: Float[np.ndarray, " times"], *, confidence: float = 0.95
) -> PowerLaw:
    """Fit ln y = ln C - p ln t by least squares, with an error that knows of autocorrelation.

    Records of one run are no independent draws. With residuals of lag-1 correlation ρ (corrected for
    its bias beside a line, -(2 + 4ρ)/n), n of them are worth n (1 - ρ)/(1 + ρ): that many enter the
    variance RSS / ((n_eff - 2) Σ (ln t - mean)²) and Student's quantile. Where n_eff is 3, the least
    there can be, what the line leaves is one smooth bend: there is no noise that more records would
    average away, and the exponent is known to within what it does over the window, from ``early`` to
    ``late``. Solutions of the flow are of this kind.

    Raises ValueError unless t and y are positive, t increases, and there are 8 or more.

    >>> fit = ska.timescales.power_law(np.arange(1.0, 50.0), np.arange(1.0, 50.0) ** -0.5)
    >>> print(f"{fit.exponent:.3f}")
    0.500
    """
    from scipy.special import stdtrit

    t, y = np.asarray(t, float), np.asarray(y, float)
    many = t.ndim == 1 and t.shape == y.shape and len(t) >= FEWEST
    require(many, "t", f"hold as many times as y has values, {FEWEST} or more", f"it was {t.shape}")
    increasing = bool((np.diff(t) > 0).all() and t[0] > 0)
    require(increasing, "t", "be positive and increase", "it did not")
    require(bool((y > 0).all() and np.isfinite(y).all()), "y", "be positive", "it was not")
    confidence = _share(confidence)
    u, v = np.log(t), np.log(y)
    slope, residuals = _line(u, v)
    n = len(u)
    squares = float(residuals @ residuals)
    rho = float(residuals[1:] @ residuals[:-1]) / squares if squares > 0 else 0.0
    rho = min(max(rho + (2 + 4 * rho) / n, 0.0), 1.0)
    effective = max(n * (1 - rho) / (1 + rho), PIECES)
    variance = squares / ((effective - 2) * float(((u - u.mean()) ** 2).sum()))
    error = math.sqrt(variance)
    reach = float(stdtrit(effective - 2, (1 + confidence) / 2)) * error
    half = u <= (u[0] + u[-1]) / 2
    early, late = (
        -_line(u[part], v[part])[0] if part.sum() >= 2 else math.nan for part in (half, ~half)
    )
    low, high = -slope - reach, -slope + reach
    if effective == PIECES:
        low, high = min(early, late, -slope), max(early, late, -slope)
        error = (high - low) / 2
    return PowerLaw(-slope, error, low, high, early, late, effective)


def decay(
    run: Trajectory,
    observable: Reading = "flow_norm",
    *,
    after: float = 4.0,
    confidence: float = 0.95,
) -> "xarray.Dataset":
    """The exponent p of a layer's flow at late times, ‖Φ‖ ~ t^-p, and its uncertainty.

    Fitted to the run's records from ``after`` times the peak's time on (see :func:`power_law`); records
    evenly spaced in ln t tell most. A saturated neuron has ż ~ z e^-z, which makes z ~ ln t + ln ln t and
    p = 1, approached slowly and from above.

    Returns a Dataset over layer: ``exponent``, ``error``, ``low``, ``high``, ``early``, ``late``,
    ``effective`` as in :class:`PowerLaw`, ``start`` of the window, and ``reason`` where there is no fit.

    >>> later = ska.simulate(network, weights, x, ska.Adaptive(), t1=100.0)
    >>> [f"{exponent:.1f}" for exponent in ska.timescales.decay(later).exponent.values]
    ['nan', '1.1']
    """
    import xarray as xr

    after = require_positive("after", after, "a multiple of the peak's time")
    confidence = _share(confidence)
    t, values = landmarks.series(run, observable)
    rows, starts, reasons = [], [], []
    for column, peak in enumerate(landmarks.peaks(run, observable)):
        late = t >= after * peak.t
        y, start = values[late, column], after * peak.t
        reason = ""
        if not peak.interior:
            reason = "it has no peak within the run"
        elif late.sum() < FEWEST or t[-1] < 2 * start:
            reason = (
                f"of t > {start:.3g}, the run, to {t[-1]:.3g}, has {late.sum()} records: it takes"
                f" {FEWEST}, over a factor of 2"
            )
        elif not (y > 0).all():
            reason = "it is not positive"
        fit = power_law(t[late], y, confidence=confidence) if not reason else (math.nan,) * 7
        rows.append(fit)
        starts.append(start)
        reasons.append(reason)
    fields = dict(zip(PowerLaw._fields, np.asarray(rows, float).T, strict=True))
    return xr.Dataset(
        {name: ("layer", values) for name, values in fields.items()}
        | {"start": ("layer", starts), "reason": ("layer", np.asarray(reasons, object))},
        {"layer": np.arange(1, len(rows) + 1)},
        {"confidence": confidence, "after": after, "end": float(t[-1])},
    )


def _share(confidence: Any) -> float:
    number = as_number(confidence)
    fits = isinstance(number, float) and 0 < number < 1
    require(fits, "confidence", "lie in (0, 1)", f"it was {confidence!r}")
    return number


def _line(u: np.ndarray, v: np.ndarray) -> tuple[float, np.ndarray]:
    """Slope of the least-squares line, and what it leaves."""
    du, dv = u - u.mean(), v - v.mean()
    slope = float(du @ dv / (du @ du))
    return slope, dv - slope * du
