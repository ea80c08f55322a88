"""Claims 13-17: what a zero of the Net means, the variational identities, and what entropy is."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from skajax import entropy as ent
from skajax._types import Array, Scalar
from skajax.landmarks import crossings
from skajax.study.claims._claim import Claim, Finding, Verdict, at, claim, graded, spline
from skajax.study.errors import order
from skajax.study.experiments import STEPS, Evidence, T
from skajax.study.words import band, number, per_layer, percent
from skajax.trajectory import Trajectory

_LN2 = math.log(2.0)
_DTS = np.array([T / K for K in STEPS])


@claim(
    13,
    "D = ∇_z H marks the extrema of the Net, and Net = 0 means ∫ D dz = H",
    place="section 2.4.1, eq. 29",
    says="D = ∇_z H is the condition for the Net's extrema; at its zeros ∫ D dz = H.",
    rule="(a) D - (±∇_z H) has a zero in z; (b) at the accumulated Net's zero crossings, ∫ D dz / H is 1"
    " within 1 %. Holds if both are true in both signs, depends on the sign convention if in one,"
    " else does not hold. A sign without crossings is judged by (a)",
)
def meaning_of_zero(evidence: Evidence) -> Finding:
    """The two conditions, in both signs."""
    z = np.linspace(-40, 40, 800_001)
    D = 1 / (1 + np.exp(-z))
    gradient = -z * D * (1 - D) / np.log(2)
    balance = {"equation": D - gradient, "published": D + gradient}
    roots = {name: z[:-1][np.diff(np.sign(value)) != 0] for name, value in balance.items()}
    fields = {"equation": "tensor_net_equation", "published": "tensor_net"}
    ratios = {
        name: [
            r
            for run in evidence.lanes(evidence.ensemble_reference)
            for r in _work_over_entropy(run, field)
        ]
        for name, field in fields.items()
    }
    true = {
        name: bool(roots[name].size) and bool(np.all(np.abs(np.array(ratios[name]) - 1) <= 0.01))
        for name in fields
    }
    share = [
        float(
            np.mean(
                [
                    np.mean(np.abs(d - np.asarray(ent.entropy_gradient(z))) < 0.01 * d)
                    for z, d in zip(Z, Ds, strict=True)
                ]
            )
        )
        for Z, Ds in zip(
            evidence.snapshots_continuous.Z, evidence.snapshots_continuous.D, strict=True
        )
    ]
    verdict = {2: Verdict.HOLDS, 1: Verdict.SIGN, 0: Verdict.FAILS}[sum(true.values())]

    def zeros(name: str) -> str:
        values = ratios[name]
        if not values:
            return "no crossing in any seed"
        return f"{band(values)} at {len(values)} crossings"

    root = f"z = {number(float(roots['equation'][0]), 4)}" if roots["equation"].size else "no z"
    return Finding(
        discrete="a condition on z alone, the same for every step size. Entries of D within 1 % of"
        f" ∇_z H along a run: at most {percent(max(share))}",
        continuous=f"equation's sign: D = ∇_z H at {root}; ∫ D dz / H at the Net's zeros: "
        + zeros("equation")
        + f". Published sign: D = -∇_z H at {roots['published'].size or 'no'} z; ∫ D dz / H: "
        + zeros("published"),
        verdict=verdict,
        why="The zero condition is the equation's own integral. With the published sign, D + ∇_z H is"
        " positive for every z, and a zero Net means ∫ D dz = -H. A layer's Net turns where the sum"
        " over its neurons vanishes, not where each of them does.",
        numbers={"roots": roots, "work_over_entropy": ratios, "share_balanced": share},
    )


def _work_over_entropy(run: Trajectory, field: str) -> list[float]:
    """∫ D dz / (H - H(0)) at the zero crossings of the accumulated Net."""
    found = []
    work = (np.asarray(run.tensor_net, float) + run.tensor_net_equation) / 2
    change = np.asarray(run.entropy, float) - run.entropy[0]
    for crossing in crossings(run, field):
        column = crossing.layer - 1
        found.append(
            float(
                np.interp(crossing.t, run.t, work[:, column])
                / np.interp(crossing.t, run.t, change[:, column])
            )
        )
    return found


@claim(
    14,
    "The Euler-Lagrange equation holds identically",
    place="section 2.5.2, eq. 16-25",
    says="SKA dynamics satisfy the Euler-Lagrange equation, 0 = 0: learning minimises the action.",
    rule="The residual d/dt ∂L/∂ż - ∂L/∂z, by automatic differentiation along 1000 random paths that"
    " are not SKA's, over the size of its terms. Holds if ≤ 1e-4 everywhere (float32); else not",
)
def euler_lagrange(evidence: Evidence) -> Finding:
    """The residual along arbitrary paths, and the action between fixed ends."""
    keys = jax.random.split(jax.random.key(14), 1000)
    sizes = {
        name: jax.jit(jax.vmap(lambda key, L=L: _residual(L, key)))(keys)
        for name, L in (("ska", ent.lagrangian), ("kinetic", lambda z, zdot: zdot**2 / 2))
    }
    residual, control = (float(jnp.max(r / s)) for r, s in sizes.values())
    actions = np.asarray(jax.jit(jax.vmap(_action_between_fixed_ends))(keys), float)
    exact = _LN2 * float(ent.entropy(jnp.asarray(2.0)) - ent.entropy(jnp.asarray(-1.0)))
    scatter = float(np.max(np.abs(actions - exact)))
    return Finding(
        discrete="an identity of functions of z and ż, with no step size in it",
        continuous=f"largest relative residual over 1000 arbitrary paths: {number(residual, 2)} (for"
        f" comparison, of a free particle's Lagrangian: {number(control, 2)}). Action over 1000 paths"
        f" from z = -1 to 2: {number(float(actions.mean()), 4)} with deviations of at most"
        f" {number(scatter, 2)}; ln 2 · (h(2) - h(-1)) = {number(exact, 4)}",
        verdict=Verdict.HOLDS if residual <= 1e-4 else Verdict.FAILS,
        why="L = ln 2 · dh/dt is a total derivative, so that every path is a solution and the action"
        " depends on the end points alone: the identity holds, and singles out no path, SKA's neither.",
        numbers={"residual": residual, "control": control, "action_scatter": scatter},
    )


def _path(key: Array) -> tuple[Array, Array]:
    """Random Fourier coefficients of a path z(t), 0 ≤ t ≤ 1."""
    amplitude, phase = jax.random.split(key)
    return 2 * jax.random.normal(amplitude, (4,)), 2 * jnp.pi * jax.random.uniform(phase, (4,))


def _residual(lagrangian: Callable[[Any, Any], Any], key: Array) -> tuple[Scalar, Scalar]:
    amplitude, phase = _path(key)
    z = lambda t: jnp.sum(amplitude * jnp.sin(jnp.arange(1.0, 5.0) * t + phase))
    velocity = jax.grad(z)
    momentum = lambda t: jax.grad(lagrangian, 1)(z(t), velocity(t))
    times = jnp.linspace(0.0, 1.0, 20)
    change = jax.vmap(jax.grad(momentum))(times)
    force = jax.vmap(lambda t: jax.grad(lagrangian, 0)(z(t), velocity(t)))(times)
    return jnp.max(jnp.abs(change - force)), jnp.max(jnp.abs(change) + jnp.abs(force))


def _action_between_fixed_ends(key: Array) -> Scalar:
    """∫ L dt over a random path from z = -1 at t = 0 to z = 2 at t = 1, by the trapezoidal rule."""
    amplitude, _ = _path(key)
    z = lambda t: -1 + 3 * t + jnp.sum(amplitude * jnp.sin(jnp.pi * jnp.arange(1.0, 5.0) * t))
    times = jnp.linspace(0.0, 1.0, 2001)
    values = jax.vmap(lambda t: ent.lagrangian(z(t), jax.grad(z)(t)))(times)
    return jnp.trapezoid(values, times)


@claim(
    15,
    "Net = ∫ (σ ż - L / ln 2) dt",
    place="section 2.5.3, eq. 26-28",
    says="The Tensor Net integrates the decision times the flow minus the Lagrangian.",
    rule="e is the largest relative error over the layers of that integral at T, against the Net's"
    " closed form, in each sign. Holds if e ≤ 1 % for the Net of the equation and that of the published"
    " figures; depends on the sign convention if for one; else not",
)
def net_is_integral(evidence: Evidence) -> Finding:
    """Eq. 28 along the continuous solution."""
    run = evidence.reference
    closed = {"equation": run.tensor_net_equation[-1], "published": run.tensor_net[-1]}
    integral = _integral(run, "tensor_net_rate_equation")
    errors = {
        name: float(np.max(np.abs(integral - net) / np.abs(net))) for name, net in closed.items()
    }
    sums = np.array(
        [
            _relative(
                np.asarray(evidence.published[K].tensor_net_equation[-1]),
                at(run, "tensor_net_equation", evidence.published[K].t[-1:])[0],
            )
            for K in STEPS
        ]
    ).max(axis=1)
    true = sum(error <= 0.01 for error in errors.values())
    return Finding(
        discrete="the sum of eq. 8 in the equation's sign, over the closed form at the same time: off by"
        f" {percent(sums[0])} at η = 0.02, {percent(sums[-1])} at 0.001 (order"
        f" {number(order(_DTS, sums))})",
        continuous=f"off by {number(errors['equation'], 2)} times the Net in the equation's sign; by"
        f" {number(errors['published'], 2)} times the Net as the figures show it",
        verdict={2: Verdict.HOLDS, 1: Verdict.SIGN, 0: Verdict.FAILS}[true],
        why="Eq. 28 is eq. 26 rewritten, and true. The figures show D + ∇_z H instead, whose integral"
        " is ∫ (σ ż + L / ln 2) dt: another function, by 2 (H - H(0)).",
        numbers={"error": errors, "discrete_error": sums},
    )


@claim(
    16,
    "Entropy is the action integral",
    place="section 2.5.1, eq. 12",
    says="The entropy of the system is H = (1/ln 2) ∫ L dt.",
    rule="e is the largest relative error over the layers of (1/ln 2) ∫ L dt at T, against the change of"
    " h(z), in the continuous limit. Holds if e ≤ 0.1 %; approximately up to 5 %; else not",
)
def entropy_is_action(evidence: Evidence) -> Finding:
    """Eq. 12 along the continuous solution, and as the sum that the rule makes."""
    run = evidence.reference
    change = np.asarray(run.entropy, float)[-1] - run.entropy[0]
    errors = _relative(_integral(run, "lagrangian") / _LN2, change)
    sums = []
    for K in STEPS:
        published = evidence.published[K]
        total = np.sum(published.lagrangian, axis=0, dtype=float) * T / K / _LN2
        sums.append(
            _relative(total, np.asarray(published.entropy, float)[-1] - published.entropy[0])
        )
    worst = np.array(sums).max(axis=1)
    e = float(errors.max())
    return Finding(
        discrete=f"the sum of L Δt / ln 2 misses the entropy's change by {percent(worst[0])} at η = 0.02,"
        f" {percent(worst[-1])} at 0.001 (order {number(order(_DTS, worst))})",
        continuous="relative error " + per_layer([number(error, 2) for error in errors]),
        verdict=graded(e, 1e-3, 0.05),
        margin=f"within {percent(e)}",
        why="L / ln 2 is the time derivative of h(z), so its integral is the change of h, on any path.",
        numbers={"error": errors, "discrete_error": np.array(sums)},
    )


@claim(
    17,
    "H is a change of Shannon's entropy",
    place="eq. 9 and 30",
    says="H = -(1/ln 2) ∫ z dD is an entropy of the decisions.",
    rule="e is the largest relative error over the layers of -(1/ln 2) ∫ z dD at T, against the change of"
    " -Σ D log₂ D + (1-D) log₂(1-D), computed from the decisions themselves, in the continuous limit."
    " Holds if e ≤ 0.1 %; approximately up to 5 %; else not",
)
def entropy_is_shannons(evidence: Evidence) -> Finding:
    """Eq. 9 against Shannon's formula, which knows nothing of z."""
    _, start = evidence.network.forward(evidence.weights, evidence.x)
    before = np.array([_shannon(D) for D in start])
    run = evidence.reference
    after = np.array([_shannon(D) for D in run.final.D])
    errors = _relative(_integral(run, "entropy_rate"), after - before)
    sums = []
    for K in STEPS:
        published = evidence.published[K]
        total = np.sum(published.entropy_rate, axis=0, dtype=float) * T / K
        sums.append(_relative(total, np.asarray(published.entropy, float)[-1] - before))
    worst = np.array(sums).max(axis=1)
    e = float(errors.max())
    return Finding(
        discrete=f"the sum of -(1/ln 2) z ΔD misses Shannon's change by {percent(worst[0])} at η = 0.02,"
        f" {percent(worst[-1])} at 0.001 (order {number(order(_DTS, worst))})",
        continuous="relative error " + per_layer([number(error, 2) for error in errors]),
        verdict=graded(e, 1e-3, 0.05),
        margin=f"within {percent(e)}",
        why="With D = σ(z), z is the log-odds of D: -(1/ln 2) z dD is the differential of Shannon's"
        " binary entropy. SKA makes decisions certain, whether or not they are right.",
        numbers={"error": errors, "discrete_error": np.array(sums)},
    )


def _integral(run: Trajectory, rate: str) -> np.ndarray:
    return spline(run, rate).integrate(0.0, float(run.t[-1]))


def _relative(value: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return np.abs(value - reference) / np.abs(reference)


def _shannon(D: Array | np.ndarray) -> float:
    # Decisions that float32 rounds to 0 or 1 are certain, and add nothing.
    p = np.clip(np.asarray(D, float), np.finfo(float).tiny, 1 - np.finfo(float).epsneg)
    return float(-np.sum(p * np.log2(p) + (1 - p) * np.log2(1 - p)))


CLAIMS: tuple[Claim, ...] = (
    meaning_of_zero,
    euler_lagrange,
    net_is_integral,
    entropy_is_action,
    entropy_is_shannons,
)
