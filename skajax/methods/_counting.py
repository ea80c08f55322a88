"""How often an explicit Runge-Kutta method evaluates the flow."""

from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax.numpy as jnp

from skajax._types import Array, Bool, Int
from skajax.methods._solvers import Controller, Solver


class Count(NamedTuple):
    """The counting controller's state."""

    inner: Any
    evaluations: Int[Array, ""]
    fresh: Bool[Array, ""]  # the next step has no last stage to take its first one from


class Counting(diffrax.AbstractStepSizeController[Any, Any]):
    """A step-size controller that counts the flow's evaluations, and leaves all else to another.

    A step of s stages evaluates s times, or s - 1 times where its first stage is the last one of the
    step before (FSAL): not so in the very first step, however often it is rejected, nor after a jump.
    """

    controller: Controller
    stages: int = eqx.field(static=True)
    fsal: bool = eqx.field(static=True)

    def wrap(self, direction: Any) -> "Counting":
        """Wrap what is counted for."""
        return Counting(self.controller.wrap(direction), self.stages, self.fsal)

    def init(self, *args: Any, **kwargs: Any) -> tuple[Any, Count]:
        """The first step is the other controller's."""
        first, inner = self.controller.init(*args, **kwargs)
        return first, Count(inner, jnp.asarray(0), jnp.asarray(True))

    def adapt_step_size(
        self,
        t0: Any,
        t1: Any,
        y0: Any,
        y1_candidate: Any,
        args: Any,
        y_error: Any,
        error_order: Any,
        controller_state: Count,
    ) -> tuple[Any, Any, Any, Any, Count, Any]:
        """Count the step that was just made."""
        inner, evaluations, fresh = controller_state
        keep, *times, jump, inner, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, inner
        )
        reused = jnp.asarray(self.fsal) & ~fresh
        evaluations = evaluations + self.stages - reused.astype(evaluations.dtype)
        count = Count(inner, evaluations, jnp.where(keep, jump, fresh))
        return keep, times[0], times[1], jump, count, result


def counted(controller: Controller, solver: Solver) -> Controller:
    """The controller, counting where the number of stages is known: explicit methods."""
    if isinstance(solver, diffrax.Euler):
        return Counting(controller, stages=1, fsal=False)
    tableau = getattr(solver, "tableau", None)
    if isinstance(solver, diffrax.AbstractERK) and isinstance(tableau, diffrax.ButcherTableau):
        return Counting(controller, stages=tableau.num_stages, fsal=tableau.fsal)
    return controller
