"""``skajax plot``: a figure of one or more runs, of a sweep, or of a study, as a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

FORMATS = ("png", "pdf", "svg")
Figure = Literal[
    "history", "comparison", "ensemble", "output_mean", "flow_against_knowledge",
    "tensor_net_against_knowledge", "phase_portrait", "heatmap", "lagrangian_3d", "step_sizes",
    "families", "invariance", "precision", "predicted_times", "rules", "separation", "work_precision",
]  # fmt: skip
STUDIES = {
    "architectures": "predicted_times", "families": "families", "invariance": "invariance",
    "precision": "precision", "rules": "rules", "separation": "separation",
    "work_precision": "work_precision",
}  # fmt: skip
"""The figure of what each study has found."""


def plot(
    file: str,
    /,
    *files: str,
    out: str,
    figure: Figure | None = None,
    observable: str | None = None,
    against: Literal["time", "K"] | None = None,
) -> int:
    """A figure of a run, of several, of a sweep or of a study.

    By default one run's history; of several a comparison, of a sweep bands, of a study its own figure.

    For example:

        skajax plot run.nc --out flow.png
        skajax plot run.nc --out heat.pdf --figure heatmap --observable tensor_net_rate
        skajax plot euler.nc adaptive.nc --out both.svg --observable entropy
        skajax plot lanes --out bands.png

    Args:
        file: A run's file, a sweep's folder or file, or a study's.
        files: More of them, to compare.
        out: Figure to write: .png, .pdf or .svg.
        figure: Which of skajax.plot.
        observable: Of what (default flow_norm).
        against: The axis below: time, or the paper's passes K.
    """
    import inspect

    import skajax as ska
    from skajax._checks import require
    from skajax._files import require_file, write_whole
    from skajax.cli._info import opened

    path = require_file("out", out)
    kind = path.suffix.removeprefix(".").lower()
    names = ", ".join("." + name for name in FORMATS)
    require(kind in FORMATS, "out", f"name a file that ends in {names}", f"it was {out!r}")
    every = (file, *files)
    found = [opened(each) for each in every]
    name = figure or _usual(found)
    require(
        len(found) == 1 or name == "comparison",
        "file",
        f"be one file for the figure {name!r}; several are for 'comparison'",
        f"there were {len(found)}",
    )
    draw = getattr(ska.plot, name)
    given = {"observable": observable, "against": against}
    given = {name: value for name, value in given.items() if value is not None}
    taken = inspect.signature(draw).parameters
    for each in given:
        require(each in taken, each, f"be left out with the figure {name!r}", "it was given")
    if "observable" in taken and "data" not in taken:
        given.setdefault("observable", _observable(name))
    what = dict(zip(_labels(every), found, strict=True)) if name == "comparison" else found[0]
    write_whole(drawn(lambda: draw(what, **given), kind), path)
    print(f"{out}: {name} of {', '.join(every)}")
    return 0


def drawn(draw: Callable[[], Any], kind: str) -> bytes:
    """The content of a figure's file, drawn without a screen."""
    import matplotlib.pyplot as plt
    import numpy as np

    from skajax._files import image

    plt.switch_backend("agg")
    before = set(plt.get_fignums())
    try:
        return image(np.ravel(draw())[0].figure, kind)
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)


def _usual(found: list[Any]) -> str:
    """What fits the files."""
    from skajax.trajectory import Trajectory

    if len(found) > 1:
        return "comparison"
    (one,) = found
    if isinstance(one, Trajectory):
        return "history"
    _, study, *_ = [*str(one.attrs.get("format", "")).split(), "", ""]
    return STUDIES.get(study, "ensemble")


def _observable(figure: str) -> str:
    return "tensor_net_rate" if figure == "tensor_net_against_knowledge" else "flow_norm"


def _labels(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the files; whole paths, where two have one name."""
    stems = tuple(Path(path).stem for path in paths)
    return stems if len({*stems}) == len(stems) else paths
