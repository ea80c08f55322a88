"""What :func:`skajax.study.families` found, as a table to read."""

import numpy as np
import xarray as xr

__all__ = ["families_table"]


def families_table(data: xr.Dataset) -> str:
    """Markdown: one line a layer of each family, and below it which features all families share.

    Numbers are medians over the seeds, with the lower and upper quartile behind them: the time of the flow's
    first peak, also in units of the layer's own growth time 1/λ; how many peaks there are; the residence
    time ‖Z‖ / ‖Φ‖ where the flow is highest; the entropy per decision at the end of the run, in bits; and in
    how many of the seeds the Tensor Net's rate crosses 0 within the run.

    >>> print(ska.study.families_table(ska.study.families(seeds=range(2), quick=True)))  # doctest: +SKIP
    """
    lines = [
        "| family | weights | layer | decisions | 1/λ | first peak, t | in 1/λ | peaks | residence at the"
        " highest | entropy left | Net crosses |",
        "|" + "---|" * 11,
    ]
    for name in data["family"].values:
        for layer in data["layer"].values:
            one = data.sel(family=name, layer=layer)
            time = lambda definition, one=one: one["time"].sel(definition=definition).values
            growth, first = one["growth"].item(), one["first_peak"].values
            cells = [
                name,
                f"{one['weights'].item()}",
                f"{layer}",
                f"{one['decisions'].item()}",
                f"{growth:.3g}",
                _quartiles(first),
                _quartiles(first / growth),
                _quartiles(one["peaks"].values),
                _quartiles(time("residence_at_flow_peak")),
                _quartiles(one["end"].values),
                _share(np.isfinite(time("tensor_net_crossing"))),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_summary(data), ""])


def _summary(data: xr.Dataset) -> list[str]:
    """Which features each family has, in sentences."""
    highest = data["time"].sel(definition="flow_peak")
    upwards = (highest.diff("layer") > 0).all("layer")
    paced = lambda f: highest.sel(family=f).isel(
        layer=np.argsort(data["growth"].sel(family=f).values)
    )
    by_growth = lambda f: np.all(np.diff(paced(f).transpose("seed", "layer").values) > 0, axis=1)
    crosses = data["time"].sel(definition="tensor_net_crossing").notnull()
    first = data["first_peak"] / data["growth"]
    middle = first.median(("seed", "layer"))
    features = (
        ("Layers with one flow peak", lambda f: _share((data["peaks"] == 1).sel(family=f).values)),
        ("Seeds whose layers reach their highest flow in order, from the images up",
         lambda f: _share(upwards.sel(family=f).values)),
        ("Seeds whose layers do so in the order of their growth times", lambda f: _share(by_growth(f))),
        ("Layers whose Tensor Net's rate crosses 0", lambda f: _share(crosses.sel(family=f).values)),
        ("First peak in growth times, median of all layers", lambda f: f"{middle.sel(family=f).item():.3g}"),
    )  # fmt: skip
    names = [str(name) for name in data["family"].values]
    return [
        f"- {text}: {'; '.join(f'{name} {read(name)}' for name in names)}."
        for text, read in features
    ]


def _quartiles(values: np.ndarray) -> str:
    """Median (lower quartile to upper), of the seeds that have a number."""
    known = np.asarray(values, float)[np.isfinite(values)]
    if not known.size:
        return "–"
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    return f"{middle:.3g} ({low:.3g} to {high:.3g})" if high > low else f"{middle:.3g}"


def _share(true: np.ndarray) -> str:
    return f"{int(true.sum())} of {true.size}"
