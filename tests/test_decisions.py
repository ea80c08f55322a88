"""Decision functions: closed forms against NumPy, quadrature, many digits; whole runs against their rates."""

import dataclasses
import decimal
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import layer_checks as checks
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import LN2
from scipy.integrate import quad
from scipy.optimize import brentq

import skajax as ska
from skajax import energies as E
from skajax.decisions import DECISIONS, SIGMOID, SOFTMAX, TANH, Own
from skajax.layers._layer import decision_of

each_name = pytest.mark.parametrize("name", DECISIONS)
both = pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])


@pytest.fixture(autouse=True)
def double(x64):
    """Double precision for all tests of this file."""


# Independent closed forms, in NumPy, of whatever precision z has.


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


D_OF = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "softmax": softmax,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "identity": lambda z: z,
}
SLOPE = {  # D' v
    "sigmoid": lambda z, v: v * np.exp(-abs(z)) / (1 + np.exp(-abs(z))) ** 2,
    "softmax": lambda z, v: softmax(z) * (v - (softmax(z) * v).sum(axis=-1, keepdims=True)),
    "tanh": lambda z, v: v / np.cosh(z) ** 2,
    "relu": lambda z, v: v * (z > 0),
    "identity": lambda z, v: v,
}
AT_ZERO = {"sigmoid": 4.0, "softmax": 2.0, "tanh": 4.0, "relu": 0.0, "identity": 0.0}
"""Bits of four neurons at z = 0."""


def shannon(p):
    return -np.sum(np.where(p > 0, p * np.log2(np.where(p > 0, p, 1)), 0))


