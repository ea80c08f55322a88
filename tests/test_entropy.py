"""The scalar mathematics against Shannon's definition in extended precision, and by identities."""

import decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import LN2

from skajax import entropy as ent

SIGNS = ("published", "equation")
ORIENTATION = {"published": 1, "equation": -1}

# e^-|z| is a normal number for |z| < 87.3 in float32 and |z| < 708.4 in float64, |z| e^-|z| for 91.9 and 715:
# what is subnormal JAX flushes to zero, and relative accuracy ends.
DEPTH = {jnp.float32: 95.0, jnp.float64: 720.0}

# Two or three rounded operations and a library exponential, which XLA computes to a few ulp.
ROUNDINGS = 8


@pytest.fixture(autouse=True)
def double(x64):
    """Double precision for all tests of this file."""


def points(dtype):
    depth = DEPTH[dtype]
    magnitudes = np.concatenate(
        [
            np.geomspace(1e-12, depth, 300),
            np.linspace(0, depth, 300),
            np.linspace(0.9 * depth, depth, 120),
        ]
    )
    return jnp.asarray(np.concatenate([-magnitudes[::-1], magnitudes]), dtype)


def exactly(z):
    """D, D', h, dh/dz and softplus of the very numbers z, in extended precision."""
    z = np.asarray(z).astype(np.longdouble)
    ln2 = np.log(np.longdouble(2))
    small = np.exp(-abs(z))
    likely, unlikely = 1 / (1 + small), small / (1 + small)
    log_likely = -np.log1p(small)
    shannon = -(likely * log_likely + unlikely * (log_likely - abs(z))) / ln2
    slope = likely * unlikely
    D = np.where(z > 0, likely, unlikely)
    return D, slope, shannon, -z * slope / ln2, np.maximum(z, 0) - log_likely


def assert_accurate(got, want, dtype, roundings=ROUNDINGS):
    """To so many roundings down to the smallest normal number; what is smaller may be 0."""
    eps, tiny = float(jnp.finfo(dtype).eps), float(jnp.finfo(dtype).tiny)
    assert got.dtype == dtype
    got, normal = np.asarray(got).astype(np.longdouble), abs(want) >= (1 + roundings * eps) * tiny
    np.testing.assert_allclose(got[normal], want[normal], rtol=roundings * eps, atol=0)
    np.testing.assert_allclose(got[~normal], 0, atol=(1 + roundings * eps) * tiny)


both = pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
either_sign = pytest.mark.parametrize("sign", SIGNS)


@both
def test_decision_and_slope_keep_their_relative_accuracy_in_the_tails(dtype):
    z = points(dtype)
    D, slope, *_ = exactly(z)
    assert_accurate(jax.jit(ent.decision)(z), D, dtype)
    assert_accurate(jax.jit(ent.decision_derivative)(z), slope, dtype)
    assert_accurate(jax.jit(jax.vmap(jax.grad(ent.decision)))(z), slope, dtype)


@both
def test_entropy_is_shannons(dtype):
    z = points(dtype)
    _, _, shannon, _, _ = exactly(z)
    entropy = jax.jit(ent.entropy)
    h = np.asarray(entropy(z))
    assert_accurate(h, shannon, dtype)
    assert entropy(jnp.zeros((), dtype)) == 1.0
    np.testing.assert_array_equal(h, h[::-1])  # h(-z) = h(z): the points lie symmetrically


@both
def test_far_tails_vanish(dtype):
    z = jnp.asarray([110.0, 800.0, 1e4, 1e18, 1e38], dtype)
    z = jnp.concatenate([z, -z])
    _, slope, shannon, gradient, _ = exactly(z)
    functions = (ent.entropy, ent.entropy_gradient, ent.decision_derivative)
    values = jax.jit(lambda v: [f(v) for f in functions])(z)
    for got, want in zip(values, (shannon, gradient, slope), strict=True):
        assert_accurate(got, want, dtype)


@both
def test_infinite_knowledge_is_a_certain_decision(dtype):
    z = jnp.asarray([jnp.inf, -jnp.inf], dtype)
    np.testing.assert_array_equal(ent.decision(z), [1, 0])
    np.testing.assert_array_equal(ent.decision_derivative(z), [0, 0])
    np.testing.assert_array_equal(ent.entropy(z), [0, 0])
    np.testing.assert_array_equal(ent.entropy_gradient(z), [0, 0])
    np.testing.assert_array_equal(jax.vmap(jax.grad(ent.entropy))(z), [0, 0])
    np.testing.assert_array_equal(jax.vmap(jax.grad(ent.entropy_gradient))(z), [0, 0])


