"""Number formats against IEEE's own, integers, and brute force; the step at which rounding stops the flow."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import reference as ref
from hypothesis import given
from hypothesis import strategies as st

import skajax as ska
from skajax.formats import BFLOAT16, FLOAT16, Clipped, Fixed, Floating, Noise, stalling_step

floats = st.floats(width=32, allow_nan=False, allow_subnormal=False)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_half_precision_is_ieees(dtype, x64):
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float64),  # all there are
            rng.normal(size=4000) * 10.0 ** rng.integers(-9, 7, 4000),
            [65519.0, 65520.0, 65521.0, -65520.0, 2.0**-25, 3 * 2.0**-26, 0.1, np.inf],
        ]
    )
    x = x[~np.isnan(x)].astype(dtype)
    with np.errstate(over="ignore"):
        want = x.astype(np.float16).astype(dtype)
    np.testing.assert_array_equal(FLOAT16(jnp.asarray(x)), want)


@given(st.lists(floats, min_size=8, max_size=8))
def test_bfloat16_is_googles(values):
    x = np.asarray(values, np.float32)
    x = x[(np.abs(x) > 2.0**-119) & (np.abs(x) < 3e38)]
    got = jax.jit(BFLOAT16)(jnp.asarray(np.resize(x, 8) if x.size else np.ones(8, np.float32)))
    want = (np.resize(x, 8) if x.size else np.ones(8)).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(got, want.astype(np.float32))


@pytest.mark.parametrize(
    ("bits", "fraction"), [(2, 0), (8, 6), (8, 12), (16, 3), (24, 20), (6, -3)]
)
def test_fixed_point_is_integers(bits, fraction):
    rng = np.random.default_rng(bits)
    unit, most = 2.0**-fraction, 2 ** (bits - 1)
    whole = rng.integers(-2 * most, 2 * most, 500)
    x = np.concatenate([whole, whole + 0.5, rng.normal(size=500) * most]) * unit
    x = x.astype(np.float32)
    # Half to even, by comparing the remainder with half: no rounding of NumPy's.
    low = np.floor(x.astype(np.float64) / unit)
    rest = x.astype(np.float64) / unit - low
    n = low + (rest > 0.5) + ((rest == 0.5) & (low % 2 == 1))
    want = np.clip(n, -most, most - 1) * unit
    np.testing.assert_array_equal(Fixed(bits, fraction)(jnp.asarray(x)), want.astype(np.float32))


SPREAD = (0.01, 0.25, 0.5, 0.875, 0.99)
DRAWS = 400_000


def bias(rounding, ulp, at):
    """How far the means of many roundings are from what was rounded, in units in the last place.

    The standard error of a mean is at most 0.5 / √400,000 = 0.08 % of a unit.
    """
    x = jnp.asarray(at, jnp.float32)
    many = np.asarray(rounding(jnp.broadcast_to(x[:, None], (len(at), DRAWS))), np.float64)
    exact = np.asarray(x, np.float64)
    low = np.floor(exact / ulp)[:, None] * ulp
    assert np.all((many == low) | (many == low + ulp))
    return np.abs(many.mean(axis=1) - exact).max() / ulp


@pytest.mark.parametrize(
    ("number", "ulp", "base"),
    [
        (Fixed(8, 5, stochastic=True), 2.0**-5, 1.0),
        (Fixed(8, 5, stochastic=True), 2.0**-5, -2.0),
        (Floating(8, 7, stochastic=True), 2.0**-8, 0.75),
        (Floating(5, 10, stochastic=True), 2.0**-24, 2.0**-20),
    ],
    ids=str,
)
def test_stochastic_rounding_is_unbiased(number, ulp, base):
    at = base + np.asarray(SPREAD) * ulp
    draw = lambda x: number(x, jax.random.key(1))
    assert bias(draw, ulp, at) < 0.004
    up = np.float32(0.01 * ulp)
    assert bias(lambda x: draw(x + up), ulp, at[1:-1]) > 0.006  # it would see a bias of 1 %


@pytest.mark.parametrize("number", [Fixed(5, 3), Floating(3, 2), Floating(3, 4)], ids=str)
def test_gaps_lead_to_the_neighbours(number):
    """Of all numbers of the format, found by rounding a fine grid."""
    end = 4.0 if isinstance(number, Fixed) else number.largest
    every = np.unique(number(jnp.linspace(-end, end, 200_001)))
    x = jnp.asarray(every)
    up, down = (np.asarray(number.gap(x, jnp.full(x.shape, way))) for way in (True, False))
    np.testing.assert_array_equal(up[:-1], np.diff(every))
    np.testing.assert_array_equal(down[1:], np.diff(every))
    assert np.isinf(up[-1]) and np.isinf(down[0])


@pytest.mark.parametrize("number", [Fixed(12, 9), BFLOAT16], ids=lambda n: n.name)
def test_below_its_stalling_step_a_layer_rests_and_beyond_it_it_moves(number):
    network, weights, x = ref.SMALL.arrays(jnp.float32)
    start = jax.tree.map(number, weights)
    dt = np.asarray(stalling_step(number, start, ska.flow(network, start, x)))

    def moved(step, steps):
        method = ska.Rounded(ska.Euler(step), weights=number)
        end = ska.simulate(network, start, x, method, steps=steps, observe=()).final.weights
        pairs = zip(start, end, strict=True)
        return [any(bool((p != q).any()) for p, q in zip(a, b, strict=True)) for a, b in pairs]

    assert len({*dt}) == 2
    for step in (*0.999 * dt, *1.001 * dt):
        assert moved(float(step), 1) == list(dt < step)
    assert moved(0.999 * float(dt.min()), 100) == [False] * 2  # and never will


def test_fixed_points_stalling_step_by_hand():
    number = Fixed(20, 14)
    start, x = ref.SMALL.numpy()
    rates = ref.flow(start, x)
    want = [2.0**-14 / 2 / max(np.abs(leaf).max() for leaf in entry) for entry in rates]
    held, velocity = (ref.to_skajax(w, jnp.float32) for w in (start, rates))
    held = jax.tree.map(number, held)
    np.testing.assert_allclose(stalling_step(number, held, velocity), want, rtol=1e-6)
    at_rest = jax.tree.map(jnp.zeros_like, velocity)
    assert np.isinf(stalling_step(number, held, at_rest)).all()


def test_noise_has_the_size_that_is_said():
    x = jnp.repeat(jnp.array([[0.0], [2.0], [-4.0]]), 100_000, axis=1)
    noise = Noise(absolute=0.5, relative=0.25)(x, jax.random.key(0)) - x
    np.testing.assert_allclose(noise.std(axis=1), [0.5, 1.0, 1.5], rtol=0.01)
    np.testing.assert_allclose(noise.mean(axis=1), 0, atol=0.02)
    np.testing.assert_array_equal(Clipped(1.5)(x[:, 0]), [0.0, 1.5, -1.5])


def test_names():
    told = [Fixed(8, 6), Fixed(8, 6, True), BFLOAT16, FLOAT16, Floating(4, 3, True), Noise(0.1, 0.02),
            Noise(relative=0.5), Clipped(2)]  # fmt: skip
    assert [each.name for each in told] == [
        "fixed 8.6", "fixed 8.6, stochastic", "bfloat16", "float16", "float 4.3, stochastic",
        "noise 0.1 + 2 %", "noise 50 %", "within ±2",
    ]  # fmt: skip


def test_what_is_no_format(untyped):
    for make, argument in (
        (lambda: Fixed(1, 0), "bits"), (lambda: Fixed(25, 0), "bits"), (lambda: Fixed(8, 99), "fraction"),
        (lambda: Fixed(8, 6, 1), "stochastic"), (lambda: Floating(9, 7), "exponent"),
        (lambda: Floating(8, 23), "mantissa"), (lambda: Noise(-1.0), "absolute"),
        (lambda: Noise(0.0, np.inf), "relative"), (lambda: Clipped(0.0), "limit"),
        (lambda: Noise(0.1)(jnp.ones(3)), "key"),
        (lambda: stalling_step(Noise(0.1), (), ()), "number"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"Argument {argument} must be"):
            make()
