"""Why runs end: one enumeration, and what each of its members tells a reader."""

import enum

import equinox as eqx
import jax.numpy as jnp

from skajax._checks import is_traced
from skajax._types import Array, Bool, Count, TimeSeries


class Code(enum.IntEnum):
    """Why a run ended: ``run.outcome.code``, and ``outcome_code`` of a sweep's lanes.

    >>> int(run.outcome.code) == ska.methods.Code.COMPLETED
    True
    """

    COMPLETED = 0
    """It reached its end."""
    DIVERGED = 1
    """A number overflowed."""
    MAX_STEPS = 2
    """An adaptive method's steps were used up."""
    STEP_TOO_SMALL = 3
    """The step-size controller asked for less than its least step."""
    SOLVER_FAILED = 4
    """An implicit step's equations were not solved."""
    STOPPED = 5
    """A stop rule held."""
    OUT_OF_MEMORY = 6
    """A dense run's weights fill the host's memory."""
    RUNNING = -1
    """It has not ended: no result has this."""
    REFUSED = -2
    """A lane whose arguments were refused; no run has this."""
    MISSING = -3
    """A lane that has not run, of a store; no run has this."""
    RAISED = -4
    """A lane in which an error was raised; no run has this."""


ENDED = (Code.COMPLETED, Code.STOPPED)
"""Of a run that came to where it was meant to."""


class Outcome(eqx.Module):
    """Why a run ended: a code, and the time, step and layer (1..L; 0: none) where it did.

    >>> str(run.outcome)
    'completed: reached t = 6'
    """

    code: Count
    t: TimeSeries
    step: Count
    layer: Count
    rule: Count = -1
    """Which of ``rules`` ended the run, from 0; -1: none."""
    rules: tuple[str, ...] = eqx.field(static=True, default=())
    note: str = eqx.field(static=True, default="")
    """What a completed run's end has to be explained by, if anything."""

    @property
    def stopped(self) -> Bool[Array, "*lanes"]:
        """Whether a stop rule ended the run."""
        return jnp.asarray(self.code == Code.STOPPED)

    @property
    def completed(self) -> Bool[Array, "*lanes"]:
        """Whether the run reached its end."""
        return jnp.asarray(self.code == Code.COMPLETED)

    def __str__(self) -> str:
        """What happened, where, and what to try; of one run, and outside of jit and vmap."""
        if is_traced(self.code) or jnp.ndim(self.code):
            return f"Outcome(code={self.code})"
        time = f"t = {float(self.t):.6g}"
        what = f"layer {int(self.layer)}" if int(self.layer) else "the flow"
        rule, rules = int(self.rule), " or ".join(self.rules)
        unfired = f"; {rules} never held. Try a later end, or a looser rule" if rules else ""
        return {
            Code.COMPLETED: f"completed: reached {time}{self.note}{unfired}",
            Code.STOPPED: f"stopped at {time} by {self.rules[rule] if self.rules else 'a rule'}"
            + (f", layer {int(self.layer)}" if int(self.layer) else ""),
            Code.OUT_OF_MEMORY: f"stopped at {time}: the weights of {int(self.step)} steps fill the memory"
            " that there is. Leave out dense=True, or loosen rtol and atol",
            Code.DIVERGED: f"diverged: {what} overflowed after step {int(self.step)}, {time}; what is"
            " returned is from before. Try a smaller dt, smaller weights or inputs, or float64",
            Code.MAX_STEPS: f"stopped at {time}: max_steps = {int(self.step)} steps were used up."
            " Try a larger max_steps, looser rtol and atol, or a solver for stiff problems",
            Code.STEP_TOO_SMALL: f"stopped at {time}, step {int(self.step)}: the step size fell below"
            " the controller's minimum. Try looser rtol and atol, or float64",
            Code.SOLVER_FAILED: f"stopped at {time}, step {int(self.step)}: the solver failed, as an"
            " implicit step's nonlinear solve may. Try a smaller dt0, or an explicit solver",
        }[Code(int(self.code))]
