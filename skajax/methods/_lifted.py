"""Step sizes that do not depend on coordinates, and that end on the inputs' jumps."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

from skajax.methods._solvers import Controller
from skajax.reduction import RowSpace


class Lifted(diffrax.AbstractStepSizeController[Any, Any]):
    """Another controller, shown the whole weights where their row space is what moves.

    Controllers scale each weight's error by that weight, which a rotation would change, and with it
    the steps. Lifting costs two matrix products a step; then the steps are those of the whole run.
    """

    controller: Controller
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


class Jumping(diffrax.AbstractStepSizeController[Any, Any]):
    """Another controller, whose steps end where the inputs jump.

    A step towards a jump ends a few roundings before it, so that all of its stages see the inputs from
    before; the next begins on it. After the jump the steps are as large as they were to be before one
    was cut short.
    """

    controller: Controller
    inputs: Any

    def wrap(self, direction: Any) -> "Jumping":
        """Wrap what chooses the sizes."""
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
        """The other controller's first step, or to the first jump."""
        end, inner = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        return self._until_jump(t0, end), (inner, end - t0)

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
        """The other controller's next step; from the jump, if the last one ended there."""
        inner, wanted = controller_state
        keep, start, end, jumped, inner, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, inner
        )
        jump = self.inputs.next_jump(t0)
        there = keep & (t1 >= _before(jump))
        size = end - start
        # One that was cut short says little about the next.
        size = jnp.where(there, jnp.maximum(size, wanted), size)
        start = jnp.where(there, jnp.maximum(jump, start), start)
        end = self._until_jump(start, start + size)
        return keep, start, end, jumped | there, (inner, size), result

    def _until_jump(self, start: Any, end: Any) -> Any:
        last = _before(self.inputs.next_jump(start))
        return jnp.where(end > last, last, end)


def _before(jump: Any) -> Any:
    return jump * (1 - 32 * jnp.finfo(jump.dtype).eps)
