"""Command line: ``python -m skajax reproduce | run | sweep | info``."""

import argparse
import sys
import time
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, or 2 where an argument does not fit."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (ValueError, OSError) as error:
        print(f"skajax {options.name}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("skajax", description="Learning as a continuous-time process.")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    reproduce = commands.add_parser(
        "reproduce", help="the paper, whole: every experiment, figure and claim"
    )
    reproduce.add_argument("--out", required=True, metavar="DIR", help="folder to write into")
    reproduce.add_argument("--quick", action="store_true", help="4 seeds instead of 16")
    reproduce.add_argument("--seeds", type=int, metavar="N", help="initialisations (default 16)")
    reproduce.set_defaults(command=_reproduce)

    run = commands.add_parser("run", help="one run on the paper's images, into a NetCDF file")
    run.add_argument("--out", required=True, metavar="FILE", help="NetCDF file to write")
    run.add_argument("--method", choices=("euler", "published", "adaptive"), default="adaptive")
    run.add_argument("--widths", type=int, nargs="+", default=[256, 128, 64, 10], metavar="N")
    run.add_argument("--scale", type=float, default=0.01, help="initial weights' deviation")
    run.add_argument("--t1", type=float, default=0.5, help="end time")
    run.add_argument("--dt", type=float, default=0.01, help="step of euler and published")
    run.add_argument("--rtol", type=float, default=1e-4, help="tolerances of adaptive")
    run.add_argument("--atol", type=float, default=1e-6)
    run.add_argument("--seed", type=int, default=0)
    run.add_argument(
        "--per-class", type=int, default=100, metavar="N", help="images a class, 1-100"
    )
    run.set_defaults(command=_run)

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
    sweep.set_defaults(command=_sweep)

    info = commands.add_parser("info", help="what a run's file, or a sweep's folder, holds")
    info.add_argument("path", metavar="PATH")
    info.set_defaults(command=_info)
    return parser


def _reproduce(options: argparse.Namespace) -> int:
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


def _run(options: argparse.Namespace) -> int:
    import jax

    import skajax as ska

    x, _ = ska.data.mnist_subset(per_class=options.per_class)
    network = ska.mlp(options.widths, scale=options.scale)
    weights = network.init(jax.random.key(options.seed), x)
    method = {
        "euler": lambda: ska.Euler(options.dt),
        "published": lambda: ska.Published(options.dt),
        "adaptive": lambda: ska.Adaptive(rtol=options.rtol, atol=options.atol),
    }[options.method]()
    run = ska.simulate(network, weights, x, method, t1=options.t1)
    run.save(options.out, attrs={"seed": options.seed, "per_class": options.per_class})
    print(f"{options.out}: {len(run.t)} records; {run.outcome}")
    return 0 if run.outcome.completed else 1


def _sweep(options: argparse.Namespace) -> int:
    from skajax.cli._sweep import sweep

    return sweep(options.config, options.out, options.devices, options.dry, options.distributed)


def _info(options: argparse.Namespace) -> int:
    from skajax.cli._info import info

    return info(options.path)


if __name__ == "__main__":
    sys.exit(main())