@both
def test_gradient_is_the_derivative_exactly(dtype):
    z = points(dtype)
    _, _, _, gradient, _ = exactly(z)
    assert_accurate(jax.jit(ent.entropy_gradient)(z), gradient, dtype)
    assert_accurate(jax.jit(jax.vmap(jax.grad(ent.entropy)))(z), gradient, dtype)
    forwards = jax.jit(lambda v: jax.jvp(ent.entropy, (v,), (jnp.ones_like(v),))[1])(z)
    assert_accurate(forwards, gradient, dtype)


@pytest.mark.parametrize("z", [30.0, -30.0, 50.0, -80.0, 87.0])
def test_float32_tails_where_one_minus_sigma_has_no_digit_left(z):
    slope = np.exp(-abs(z)) / (1 + np.exp(-abs(z))) ** 2
    z32 = jnp.float32(z)
    np.testing.assert_allclose(jax.grad(ent.decision)(z32), slope, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(ent.entropy)(z32), -z * slope / LN2, rtol=1e-5)
    np.testing.assert_allclose(ent.lagrangian(z32, jnp.float32(2)), -2 * z * slope, rtol=1e-5)


def test_second_and_third_derivatives():
    z = np.linspace(-9.0, 9.0, 181)
    step = 1e-4
    first = jax.jit(jax.vmap(jax.grad(ent.entropy)))
    second = jax.jit(jax.vmap(jax.grad(jax.grad(ent.entropy))))
    forwards = jax.jit(jax.vmap(jax.jacfwd(jax.grad(ent.entropy))))
    third = jax.jit(jax.vmap(jax.grad(jax.grad(jax.grad(ent.entropy)))))

    def numerically(f):
        # Fourth-order differences: error step^4 / 30 and rounding 1e-16 / step.
        far, near = f(z + 2 * step) - f(z - 2 * step), f(z + step) - f(z - step)
        return np.asarray(8 * near - far) / 12 / step

    np.testing.assert_allclose(second(z), numerically(first), atol=1e-11)
    np.testing.assert_allclose(third(z), numerically(second), atol=1e-11)
    np.testing.assert_allclose(forwards(z), second(z), atol=1e-15)
    # Smooth at 0, though written in |z|.
    curvature = jax.grad(jax.grad(jax.grad(ent.decision)))
    np.testing.assert_allclose(curvature(0.0), -1 / 8, atol=1e-15)
    # h'' = -D' (1 + z (1 - 2 D)) / ln 2.
    D, slope, *_ = exactly(z)
    want = (-slope * (1 + z * (1 - 2 * D)) / LN2).astype(float)
    np.testing.assert_allclose(second(z), want, atol=1e-15)


@pytest.mark.parametrize(("a", "b"), [(0.0, 3.0), (-5.0, 2.0), (-1.0, 40.0)])
def test_entropy_is_the_papers_integral(a, b):
    # H = -(1/ln 2) ∫ z dD (eq. 9), by Gauss-Legendre quadrature in D'(z) dz.
    nodes, weights = np.polynomial.legendre.leggauss(200)
    z = (b - a) / 2 * nodes + (a + b) / 2
    slope = exactly(z)[1].astype(float)
    integral = -np.sum(weights * z * slope) * (b - a) / 2 / LN2
    h = ent.entropy(jnp.asarray([a, b]))
    np.testing.assert_allclose(h[1] - h[0], integral, atol=1e-13)


@both
@either_sign
def test_tensor_net_potential(dtype, sign):
    z = points(dtype)
    D, _, shannon, gradient, softplus = exactly(z)
    ln2 = np.log(np.longdouble(2))
    want = softplus - ln2 + ORIENTATION[sign] * (shannon - 1)
    potential = jax.jit(lambda v: ent.tensor_net_potential(v, sign))
    got = np.asarray(potential(z)).astype(np.longdouble)
    eps = float(jnp.finfo(dtype).eps)
    # Absolute near 0, where 1 and ln 2 cancel; relative where the potential grows as z.
    np.testing.assert_allclose(got, want, rtol=8 * eps, atol=8 * eps)
    derivative = jax.jit(jax.vmap(jax.grad(potential)))(z)
    rate = jax.jit(lambda v: ent.tensor_net_rate(v, jnp.ones_like(v), sign))(z)
    want = (D + ORIENTATION[sign] * gradient).astype(float)
    np.testing.assert_allclose(np.asarray(derivative, float), want, rtol=8 * eps, atol=8 * eps)
    np.testing.assert_allclose(np.asarray(rate, float), want, rtol=8 * eps, atol=8 * eps)