@each_name
def test_decisions_are_the_gradient_of_the_potential(name):
    decision = DECISIONS[name]
    z = 3 * jax.random.normal(jax.random.key(0), (5, 4), jnp.float64)
    gradient = jax.jit(jax.grad(lambda z: jnp.sum(decision.potential(z))))(z)
    np.testing.assert_allclose(gradient, D_OF[name](np.asarray(z)), rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(decision.decide(z), gradient, rtol=1e-14, atol=1e-15)
    np.testing.assert_array_equal(decision(z), decision.decide(z))
    assert decision.name == name
    assert float(jnp.sum(decision.entropy(jnp.zeros((1, 4))))) == pytest.approx(AT_ZERO[name])


@each_name
def test_entropy_is_the_papers_integral_along_any_path(name):
    """H = -(1/ln 2) ∫ z·dD (eq. 9), along two paths between the same ends, by SciPy's quadrature."""
    rng = np.random.default_rng(1)
    a, b = 2 * rng.normal(size=(2, 4))
    got = [float(jnp.sum(DECISIONS[name].entropy(jnp.asarray(v)[None]))) for v in (a, b)]
    for bump in 3 * rng.normal(size=(2, 4)):
        z = lambda s, c=bump: a + s * (b - a) + c * np.sin(np.pi * s)
        zdot = lambda s, c=bump: b - a + c * np.pi * np.cos(np.pi * s)
        rate = lambda s, z=z, zdot=zdot: -(z(s) @ SLOPE[name](z(s), zdot(s))) / LN2
        # Where relu has a corner, one piece ends and the next begins.
        grid = np.linspace(0, 1, 201)
        sign = np.sign([z(s) for s in grid])
        turns = [
            brentq(lambda s, n=n, z=z: z(s)[n], grid[k], grid[k + 1], xtol=1e-15)
            for k, n in np.argwhere(sign[1:] != sign[:-1])
        ]
        edges = [0, *sorted(turns), 1]
        want = sum(quad(rate, *ends, epsabs=1e-13, epsrel=1e-11)[0] for ends in pairwise(edges))
        np.testing.assert_allclose(got[1] - got[0], want, atol=1e-10)


def test_the_entropies_that_are_shannons():
    z = 2 * jax.random.normal(jax.random.key(2), (1, 6), jnp.float64)
    D = softmax(np.asarray(z))
    np.testing.assert_allclose(SOFTMAX.entropy(z), shannon(D), rtol=1e-14)
    np.testing.assert_allclose(SOFTMAX.entropy(jnp.zeros((1, 10))), np.log2(10), rtol=1e-15)
    want = [shannon(np.array([(1 + m) / 2, (1 - m) / 2])) for m in np.tanh(z[0])]
    np.testing.assert_allclose(TANH.entropy(z)[0], want, rtol=1e-12)
    # Of two neurons, a softmax is the sigmoid of their difference.
    pair = z[:, :2]
    difference = pair[:, 0] - pair[:, 1]
    np.testing.assert_allclose(SOFTMAX(pair)[:, 0], SIGMOID(difference), rtol=1e-14)
    np.testing.assert_allclose(SOFTMAX.entropy(pair), SIGMOID.entropy(difference), rtol=1e-14)


# Accuracy: extended precision as the reference, also where all but one decision is tiny.


def vectors(dtype, count=200):
    """Vectors of four z, their spread from 1e-3 to where e^-spread is no normal number; and shifted ones."""
    rng = np.random.default_rng(3)
    depth = 80.0 if dtype == jnp.float32 else 690.0
    spread = 10 ** rng.uniform(-3, np.log10(depth / 2), (count, 1))
    z = spread * rng.uniform(-1, 1, (count, 4))
    return jnp.asarray(np.concatenate([z, z[:50] + 1024.0]), dtype)


@both
def test_softmax_keeps_its_relative_accuracy(dtype):
    z = vectors(dtype)
    exact = np.asarray(z).astype(np.longdouble)
    below = exact - exact.max(axis=-1, keepdims=True)
    D = softmax(exact)
    others = np.sort(np.exp(below), axis=-1)[:, :-1].sum(axis=-1)
    H = (np.log1p(others) - (D * below).sum(axis=-1)) / LN2
    # D (z - Σ D z) as a sum over pairs, in which nothing cancels but what belongs to it.
    pairs = D[:, :, None] * D[:, None, :] * (below[:, :, None] - below[:, None, :])
    eps = float(jnp.finfo(dtype).eps)
    got = jax.jit(lambda z: (SOFTMAX(z), SOFTMAX.entropy(z), SOFTMAX.entropy_gradient(z)))(z)
    assert all(part.dtype == dtype for part in got)
    # e^u is as exact as u is, whose rounding is |u| eps; what is no normal number may be 0.
    reach, tiny = 4 + abs(below).max(axis=-1), 200 * float(jnp.finfo(dtype).tiny)
    off = [abs(np.asarray(a) - b) for a, b in zip(got, (D, H, -pairs.sum(2) / LN2), strict=True)]
    assert np.all(off[0] <= 2 * eps * reach[:, None] * D + tiny)
    assert np.all(off[1] <= 2 * eps * reach * H + tiny)
    assert np.all(off[2] <= 4 * eps * reach[:, None] * abs(pairs).sum(2) / LN2 + tiny)
    # Autodiff is that gradient.
    by_grad = jax.jit(jax.grad(lambda z: jnp.sum(SOFTMAX.entropy(z))))(z)
    np.testing.assert_allclose(by_grad, got[2], rtol=4 * eps, atol=tiny)


@both
def test_tanh_keeps_its_relative_accuracy(dtype):
    depth = 40.0 if dtype == jnp.float32 else 345.0
    z = np.concatenate([np.geomspace(1e-6, depth, 200), np.linspace(0, depth, 201)[1:]])
    z = jnp.asarray([*-z, *z], dtype)
    exact = np.asarray(z).astype(np.longdouble)
    small = np.exp(-2 * abs(exact))
    slope = 4 * small / (1 + small) ** 2
    H = (np.log1p(small) + 2 * abs(exact) * small / (1 + small)) / np.log(np.longdouble(2))
    eps = float(jnp.finfo(dtype).eps)
    each = lambda f: jax.jit(jax.grad(lambda z: jnp.sum(f(z))))(z)
    close = {"rtol": 16 * eps, "atol": 0}
    np.testing.assert_allclose(each(TANH.decide), slope.astype(dtype), **close)
    np.testing.assert_allclose(TANH.entropy(z), H.astype(dtype), **close)
    want = (-exact * slope / np.log(np.longdouble(2))).astype(dtype)
    np.testing.assert_allclose(TANH.entropy_gradient(z), want, **close)
    np.testing.assert_allclose(each(TANH.entropy), want, **close)
    # ln(2 cosh z) has no overflow.
    far = jnp.asarray([-1e30, 1e30], dtype)
    np.testing.assert_array_equal(TANH.potential(far), abs(far))


@both
def test_infinite_knowledge_is_a_certain_choice(dtype):
    inf = jnp.inf
    z = jnp.asarray([[inf, 0, 1, -inf], [-inf] * 4, [inf, inf, 0, 1], [3e38, -3e38, 0, 1]], dtype)
    want = [[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0], [1, 0, 0, 0]]
    np.testing.assert_array_equal(SOFTMAX(z), want)
    np.testing.assert_array_equal(SOFTMAX.entropy(z), [0, 2, 1, 0])
    np.testing.assert_array_equal(SOFTMAX.entropy_gradient(z), np.zeros((4, 4)))
    slope = jax.grad(lambda z: jnp.sum(SOFTMAX.entropy(z)))(z)
    np.testing.assert_array_equal(slope, np.zeros((4, 4)))


@given(seed=st.integers(0, 10**6), size=st.floats(0.01, 50), shift=st.floats(-1e6, 1e6))
def test_a_common_shift_changes_no_softmax(seed, size, shift):
    """Shifts by whole numbers of 1/64, which z of as many digits can take exactly."""
    rng = np.random.default_rng(seed)
    z = np.round(size * rng.normal(size=(2, 5)) * 64) / 64
    moved = z + np.round(shift * 64) / 64
    for f in (SHIFTED["D"], SHIFTED["H"], SHIFTED["gradient"]):
        np.testing.assert_array_equal(f(z), f(moved))
    np.testing.assert_allclose(np.sum(SHIFTED["gradient"](z), axis=-1), 0, atol=1e-14 * size)
    H = np.asarray(SHIFTED["H"](z))
    assert np.all(H >= 0) and np.all(np.log2(5) * (1 + 1e-15) >= H)


SHIFTED = {
    "D": jax.jit(SOFTMAX.decide),
    "H": jax.jit(SOFTMAX.entropy),
    "gradient": jax.jit(SOFTMAX.entropy_gradient),
}


@each_name
def test_second_derivatives(name):
    """Of the entropy's gradient, by central differences of fourth order; forwards and in reverse."""
    decision = DECISIONS[name]
    z = 2 * jax.random.normal(jax.random.key(4), (1, 4), jnp.float64)
    v = jax.random.normal(jax.random.key(5), (1, 4), jnp.float64)
    total = lambda z: jnp.sum(decision.entropy(z))
    h = 1e-3
    slope = jax.jit(decision.entropy_gradient)
    f = lambda s: np.asarray(slope(z + s * h * v))
    want = (8 * (f(1) - f(-1)) - (f(2) - f(-2))) / (12 * h)
    forwards = jax.jit(lambda z: jax.jvp(jax.grad(total), (z,), (v,))[1])(z)
    back = jax.jit(jax.grad(lambda z: jnp.sum(v * jax.grad(total)(z))))(z)
    np.testing.assert_allclose(forwards, want, atol=1e-10)
    np.testing.assert_allclose(back, want, atol=1e-10)


# Changes of the potentials, in a hundred digits.


def potentials(name, z):
    """φ and H of one vector of Decimals; the two that need an exponential."""
    log2 = decimal.Decimal(2).ln()
    if name == "softmax":
        top = max(z)
        e = [(v - top).exp() for v in z]
        total = sum(e)
        phi = top + total.ln()
        return phi, (phi - sum(v * w for v, w in zip(z, e, strict=True)) / total) / log2
    (v,) = z
    up, down = v.exp(), (-v).exp()
    phi = (up + down).ln()
    return phi, (phi - v * (up - down) / (up + down)) / log2


@both
@pytest.mark.parametrize("name", ["softmax", "tanh"])
def test_small_changes_keep_their_digits(name, dtype):
    rng = np.random.default_rng(6)
    count, n = 150, 4 if name == "softmax" else 1
    z0 = 10 ** rng.uniform(-3, 1, (count, n)) * rng.choice([-1, 1], (count, n))
    move = 10 ** rng.uniform(-8, 0.5, (count, 1)) * rng.uniform(-1, 1, (count, n))
    z0, z = (jnp.asarray(a, dtype) for a in (z0, z0 + move))
    decision = DECISIONS[name]
    changes = jax.jit(decision.changes)
    found = changes(z0, z)
    assert found.potential.dtype == found.entropy.dtype == dtype
    got = np.stack([np.asarray(part, float).reshape(count) for part in found])
    with decimal.localcontext(decimal.Context(prec=100)):
        exact = [
            [potentials(name, [decimal.Decimal(float(v)) for v in row]) for row in np.asarray(a)]
            for a in (z0, z)
        ]
        want = [[q - p for p, q in zip(a, b, strict=True)] for a, b in zip(*exact, strict=True)]
    want = np.array(want, float).T
    d = np.abs(np.asarray(z, float) - np.asarray(z0, float)).max(axis=-1)
    reach = 1 + np.abs(np.asarray(z0, float)).max(axis=-1)
    unit = 2e-6 if dtype == jnp.float32 else 3e-13
    # Relative to d times the largest D on the way; of larger moves, whose potentials differ enough, to d.
    largest = np.maximum(*(np.abs(D_OF[name](np.asarray(a, float))).sum(-1) for a in (z0, z)))
    largest[2 * d >= (4000 * float(jnp.finfo(dtype).eps)) ** 0.2] = 1
    assert np.all(np.abs(got[0] - want[0]) <= unit * d * largest * (1 + reach / 8))
    assert np.all(np.abs(got[1] - want[1]) <= unit * d * reach)
    for value in changes(z, z):
        np.testing.assert_array_equal(value, 0)


@each_name
def test_changes_are_differences_with_the_potentials_derivatives(name):
    decision = DECISIONS[name]
    z0, z = jax.random.normal(jax.random.key(7), (2, 3, 4), jnp.float64)
    found = decision.changes(z0, z)
    for got, f in zip(found, (decision.potential, decision.entropy), strict=True):
        np.testing.assert_allclose(got, f(z) - f(z0), atol=1e-13)
    for place, at, sense in ((0, z0, -1), (1, z, 1)):
        net = lambda *ends: sum(
            c * jnp.sum(f) for c, f in zip((1, 2), decision.changes(*ends), strict=True)
        )
        want = sense * (decision(at) + 2 * decision.entropy_gradient(at))
        np.testing.assert_allclose(jax.jit(jax.grad(net, place))(z0, z), want, atol=1e-14)


# Layers outside of the package.


@dataclasses.dataclass(frozen=True)
class Soft(ska.Dense):
    """A dense layer with a potential of its own: the sigmoid's, as a user would write it."""

    def potential(self, z):
        return jax.nn.softplus(z)


@dataclasses.dataclass(frozen=True)
class Chosen(ska.Dense):
    """A potential of all neurons of a sample, with its decisions in closed form."""

    def potential(self, z):
        return jax.nn.logsumexp(z, axis=-1)

    def decide(self, z):
        return jax.nn.softmax(z, axis=-1)


@dataclasses.dataclass(frozen=True)
class Leaky(ska.Dense):
    """A potential with a corner in its slope at z = 0."""

    def potential(self, z):
        return jnp.where(z > 0, z**2, z**2 / 10) / 2


@dataclasses.dataclass(frozen=True)
class Blind(ska.Dense):
    """Decisions without a potential."""

    def decide(self, z):
        return jnp.sin(z)


class Tempered(eqx.Module):
    """Sigmoid decisions at a temperature that is an array of the layer's own: φ = T softplus(z / T)."""

    dense: ska.Dense = eqx.field(static=True)
    temperature: jax.Array

    def init(self, key, x):
        return self.dense.init(key, x)

    def knowledge(self, weights, x):
        return self.dense.knowledge(weights, x)

    def potential(self, z):
        T = self.temperature
        return T * jax.nn.softplus(z / T)


def problem(*layers, samples=6):
    network = ska.Network(layers)
    x = jax.random.uniform(jax.random.key(8), (samples, 3), jnp.float64)
    return network, network.init(jax.random.key(9), x), x


def test_a_potential_alone_is_all_that_a_layer_need_have():
    z = 4 * jax.random.normal(jax.random.key(10), (3, 5), jnp.float64)
    for own, known in ((Soft(5), SIGMOID), (Chosen(5), SOFTMAX)):
        decision = decision_of(own)
        assert isinstance(decision, Own) and decision.name == type(own).__name__
        for word in ("decide", "potential", "entropy", "entropy_gradient"):
            got, want = (jax.jit(getattr(each, word))(z) for each in (decision, known))
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)
        changes = jax.jit(lambda z0, z, d=decision, k=known: (d.changes(z0, z), k.changes(z0, z)))
        for step in (1e-6, 1.0):
            got, want = changes(z, z + step)
            for a, b in zip(got, want, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9 if step < 1 else 1e-12, atol=1e-14)
        gradient = jax.jit(jax.grad(lambda z, f=decision.entropy: jnp.sum(f(z))))(z)
        np.testing.assert_allclose(gradient, known.entropy_gradient(z), rtol=1e-12, atol=1e-14)


