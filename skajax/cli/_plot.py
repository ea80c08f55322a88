"""``python -m skajax plot``: a figure of one or more runs, or of a sweep, as a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

FIGURES = (
    "history", "comparison", "ensemble", "output_mean", "flow_against_knowledge",
    "tensor_net_against_knowledge", "phase_portrait", "heatmap", "lagrangian_3d",
)  # fmt: skip
"""Functions of ``skajax.plot`` that draw what a file has."""
OF_OBSERVABLES = ("history", "comparison", "ensemble", "heatmap")
FORMATS = ("png", "pdf", "svg")


def plot(paths: Sequence[str], out: str, figure: str | None, observable: str) -> int:
    """Draw, write, and say where; 0.

    By default one run's history; of several files a comparison, of a sweep bands over its lanes.
    """
    import matplotlib.pyplot as plt

    import skajax as ska
    from skajax._checks import require
    from skajax._files import image, require_file, write_whole

    path = require_file("out", out)
    kind = path.suffix.removeprefix(".").lower()
    require(
        kind in FORMATS,
        "out",
        f"name a file that ends in {', '.join('.' + name for name in FORMATS)}",
        f"it was {out!r}",
    )
    found = [_read(each) for each in paths]
    if figure is None:
        sweep = not isinstance(found[0], ska.Trajectory)
        figure = "comparison" if len(found) > 1 else "ensemble" if sweep else "history"
    require(
        len(found) == 1 or figure == "comparison",
        "paths",
        f"be one file for the figure {figure!r}; several are for 'comparison'",
        f"there were {len(found)}",
    )
    plt.switch_backend("agg")
    what: Any = dict(zip(map(_label, paths), found, strict=True))
    if figure != "comparison":
        (what,) = found
    more = (observable,) if figure in OF_OBSERVABLES else ()
    axes = getattr(ska.plot, figure)(what, *more)
    drawn = getattr(axes, "figure", None) or axes[0].figure
    write_whole(image(drawn, kind), path)
    plt.close(drawn)
    print(f"{out}: {figure} of {', '.join(map(str, paths))}")
    return 0


def _read(path: str) -> Any:
    """A run, or a sweep's dataset from its folder or its file."""
    import skajax as ska
    from skajax._files import located
    from skajax.cli._info import sweep_of

    where = located(path)
    if where.is_dir():
        return ska.load_sweep(path)
    sweep = sweep_of(where)
    return ska.load(path) if sweep is None else sweep


def _label(path: str) -> str:
    return Path(path).stem
