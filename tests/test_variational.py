"""The paper's variational analysis, equation by equation, on paths that no dynamics made."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import LN2
from scipy.optimize import brentq

import skajax as ska
from skajax import entropy as ent
from skajax import variational as var

EXACT = 1e-10
WAVES = 3


@pytest.fixture(autouse=True)
def double(x64):
    """Double precision for all tests of this file."""


# Random networks on random paths: W(t) = W + Σ_k A_k sin(k t + φ_k), and Z(t) what it makes of x.

problems = st.builds(
    lambda scale, seed: ref.Problem("", 2, (4, 3), 6, scale, seed),
    st.floats(0.01, 2),
    st.integers(0, 2**16),
)


def each_problem(test):
    return settings(max_examples=10)(given(problem=problems)(test))


def waves(problem):
    """Amplitudes and phases of every weight's path."""
    weights, _ = problem.numpy()
    rng = np.random.default_rng(problem.seed + 1)
    draw = lambda a: rng.normal(size=(WAVES, *a.shape)) * problem.scale
    amplitudes = ref.to_skajax([(draw(W), draw(b)) for W, b in weights])
    return amplitudes, jnp.asarray(rng.uniform(0, 2 * np.pi, size=WAVES))


def weight_path(weights, amplitudes, phases):
    k = jnp.arange(1.0, WAVES + 1)
    return lambda t: jax.tree.map(
        lambda w, a: w + jnp.tensordot(jnp.sin(k * t + phases), a, 1), weights, amplitudes
    )


@functools.partial(jax.jit, static_argnums=0)
def measure(network, weights, amplitudes, phases, x, t):
    """All that the equations speak of, at one time of a path of all layers' Z, by skajax."""
    motion = weight_path(weights, amplitudes, phases)
    path = lambda t: network.forward(motion(t), x)[0]
    Z, Zdot = jax.jvp(path, (t,), (1.0,))
    net = var.tensor_net("equation")
    force = lambda L: jax.grad(lambda z: L(z, Zdot, t))(Z)
    p = lambda t: var.momentum(var.lagrangian, *jax.jvp(path, (t,), (1.0,)), t)
    decisions = lambda t: jax.tree.map(ent.decision, path(t))
    return {
        "Z": Z,
        "Zdot": Zdot,
        "Ddot": jax.jvp(decisions, (t,), (1.0,))[1],
        "L": var.lagrangian(Z, Zdot, t),
        "net": net(Z, Zdot, t),
        "momentum": p(t),
        "force": force(var.lagrangian),
        "change": jax.jvp(p, (t,), (1.0,))[1],
        "residual": var.euler_lagrange(var.lagrangian, path, t),
        "net_residual": var.euler_lagrange(net, path, t),
        "published_residual": var.euler_lagrange(var.tensor_net("published"), path, t),
        "net_force": force(net),
        "hamiltonian": var.hamiltonian(var.lagrangian, Z, Zdot, t),
        "other_residual": var.euler_lagrange(lambda z, zdot, t: _kinetic(zdot), path, t),
        "Zddot": jax.jvp(lambda t: jax.jvp(path, (t,), (1.0,))[1], (t,), (1.0,))[1],
    }


def _kinetic(zdot):
    return sum(jnp.sum(v**2) for v in zdot) / 2


def measured(problem, t=0.7):
    network, weights, x = problem.arrays()
    found = measure(network, weights, *waves(problem), x, jnp.asarray(t))
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    return {name: flat(tree) for name, tree in found.items()}


def assert_exact(got, want, size=None):
    """To 1e-10 of the largest size."""
    size = np.max(np.abs(want)) if size is None else size
    np.testing.assert_allclose(got, want, rtol=0, atol=EXACT * max(float(size), 1e-30))


@functools.partial(jax.jit, static_argnums=(0, 1))
def integrals(network, sign, weights, amplitudes, phases, x, t0, t1):
    """Actions along the path, and the closed forms at its ends."""
    motion = weight_path(weights, amplitudes, phases)
    path = lambda t: network.forward(motion(t), x)[0]
    total = lambda function, t: sum(jnp.sum(function(z)) for z in path(t))
    work = lambda z, zdot, t: sum(jnp.sum(ent.decision(a) * b) for a, b in zip(z, zdot))  # noqa: B905
    z_Ddot = lambda z, zdot, t: (
        -sum(
            jnp.sum(a * jax.jvp(jax.nn.sigmoid, (a,), (b,))[1])
            for a, b in zip(z, zdot)  # noqa: B905
        )
    )
    size = lambda z, zdot, t: sum(jnp.sum(jnp.abs(b)) for b in zdot)
    potential = functools.partial(ent.tensor_net_potential, sign=sign)
    integral = lambda L: var.action(L, path, t0, t1, panels=64)
    return {
        "action": integral(var.lagrangian),
        "z Ddot": integral(z_Ddot),
        "net": integral(var.tensor_net(sign)),
        "work": integral(work),
        "size": integral(size),
        "entropy": total(ent.entropy, t1) - total(ent.entropy, t0),
        "potential": total(potential, t1) - total(potential, t0),
    }