def test_runs_of_ones_own_potential_are_those_of_the_named_decision():
    run = {}
    for name, layers in {
        "own": (Soft(4, scale=0.5), Chosen(3, scale=0.5)),
        "named": (ska.Dense(4, scale=0.5), ska.Dense(3, scale=0.5, decision="softmax")),
    }.items():
        network, weights, x = problem(*layers)
        observe = ("entropy", "energy", "transport", "tensor_net", "tensor_net_rate_equation")
        run[name] = ska.simulate(network, weights, x, ska.Euler(0.1), steps=4, observe=observe)
    checks.close(run["own"].records.values, run["named"].records.values, 1e-11)


def test_a_corner_does_not_spoil_small_changes():
    decision = decision_of(Leaky(1))
    z0 = jnp.asarray([[-1e-3], [-2e-4], [0.5], [-0.5]])
    z = z0 + jnp.asarray([[2e-3], [1e-3], [1e-3], [1e-3]])
    exact = lambda z: np.where(z > 0, z**2, z**2 / 10) / 2
    found = decision.changes(z0, z)
    want = exact(np.asarray(z)) - exact(np.asarray(z0))
    np.testing.assert_allclose(found.potential, want, rtol=0, atol=1e-16)
    np.testing.assert_allclose(found.entropy, -want / LN2, rtol=0, atol=1e-15)


