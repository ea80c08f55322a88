"""The paper, whole: every experiment run, drawn, and held against its claims."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import xarray as xr

from skajax._checks import is_whole, require
from skajax._files import netcdf, put, require_folder
from skajax._progress import each, told
from skajax._version import versions
from skajax.study import report
from skajax.study.claims import CLAIMS, Claim, Finding
from skajax.study.experiments import Evidence, T, gather
from skajax.study.figures import BESIDE, draw
from skajax.trajectory import Trajectory

__all__ = ["Reproduction", "reproduce"]


class Reproduction(NamedTuple):
    """What :func:`reproduce` found, and where it wrote it."""

    evidence: Evidence
    judged: tuple[tuple[Claim, Finding], ...]
    files: tuple[Path, ...]


@told("reproduce")
def reproduce(
    out: str | os.PathLike[str], *, seeds: int | None = None, quick: bool = False
) -> Reproduction:
    """Run the paper's experiments, and judge its claims by the numbers.

    Six step sizes by the published rule and by Euler's method, the adaptive solution as the
    continuous limit, and an ensemble of ``seeds`` initialisations (default 16; 4 if ``quick``). Writes
    into ``out``: ``figures/``, ``runs.nc`` (all runs, groups of one NetCDF file: open with
    ``xarray.open_datatree``), ``claims.json`` and ``claims.md``, the report, and the same with its figures as
    a page for a browser, ``claims.html``. Files of these names are replaced.

    >>> result = ska.study.reproduce("out", quick=True)  # doctest: +SKIP
    """
    if seeds is None:
        seeds = 4 if quick else 16
    require(
        is_whole(seeds, 2),
        "seeds",
        "be a whole number, at least 2, because spreads are measured",
        f"it was {seeds!r}",
    )
    out = require_folder("out", out)
    evidence = gather(seeds=seeds)
    claims = each(CLAIMS, "claims", len(CLAIMS))
    judged = tuple((claim, claim.examine(evidence)) for claim in claims)
    setting = _setting(evidence, quick)
    files = {
        "claims.md": report.markdown(judged, evidence, setting),
        "claims.json": report.as_json(judged, evidence, setting),
    }
    for name, text in files.items():
        put(text.encode(), out / name)
    put(netcdf(_runs(evidence, setting)), out / "runs.nc")
    # Draw without a screen, and leave the caller's choice of one alone.
    with matplotlib.rc_context({"backend": "agg"}):
        figures = list(draw(evidence, out / "figures"))
    beside = {claim: [f"figures/{name}.png" for name in names] for claim, names in BESIDE.items()}
    page = report.as_html(report.illustrated(files["claims.md"], beside))
    put(page.encode(), out / "claims.html")
    written = (*(out / name for name in (*files, "claims.html", "runs.nc")), *figures)
    return Reproduction(evidence, judged, written)


def _setting(evidence: Evidence, quick: bool) -> dict[str, Any]:
    return {
        "quick": quick,
        "precision": str(evidence.x.dtype),
        "device": ", ".join(sorted({device.device_kind for device in evidence.x.devices()})),
        **versions(),
    }


def _runs(evidence: Evidence, setting: Mapping[str, Any]) -> xr.DataTree:
    device = {"device": setting["device"]}
    seed = {"seed": evidence.seeds[0], **device}
    single: dict[str, Trajectory] = {
        **{f"published/K{K}": run for K, run in evidence.published.items()},
        **{f"euler/K{K}": run for K, run in evidence.euler.items()},
        **{f"adaptive/rtol{rtol:.0e}": run for rtol, run in evidence.adaptive.items()},
        "reference": evidence.reference,
        "late": evidence.late,
    }
    ensembles = {
        "ensemble/published": evidence.ensemble_published,
        "ensemble/reference": evidence.ensemble_reference,
    }
    groups = {name: run.to_dataset(attrs=seed) for name, run in single.items()}
    for name, runs in ensembles.items():
        lanes = runs.to_dataset(lanes=["seed"], attrs=device)
        groups[name] = lanes.assign_coords(seed=list(evidence.seeds))
    attrs = {
        "format": "skajax experiments 1",
        "title": "SKA: the paper's experiments",
        "T": T,
        "setting": json.dumps(dict(setting)),
    }
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **groups})
