"""Scales that make all flows peak at once: against closed forms, and where it cannot be."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from scipy.optimize import brentq
from scipy.special import shichi

import skajax as ska
from skajax.study import synchronise
from skajax.study.synchronise import APART, NO_PEAK, SYNCHRONISED, peak_times

X = np.random.default_rng(0).uniform(size=(8, 4))
NETWORK = ska.mlp([6, 5], scale=0.1)
T1 = 12.0


def weights(seed, dtype=jnp.float64):
    """With ``SYNCHRONISABLE`` all flows can peak at 6; with ``JUMPING`` layer 2's cannot."""
    rng = np.random.default_rng(seed)
    return tuple(
        ska.DenseWeights(
            jnp.asarray(0.1 * rng.normal(size=shape), dtype), jnp.zeros(shape[1], dtype)
        )
        for shape in ((4, 6), (6, 5))
    )


SYNCHRONISABLE, JUMPING = 2, 10


def times_of(scales, start, network, x, t1, records=101):
    """The peaks' times from weights whose W is scaled, as any user of simulate finds them."""
    scaled = tuple(w._replace(W=s * w.W) for w, s in zip(start, scales, strict=True))
    method = ska.Adaptive(rtol=1e-9, atol=1e-11, adjoint=diffrax.ForwardMode())
    times = jnp.linspace(0, t1, records)
    run = ska.simulate(network, scaled, x, method, t1, save_at=times, observe=("flow_norm",))
    return peak_times(run)


def with_flow(run, flow_norm):
    return eqx.tree_at(lambda r: r.flow_norm, run, flow_norm)


class OneNeuron:
    """One neuron, one sample: c = x² + 1, dz/dt = c z D'(z) / ln 2, largest where z tanh(z/2) = 1."""

    x, W = 0.8, 0.1
    c = x**2 + 1
    crest = brentq(lambda z: z * np.tanh(z / 2) - 1, 1, 2, xtol=1e-15)

    @staticmethod
    def passed(z):
        """c t / (2 ln 2), from somewhere: its derivative is (1 + cosh z) / z."""
        return np.log(z) + shichi(z)[1]

    @classmethod
    def time(cls, scale):
        """From z to the crest."""
        start = scale * cls.x * cls.W
        return 2 * ref.LN2 / cls.c * (cls.passed(cls.crest) - cls.passed(start))

    @classmethod
    def slope(cls, scale):
        """Of the time in the scale."""
        return -2 * ref.LN2 / cls.c * (1 + np.cosh(scale * cls.x * cls.W)) / scale

    @classmethod
    def problem(cls):
        start = (ska.DenseWeights(jnp.array([[cls.W]]), jnp.zeros(1)),)
        return ska.mlp([1]), start, jnp.array([[cls.x]])


def test_peak_time_and_its_derivative_in_closed_form(x64):
    network, start, x = OneNeuron.problem()
    t1 = 8.0

    def time(scales):
        return times_of(scales, start, network, x, t1).t

    scales = jnp.array([1.3])
    value, slope = jax.jit(lambda s: jax.jvp(time, (s,), (jnp.ones(1),)))(scales)
    # The quartic's error is of fourth order in the spacing, 0.08, of a hump some 2 wide.
    np.testing.assert_allclose(value, OneNeuron.time(1.3), atol=2e-5)
    np.testing.assert_allclose(slope, OneNeuron.slope(1.3), rtol=1e-4)


def test_derivatives_of_all_peaks_are_those_of_differences(x64):
    start = weights(SYNCHRONISABLE)

    def times(scales):
        return times_of(scales, start, NETWORK, jnp.asarray(X), T1).t

    moving = jax.jit(lambda scales, along: jax.jvp(times, (scales,), (along,)))
    scales, units = jnp.array([0.9, 0.6]), jnp.eye(2)
    time = lambda scales: moving(scales, units[0])[0]
    jacobian = jnp.stack([moving(scales, unit)[1] for unit in units], axis=1)
    step = 1e-3
    for column, unit in enumerate(units):
        near, far = (
            time(scales + n * step * unit) - time(scales - n * step * unit) for n in (1, 2)
        )
        want = (8 * near - far) / 12 / step
        np.testing.assert_allclose(jacobian[:, column], want, rtol=1e-6, atol=1e-7)
    # Smaller weights peak later; no layer feels those above it.
    assert (jnp.diag(jacobian) < 0).all()
    assert jacobian[0, 1] == 0


def test_peak_times_are_the_landmarks(x64):
    start = weights(SYNCHRONISABLE)
    times = np.linspace(0, T1, 401)
    method = ska.Adaptive(rtol=1e-9, atol=1e-11)
    run = ska.simulate(NETWORK, start, X, method, T1, save_at=times, observe=("flow_norm",))
    found = peak_times(run)
    np.testing.assert_array_equal(found.inside, True)
    # The landmarks' parabola has an error of second order in the spacing, 0.03.
    np.testing.assert_allclose(found.t, [p.t for p in ska.landmarks.peaks(run)], atol=2e-4)