def test_the_default_sign_is_the_published_one():
    z, zdot = jnp.linspace(-3.0, 3.0, 7), jnp.full(7, 1.5)
    want = (1 / (1 + np.exp(-z)) - z * np.exp(-z) / (1 + np.exp(-z)) ** 2 / LN2) * 1.5
    np.testing.assert_allclose(ent.tensor_net_rate(z, zdot), want, atol=1e-15)
    np.testing.assert_array_equal(
        ent.tensor_net_potential(z), ent.tensor_net_potential(z, "published")
    )


def test_an_unknown_sign_is_refused(untyped):
    for function in (
        lambda z: ent.tensor_net_rate(z, z, "minus"),
        lambda z: ent.tensor_net_potential(z, "minus"),
    ):
        with pytest.raises(ValueError) as error:
            function(jnp.ones(2))
        for word in ("Argument sign", "'published' or 'equation'", "'minus'"):
            assert word in str(error.value)


@jax.jit
def of_one_neuron(z, zdot):
    return {
        "D": (ent.decision(z), ent.decision(-z)),
        "D rate": jax.jvp(ent.decision, (z,), (zdot,))[1],
        "h": ent.entropy(z),
        "h rate": jax.jvp(ent.entropy, (z,), (zdot,))[1],
        "L": ent.lagrangian(z, zdot),
        "published": ent.tensor_net_rate(z, zdot, "published"),
        "equation": ent.tensor_net_rate(z, zdot, "equation"),
    }


@given(z=st.floats(-60, 60), zdot=st.floats(-5, 5))
def test_identities_of_one_neuron(z, zdot):
    found = {name: np.asarray(value) for name, value in of_one_neuron(z, zdot).items()}
    close = {"rtol": 1e-14, "atol": 1e-15 * (1 + abs(zdot) * (1 + abs(z)))}
    np.testing.assert_allclose(found["h rate"], found["L"] / LN2, **close)  # eq. 12
    np.testing.assert_allclose(found["L"], -z * found["D rate"], **close)  # eq. 11
    want = found["D"][0] * zdot - found["L"] / LN2
    np.testing.assert_allclose(found["equation"], want, **close)  # eq. 28
    np.testing.assert_allclose(found["published"] - found["equation"], 2 * found["h rate"], **close)
    np.testing.assert_allclose(found["D"].sum(), 1, rtol=1e-15)
    assert 0 <= found["h"] <= 1 + 1e-15


@jax.jit
def euler_lagrange(c, t):
    """d/dt ∂L/∂ż and ∂L/∂z on the path z(t) = c0 + c1 t + c2 t² + c3 sin 3t."""

    def path(t):
        return c[0] + c[1] * t + c[2] * t**2 + c[3] * jnp.sin(3 * t)

    def momentum(t):
        return jax.grad(ent.lagrangian, argnums=1)(path(t), jax.grad(path)(t))

    return jax.grad(momentum)(t), jax.grad(ent.lagrangian, argnums=0)(path(t), jax.grad(path)(t))


@given(c=st.lists(st.floats(-2, 2), min_size=4, max_size=4), t=st.floats(0, 2))
def test_euler_lagrange_holds_along_any_path(c, t):
    # Eq. 16-25: the two sides are equal whatever the path, so the equation selects none.
    change, force = euler_lagrange(np.array(c), t)
    np.testing.assert_allclose(change, force, atol=1e-13)


@both
def test_under_jit_and_vmap(dtype):
    functions = {
        "decision": ent.decision,
        "decision_derivative": ent.decision_derivative,
        "entropy": ent.entropy,
        "entropy_gradient": ent.entropy_gradient,
        "lagrangian": lambda v: ent.lagrangian(v, v),
        "tensor_net_rate": lambda v: ent.tensor_net_rate(v, v, "equation"),
        "tensor_net_potential": ent.tensor_net_potential,
    }

    def each(z):
        return {name: function(z) for name, function in functions.items()}

    z = points(dtype)[::40].reshape(2, 3, -1)
    together, one_by_one = jax.jit(each)(z), jax.jit(jax.vmap(jax.vmap(jax.vmap(each))))(z)
    # Fused code may round differently by an ulp or two.
    eps = float(jnp.finfo(dtype).eps)
    for name, function in functions.items():
        want = np.asarray(function(z))
        assert want.dtype == dtype
        for got in (together[name], one_by_one[name]):
            np.testing.assert_allclose(got, want, rtol=16 * eps, atol=2 * eps)


