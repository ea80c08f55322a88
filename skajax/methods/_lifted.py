"""Step sizes that do not depend on the coordinates in which the weights are simulated."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

from skajax.reduction import RowSpace


class Lifted(diffrax.AbstractStepSizeController):
    """Another controller, shown the whole weights where their row space is what moves.

    Controllers scale each weight's error by that weight, which a rotation would change, and with it
    the steps. Lifting costs two matrix products a step; then the steps are those of the whole run.
    """

    controller: diffrax.AbstractStepSizeController
    space: RowSpace

    def wrap(self, direction: Any) -> "Lifted":
        """Wrap what is shown the whole."""
        return eqx.tree_at(lambda c: c.controller, self, self.controller.wrap(direction))

    def init(
        self,
        terms: Any,
        t0: Any,
        t1: Any,
        y0: Any,
        dt0: Any,
        args: Any,
        func: Any,
        error_order: Any,
    ) -> tuple[Any, tuple[Any, Any]]:
        """The first step is the other controller's; what is carried has the whole weights as well."""
        first, inner = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        return first, (inner, self.space.lift(y0))

    def adapt_step_size(
        self,
        t0: Any,
        t1: Any,
        y0: Any,
        y1_candidate: Any,
        args: Any,
        y_error: Any,
        error_order: Any,
        controller_state: Any,
    ) -> tuple[Any, Any, Any, Any, Any, Any]:
        """Weights and their error in the inputs' own coordinates."""
        inner, whole = controller_state
        y1 = self.space.lift(y1_candidate)
        if y_error is not None:
            y_error = self.space.lift_increment(y_error)
        keep, *times, jump, inner, result = self.controller.adapt_step_size(
            t0, t1, whole, y1, args, y_error, error_order, inner
        )
        whole = jax.tree.map(lambda a, b: jnp.where(keep, a, b), y1, whole)
        return keep, times[0], times[1], jump, (inner, whole), result