def test_arrays_of_the_layer_are_differentiated_too():
    z0, z = 2 * jax.random.normal(jax.random.key(11), (2, 3, 4), jnp.float64)

    @jax.jit
    def sums(T):
        decision = decision_of(Tempered(ska.Dense(4), T))
        change = decision.changes(z0, z)
        return jnp.stack([decision.entropy(z).sum(), change.potential.sum(), change.entropy.sum()])

    T, h = jnp.asarray(0.7), 1e-4
    f = lambda s: np.asarray(sums(T + s * h))
    want = (8 * (f(1) - f(-1)) - (f(2) - f(-2))) / (12 * h)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(sums))(T), want, atol=1e-10)
    np.testing.assert_allclose(jax.jit(jax.jacrev(sums))(T), want, atol=1e-10)
    # The trace, decisions and all, leaves jit.
    network, weights, x = problem(Tempered(ska.Dense(4), T), ska.Dense(2, decision="softmax"))
    trace = eqx.filter_jit(lambda n, w: n.trace(w, x))(network, weights)
    np.testing.assert_allclose(trace.entropies[1], SOFTMAX.entropy(trace.Z[1]).sum(), rtol=1e-14)


def test_decisions_without_a_potential_have_no_entropy():
    network, weights, x = problem(ska.Dense(4, scale=0.5), Blind(3, scale=0.5))
    batch = ska.Batch(x, jnp.arange(6) % 3)
    supervised = {"energy": E.CrossEntropy(), "steps": 2}
    run = ska.simulate(network, weights, batch, ska.Euler(0.1), **supervised)
    np.testing.assert_allclose(run.final.D[1], np.sin(run.final.Z[1]), atol=1e-15)
    assert "entropy" not in run.records and "tensor_net" not in run.records
    # What needs D and its rate alone is there.
    named = ("entropy_rate", "tensor_net_rate", "lagrangian", "energy")
    again = ska.simulate(network, weights, batch, ska.Euler(0.1), observe=named, **supervised)
    for name in named:
        np.testing.assert_allclose(run[name], again[name], rtol=1e-12)
    for asked in ({"observe": ("entropy",)}, {"observe": ("tensor_net",)}):
        with pytest.raises(ValueError, match="Blind had decide"):
            ska.simulate(network, weights, batch, ska.Euler(0.1), **supervised, **asked)
    for method in (ska.Euler(0.1), ska.Published(0.1)):
        with pytest.raises(ValueError, match="Blind had decide"):
            ska.simulate(network, weights, x, method, steps=3, observe=())


