"""``skajax run``: one run, into a file."""

from typing import Literal

from skajax.cli._problem import Problem, configured


def run(
    config: str | None = None,
    /,
    *,
    out: str,
    problem: Problem | None = None,
    energy: str | None = None,
    method: Literal["adaptive", "euler", "pipelined", "published"] | None = None,
    dt: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    t1: float | None = None,
    steps: int | None = None,
    checkpoint: str | None = None,
) -> int:
    """One run, into a NetCDF file.

    A TOML file has the tables of a sweep's without the grid; an option takes the place of its setting.

    For example:

        skajax run --out run.nc
        skajax run --out run.nc --data digits --widths 32 10 --seed 1 --t1 2
        skajax run --out run.nc --data table.csv --targets species --scaling range
        skajax run run.toml --out run.nc --method euler --dt 0.005

    Args:
        config: A TOML file.
        out: File to write, .nc.
        energy: What the weights descend: Entropy (default), CrossEntropy, SquaredError, Goodness,
            WeightDecay.
        method: What one step is; without a file, adaptive.
        dt: Step of euler, pipelined and published; without a file, 0.01.
        rtol: Relative tolerance of adaptive.
        atol: Absolute tolerance of adaptive.
        t1: End time; without a file, 0.5.
        steps: How many steps, in place of the end time.
        checkpoint: File to write now and then; if the command is killed, the same one goes on from it.
    """
    import skajax as ska
    from skajax import landmarks
    from skajax._files import located, require_file, require_own
    from skajax._progress import Progress, is_quiet
    from skajax.cli._config import precision

    path = require_file("out", out, ".nc")
    if config is None:
        method = method or "adaptive"
        dt = dt if dt is not None or method == "adaptive" else 0.01
        t1 = t1 if t1 is not None or steps is not None else 0.5
    options = {"energy": energy, "method": method, "dt": dt, "rtol": rtol, "atol": atol}
    settings = configured(config, problem, **options, t1=t1, steps=steps)
    read = settings.files() | ({} if checkpoint is None else {"--checkpoint": located(checkpoint)})
    require_own("out", read, path)
    with precision(settings.dtype):
        with Progress("run: preparing"):
            arguments = settings.arguments()
        found = ska.simulate(**arguments, checkpoint=checkpoint)
        found.save(out, attrs=settings.told())
    print(f"{out}: {len(found.t)} records; {found.outcome}")
    flows = found.t.ndim == 1 and len(found.t) > 0 and "flow_norm" in found.records
    peaks = landmarks.peaks(found) if flows and not is_quiet() else ()
    rising = any(peak.t > 0 for peak in peaks)
    if rising and not any(peak.interior for peak in peaks):
        print(
            f"no layer's flow has peaked by t = {float(found.t[-1]):.4g}: try a later --t1;"
            " skajax.timescales.predict foretells when"
        )
    return 0 if found.outcome.completed or found.outcome.stopped else 1