def integrated(problem, sign="equation"):
    network, weights, x = problem.arrays()
    ends = jnp.asarray(0.0), jnp.asarray(1.0)
    found = integrals(network, sign, weights, *waves(problem), x, *ends)
    return {name: float(value) for name, value in found.items()}


# Section 2.5.1.


entropies = jax.jit(ent.entropy)
slope_of_slope = jax.jit(jax.vmap(jax.grad(ent.decision_derivative)))


@given(z0=st.floats(-6, 6), z1=st.floats(-6, 6))
def test_equation_9_entropy_is_the_integral_of_knowledge_over_decisions(z0, z1):
    # In the variable D itself, where z = ln D / (1 - D): nothing of time or of a path.
    node, gauss = np.polynomial.legendre.leggauss(400)
    D0, D1 = 1 / (1 + np.exp(-z0)), 1 / (1 + np.exp(-z1))
    D = D0 + (D1 - D0) * (node + 1) / 2
    H = -np.sum(gauss * (np.log(D) - np.log1p(-D))) * (D1 - D0) / 2 / LN2
    got = entropies(jnp.array([z0, z1]))
    assert_exact(float(got[1] - got[0]), H, 1)


@each_problem
def test_equation_10_entropy_is_an_integral_over_time(problem):
    found = integrated(problem)
    assert_exact(found["z Ddot"] / LN2, found["entropy"], found["size"])


@each_problem
def test_equation_11_lagrangian_of_knowledge_and_decisions(problem):
    m = measured(problem)
    assert_exact(m["L"], -np.sum(m["Z"] * m["Ddot"]), np.sum(np.abs(m["Z"] * m["Ddot"])))


@each_problem
def test_equation_12_entropy_is_the_action(problem):
    found = integrated(problem)
    assert_exact(found["action"] / LN2, found["entropy"], found["size"])


@each_problem
def test_equation_13_rate_of_the_decisions(problem):
    m = measured(problem)
    S = 1 / (1 + np.exp(-m["Z"]))
    assert_exact(m["Ddot"], S * (1 - S) * m["Zdot"])


@each_problem
def test_equations_14_and_15_lagrangian_of_knowledge_and_its_rate(problem):
    m = measured(problem)
    S = 1 / (1 + np.exp(-m["Z"]))
    terms = -m["Z"] * S * (1 - S) * m["Zdot"]
    assert_exact(m["L"], terms.sum(), np.abs(terms).sum())


# Section 2.5.2.


@each_problem
def test_equation_16_euler_lagrange_residual_is_what_it_says(problem):
    # d/dt (∂L/∂ż) - ∂L/∂z, put together from its parts; of ½ ż² it is z̈, and that is not 0.
    m = measured(problem)
    size = np.max(np.abs(m["force"]))
    assert_exact(m["residual"], m["change"] - m["force"], size)
    assert_exact(m["other_residual"], m["Zddot"])
    assert np.max(np.abs(m["other_residual"])) > 1e-6 * np.max(np.abs(m["Zdot"]))


@each_problem
def test_equation_17_momentum(problem):
    m = measured(problem)
    S = 1 / (1 + np.exp(-m["Z"]))
    assert_exact(m["momentum"], -m["Z"] * S * (1 - S))


@each_problem
def test_equations_18_and_20_force(problem):
    m = measured(problem)
    S = 1 / (1 + np.exp(-m["Z"]))
    slope = S * (1 - S) * (1 - 2 * S)
    d_slope = np.asarray(slope_of_slope(jnp.asarray(m["Z"])))
    assert_exact(m["force"], -m["Zdot"] * (S * (1 - S) + m["Z"] * d_slope))  # 18
    assert_exact(m["force"], -m["Zdot"] * (S * (1 - S) + m["Z"] * slope))  # 20


@given(z=st.floats(-30, 30))
def test_equation_19_slope_of_the_slope(z):
    S = 1 / (1 + np.exp(-z))
    got = float(slope_of_slope(jnp.array([z]))[0])
    assert_exact(got, ref.slope(z) * (1 - S) - S * ref.slope(z), 1)
    assert_exact(got, S * (1 - S) * (1 - 2 * S), 1)


@each_problem
def test_equations_21_and_22_rate_of_the_momentum(problem):
    m = measured(problem)
    S = 1 / (1 + np.exp(-m["Z"]))
    slope = S * (1 - S) * (1 - 2 * S)
    slope_dot = m["Ddot"] * (1 - 2 * S)  # d/dt S (1 - S), by Ḋ
    assert_exact(m["change"], -(m["Zdot"] * S * (1 - S) + m["Z"] * slope_dot))  # 21
    assert_exact(m["change"], -(m["Zdot"] * S * (1 - S) + m["Z"] * slope * m["Zdot"]))  # 22


@each_problem
def test_equations_23_to_25_the_residual_vanishes_on_any_path(problem):
    m = measured(problem)
    assert np.max(np.abs(m["change"])) > 0
    assert_exact(m["change"], m["force"])  # 23-24: the terms are the same
    assert_exact(m["residual"], 0, np.max(np.abs(m["force"])))  # 25