def test_what_a_class_says_itself_counts_before_what_it_inherits():
    assert decision_of(ska.Dense(3)) is SIGMOID
    assert decision_of(ska.Paced(ska.Dense(3, decision="softmax"), 2.0)) is SOFTMAX
    assert not decision_of(Blind(3)).known
    assert decision_of(ska.Paced(Soft(3), 2.0)).known

    class Plain:
        """Says nothing."""

    assert decision_of(Plain()) is SIGMOID
    late = Plain()
    late.decision = "tanh"
    assert decision_of(late) is TANH


def test_bad_decisions_are_refused(untyped):
    with pytest.raises(ValueError, match=r"decision must be 'sigmoid', .*'softmix'"):
        ska.Dense(3, decision="softmix")

    class Odd(ska.Dense):
        decision = 7

    odd = Odd(3)
    object.__setattr__(odd, "decision", 7)
    with pytest.raises(ValueError, match="Argument decision must be a decision function"):
        decision_of(odd)

    class Flat(ska.Dense):
        def potential(self, z):
            return jnp.sum(z, axis=0)

    with pytest.raises(ValueError, match="potential"):
        decision_of(Flat(3)).entropy(jnp.ones((2, 3)))


# Whole runs.


def test_the_local_flow_of_a_softmax_layer():
    """dW/dt = (1/(B ln 2)) xᵀ [D (z - Σ D z)], in NumPy."""
    rng = np.random.default_rng(12)
    for samples, inputs, outputs in ((1, 2, 2), (5, 3, 4), (4, 1, 7)):
        x, W, b = (rng.normal(size=s) for s in ((samples, inputs), (inputs, outputs), outputs))
        network = ska.Network((ska.Dense(outputs, decision="softmax"),))
        weights = (ska.DenseWeights(jnp.asarray(W), jnp.asarray(b)),)
        z = x @ W + b
        pull = SLOPE["softmax"](z, z) / LN2 / samples
        flow = jax.jit(ska.flow, static_argnums=0)(network, weights, jnp.asarray(x))
        checks.close(flow, (x.T @ pull, pull.sum(0)), 1e-12)


