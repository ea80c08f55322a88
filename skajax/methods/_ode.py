"""Any initial value problem, inside a program: for right-hand sides that are not a network's flow."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax.numpy as jnp

from skajax._types import Scalar, TimeSeries

MAX_STEPS = 4096


def pi_controller(rtol: Any, atol: Any) -> diffrax.PIDController:
    """The controller of steps, unless another is given.

    While weights grow exponentially, the last error is a good guess at the next: with the proportional
    term steps are hardly ever rejected, and errors fall evenly with rtol.
    """
    return diffrax.PIDController(rtol=rtol, atol=atol, pcoeff=0.3, icoeff=0.4)


def solve_ode(
    velocity: Callable[[Any], Any],
    start: Any,
    times: TimeSeries,
    *,
    rate: Scalar,
    rtol: float,
    atol: float,
) -> Any:
    """y at increasing times, the first of them 0, along dy/dt = velocity(y): leaves get a first axis.

    By Tsit5, as :class:`skajax.Adaptive` has it: the same controller, and a first step for growth at
    ``rate`` at most. Differentiable forward (``jax.jvp``). Where more than 4096 steps would be
    needed, the rest is not finite.
    """
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: velocity(y)),
        diffrax.Tsit5(),
        t0=jnp.zeros_like(times[-1]),
        t1=times[-1],
        dt0=rtol**0.2 / rate,
        y0=start,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=pi_controller(rtol, atol),
        max_steps=MAX_STEPS,
        adjoint=diffrax.ForwardMode(),  # its loop is the plainest to compile
        throw=False,
    )
    return solution.ys