@each_problem
def test_the_hamiltonian_is_zero(problem):
    m = measured(problem)
    assert_exact(m["hamiltonian"], 0, np.sum(np.abs(m["Z"] * m["Ddot"])))


# Section 2.5.3.


@each_problem
def test_equation_26_the_net_is_a_line_integral(problem):
    # ∫ (D - ∇_z H) dz along the straight line, against the action on the path, and the closed form.
    found = integrated(problem)
    weights, x = problem.numpy()
    amplitudes, phases = waves(problem)
    ends = []
    for t in (0.0, 1.0):
        sines = np.sin(np.arange(1, WAVES + 1) * t + phases)
        moved = [
            (W + np.tensordot(sines, A.W, 1), b + np.tensordot(sines, A.b, 1))
            for (W, b), A in zip(weights, amplitudes, strict=True)
        ]
        ends.append(np.concatenate([z.ravel() for z in ref.forward(moved, x)[0]]))
    node, gauss = np.polynomial.legendre.leggauss(400)
    step = ends[1] - ends[0]
    z = ends[0] + step * (node[:, None] + 1) / 2
    integrand = 1 / (1 + np.exp(-z)) + z * ref.slope(z) / LN2
    line = np.sum(gauss[:, None] * integrand * step) / 2
    assert_exact(found["potential"], line, found["size"])
    assert_exact(found["net"], line, found["size"])


@each_problem
def test_equation_27_the_net_is_an_integral_over_time(problem):
    m, found = measured(problem), integrated(problem)
    terms = (1 / (1 + np.exp(-m["Z"])) + m["Z"] * ref.slope(m["Z"]) / LN2) * m["Zdot"]
    assert_exact(m["net"], terms.sum(), np.abs(terms).sum())
    assert_exact(found["net"], found["potential"], found["size"])


@each_problem
def test_equation_28_the_net_is_work_less_the_action(problem):
    found = integrated(problem)
    assert_exact(found["net"], found["work"] - found["action"] / LN2, found["size"])


@each_problem
def test_after_equation_28_the_nets_residual_vanishes_on_any_path(problem):
    m = measured(problem)
    size = np.max(np.abs(m["net_force"]))
    assert_exact(m["net_residual"], 0, size)
    assert_exact(m["published_residual"], 0, size)


def falling_and_rising(z):
    """∫ D dz - H from 0 on, in NumPy: lowest where D + z D' / ln 2 = 0."""
    return np.logaddexp(0, z) - LN2 - (ref.shannon(z) - 1)


@jax.jit
def along_an_arc(z0, z1):
    path = lambda t: z0 + (z1 - z0) * t + jnp.sin(np.pi * t)
    work = lambda z, zdot, t: ent.decision(z) * zdot
    return [var.action(L, path, 0.0, 1.0) for L in (var.tensor_net(), work, var.lagrangian)]


@given(z0=st.floats(-0.5, 6))
def test_equation_29_where_the_net_vanishes_work_is_entropy(z0):
    # The equation's potential falls and then rises: a path that ends as high as it began has Net 0.
    height = lambda z: falling_and_rising(z) - falling_and_rising(z0)
    lowest = brentq(lambda z: 1 / (1 + np.exp(-z)) + z * ref.slope(z) / LN2, -5, 5)
    assert lowest < z0
    if height(-40.0) > 0:
        z1 = brentq(height, -40, lowest, xtol=1e-14)
        net, work, action = map(float, along_an_arc(z0, z1))
        assert_exact(net, 0, 10)
        assert_exact(work, action / LN2, 10)
        assert_exact(action / LN2, ref.shannon(z1) - ref.shannon(z0), 10)
    else:  # it is higher than the other side ever is
        net, *_ = map(float, along_an_arc(z0, -40.0))
        assert net < 0


@each_problem
def test_the_published_net_is_the_potentials_change_too(problem):
    found = integrated(problem, "published")
    assert_exact(found["net"], found["potential"], found["size"])


# Lagrangians that are not null.

OSCILLATOR = {
    "free": (lambda z, zdot, t: zdot**2 / 2, lambda z, a, t: a),
    "oscillator": (lambda z, zdot, t: (zdot**2 - 4 * z**2) / 2, lambda z, a, t: a + 4 * z),
    "quartic": (lambda z, zdot, t: zdot**2 / 2 - z**4, lambda z, a, t: a + 4 * z**3),
}


@pytest.mark.parametrize("name", OSCILLATOR)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_the_residual_of_a_known_system(name, shape):
    L, known = OSCILLATOR[name]
    rng = np.random.default_rng(0)
    amplitude, phase = rng.normal(size=shape), rng.normal(size=shape)
    path = lambda t: amplitude * jnp.sin(2 * t + phase)
    t = 0.4
    z, acceleration = path(t), -4 * path(t)
    got = jax.jit(lambda t: var.euler_lagrange(L, path, t))(t)
    assert got.shape == shape
    want = known(z, acceleration, t)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    if name == "oscillator":  # this path is its own motion
        np.testing.assert_allclose(got, 0, atol=1e-12)
    else:
        assert np.max(np.abs(got)) > 0.1


