"""Why a predicted time is far from the measured one: causes, by rules that read numbers."""

import numpy as np
import xarray as xr

__all__ = ["causes"]

FIRST, HIDDEN = 0.10, 0.15
"""How far a prediction may be off, relative, in the first layer and above it."""
SATURATION = 1.5434
"""|z| where z D'(z) is largest, z tanh(z/2) = 1."""


def causes(row: xr.Dataset) -> list[str]:
    """For each layer of a setting of the study, "" or why its prediction failed; the first that holds:

    - the run has no peak within, with the reason; or the prediction found none;
    - *saturated start*: z is of root mean square above 1.54 at t = 0, in this layer or below: the
      flow begins past its peak;
    - *two humps*: the flow has another maximum, at least 80 % as high: the larger one is a matter of chance;
    - *flat top*: at the predicted time the flow is within 3 % of its peak;
    - *the seed's luck*: from the very weights, not the architecture alone, the prediction is near enough;
    - *unexplained*.
    """
    said = []
    start = np.maximum.accumulate(np.nan_to_num(row["start"].values))
    for k in range(row.sizes["layer"]):
        one = row.isel(layer=k)
        limit = FIRST if k == 0 else HIDDEN
        measured, error = one["measured"].item(), one["error"].item()
        if np.isfinite(error) and abs(error) <= limit:
            said.append("")
            continue
        off = f", {100 * error:+.0f} %" if np.isfinite(error) else ""
        if not np.isfinite(measured):
            said.append(f"no peak: {one['reason'].sel(definition='flow_peak').item()}")
        elif start[k] > SATURATION:
            said.append(f"saturated start, |z| = {start[k]:.2g}{off}")
        elif not np.isfinite(error):
            said.append("no peak predicted")
        elif one["second_hump"].item() >= 0.8:
            said.append(f"two humps, {100 * one['second_hump'].item():.0f} % as high{off}")
        elif one["height"].item() >= 0.97:
            said.append(
                f"flat top, the flow is at {100 * one['height'].item():.1f} % of its peak{off}"
            )
        elif abs(one["error_given"].item()) <= limit:
            given = 100 * one["error_given"].item()
            said.append(f"the seed's luck{off}; from the very weights {given:+.0f} %")
        else:
            said.append(f"unexplained{off}")
    return said