@pytest.mark.parametrize("order", [1, -1])
def test_a_flow_that_only_rises_or_falls_has_no_peak_inside(order, x64):
    run = ska.simulate(NETWORK, weights(SYNCHRONISABLE), jnp.asarray(X), ska.Euler(0.1), steps=6)
    ramp = jnp.arange(1.0, 8.0)[::order, None] * jnp.ones((1, 2))
    found = peak_times(with_flow(run, ramp))
    np.testing.assert_array_equal(found.inside, False)
    np.testing.assert_array_equal(found.t, run.t[-1] if order == 1 else 0.0)
    with pytest.raises(ValueError, match="Argument run must be one run of at least 5 records"):
        peak_times(with_flow(run, ramp[:4]))


FACTORS_AT_6 = (0.32651, 0.06701)
"""What makes them so, where the test below has it in double precision."""


@pytest.mark.parametrize("at", [None, 6.0])
def test_all_flows_peak_at_once(at, x64):
    start = weights(SYNCHRONISABLE)
    found = synchronise(NETWORK, start, X, T1, at=at)
    assert found.succeeded and found.code == SYNCHRONISED and found.layer == 0
    assert found.at == (found.before.mean() if at is None else at)
    assert found.spread_before > 1
    assert found.spread < 1e-4 * T1
    assert str(found).startswith(
        f"synchronised: all flows peak at t = {float(found.at):.6g}, within"
    )
    if at == 6:
        np.testing.assert_allclose(found.factors, FACTORS_AT_6, rtol=1e-3)
    # The weights are those that were given, scaled; and it is so as any run sees it.
    for got, given, factor in zip(found.weights, start, found.factors, strict=True):
        np.testing.assert_array_equal(got.W, factor * given.W)
        np.testing.assert_array_equal(got.b, given.b)
    run = ska.simulate(
        NETWORK,
        found.weights,
        X,
        ska.Adaptive(rtol=1e-8, atol=1e-10),
        T1,
        save_at=np.linspace(0, T1, 401),
        observe=("flow_norm",),
    )
    peaks = [peak.t for peak in ska.landmarks.peaks(run)]
    np.testing.assert_allclose(peaks, found.at, atol=1e-3 * float(found.at) + 2e-4)


def test_a_peak_that_jumps_over_the_time(x64):
    # Layer 2 moves with layer 1, which raises a second hump in its flow: 6 lies between the two.
    found = synchronise(NETWORK, weights(JUMPING), X, T1, at=6.0)
    assert not found.succeeded and found.code == APART and found.layer == 2
    np.testing.assert_allclose(found.after[0], 6.0, rtol=1e-3)
    assert abs(found.after[1] - 6) > 0.1
    assert str(found).startswith(
        f"not synchronised: the nearest found has layer 2's peak at t = {float(found.after[1]):.6g}"
        " instead of t = 6."
    )
    both = times_of(found.factors, weights(JUMPING), NETWORK, jnp.asarray(X), T1).t
    np.testing.assert_allclose(both, found.after, atol=1e-3)


def test_a_run_too_short_for_a_peak(x64):
    found = synchronise(NETWORK, weights(SYNCHRONISABLE), X, 3.0, at=2.0)
    assert not found.succeeded and found.code == NO_PEAK and found.layer == 1
    assert found.tried == 0
    np.testing.assert_array_equal(found.factors, 1)
    np.testing.assert_array_equal(found.after, found.before)
    assert found.before[0] == 3.0  # still rising
    assert str(found).startswith("not tried: layer 1's flow has no peak inside the run")
    # At rest there is no flow at all.
    still = jax.tree.map(jnp.zeros_like, weights(SYNCHRONISABLE))
    found = synchronise(NETWORK, still, X, 3.0, at=2.0)
    assert found.code == NO_PEAK
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_under_jit_and_vmap_in_single_precision():
    # A lane that can and one whose flow only falls, beside each other.
    network, start, x = OneNeuron.problem()
    lanes = jax.tree.map(lambda w: jnp.stack([w, 25 * w]), start)
    at = 3.5
    found = jax.jit(jax.vmap(lambda w: synchronise(network, w, x, 8.0, at=at)))(lanes)
    np.testing.assert_array_equal(found.succeeded, [True, False])
    np.testing.assert_array_equal(found.code, [SYNCHRONISED, NO_PEAK])
    np.testing.assert_array_equal(found.layer, [0, 1])
    assert str(found) == f"Synchronisation(code={found.code})"
    np.testing.assert_allclose(found.after[0], at, rtol=1e-3)
    factor = brentq(lambda scale: OneNeuron.time(scale) - at, 0.1, 10)
    np.testing.assert_allclose(found.factors, [[factor], [1]], rtol=5e-3)
    assert found.spread.dtype == jnp.float32


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("network", {"network": "mlp"}),
        ("x", {"x": np.ones((2, 4), int)}),
        ("x", {"x": np.full((2, 4), np.nan)}),
        ("weights", {"weights": ()}),
        ("t1", {"t1": 0.0}),
        ("at", {"at": -1.0}),
        ("at", {"at": T1}),
        ("records", {"records": 4}),
        ("records", {"records": 50.0}),
        ("rtol", {"rtol": 0.0}),
        ("tolerance", {"tolerance": np.inf}),
        ("max_steps", {"max_steps": 0}),
    ],
)
def test_arguments_that_do_not_fit(name, changes, x64, untyped):
    given = {"network": NETWORK, "weights": weights(SYNCHRONISABLE), "x": X, "t1": T1} | changes
    with pytest.raises(ValueError, match=f"Argument {name} must .*, but "):
        synchronise(**given)