def test_an_explicit_time_counts():
    # d/dt (t² ż) = 2 t ż + t² z̈.
    path = lambda t: jnp.array([t**3, jnp.cos(t)])
    t = 1.3
    got = var.euler_lagrange(lambda z, zdot, t: t**2 * zdot**2 / 2, path, t)
    zdot, zddot = np.array([3 * t**2, -np.sin(t)]), np.array([6 * t, -np.cos(t)])
    np.testing.assert_allclose(got, 2 * t * zdot + t**2 * zddot, rtol=1e-13)


def test_momentum_and_energy_of_an_oscillator():
    L = lambda z, zdot, t: (3 * zdot**2 - z**2) / 2
    z, zdot = jnp.array([1.0, -2.0]), jnp.array([0.5, 0.25])
    np.testing.assert_allclose(var.momentum(L, z, zdot), 3 * zdot, rtol=1e-15)
    energy = float(jnp.sum(3 * zdot**2 + z**2) / 2)
    np.testing.assert_allclose(var.hamiltonian(L, z, zdot), energy, rtol=1e-15)


def test_a_tree_of_arrays_moves_as_one():
    L = lambda z, zdot, t: jnp.sum(zdot["a"]) ** 2 / 2 - z["b"] * jnp.sum(z["a"])
    path = lambda t: {"a": jnp.array([t, t**2]), "b": jnp.sin(t)}
    t = 0.3
    residual = var.euler_lagrange(L, path, t)
    np.testing.assert_allclose(residual["a"], 2 + np.sin(t), rtol=1e-13)
    np.testing.assert_allclose(residual["b"], t + t**2, rtol=1e-13)


# Fixed ends.


@functools.partial(jax.jit, static_argnums=0)
def action_between(name, start, end, wiggles):
    """Of a path from start to end, straight but for Σ_k w_k sin(π k t)."""
    L = {
        "ska": var.lagrangian,
        "equation": var.tensor_net("equation"),
        "published": var.tensor_net("published"),
        "kinetic": lambda z, zdot, t: jnp.sum(zdot**2) / 2,
    }[name]
    k = jnp.arange(1.0, len(wiggles) + 1)
    path = lambda t: start + (end - start) * t + jnp.tensordot(jnp.sin(jnp.pi * k * t), wiggles, 1)
    return var.action(L, path, 0.0, 1.0)


@given(seed=st.integers(0, 2**16), size=st.floats(0, 2))
def test_the_action_depends_on_the_end_points_alone(seed, size):
    rng = np.random.default_rng(seed)
    start, end = rng.normal(size=(2, 4, 3)) * 3
    wiggles = rng.normal(size=(4, 4, 3)) * size
    change = lambda function: float(jnp.sum(function(end) - function(start)))
    for name, closed in {
        "ska": LN2 * change(ent.entropy),
        "equation": change(functools.partial(ent.tensor_net_potential, sign="equation")),
        "published": change(functools.partial(ent.tensor_net_potential, sign="published")),
    }.items():
        assert_exact(float(action_between(name, start, end, wiggles)), closed, 10)
    # A free particle's action tells paths apart: by Σ (π k w_k)² / 4.
    straight = np.sum((end - start) ** 2) / 2
    more = np.sum((np.pi * np.arange(1, 5)[:, None, None] * wiggles) ** 2) / 4
    got = float(action_between("kinetic", start, end, wiggles))
    np.testing.assert_allclose(got, straight + more, rtol=1e-10)


# What singles out the flow.


def random_weights(problem, seed, scale=1.0):
    weights, _ = problem.numpy()
    rng = np.random.default_rng(seed)
    return ref.to_skajax(
        [(scale * rng.normal(size=W.shape), scale * rng.normal(size=b.shape)) for W, b in weights]
    )


@functools.partial(jax.jit, static_argnums=0)
def principles(network, weights, velocity, x):
    flow = ska.flow(network, weights, x)
    F = lambda w, given: var.local_entropy(network, w, x, given)
    rates = var.energy_rates(network, weights, velocity, x)
    return {
        "flow": flow,
        "gradient": jax.grad(lambda w: F(w, weights).sum())(weights),
        "local": F(weights, weights),
        "plain": F(weights, None),
        "R": var.rayleighian(network, weights, velocity, x),
        "least": var.rayleighian(network, weights, flow, x),
        "slope": jax.grad(lambda v: var.rayleighian(network, weights, v, x).sum())(flow),
        "rates": rates,
        "dH": jax.jvp(lambda w: x.shape[0] * F(w, None), (weights,), (velocity,))[1],
        "along": var.energy_rates(network, weights, flow, x),
    }


def squares(weights):
    return np.array([np.sum(w.W**2) + np.sum(w.b**2) for w in weights])