def pairs(dtype):
    """z0 and z: near and far, of all sizes and signs, equal, opposite, and around what is special."""
    rng = np.random.default_rng(0)
    signs = lambda: rng.choice([-1, 1], 400)
    z0 = 10 ** rng.uniform(-6, np.log10(70), 400) * signs()
    z = np.concatenate(
        [
            z0[:200] + 10 ** rng.uniform(-9, 1, 200) * signs()[:200],
            10 ** rng.uniform(-6, np.log10(70), 200) * signs()[200:],
        ]
    )
    special = [0.0, 1e-5, 0.5, 1.0, 1.5, 1.5434, 40.0, 86.0, 1e3, 1e4]
    special = np.array([*special, *(-s for s in special)])
    a, b = (grid.ravel() for grid in np.meshgrid(special, special))
    steps = [np.spacing(np.asarray(a, dtype)), np.full(a.shape, 1e-3), np.full(a.shape, -1.0)]
    z0 = np.concatenate([z0, a, a, a, a])
    z = np.concatenate([z, b, *(a + step for step in steps)])
    return np.asarray(z0, dtype), np.asarray(z, dtype)


def changes_exactly(z0, z):
    """Changes of softplus and of h in a hundred digits, of which the differences leave enough."""
    with decimal.localcontext(decimal.Context(prec=100)):
        one, ln2 = decimal.Decimal(1), decimal.Decimal(2).ln()

        def potentials(z):
            a = abs(z)
            e = (-a).exp()
            # Of what is far below a hundred digits of 1 only the leading term counts.
            logarithm = (one + e).ln() if a < 200 else e
            return max(z, decimal.Decimal(0)) + logarithm, (logarithm + a * e / (1 + e)) / ln2

        ends = [
            [potentials(decimal.Decimal(float(value))) for value in values] for values in (z0, z)
        ]
        found = [[b - a for a, b in zip(p, q, strict=True)] for p, q in zip(*ends, strict=True)]
        return np.array(found, np.longdouble).T


@both
def test_small_changes_keep_their_digits(dtype):
    z0, z = pairs(dtype)
    want = changes_exactly(z0, z)
    tiny = float(jnp.finfo(dtype).tiny)
    for changes in (ent.changes, jax.jit(ent.changes), jax.jit(jax.vmap(ent.changes))):
        got = changes(z0, z)
        assert got.softplus.dtype == got.entropy.dtype == dtype
        error = np.abs(np.stack([np.asarray(part, np.longdouble) for part in got]) - want)
        d = np.abs(z.astype(float) - z0)
        a = np.minimum(np.abs(z), np.abs(z0)).astype(float)
        worst = (2e-6 if dtype == np.float32 else 3e-13) * (1 + a / 8)
        slope = np.exp(-np.maximum(a - d, 0))  # no D' on the way is larger
        assert np.all(error[0] <= worst * np.abs(want[0]) + 100 * tiny)
        assert np.all(error[1] <= worst * np.minimum(d, 1) * (1 + a) * slope + 100 * tiny)
    for sign in SIGNS:
        net = got.softplus + ORIENTATION[sign] * got.entropy
        np.testing.assert_array_equal(got.tensor_net(sign), net)


@both
def test_no_change_is_exactly_none_and_the_way_back_is_the_opposite(dtype):
    z0, z = pairs(dtype)
    with jax.disable_jit():  # as it is written
        for there, back in zip(ent.changes(z0, z), ent.changes(z, z0), strict=True):
            np.testing.assert_array_equal(there, -back)
    # A compiler may fuse a product and a sum on one side of a difference, and not on the other.
    changes, limits = jax.jit(ent.changes), jnp.finfo(dtype)
    for there, back in zip(changes(z0, z), changes(z, z0), strict=True):
        np.testing.assert_allclose(there, -back, rtol=64 * limits.eps, atol=10 * limits.tiny)
    for value in changes(z, z):
        np.testing.assert_array_equal(value, 0)
    assert ent.changes(0.0, 0.0) == (0, 0)


@both
def test_changes_have_the_potentials_derivatives(dtype):
    z0, z = (jnp.asarray(a) for a in pairs(dtype))
    ones = jnp.ones_like(z)
    for place, at, sense in ((0, z0, -1), (1, z, 1)):
        for sign in SIGNS:
            net = lambda *ends, sign=sign: ent.changes(*ends).tensor_net(sign)
            got = jax.jit(jax.vmap(jax.grad(net, place)))(z0, z)
            want = sense * ent.tensor_net_rate(at, ones, sign)
            eps = 4 * float(jnp.finfo(dtype).eps)
            np.testing.assert_allclose(got, want, rtol=eps, atol=eps)
    second = jax.jit(jax.vmap(jax.grad(jax.grad(lambda a, b: ent.changes(a, b).entropy, 1), 1)))
    want = jax.vmap(jax.grad(ent.entropy_gradient))(z)
    eps = 8 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(second(z0, z), want, rtol=eps, atol=eps)
