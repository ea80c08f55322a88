"""``skajax plot``: a figure of one or more runs, of a sweep, or of a study, as a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

FORMATS = (".png", ".pdf", ".svg")
Figure = Literal[
    "history", "comparison", "ensemble", "output_mean", "flow_against_knowledge",
    "tensor_net_against_knowledge", "phase_portrait", "heatmap", "step_sizes",
    "net_phases", "overview", "families", "invariance", "precision", "predicted_times", "rules", "separation",
    "work_precision",
]  # fmt: skip
STUDIES = {
    "architectures": "predicted_times", "families": "families", "invariance": "invariance",
    "precision": "precision", "rules": "rules", "separation": "separation",
    "work_precision": "work_precision",
}  # fmt: skip
"""The figure of what each study has found."""
FIRST = {"invariance": ("rule",), "work_precision": ("T", "scale")}
"""Of what a figure shows one of, the axes of which it takes the first."""
OF_A_LANE = ("record", "time", "layer", "output")
"""What is no axis of a sweep."""
OF_A_RUN = ("heatmap", "step_sizes", "net_phases", "overview")
"""What is drawn of one run, and not of a sweep."""


def plot(
    file: str,
    /,
    *files: str,
    out: str,
    figure: Figure | None = None,
    observable: str | None = None,
    against: Literal["time", "K"] | None = None,
    select: list[str] | None = None,
) -> int:
    """A figure of a run, of several, of a sweep or of a study.

    By default one run's history; of several a comparison, of a sweep bands, of a study its own figure.

    For example:

        skajax plot run.nc --out flow.png
        skajax plot run.nc --out heat.pdf --figure heatmap --observable entropy
        skajax plot euler.nc adaptive.nc --out both.svg --observable entropy
        skajax plot lanes --out bands.png
        skajax plot lanes --out bands.png --select dt=0.01

    Args:
        file: A run's file, a sweep's folder or file, or a study's.
        files: More of them, to compare.
        out: Figure to write: .png, .pdf or .svg. One of this name is replaced.
        figure: Which of the functions of skajax.plot draws it.
        observable: What is drawn (default flow_norm).
        against: The horizontal axis: time, or the paper's passes K.
        select: Of a sweep or a study, one value of an axis, such as dt=0.01; for each axis once.
    """
    import inspect

    import skajax as ska
    from skajax._checks import require
    from skajax._files import require_file, write_whole
    from skajax.cli._config import precision
    from skajax.cli._info import opened

    path = require_file("out", out, *FORMATS)
    kind = path.suffix.removeprefix(".").lower()
    every = (file, *files)
    with precision("float64"):
        found = {path: opened(path) for path in every}
    found = {path: selected(each, select or []) for path, each in found.items()}
    holds = {path: _held(each) for path, each in found.items()}
    usual = {"run": "history", "sweep": "ensemble", **STUDIES}
    name = figure or ("comparison" if len(every) > 1 else usual.get(holds[file], ""))
    must = f"hold what has a figure of its own ({', '.join(usual)})"
    require(bool(name), "file", must, f"{file!r} is of the kind {holds[file]!r}")
    one, must = len(every) == 1 or name == "comparison", f"be one file for the figure {name!r}"
    require(one, "file", f"{must}; several are for 'comparison'", f"there were {len(every)}")
    fits = [study for study, drawn in STUDIES.items() if drawn == name]
    fits = fits or (["run"] if name in OF_A_RUN else ["run", "sweep"])
    for each, what in holds.items():
        must = f"hold what the figure {name!r} is of ({' or '.join(fits)})"
        require(what in fits, "file", must, f"{each!r} is of the kind {what!r}")
    taken = inspect.signature(getattr(ska.plot, name)).parameters
    given = {"observable": observable, "against": against}
    given = {each: value for each, value in given.items() if value is not None}
    for each in given:
        require(each in taken, each, f"be left out with the figure {name!r}", "it was given")
    if name in ("history", "comparison", "ensemble", "heatmap"):
        given.setdefault("observable", "flow_norm")
    labels = [Path(path).stem for path in found]
    labels = labels if len({*labels}) == len(labels) else list(found)  # two have one name
    what = dict(zip(labels, found.values(), strict=True))
    with precision("float64"):
        content = drawn(what if name == "comparison" else found[file], name, kind, **given)
    write_whole(content, path)
    print(f"{out}: {name} of {', '.join(every)}")
    return 0


def selected(data: Any, choices: Sequence[str]) -> Any:
    """Of a dataset, those lanes that the choices "axis=value" are of."""
    import numpy as np

    from skajax._checks import require
    from skajax._messages import nearest
    from skajax.cli._data import is_number
    from skajax.cli._info import in_short
    from skajax.trajectory import Trajectory

    for choice in choices:
        one = isinstance(data, Trajectory)
        require(not one, "select", "be left out with a run", "it was given")
        axes = [str(dim) for dim in data.dims if dim in data.coords and dim not in OF_A_LANE]
        axis, _, value = choice.partition("=")
        must = f"be an axis ({', '.join(axes)}) and one of its values, such as dt=0.01"
        require(axis in axes, "select", must, f"it was {choice!r}")
        labels = data[axis].values
        if labels.dtype.kind in "fiu" and is_number(value):
            near = int(np.argmin(np.abs(labels - float(value))))
            fits = bool(np.isclose(labels[near], float(value), rtol=1e-6, atol=0))
            but = f"it was {choice!r}; the nearest is {axis}={labels[near]:g}"
        else:
            names = [str(label) for label in labels]
            fits, but = value in names, f"it was {nearest(value, names)}"
            near = names.index(value) if fits else 0
        require(fits, "select", f"name a value of {axis} ({in_short(labels)})", but)
        data = data.isel({axis: [near]})
    return data


def drawn(what: Any, figure: str, kind: str = "png", **options: Any) -> bytes:
    """The content of a figure's file, drawn without a screen."""
    import matplotlib.pyplot as plt
    import numpy as np

    import skajax as ska
    from skajax._files import image

    if figure in FIRST:
        what = what.isel({axis: [0] for axis in FIRST[figure]})
    plt.switch_backend("agg")
    before = set(plt.get_fignums())
    try:
        axes = getattr(ska.plot, figure)(what, **options)
        return image(np.ravel(axes)[0].figure, kind)
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)


def _held(found: Any) -> str:
    """What a file holds, in one word: run, sweep, checkpoint, or the study's name."""
    from skajax.trajectory import Trajectory

    if isinstance(found, Trajectory):
        return "run"
    return str(found.attrs.get("format", "skajax sweep")).split()[1]
