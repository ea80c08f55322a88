"""Step sizes that do not depend on the coordinates in which the weights are simulated."""

from typing import Any

import diffrax
import equinox as eqx

from skajax.reduction import RowSpace


class Lifted(diffrax.AbstractStepSizeController):
    """Another controller, shown the whole weights where their row space is what moves.

    Controllers scale each weight's error by that weight, which a rotation would change, and with it
    the steps. Lifting costs a few matrix products a step; then the steps are those of the whole run.
    """

    controller: diffrax.AbstractStepSizeController
    space: RowSpace

    def wrap(self, direction: Any) -> "Lifted":
        """Wrap what is shown the whole."""
        return eqx.tree_at(lambda c: c.controller, self, self.controller.wrap(direction))

    def init(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The first step is the other controller's."""
        return self.controller.init(*args, **kwargs)

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
        y0, y1 = self.space.lift(y0), self.space.lift(y1_candidate)
        if y_error is not None:
            y_error = self.space.lift_increment(y_error)
        return self.controller.adapt_step_size(
            t0, t1, y0, y1, args, y_error, error_order, controller_state
        )