def test_closed_forms_along_an_entropy_run():
    """Entropy, both Nets and the energy are their integrated rates."""
    layers = [ska.Dense(4, scale=0.8, decision=name) for name in ("tanh", "softmax")]
    checks.check_closed_forms(*problem(*layers))


def test_closed_forms_along_a_supervised_run():
    """Softmax on top; the relu's neurons keep their signs, because D' is not integrated across its jump."""
    names = ("relu", "identity", "softmax")
    network, weights, x = problem(*(ska.Dense(4, scale=0.3, decision=name) for name in names))
    hidden = weights[0]._replace(b=jnp.asarray([3.0, -3.0, 3.5, 3.2]))
    batch = ska.Batch(x, jnp.arange(6) % 3)
    checks.check_closed_forms(network, (hidden, *weights[1:]), batch, energy=E.CrossEntropy())


def test_cross_entropy_pulls_a_softmax_by_what_it_is_off():
    """-∇_z E = (y - D) / B, with D the layer's own decisions."""
    network, weights, x = problem(ska.Dense(3, scale=0.8, decision="softmax"))
    y = jnp.arange(6) % 3
    D = network.forward(weights, x)[1][0]
    off = (np.eye(3)[y] - np.asarray(D)) / 6
    got = jax.jit(lambda w: ska.flow(network, w, ska.Batch(x, y), E.CrossEntropy()))(weights)
    checks.close(got, (np.asarray(x).T @ off, off.sum(0)), 1e-14)


def published(weights, x, dt, passes):
    """The published rule for sigmoid layers with a softmax on top, in plain NumPy."""
    W, b = [np.array(w.W) for w in weights], [np.array(w.b) for w in weights]
    names = ["sigmoid"] * (len(W) - 1) + ["softmax"]
    B, rows, before = len(x), [], None
    net = np.zeros((2, len(W)))
    for k in range(passes):
        Z, D, below = [], [], x
        for w, c, name in zip(W, b, names, strict=True):
            Z.append(below @ w + c)
            D.append(D_OF[name](Z[-1]))
            below = D[-1]
        if k > 0:
            read = [x, *before[1][:-1]]
            H = []
            for n, name in enumerate(names):
                dZ, dD = Z[n] - before[0][n], D[n] - before[1][n]
                work = np.sum(Z[n] * SLOPE[name](Z[n], dZ)) / LN2
                net[:, n] += np.sum(D[n] * dZ) + np.array([-1, 1]) * work
                p = D[n] if name == "softmax" else np.stack([D[n], 1 - D[n]])
                H.append(shannon(p))
                g = -(SLOPE[name](Z[n], Z[n]) + dD) / LN2
                W[n], b[n] = W[n] - dt * read[n].T @ g / B, b[n] - dt * g.mean(0)
            rows.append((np.array(H), net.copy()))
        before = (Z, D)
    return rows, W