@each_problem
def test_the_flow_is_the_steepest_descent_of_the_total_local_entropy(problem):
    network, weights, x = problem.arrays()
    velocity = random_weights(problem, problem.seed + 2)
    found = jax.tree.map(np.asarray, principles(network, weights, velocity, x))
    Z, _ = ref.forward(*problem.numpy())
    entropies = [ref.shannon(z).sum() / problem.samples for z in Z]
    np.testing.assert_allclose(found["local"], entropies, rtol=1e-12)
    np.testing.assert_allclose(found["plain"], entropies, rtol=1e-12)
    for v, g in zip(found["flow"], found["gradient"], strict=True):
        for a, b in zip(v, g, strict=True):
            assert_exact(a, -b, max(np.max(np.abs(b)), 1e-3))

    # Onsager: the flow is stationary, least, and by exactly half the distance's square.
    for leaf in jax.tree.leaves(found["slope"]):
        np.testing.assert_allclose(leaf, 0, atol=1e-14)
    np.testing.assert_allclose(found["least"], -squares(found["flow"]) / 2, rtol=1e-10)
    apart = jax.tree.map(np.subtract, jax.tree.map(np.asarray, velocity), found["flow"])
    np.testing.assert_allclose(found["R"] - found["least"], squares(apart) / 2, rtol=1e-10)


@each_problem
def test_the_balance_of_energy_holds_for_any_motion(problem):
    network, weights, x = problem.arrays()
    velocity = random_weights(problem, problem.seed + 3)
    found = jax.tree.map(np.asarray, principles(network, weights, velocity, x))
    numbers, samples = problem.numpy()
    want = ref.observables(numbers, ref.to_numpy(velocity), samples, numbers)
    size = np.abs(want["dissipation"]) + np.abs(want["transport"]) + 1e-3
    lost, carried = found["rates"]
    assert np.all(np.abs(lost - want["dissipation"]) < EXACT * size)
    assert np.all(np.abs(carried - want["transport"]) < EXACT * size)
    assert np.all(np.abs(found["dH"] - (carried - lost)) < EXACT * size)
    assert carried[0] == 0
    # Along the flow: B ‖∇_W F‖², by the flow alone.
    np.testing.assert_allclose(
        found["along"].dissipation, problem.samples * squares(found["flow"]), rtol=1e-10
    )


@functools.partial(jax.jit, static_argnums=0)
def excess(network, weights, amplitudes, phases, x):
    path = weight_path(weights, amplitudes, phases)

    def terms(t):
        w, v = jax.jvp(path, (t,), (1.0,))
        speeds = lambda tree: jnp.stack([sum(jnp.sum(a**2) for a in entry) for entry in tree])
        transport = var.energy_rates(network, w, v, x).transport
        return x.shape[0] / 2 * (speeds(v) + speeds(ska.flow(network, w, x))) - transport

    H = [x.shape[0] * var.local_entropy(network, path(t), x) for t in (0.0, 1.0)]
    node, gauss = np.polynomial.legendre.leggauss(200)
    expanded = jnp.tensordot(gauss / 2, jax.lax.map(terms, jnp.asarray((node + 1) / 2)), 1)
    return var.onsager_machlup(network, path, x, 0.0, 1.0), expanded + H[1] - H[0]


@each_problem
def test_the_least_action_that_selects_is_the_balance_of_energy(problem):
    network, weights, x = problem.arrays()
    got, want = excess(network, weights, *waves(problem), x)
    np.testing.assert_allclose(got, want, rtol=1e-10)
    assert np.all(np.asarray(got) > 0)


def flowing(network, weights, x, steps=20):
    """t → the weights that the flow leads to, smooth in t: classical Runge-Kutta, 1e-9 on [0, 1]."""
    flow = lambda w: ska.flow(network, w, x)
    moved = lambda w, v, h: jax.tree.map(lambda a, b: a + h * b, w, v)

    def step(w, h):
        a = flow(w)
        b = flow(moved(w, a, h / 2))
        c = flow(moved(w, b, h / 2))
        d = flow(moved(w, c, h))
        mean = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, a, b, c, d)
        return moved(w, mean, h)

    return lambda t: jax.lax.scan(lambda w, _: (step(w, t / steps), None), weights, None, steps)[0]


def test_on_the_flow_that_action_is_zero_and_grows_with_the_squared_distance():
    network, weights, x = ref.SMALL.arrays()
    true = flowing(network, weights, x)
    aside = random_weights(ref.SMALL, 5)

    @jax.jit
    def total(size):
        path = lambda t: jax.tree.map(
            lambda w, a: w + size * jnp.sin(jnp.pi * t) * a, true(t), aside
        )
        return var.onsager_machlup(network, path, x, 0.0, 1.0, panels=2)

    assert np.all(np.asarray(total(0.0)) < 1e-12)
    small, large = np.asarray(total(1e-3)), np.asarray(total(2e-3))
    np.testing.assert_allclose(large / small, 4, rtol=0.01)

    # SKA's own action between the same ends, on the same family: the same for all.
    @jax.jit
    def null(size):
        path = lambda t: network.forward(
            jax.tree.map(lambda w, a: w + size * jnp.sin(jnp.pi * t) * a, true(t), aside), x
        )[0]
        return var.action(var.lagrangian, path, 0.0, 1.0, panels=16)

    actions = np.array([null(size) for size in (0.0, 0.5, -2.0)])
    np.testing.assert_allclose(actions, actions[0], atol=1e-10)


