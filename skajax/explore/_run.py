"""A run that grows while it is looked at, in threads of its own, and what theory foresees of it."""

import dataclasses
import threading
import time
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from skajax._messages import SkajaxWarning
from skajax._simulate import extend, simulate
from skajax._types import Float
from skajax.explore._settings import Problem, Settings
from skajax.timescales import growth, predict
from skajax.trajectory import Trajectory

FIRST = 1 / 40
"""What part of the whole run is made at first, ..."""
MOST = 1 / 8
"""... and at most between two looks at it, ..."""
LOOK = 0.4
"""... which are about so many seconds apart."""


def growing(problem: Problem) -> Iterator[Trajectory]:
    """The run, longer each time; the last one has the bits of the script's.

    ``simulate`` makes the first records, and ``extend`` the others. A run that fails is the last.

    >>> problem = ska.explore.Settings(data="iris", widths=(4, 3)).problem()
    >>> lengths = [len(run.t) for run in ska.explore.growing(problem)]  # doctest: +SKIP
    """
    total = problem.settings.records
    size = min(max(2, round(FIRST * total)), total)
    network, weights, inputs, method, energy = problem[1:6]
    run = simulate(network, weights, inputs, method, energy=energy, **problem.arguments(size))
    yield run
    while len(run.t) < total and bool(run.outcome.completed):
        size = min(size, total - len(run.t))
        began = time.monotonic()
        run = extend(run, **problem.arguments(len(run.t) + size, run))
        took = time.monotonic() - began
        size = max(1, 2 * size if took < LOOK / 2 else size // 2 if took > 2 * LOOK else size)
        size = min(size, max(1, round(MOST * total)))
        yield run


class Theory(NamedTuple):
    """What is foreseen of each layer; NaN where nothing is."""

    peak: Float[np.ndarray, " layers"]
    """When its flow will peak, by :func:`skajax.timescales.predict`."""
    growth: Float[np.ndarray, " layers"]
    """1/λ, the time in which its leading mode grows by a factor e at the start; negative where it decays."""


def foresee(problem: Problem) -> Theory:
    """Predicted times of dense layers under their own entropy; of all others, growth times alone.

    >>> problem = ska.explore.Settings(data="iris", widths=(4, 3)).problem()
    >>> theory = ska.explore.foresee(problem)  # doctest: +SKIP
    """
    settings, network, weights, inputs, _, energy, _ = problem
    if settings.predicts:
        found = predict(network, weights, inputs)
        peak = np.where(found.inside, found.peak, np.nan)
        return Theory(np.asarray(peak, float), 1 / np.asarray(found.rates, float))
    rates = growth(network, weights, inputs, energy, count=1).rates
    times = [1 / float(rate[0]) if len(rate) else np.nan for rate in rates]
    return Theory(np.full(len(times), np.nan), np.asarray(times))


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """How far a run is."""

    settings: Settings
    state: str = "compiling"
    """Or "running", "done", "cancelled", "failed"."""
    run: Trajectory | None = None
    theory: Theory | None = None
    words: str = ""
    """What is to be said of it beside that."""

    @property
    def going(self) -> bool:
        """Whether there is more to come of the run."""
        return self.state in ("compiling", "running")

    def code(self, fourth: str = "entropy_rate") -> str:
        """The script that makes what is there of a cancelled run, or all of it."""
        records = None
        if self.state == "cancelled" and self.run is not None:
            records = len(self.run.t)
        return self.settings.code(records, fourth)


class Runner:
    """One run in a thread, and what is foreseen of it in another: ``seen`` is how far they are.

    >>> runner = ska.explore.Runner(ska.explore.Settings())  # doctest: +SKIP
    """

    def __init__(self, settings: Settings) -> None:
        """Nothing runs yet."""
        # Python waits for these threads at its end: XLA would abort the process if it still compiled.
        self.seen = Seen(settings)
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=work, name=f"skajax explore, {what}")
            for what, work in (("run", self._simulate), ("theory", self._foresee))
        ]

    def start(self) -> "Runner":
        """Start both."""
        for thread in self._threads:
            thread.start()
        return self

    def cancel(self) -> None:
        """End the run with what there is of it; what is being compiled or computed now comes to nothing."""
        with self._lock:
            if self.seen.going:
                self.seen = dataclasses.replace(self.seen, state="cancelled")

    @property
    def busy(self) -> bool:
        """Whether anything is still to come: of the run, or of what is foreseen."""
        return self.seen.going or (self.seen.theory is None and self._threads[1].is_alive())

    def wait(self, seconds: float | None = None) -> Seen:
        """What there is when both threads have ended."""
        for thread in self._threads:
            thread.join(seconds)
        return self.seen

    def _tell(self, **news: object) -> bool:
        """Take in what is new of a run that goes on; False where it does not, or where Python ends."""
        with self._lock:
            if self.seen.going:
                self.seen = dataclasses.replace(self.seen, **news)  # pyright: ignore[reportArgumentType]
            return self.seen.going and threading.main_thread().is_alive()

    def _simulate(self) -> None:
        try:
            problem = self.seen.settings.problem()
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always", SkajaxWarning)
                runs = growing(problem)
                first = next(runs)
            words = " ".join(str(w.message) for w in said if issubclass(w.category, SkajaxWarning))
            goes_on = self._tell(state="running", run=first, words=words)
            while goes_on and (run := next(runs, None)) is not None:
                goes_on = self._tell(run=run)
            run = self.seen.run
            if goes_on and run is not None and not bool(run.outcome.completed):
                self._tell(state="failed", words=str(run.outcome))
            self._tell(state="done")
        except Exception as error:  # whatever it is, the page says so, and goes on
            self._tell(state="failed", words=f"{type(error).__name__}: {error}")

    def _foresee(self) -> None:
        try:
            theory = foresee(self.seen.settings.problem())
        except ValueError:  # there is none of this energy, or of these layers
            return
        with self._lock:
            self.seen = dataclasses.replace(self.seen, theory=theory)