def test_the_published_rule_with_a_softmax_on_top():
    layers = (ska.Dense(4, scale=0.8), ska.Dense(3, scale=0.8, decision="softmax"))
    network, weights, x = problem(*layers)
    observe = ("entropy", "tensor_net", "tensor_net_equation")
    run = ska.simulate(network, weights, x, ska.Published(0.1), steps=20, observe=observe)
    rows, W = published(weights, np.asarray(x), 0.1, 20)
    assert len(run.t) == len(rows) == 19
    np.testing.assert_allclose(run.entropy, [H for H, _ in rows], rtol=0, atol=1e-10)
    for got, sign in ((run.tensor_net, 0), (run.tensor_net_equation, 1)):
        np.testing.assert_allclose(got, [net[sign] for _, net in rows], rtol=0, atol=1e-10)
    checks.close([w.W for w in run.final.weights], W, 1e-10)


def test_theory_of_the_flow_holds_for_any_decision():
    layers = (ska.Dense(4, scale=0.8, decision="tanh"), ska.Dense(3, scale=0.8, decision="softmax"))
    network, weights, x = problem(*layers)
    velocity = jax.jit(lambda w: ska.flow(network, w, x))(weights)
    observe = ("entropy", "dissipation", "transport")
    run = ska.simulate(network, weights, x, ska.Euler(0.01), steps=1, observe=observe)
    rates, H = jax.jit(
        lambda w, v: (
            ska.variational.energy_rates(network, w, v, x),
            ska.variational.local_entropy(network, w, x),
        )
    )(weights, velocity)
    np.testing.assert_allclose(rates.dissipation, run.dissipation[0], rtol=1e-12)
    np.testing.assert_allclose(rates.transport, run.transport[0], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(H * len(x), run.entropy[0], rtol=1e-14)
    least = jax.jit(lambda w: ska.variational.minimising_movement(network, w, x, 1e-3))
    step = least(weights)
    assert bool(step.converged.all())
    moved = [w.W + 1e-3 * v.W for w, v in zip(weights, velocity, strict=True)]
    checks.close([w.W for w in step.weights], moved, 1e-5)


def test_theory_of_sigmoid_stacks_refuses_others():
    network, weights, x = problem(ska.Dense(4), ska.Dense(3, decision="tanh"))
    for call in (
        lambda: ska.timescales.predict(network, weights, x),
        lambda: ska.timescales.linear(network, weights, x, 0.1),
    ):
        with pytest.raises(ValueError, match=r"sigmoid decisions only.*layer 2 was .*tanh"):
            call()


def test_only_sigmoid_layers_are_said_to_begin_saturated(recwarn):
    network, weights, x = problem(ska.Dense(4, scale=30.0, decision="tanh"))
    ska.simulate(network, weights, x, ska.Euler(0.01), steps=1, observe=("entropy",))
    assert not [w for w in recwarn if issubclass(w.category, ska.SkajaxWarning)]


def test_precisions_and_derivatives_of_a_run_with_a_softmax():
    """The same in float32, to its digits; and derivatives through the run are central differences."""
    network, weights, x = problem(
        ska.Dense(4, scale=0.8, decision="tanh"), ska.Dense(3, scale=0.8, decision="softmax")
    )
    entropy = jax.jit(
        lambda w, x: ska.simulate(
            network, w, x, ska.Euler(0.1), steps=4, observe=("entropy",)
        ).entropy[-1]
    )
    last = entropy(weights, x)
    single = entropy(*jax.tree.map(lambda a: a.astype(jnp.float32), (weights, x)))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, last, rtol=2e-6)
    v, h = jax.tree.map(jnp.ones_like, weights), 1e-3
    at = lambda s: entropy(jax.tree.map(lambda w, u: w + s * h * u, weights, v), x).sum()
    want = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)
    slopes = jax.jit(jax.grad(lambda w: entropy(w, x).sum()))(weights)
    got = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(slopes))
    np.testing.assert_allclose(got, want, rtol=1e-9)