def test_the_residual_vanishes_on_the_flow_as_anywhere():
    network, weights, x = ref.SMALL.arrays()
    true = flowing(network, weights, x)
    path = lambda t: network.forward(true(t), x)[0]
    residual = jax.jit(lambda t: var.euler_lagrange(var.lagrangian, path, t))(0.8)
    other = jax.jit(lambda t: var.euler_lagrange(lambda z, v, t: _kinetic(v), path, t))(0.8)
    assert max(np.max(np.abs(leaf)) for leaf in residual) < EXACT
    assert max(np.max(np.abs(leaf)) for leaf in other) > 1e-3


# The balance along adaptive runs, by what they record.


NODE, GAUSS = np.polynomial.legendre.leggauss(48)


def adaptive_run(times, rtol=1e-12):
    """At 50 times: one program."""
    network, weights, x = ref.SMALL.arrays()
    return ska.simulate(
        network, weights, x, ska.Adaptive(rtol=rtol, atol=rtol), t1=times[-1], save_at=times,
        dense=True, observe=("entropy", "dissipation", "transport"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def balanced():
    """A run, at Gauss-Legendre nodes between its ends, and its rates by their definitions there."""
    with jax.enable_x64(True):
        run = adaptive_run(np.concatenate([[0.0], 1 + NODE, [2.0]]))
        _, _, x = ref.SMALL.arrays()
        rates = jax.jit(lambda w: var.energy_rates(run.network, w, ska.flow(run.network, w, x), x))
        return run, [rates(run.at(float(t)).weights) for t in run.t]


def test_recorded_dissipation_and_transport_are_the_definitions(balanced):
    run, defined = balanced
    for k, rates in enumerate(defined):
        np.testing.assert_allclose(run.dissipation[k], rates.dissipation, rtol=0, atol=1e-8)
        np.testing.assert_allclose(run.transport[k], rates.transport, rtol=0, atol=1e-8)
    assert np.all(np.asarray(run.dissipation) > 0)
    assert np.abs(run.transport[:, 1:]).max(axis=0).min() > 1e-2  # not small in hidden layers


def test_dissipation_and_transport_add_up_to_the_entropy(balanced):
    # Each by its own derivative, along the run: the recorded ones differ by less than 1e-8.
    run, defined = balanced
    rates = np.stack([one.transport - one.dissipation for one in defined[1:-1]])
    change = np.asarray(run.entropy[-1] - run.entropy[0])
    assert np.abs(change).min() > 0.1
    np.testing.assert_allclose(GAUSS @ rates, change, rtol=0, atol=1e-8)


def test_the_entropys_derivative_is_transport_less_dissipation():
    # Eighth-order central differences of the recorded entropy: error h⁸ H⁽⁹⁾ / 630.
    h, weight = 0.02, np.array([4 / 5, -1 / 5, 4 / 105, -1 / 280])
    run = adaptive_run(0.5 + h * np.arange(-4, 46), rtol=1e-13)
    H = np.asarray(run.entropy)
    inside = slice(4, -4)
    slope = (
        sum(
            c * (H[4 + n : len(H) - 4 + n] - H[4 - n : len(H) - 4 - n])
            for n, c in enumerate(weight, 1)
        )
        / h
    )
    rates = np.asarray(run.transport - run.dissipation)[inside]
    np.testing.assert_allclose(slope, rates, rtol=0, atol=1e-8)


@pytest.mark.parametrize("method", [ska.Published, ska.Euler], ids=["Published", "Euler"])
def test_fixed_steps_converge_to_the_energy_rates_with_order_one(method):
    network, weights, x = ref.SMALL.arrays()
    start, samples = ref.SMALL.numpy()
    (there,) = ref.solve(start, samples, [1.0])
    want = ref.observables(there, ref.flow(there, samples), samples, start)
    errors = {"dissipation": [], "transport": []}
    for K in (400, 800, 1600):
        # Pass K + 2 of the published rule, the last of so many, is recorded at t = 1.
        steps = K + 2 if method is ska.Published else K
        run = ska.simulate(network, weights, x, method(1 / K), steps=steps, observe=tuple(errors))
        np.testing.assert_allclose(run.t[-1], 1, rtol=1e-12)
        for name, found in errors.items():
            found.append(np.abs(np.asarray(getattr(run, name))[-1] - want[name]))
    for name, found in errors.items():
        # Euler's transport is exactly 0 in the first layer.
        layers = slice(1, None) if name == "transport" and method is ska.Euler else slice(None)
        sizes = np.array(found)[:, layers]
        orders = np.log2(sizes[:-1] / sizes[1:])
        np.testing.assert_allclose(orders, 1, atol=0.1, err_msg=name)


def test_a_published_runs_rates_are_of_the_step_that_led_there():
    network, weights, x = ref.SMALL.arrays()
    dt = 0.1
    observe = ("dissipation", "transport")
    run = ska.simulate(network, weights, x, ska.Published(dt), steps=3, observe=observe)
    np.testing.assert_array_equal(run.dissipation[0], 0)
    np.testing.assert_array_equal(run.transport[0], 0)
    numbers, samples = ref.SMALL.numpy()
    moved = squares(ref.to_skajax(ref.flow(numbers, samples)))  # ΔD was 0
    np.testing.assert_allclose(run.dissipation[1], len(samples) * moved, rtol=1e-12)


# Minimising movements.


@functools.partial(jax.jit, static_argnums=0)
def movement(network, weights, x, dt):
    rtol = 1e-10 if x.dtype == jnp.float64 else None
    return var.minimising_movement(network, weights, x, dt, rtol=rtol)


@functools.partial(jax.jit, static_argnums=0)
def local_entropy(network, weights, x, given):
    return var.local_entropy(network, weights, x, given)


@functools.partial(jax.jit, static_argnums=0)
def pull(network, weights, x, given):
    return jax.grad(lambda w: var.local_entropy(network, w, x, given).sum())(weights)


@pytest.mark.parametrize("dt", [0.01, 0.3, 10.0])
def test_a_movement_is_an_implicit_step_that_lowers_every_layers_entropy(dt):
    network, weights, x = ref.SMALL.arrays()
    found = movement(network, weights, x, dt)
    assert np.all(found.converged)
    entropy = lambda w: local_entropy(network, w, x, weights)
    before, after = entropy(weights), entropy(found.weights)
    change = jax.tree.map(jnp.subtract, found.weights, weights)
    # F falls by at least the distance's share: the minimum lies below the start.
    assert np.all(after + squares(change) / (2 * dt) < before)
    # W⁺ = W + dt · flow(W⁺), with the inputs of before.
    gradient = pull(network, found.weights, x, weights)
    for a, g in zip(jax.tree.leaves(change), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(a, -dt * g, atol=1e-7 * max(dt, 1))
    # Random neighbours are no better.
    objective = lambda w: entropy(w) + squares(jax.tree.map(jnp.subtract, w, weights)) / (2 * dt)
    least = objective(found.weights)
    for seed in range(5):
        aside = random_weights(ref.SMALL, seed, 1e-3)
        assert np.all(objective(jax.tree.map(jnp.add, found.weights, aside)) > least)


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 6), power=st.floats(-1, 3))
def test_a_movement_is_no_worse_than_none(seed, scale, power):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(8, 3)))
    weights = (ska.DenseWeights(*(jnp.asarray(scale * rng.normal(size=n)) for n in ((3, 2), 2))),)
    network, dt = ska.mlp([2]), 10**power
    found = movement(network, weights, x, dt)
    before = local_entropy(network, weights, x, weights)
    after = local_entropy(network, found.weights, x, weights)
    moved = squares(jax.tree.map(jnp.subtract, found.weights, weights))
    assert np.all(after + moved / (2 * dt) <= before + 1e-12)


