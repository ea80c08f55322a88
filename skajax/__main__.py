"""Command line: ``python -m skajax reproduce | run | sweep | study | plot | info``."""

import sys
from typing import TYPE_CHECKING

from skajax import _interrupt
from skajax._progress import Progress, command_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from skajax import Trajectory


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run one command; the exit status is 0 where all that it ran came to its end.

    It is 1 where a run, or some lanes of a sweep, failed or were refused; 2 where nothing could be run
    or read, because an argument does not fit or no lane can run; 130 after an interrupt.
    """
    options = _parser().parse_args(arguments)
    _interrupt.when_stopped(f"skajax {options.name}: stopped; {options.stopped}")
    try:
        with command_line(quiet=options.quiet):
            with Progress(f"{options.name}: loading JAX"):
                _load()
            status = options.command(options)
            print(end="", flush=True)
            return status
    except BrokenPipeError:
        from skajax.cli._words import close_output

        return close_output()
    except BaseException as error:
        # An interrupt may come as another exception out of what it met.
        if isinstance(error, KeyboardInterrupt) or _interrupt.status():
            _interrupt.tell()
            return _interrupt.status() or 130
        if not isinstance(error, ValueError | OSError):
            raise
        from skajax.cli._words import as_typed

        typed = {name: f"--{name.replace('_', '-')}" for name in vars(options)} | options.typed
        print(f"skajax {options.name}: {as_typed(error, typed)}", file=sys.stderr)
        return 2


def _load() -> None:
    """Import the whole package, of which ``python -m skajax`` has but the beginning."""
    import importlib

    import skajax

    if not hasattr(skajax, "simulate"):
        importlib.reload(skajax)


def _parser() -> "argparse.ArgumentParser":
    import argparse

    from skajax.cli._plot import FIGURES
    from skajax.cli._study import STUDIES

    parser = argparse.ArgumentParser("skajax", description="Learning as a continuous-time process.")
    parser.add_argument(
        "--version", action="version", version=_version(), help="which skajax this is"
    )
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    reproduce = commands.add_parser(
        "reproduce", help="the paper, whole: every experiment, figure and claim"
    )
    reproduce.add_argument("--out", required=True, metavar="DIR", help="folder to write into")
    reproduce.add_argument("--quick", action="store_true", help="4 seeds instead of 16")
    reproduce.add_argument("--seeds", type=int, metavar="N", help="initialisations (default 16)")
    reproduce.set_defaults(command=_reproduce, typed={})

    run = commands.add_parser("run", help="one run on the paper's images, into a NetCDF file")
    run.add_argument("--out", required=True, metavar="FILE", help="NetCDF file to write")
    run.add_argument(
        "--method", choices=("euler", "pipelined", "published", "adaptive"), default="adaptive"
    )
    run.add_argument("--widths", type=int, nargs="+", default=[256, 128, 64, 10], metavar="N")
    run.add_argument("--scale", type=float, default=0.01, help="initial weights' deviation")
    run.add_argument("--t1", type=float, default=0.5, help="end time")
    run.add_argument(
        "--dt", type=float, default=0.01, help="step of euler, pipelined and published"
    )
    run.add_argument("--rtol", type=float, default=1e-4, help="tolerances of adaptive")
    run.add_argument("--atol", type=float, default=1e-6)
    run.add_argument("--seed", type=int, default=0)
    run.add_argument(
        "--per-class", type=int, default=100, metavar="N", help="images a class, 1-100"
    )
    run.set_defaults(command=_run, typed={"path": "--out"})

    sweep = commands.add_parser("sweep", help="many runs, as a TOML file says, into a folder")
    sweep.add_argument("config", metavar="CONFIG.toml")
    sweep.add_argument("--out", metavar="DIR", help="folder to write into, and to go on from")
    sweep.add_argument("--devices", choices=("all",), help="lanes over all devices, not only one")
    sweep.add_argument("--dry", action="store_true", help="only say what it would take")
    sweep.add_argument(
        "--distributed",
        action="store_true",
        help="this is one of several processes, that SLURM, MPI or a cluster of TPUs has started",
    )
    sweep.set_defaults(command=_sweep, typed={"config": "CONFIG.toml", "store": "--out"})

    study = commands.add_parser("study", help="one of the studies, into a folder")
    study.add_argument("study", metavar="NAME", choices=STUDIES, help=", ".join(STUDIES))
    study.add_argument("--out", required=True, metavar="DIR", help="folder to write into")
    study.add_argument("--quick", action="store_true", help="a short form of it")
    study.set_defaults(command=_study, typed={})

    plot = commands.add_parser("plot", help="a figure of a run, of several, or of a sweep")
    plot.add_argument("paths", nargs="+", metavar="PATH", help="files of runs, or a sweep's folder")
    plot.add_argument(
        "--out", required=True, metavar="FILE", help="figure to write: .png, .pdf, .svg"
    )
    plot.add_argument("--figure", choices=FIGURES, help="which; by default what fits the files")
    plot.add_argument(
        "--observable", default="flow_norm", metavar="NAME", help="of what (default flow_norm)"
    )
    plot.set_defaults(command=_plot, typed={"paths": "PATH", "path": "PATH", "store": "PATH"})

    info = commands.add_parser("info", help="what a run's file, or a sweep's folder, holds")
    info.add_argument("path", metavar="PATH")
    info.set_defaults(command=_info, typed={"path": "PATH", "store": "PATH"})
    for command in (reproduce, run, sweep, study):
        command.add_argument("--quiet", action="store_true", help="do not tell how far it is")
    parser.set_defaults(quiet=False, stopped="no file is unfinished")
    for command in (sweep, study):
        command.set_defaults(stopped="the same command goes on from here")
    return parser


def _version() -> str:
    from skajax._version import __version__

    return f"skajax {__version__}"


def _study(options: "argparse.Namespace") -> int:
    from skajax.cli._study import study

    return study(options.study, options.out, options.quick)


def _plot(options: "argparse.Namespace") -> int:
    from skajax.cli._plot import plot

    return plot(options.paths, options.out, options.figure, options.observable)


def _reproduce(options: "argparse.Namespace") -> int:
    import time
    from collections import Counter

    from skajax.study import reproduce

    start = time.perf_counter()
    result = reproduce(options.out, seeds=options.seeds, quick=options.quick)
    for claim, finding in result.judged:
        print(f"{claim.number:>3}  {finding.verdict:<30} {claim.title}")
    counts = Counter(str(finding.verdict) for _, finding in result.judged)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    print(
        f"{len(result.files)} files in {options.out}, after {time.perf_counter() - start:.0f} s;"
        f" read {options.out}/claims.md"
    )
    return 0


def _run(options: "argparse.Namespace") -> int:
    with Progress("run: preparing"):
        run = _run_of(options)
    run.save(options.out, attrs={"seed": options.seed, "per_class": options.per_class})
    print(f"{options.out}: {len(run.t)} records; {run.outcome}")
    return 0 if run.outcome.completed else 1


def _run_of(options: "argparse.Namespace") -> "Trajectory":
    import jax

    import skajax as ska
    from skajax._files import require_file

    require_file("path", options.out)
    x, _ = ska.data.mnist_subset(per_class=options.per_class)
    network = ska.mlp(options.widths, scale=options.scale)
    weights = network.init(jax.random.key(options.seed), x)
    method = {
        "euler": lambda: ska.Euler(options.dt),
        "pipelined": lambda: ska.Pipelined(options.dt),
        "published": lambda: ska.Published(options.dt),
        "adaptive": lambda: ska.Adaptive(rtol=options.rtol, atol=options.atol),
    }[options.method]()
    return ska.simulate(network, weights, x, method, t1=options.t1)


def _sweep(options: "argparse.Namespace") -> int:
    from skajax.cli._sweep import sweep

    return sweep(options.config, options.out, options.devices, options.dry, options.distributed)


def _info(options: "argparse.Namespace") -> int:
    from skajax.cli._info import info

    return info(options.path)


def command() -> int:
    """The executable ``skajax``: the command line, whose interrupts end in one line."""
    return _interrupt.guarded(main)


if __name__ == "__main__":
    sys.exit(command())
