"""Every solver that Diffrax has integrates the flow, or is refused with what to use instead."""

import inspect

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
import reference as ref

import skajax as ska

CONSTANT = {"controller": diffrax.ConstantStepSize(), "dt0": 0.02}
FINDER = diffrax.VeryChord(rtol=1e-6, atol=1e-6)


def solvers():
    """Of every class that can be made, one, wrapped ones among them."""
    alike = ("Kvaerno3", "Kvaerno4")  # to Kvaerno5
    for name, kind in vars(diffrax).items():
        if inspect.isclass(kind) and issubclass(kind, diffrax.AbstractSolver):
            if issubclass(kind, diffrax.AbstractWrappedSolver) and not inspect.isabstract(kind):
                for inner in (
                    diffrax.Euler(),
                    diffrax.KenCarp4(),
                    diffrax.ImplicitEuler(),
                    diffrax.ImplicitEuler(root_finder=FINDER),
                ):
                    yield pytest.param(kind(inner), id=f"{name}({type(inner).__name__})")
                continue
            try:
                solver = kind()
            except TypeError:  # an abstract one
                continue
            yield pytest.param(solver, id=name, marks=[pytest.mark.thorough] * (name in alike))
    yield pytest.param(diffrax.Kvaerno3(root_finder=FINDER), id="Kvaerno3 with tolerances")


def made(solver, **steps):
    """A method, or None where the solver is refused with what to use instead."""
    try:
        return ska.Adaptive(solver, **steps)
    except ValueError as error:
        message = str(error)
        assert message.startswith(("Argument solver must", "Argument controller must"))
        assert type(solver).__name__ in message
        assert "diffrax." in message
        return None


@pytest.mark.parametrize("solver", list(solvers()))
def test_a_solver_integrates_or_is_refused(solver):
    network, weights, x = ref.UNIT.arrays(jnp.float32)
    adaptive, constant = made(solver), made(solver, **CONSTANT)
    method = adaptive or constant
    if method is None:
        return
    solve = lambda w: (
        ska.simulate(network, w, x, method, 0.2, save_at="end", observe=()).final.weights
    )
    if isinstance(solver, diffrax.AbstractImplicitSolver):
        # Whatever does not fit shows where a program is made; these take long to compile.
        jax.eval_shape(solve, weights)
        return
    want = ref.exact(*ref.UNIT.numpy(), 0.2)
    np.testing.assert_allclose(
        ref.flat(ref.to_numpy(jax.jit(solve)(weights))), ref.flat(want), rtol=2e-3
    )


REFUSED = {
    "Sil3": (diffrax.Sil3(), {}, "solver must be for one ordinary"),
    "KenCarp3": (diffrax.KenCarp3(), {}, "diffrax.Kvaerno5"),
    "SemiImplicitEuler": (diffrax.SemiImplicitEuler(), CONSTANT, "several equations"),
    "ItoMilstein": (diffrax.ItoMilstein(), CONSTANT, "stochastic"),
    "ImplicitEuler": (diffrax.ImplicitEuler(), CONSTANT, "root_finder=diffrax.VeryChord"),
    "LeapfrogMidpoint": (diffrax.LeapfrogMidpoint(), {}, "controller must be diffrax.Constant"),
    "of steps given": (
        diffrax.Kvaerno3(),
        {"controller": diffrax.StepTo(ts=jnp.array([0.0, 0.1, 0.2]))},
        "StepTo with Kvaerno3 gives it none",
    ),
    "own open finder": (
        diffrax.Kvaerno3(diffrax.with_stepsize_controller_tols(optimistix.Newton)()),
        CONSTANT,
        "tolerances of its own",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_why_a_solver_is_refused(name):
    solver, steps, reason = REFUSED[name]
    with pytest.raises(ValueError) as error:
        ska.Adaptive(solver, **steps)
    assert reason in str(error.value)


def test_an_implicit_solver_takes_constant_steps_with_tolerances_of_its_own():
    network, weights, x = ref.UNIT.arrays(jnp.float32)
    method = ska.Adaptive(diffrax.ImplicitEuler(root_finder=FINDER), **CONSTANT)
    run = ska.simulate(network, weights, x, method, 0.2, save_at="end", observe=())
    got, want = ref.to_numpy(run.final.weights), ref.exact(*ref.UNIT.numpy(), 0.2)
    np.testing.assert_allclose(ref.flat(got), ref.flat(want), rtol=2e-3)