@pytest.mark.parametrize("dt", [0.01, 0.3])
@pytest.mark.parametrize(
    ("size", "dtype", "off"), [(1.0, float, 1e-6), (1e-8, float, 1e-6), (1.0, jnp.float32, 1e-3)]
)
def test_a_movement_is_exact_relative_to_the_flow(size, dtype, off, dt):
    network, weights, x = ref.SMALL.arrays(dtype)
    weights = jax.tree.map(lambda w: jnp.asarray(size, dtype) * w, weights)
    found = movement(network, weights, x, dt)
    assert np.all(found.converged)
    gradient = pull(network, found.weights, x, weights)
    for a, b, g in zip(*map(jax.tree.leaves, (found.weights, weights, gradient)), strict=True):
        moved = np.asarray(a - b)
        # Of float32 weights the change itself is known to ε |W|.
        rounding = np.finfo(moved.dtype).eps * np.linalg.norm(a)
        apart = np.linalg.norm(moved + dt * np.asarray(g))
        assert apart < off * np.linalg.norm(moved) + 2 * rounding


def test_movements_converge_to_the_flow_with_order_one():
    network, weights, x = ref.SMALL.arrays()
    (want,) = ref.solve(*ref.SMALL.numpy(), [1.0])
    errors = []
    for K in (20, 40, 80):
        moved = weights
        for _ in range(K):
            moved = movement(network, moved, x, 1 / K).weights
        errors.append(np.linalg.norm(ref.flat(ref.to_numpy(moved)) - ref.flat(want)))
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 1, atol=0.1)


def test_a_movement_of_one_neuron_and_one_sample_is_a_root():
    # W⁺ = W + dt g(z⁺) x with z⁺ = z + dt (x² + 1) g(z⁺): one equation, solved by SciPy.
    network, weights, x = ref.UNIT.arrays()
    ((W, b),), sample = ref.UNIT.numpy()
    a, dt = float(sample[0, 0]), 0.7
    z = a * W[0, 0] + b[0]
    pull = lambda z: z * ref.slope(z) / LN2
    after = brentq(lambda v: v - z - dt * (a * a + 1) * pull(v), z - 10, z + 10, xtol=1e-15)
    found = movement(network, weights, x, dt)
    np.testing.assert_allclose(found.weights[0].W[0, 0], W[0, 0] + dt * a * pull(after), rtol=3e-8)
    np.testing.assert_allclose(found.weights[0].b[0], b[0] + dt * pull(after), rtol=3e-8)


