"""Which of Diffrax's solvers and step-size controllers go together, and with a flow dW/dt = F(W)."""

import typing
from typing import Any, TypeAlias

import diffrax
import optimistix

from skajax._checks import require

Solver: TypeAlias = diffrax.AbstractSolver[Any]
Controller: TypeAlias = diffrax.AbstractStepSizeController[Any, Any]

FROM_CONTROLLER = diffrax.with_stepsize_controller_tols(optimistix.Chord)().rtol
"""What a root finder holds for a tolerance that it is to take from the step-size controller."""


def check_solver(solver: Any, controller: Any) -> None:
    """Raise ValueError where they cannot integrate the flow, with what can be used instead."""
    require(
        isinstance(solver, diffrax.AbstractSolver),
        "solver",
        "be a Diffrax solver, such as diffrax.Tsit5()",
        lambda: f"it was {solver!r}",
    )
    name = type(solver).__name__
    # Of what a solver integrates: AbstractTerm is any, MultiTerm[...] a sum that it takes apart, a tuple one
    # equation for each of several states.
    terms = typing.get_origin(solver.term_structure) or solver.term_structure
    require(
        isinstance(terms, type) and issubclass(diffrax.ODETerm, terms),
        "solver",
        "be for one ordinary differential equation, such as diffrax.Tsit5(), or diffrax.Kvaerno5() if"
        " it is stiff",
        f"{name} is for several terms (implicit and explicit, or stochastic) or several equations",
    )
    require(
        isinstance(controller, diffrax.AbstractStepSizeController),
        "controller",
        "be a Diffrax step-size controller, such as diffrax.PIDController(rtol, atol)",
        lambda: f"it was {controller!r}",
    )
    adapts = isinstance(controller, diffrax.AbstractAdaptiveStepSizeController)
    require(
        not adapts or isinstance(solver, diffrax.AbstractAdaptiveSolver),
        "controller",
        "be diffrax.ConstantStepSize(), with a dt0, for a solver that estimates no error",
        f"it was {type(controller).__name__} for {name}",
    )
    inner = solver
    while isinstance(inner, diffrax.AbstractWrappedSolver):
        inner = inner.solver
    require(
        inner is solver or not isinstance(inner, diffrax.AbstractImplicitSolver),
        "solver",
        f"be diffrax.{type(inner).__name__} itself, without another around it, or wrapped an explicit one",
        f"it was {name} around it, whose root finder Diffrax does not find",
    )
    finder = getattr(inner, "root_finder", None)
    open_ = any(getattr(finder, part, None) is FROM_CONTROLLER for part in ("rtol", "atol", "norm"))
    # Diffrax hands them on from an adaptive controller to a solver that is not wrapped.
    given = inner is solver and all(hasattr(controller, part) for part in ("rtol", "atol", "norm"))
    require(
        not open_ or given,
        "solver",
        "have a root finder with tolerances of its own where steps are constant or the solver is wrapped,"
        f" such as diffrax.{type(inner).__name__}(root_finder=diffrax.VeryChord(rtol=1e-6, atol=1e-6))",
        f"that of {type(inner).__name__} takes them from a controller, and"
        f" {type(controller).__name__} with {name} gives it none",
    )
