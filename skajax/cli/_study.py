"""``skajax study NAME``: one of the studies, into a folder: its numbers, a table, and a figure."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from skajax.cli._plot import Figure, drawn
from skajax.cli._problem import Problem, Several, configured

if TYPE_CHECKING:
    import xarray as xr

Numbers = Annotated[list[float] | None, Several]
Counts = Annotated[list[int] | None, Several]


def architectures(*, out: str, quick: bool = False) -> int:
    """When the layers of many networks learn, as simulated and as predicted before.

    For example:

        skajax study architectures --out architectures --quick

    Args:
        out: Folder to write into, and to go on from.
        quick: Three small settings instead of 53.
    """
    return _whole("architectures", out, quick=quick)


def schedules(
    *, out: str, quick: bool = False, fractions: Numbers = None, accuracy: float | None = None
) -> int:
    """Run the schedules that data and architecture recommend, and see what is left of the entropy.

    For example:

        skajax study schedules --out schedules --fractions 0.5 0.25 --accuracy 0.01

    Args:
        out: Folder to write into, and to go on from.
        quick: Three small settings instead of 53.
        fractions: What is to be left of the entropy (default 0.75 0.5 0.25).
        accuracy: Relative error of the knowledge that is asked for (default 0.02).
    """
    return _whole("schedules", out, quick=quick, fractions=fractions, accuracy=accuracy)


def rules(*, out: str, quick: bool = False, seeds: Counts = None) -> int:
    """SKA beside ordinary gradient flow and its relatives: the same network, start and images.

    For example:

        skajax study rules --out rules --quick

    Args:
        out: Folder to write into, and to go on from.
        quick: A small network and few images.
        seeds: Of the initial weights (default 0 1 2).
    """
    return _whole("rules", out, quick=quick, seeds=seeds)


def precision(*, out: str, quick: bool = False, seeds: Counts = None) -> int:
    """How many bits learning needs: fixed and floating point, noise, clipped ranges, against float64.

    For example:

        skajax study precision --out precision --quick

    Args:
        out: Folder to write into, and to go on from.
        quick: A small network, two step sizes and four formats.
        seeds: Of initial weights, stochastic rounding and noise (default 0 1).
    """
    return _whole("precision", out, quick=quick, seeds=seeds)


def families(*, out: str, quick: bool = False, seeds: Counts = None) -> int:
    """When dense, convolutional, recurrent, attention and graph networks of as many weights learn.

    For example:

        skajax study families --out families --seeds 0 1 --quick

    Args:
        out: Folder to write into, and to go on from.
        quick: 20 images instead of 100, and smaller networks.
        seeds: Of the initial weights (default 0 to 7).
    """
    return _whole("families", out, quick=quick, seeds=seeds)


def tensor_net(*, out: str, quick: bool = False, seeds: int | None = None) -> int:
    """How often each layer's Tensor Net crosses zero, and where, as simulated and as predicted before.

    For example:

        skajax study tensor-net --out tensor_net --seeds 20 --quick

    Args:
        out: Folder to write into, and to go on from.
        quick: One small setting instead of five.
        seeds: How many initialisations (default 200).
    """
    return _whole("tensor_net", out, quick=quick, seeds=seeds)


def net_control(*, out: str, quick: bool = False, seeds: int | None = None) -> int:
    """What a network learns if every layer's Tensor Net crosses zero, or none: from weights of chosen signs.

    For example:

        skajax study net-control --out net_control --seeds 2 --quick

    Args:
        out: Folder to write into.
        quick: A small network and few images.
        seeds: How many initialisations (default 8).
    """
    from skajax import study

    folder = _folder("net_control", out)
    data = study.net_control(quick=quick, **_given(seeds=seeds))
    table = lambda data: (
        f"Means over the seeds.\n\n{data.mean('seed').to_dataframe().to_string()}\n"
    )
    return _keep("net_control", out, folder, data, table)


def invariance(
    config: str | None = None,
    /,
    *,
    out: str,
    problem: Problem | None = None,
    accuracy: float | None = None,
    judge: str | None = None,
    seeds: Counts = None,
) -> int:
    """Errors of fixed steps against the continuous limit, their order, and the step for an accuracy.

    For example:

        skajax study invariance --out steps
        skajax study invariance --out steps --data digits --accuracy 0.001

    Args:
        config: A TOML file with tables data and network.
        out: Folder to write into.
        accuracy: Relative error that is asked for (default 0.01).
        judge: Of which observable (default entropy_rate).
        seeds: Of the initial weights (default 0).
    """
    from skajax import study

    settings = configured(config, problem, method="adaptive")
    options = _given(accuracy=accuracy, judge=judge, seeds=seeds)
    return _of_problem(
        "invariance", out, settings,
        lambda network, weights, x, y: study.invariance(network, settings.drawn(), x, **options),
        study.invariance_table, "invariance",
    )  # fmt: skip


def intrinsic(
    config: str | None = None,
    /,
    *,
    out: str,
    problem: Problem | None = None,
    t1: float | None = None,
    seeds: int | None = None,
    scales: Numbers = None,
    batches: Counts = None,
) -> int:
    """Every definition of a characteristic time over seeds, scales, batches and steps, and their order.

    For example:

        skajax study intrinsic --out intrinsic --data digits --batches 10 100

    Args:
        config: A TOML file with tables data and network.
        out: Folder to write into.
        t1: End time (default 20).
        seeds: How many initialisations (default 16).
        scales: Of the initial weights (default 0.001 to 1).
        batches: Numbers of samples (default 10 30 100 300).
    """
    from skajax import study

    options = _given(t1=t1, seeds=seeds, scales=scales, batches=batches)
    found: list[Any] = []

    def find(network: Any, weights: Any, x: Any, y: Any) -> "xr.Dataset":
        found.append(study.intrinsic(network, x, **options))
        return found[0].table

    settings = configured(config, problem, method="adaptive")
    table = lambda data: study.intrinsic_table(found[0])
    return _of_problem("intrinsic", out, settings, find, table)


def separation(
    config: str | None = None,
    /,
    *,
    out: str,
    problem: Problem | None = None,
    times: Numbers = None,
    scales: Numbers = None,
    test: float | None = None,
) -> int:
    """How well each layer's decisions separate the classes, over time.

    For example:

        skajax study separation --out separation --data iris --widths 8 3
        skajax study separation --out mine --data table.csv --targets species

    Args:
        config: A TOML file with tables data and network.
        out: Folder to write into.
        times: When it is measured.
        scales: Factors on the initial weights of untrained layers.
        test: Share of the samples that the probe is tested on (default 0.3).
    """
    from skajax import study
    from skajax._checks import require

    options = _given(times=times, scales=scales, test=test)
    settings = configured(config, problem, method="adaptive")

    def find(network: Any, weights: Any, x: Any, y: Any) -> "xr.Dataset":
        require(y is not None, "y", "name the classes that are to be separated", "it was left out")
        return study.separation(network, weights, x, y, **options)

    return _of_problem("separation", out, settings, find, lambda data: f"{data}\n", "separation")


def synchronise(
    config: str | None = None,
    /,
    *,
    out: str,
    problem: Problem | None = None,
    t1: float,
    at: float | None = None,
) -> int:
    """The initial scale of each layer for which the flows of all layers peak at the same time.

    For example:

        skajax study synchronise --out together --data digits --widths 32 10 --t1 2

    Args:
        config: A TOML file with tables data and network.
        out: Folder to write into.
        t1: Time by which every flow has peaked.
        at: When the flows are to peak (default: the mean of when they do).
    """
    import numpy as np
    import xarray as xr

    from skajax import study

    def find(network: Any, weights: Any, x: Any, y: Any) -> xr.Dataset:
        found = study.synchronise(network, weights, x, t1, **_given(at=at))
        print(found)
        names = ("factors", "before", "after")
        layers = {name: ("layer", np.asarray(getattr(found, name))) for name in names}
        labels = {"layer": np.arange(1, len(found.factors) + 1)}
        return xr.Dataset(layers, labels, {"at": float(found.at), "said": str(found)})

    settings = configured(config, problem, method="adaptive")
    table = lambda data: f"{data.attrs['said']}\n\n{data.to_dataframe().to_string()}\n"
    return _of_problem("synchronise", out, settings, find, table)


def work_precision(
    config: str | None = None,
    /,
    *,
    out: str,
    problem: Problem | None = None,
    t1: Numbers = None,
    tolerances: Numbers = None,
    rounds: int | None = None,
) -> int:
    """What error each solver leaves, and what it costs: evaluations, seconds, compilation.

    For example:

        skajax study work-precision --out solvers --per-class 10 --t1 0.5 --rounds 1

    Args:
        config: A TOML file with tables data and network.
        out: Folder to write into.
        t1: End times (default 0.5 2 10).
        tolerances: Of the adaptive solvers.
        rounds: How often each run is timed; 0 is not at all (default 3).
    """
    from skajax import study

    options = _given(t1=t1, tolerances=tolerances, rounds=rounds)
    settings = configured(config, problem, method="adaptive")
    find = lambda network, weights, x, y: study.work_precision(network, weights, x, **options)
    return _of_problem("work_precision", out, settings, find, study.cost_table, "work_precision")


STUDIES = (
    architectures, rules, precision, schedules, families, tensor_net, net_control, invariance, intrinsic,
    separation, synchronise, work_precision,
)  # fmt: skip


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _whole(name: str, out: str, **options: Any) -> int:
    """A study with data of its own, which it keeps in the folder by itself."""
    from skajax import study

    _folder(name, out)
    getattr(study, name)(out, **_given(**options))
    return _say(name, out)


def _of_problem(
    name: str,
    out: str,
    settings: Any,
    find: Callable[..., "xr.Dataset"],
    table: Callable[["xr.Dataset"], str],
    figure: Figure | None = None,
) -> int:
    """A study of the user's data and network, kept in the folder."""
    from skajax.cli._config import precision

    folder = _folder(name, out, settings.files())
    with precision(settings.dtype):
        data = find(*settings.problem())
    return _keep(name, out, folder, data, table, figure)


def _keep(
    name: str,
    out: str,
    folder: Path,
    data: "xr.Dataset",
    table: Callable[["xr.Dataset"], str],
    figure: Figure | None = None,
) -> int:
    """What a study has found, into its folder: numbers, a table, and a figure if it has one."""
    from skajax._files import netcdf, put
    from skajax._version import versions

    data = data.assign_attrs(format=f"skajax {name} 1", **versions())
    put(netcdf(data), folder / f"{name}.nc")
    put(table(data).encode(), folder / f"{name}.md")
    if figure is not None:
        put(drawn(data, figure), folder / f"{name}.png")
    return _say(name, out)


def _folder(name: str, out: str, read: Mapping[str, Path] = MappingProxyType({})) -> Path:
    """The folder, where the study writes over nothing but its own."""
    from skajax._files import require_folder, require_own

    folder = require_folder("out", out)
    require_own("out", read, *(folder / f"{name}.{end}" for end in ("nc", "md", "png")))
    return folder


def _say(name: str, out: str) -> int:
    print(f"{out}: {name}; read {out}/{name}.md")
    return 0