# Transformations, precisions and bad arguments.


def test_everything_works_in_both_precisions_and_under_vmap():
    network, exact, samples = ref.SAMPLE.arrays()

    def everything(scale):
        dtype, one = scale.dtype, jnp.ones_like(scale)
        weights, x = jax.tree.map(lambda a: a.astype(dtype), (exact, samples))
        velocity = jax.tree.map(jnp.ones_like, weights)
        path = lambda t: jax.tree.map(lambda w, v: w + t * v, weights, velocity)
        w = jax.tree.map(lambda leaf: scale * leaf, weights)
        Z = lambda t: network.forward(jax.tree.map(lambda a: scale * a, path(t)), x)[0]
        return (
            var.euler_lagrange(var.lagrangian, Z, one),
            var.action(var.lagrangian, Z, 0 * one, one, panels=2),
            var.hamiltonian(var.tensor_net("published"), w[0].W, w[0].W, one),
            var.local_entropy(network, w, x),
            var.rayleighian(network, w, velocity, x),
            var.energy_rates(network, w, velocity, x),
            var.onsager_machlup(network, path, x, 0 * one, scale, panels=2),
            var.minimising_movement(network, w, x, 0.1 * one).weights,
        )

    single = jax.jit(everything)
    for dtype, tolerance in ((jnp.float32, 1e-3), (jnp.float64, 1e-7)):
        scales = jnp.asarray([1.0, 0.5], dtype)
        batch = jax.jit(jax.vmap(everything))(scales)
        for lane in range(2):
            alone = single(scales[lane].astype(float))
            for got, want in zip(jax.tree.leaves(batch), jax.tree.leaves(alone), strict=True):
                assert got.dtype == dtype
                np.testing.assert_allclose(got[lane], want, rtol=tolerance, atol=tolerance)


def test_the_action_is_differentiable():
    # Of its end point: p = ∂S/∂z(t1), Hamilton's principal function.
    path = lambda end: lambda t: 0.3 + (end - 0.3) * t + jnp.sin(jnp.pi * t)
    slope = jax.grad(lambda end: var.action(var.lagrangian, path(end), 0.0, 1.0))(1.7)
    np.testing.assert_allclose(slope, var.momentum(var.lagrangian, 1.7, 1.0), rtol=1e-12)


def test_whole_numbers_are_times_and_places(untyped):
    path = lambda t: 0.5 * t**2 + t
    for one in (1, jnp.asarray(1), np.int64(1)):
        residual = var.euler_lagrange(lambda z, zdot, t: zdot**2 / 2, path, one)
        np.testing.assert_allclose(residual, 1.0, rtol=1e-12)
        got = var.action(var.lagrangian, path, 0 * one, one, panels=np.int64(4))
        np.testing.assert_allclose(got, var.action(var.lagrangian, path, 0.0, 1.0), rtol=1e-12)
    slope = var.momentum(var.lagrangian, 1, 2)
    np.testing.assert_allclose(slope, var.momentum(var.lagrangian, 1.0, 2.0))


def test_bad_arguments_are_refused(untyped):
    network, weights, x = ref.SMALL.arrays()
    path = lambda t: t**2
    for panels in (0, 1.5, True):
        with pytest.raises(ValueError, match="Argument panels must be a whole number"):
            var.action(var.lagrangian, path, 0.0, 1.0, panels=panels)
    with pytest.raises(ValueError, match="Argument sign must be 'published' or 'equation'"):
        var.action(var.tensor_net("other"), path, 0.0, 1.0)
    for dt in (0.0, -1.0, np.inf):
        with pytest.raises(ValueError, match="Argument dt must be a time step"):
            var.minimising_movement(network, weights, x, dt)
    still = jax.tree.map(jnp.zeros_like, weights)
    for function in (
        lambda w, x: var.local_entropy(network, w, x),
        lambda w, x: var.rayleighian(network, w, w, x),
        lambda w, x: var.energy_rates(network, w, w, x),
        lambda w, x: var.minimising_movement(network, w, x, 0.1),
    ):
        for w, data, name in (
            (weights[:1], x, "weights"),
            (weights, x[:, :2], "weights"),
            (weights, x.astype(int), "x"),
            (weights, x.at[0, 0].set(jnp.nan), "x"),
        ):
            with pytest.raises(ValueError, match=f"Argument {name} must "):
                function(w, data)
    with pytest.raises(ValueError, match="Argument velocity must be like the weights"):
        var.energy_rates(network, weights, still[:1], x)
    with pytest.raises(ValueError, match="Argument rtol must be a tolerance"):
        var.minimising_movement(network, weights, x, 0.1, rtol=0.0)
