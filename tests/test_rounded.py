"""Methods in formats: a program of integers bit for bit; noise that adds up; what has no format is exact."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from scipy.special import expit

import skajax as ska
from skajax.formats import FLOAT16, Fixed, Noise

WEIGHTS, READS, KNOWLEDGE, GRADIENT = Fixed(10, 8), Fixed(9, 7), Fixed(10, 6), Fixed(8, 8)
PROBLEM = dataclasses.replace(ref.SMALL, inputs=6, widths=(9, 5), samples=8)


def shifted(n, by, bits):
    """n / 2^by, to the nearest whole number, ties to even, saturated at so many bits: shifts alone."""
    low, rest, half = n >> by, n & ((1 << by) - 1), 1 << (by - 1)
    low = low + ((rest > half) | ((rest == half) & (low & 1 == 1)))
    return np.clip(low, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def table(function, bits, fraction):
    """Of every knowledge that there is (10 bits, 6 behind the point) a value in fixed point."""
    z = np.arange(-512, 512) / 64
    most = 1 << (bits - 1)
    return np.clip(np.rint(function(z) * 2.0**fraction), -most, most - 1).astype(np.int64)


DECIDED = table(expit, 9, 7)
PULLED = table(lambda z: -z * expit(z) * expit(-z) / np.log(2), 8, 8)


def integers(weights, x, ticks):
    """Euler's method with dt = 2^-5 on 8 samples, in integers; weights have 8 bits behind the point."""
    weights = [(W.copy(), b.copy()) for W, b in weights]
    for _ in range(ticks):
        a, after = x, []  # 7 bits behind the point
        for W, b in weights:
            read_W, read_b = shifted(W, 1, 9), shifted(b, 1, 9)
            z = shifted(a @ read_W + (read_b << 7), 8, 10)
            g = PULLED[z + 512]
            # Of xᵀ g 15 bits are behind the point, of its mean over 8 samples times 2^-5 23.
            after.append(
                (shifted((W << 15) - a.T @ g, 15, 10), shifted((b << 8) - g.sum(axis=0), 8, 10))
            )
            a = DECIDED[z + 512]
        weights = after
    return weights


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_fixed_point_is_a_program_of_integers_bit_for_bit(dtype, x64):
    weights, x = PROBLEM.numpy()
    start = [tuple(np.rint(leaf * 256).astype(np.int64) for leaf in w) for w in weights]
    x = np.rint(x * 128).astype(np.int64)
    want = integers(start, x, 60)
    network = PROBLEM.network
    method = ska.Rounded(ska.Euler(2.0**-5), WEIGHTS, READS, KNOWLEDGE, GRADIENT)
    run = ska.simulate(
        network, ref.to_skajax([(W / 256, b / 256) for W, b in start], dtype),
        jnp.asarray(x / 128, dtype), method, steps=60, observe=(),
    )  # fmt: skip
    for got, (W, b), (W0, _) in zip(run.final.weights, want, start, strict=True):
        np.testing.assert_array_equal(np.asarray(got.W, np.float64) * 256, W)
        np.testing.assert_array_equal(np.asarray(got.b, np.float64) * 256, b)
        assert (W != W0).mean() > 0.3


@pytest.mark.parametrize("method", [ska.Pipelined(0.1), ska.Published(0.1)])
def test_without_formats_it_is_the_method(method):
    network, weights, x = ref.SMALL.arrays(jnp.float32)
    run = lambda method: ska.simulate(network, weights, x, method, t1=1.0, observe=("flow_norm",))
    plain, wrapped = run(method), run(ska.Rounded(method))
    jax.tree.map(np.testing.assert_array_equal, plain.final, wrapped.final)
    np.testing.assert_array_equal(plain.t, wrapped.t)
    np.testing.assert_array_equal(plain.flow_norm, wrapped.flow_norm)
    assert str(wrapped.outcome) == str(plain.outcome)


def test_the_published_rule_in_half_precision():
    network, weights, x = ref.SMALL.arrays(jnp.float32)
    run = lambda method: ska.simulate(network, weights, x, method, t1=1.0, observe=())
    exact = run(ska.Published(0.1))
    run = run(ska.Rounded(ska.Published(0.1), FLOAT16, FLOAT16, FLOAT16, FLOAT16))
    for got, want in zip(run.final.weights, exact.final.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(got.W).astype(np.float16), got.W)
        assert 1e-5 < np.abs(got.W - want.W).max() < 1e-2


def test_noise_adds_up_over_steps():
    """A walk: after 16 writes that move nothing else its standard deviation is 4 times one's."""
    x, network = jnp.ones((1, 100)), ska.mlp([100])
    weights = network.init(jax.random.key(0), x)
    noisy = ska.Rounded(ska.Euler(1e-6), weights=Noise(absolute=0.01))
    end = ska.simulate(network, weights, x, noisy, steps=16, observe=()).final.weights[0].W
    np.testing.assert_allclose(np.std(end - weights[0].W), 0.04, rtol=0.03)


@pytest.mark.parametrize("dt", [2.0**-8, 2.0**-10, 2.0**-13])
def test_stochastic_roundings_noise_does_not_grow_as_steps_become_small(dt):
    """Of independent neurons at z = 1.54, where the flow is flat: each step has the variance u² f (1 - f).

    u is a unit in the last place and f the part of it by which dt Ẇ lies above a number that there is, so
    that the variance tends to u ∫ |Ẇ| dt, and the mean is Euler's.
    """
    K, unit = round(0.125 / dt), 2.0**-10
    network, x = ska.mlp([20_000]), jnp.ones((1, 1), jnp.float32)
    start = ref.to_skajax([(np.ones((1, 20_000)), np.full(20_000, 0.5))], jnp.float32)
    method = ska.Rounded(ska.Euler(dt), weights=Fixed(12, 10, stochastic=True))
    end = ska.simulate(network, start, x, method, steps=K, observe=()).final.weights[0].W
    z, moved, variance = 1.5, 0.0, 0.0
    for _ in range(K):
        step = dt * z * expit(z) * expit(-z) / ref.LN2
        f = step / unit % 1
        z, moved, variance = z + 2 * step, moved + step, variance + unit**2 * f * (1 - f)
    off = np.asarray(end, np.float64) - 1 - moved
    assert abs(off.mean()) < 4 * np.sqrt(variance / 20_000)
    np.testing.assert_allclose(off.var(), variance, rtol=0.05)  # 1 % is its standard error
    if dt < 2.0**-12:
        np.testing.assert_allclose(variance, unit * moved, rtol=0.05)


class Times(ska.formats.Format):
    """A format that no hardware has, and that tells where it was."""

    factor: float
    name = "times"

    def apply(self, x, key):
        return self.factor * x


def test_every_format_is_at_its_place_and_no_other(x64):
    """One step by hand, of two layers: reads of x, W and b, knowledge, gradient, and what is held."""
    weights, x = ref.SMALL.numpy()
    method = ska.Rounded(ska.Euler(0.1), Times(1.1), Times(0.9), Times(1.2), Times(0.7))
    network, start, inputs = ref.SMALL.arrays()
    end = ska.simulate(network, start, inputs, method, steps=1, observe=()).final.weights
    a = x
    for (W, b), got in zip(weights, end, strict=True):
        read = 0.9 * a
        z = 1.2 * (read @ (0.9 * W) + 0.9 * b)
        g = 0.7 * -z * ref.slope(z) / ref.LN2
        np.testing.assert_allclose(got.W, 1.1 * (W - 0.1 * read.T @ g / len(x)), rtol=1e-12)
        np.testing.assert_allclose(got.b, 1.1 * (b - 0.1 * g.mean(axis=0)), rtol=1e-12)
        a = expit(z)


def test_seeds_and_lanes():
    network, weights, x = ref.SAMPLE.arrays(jnp.float32)
    coarse = Fixed(8, 4, stochastic=True)
    make = lambda seed: ska.Rounded(ska.Euler(0.1), coarse, coarse, seed=seed)
    run = lambda seed: ska.simulate(network, weights, x, make(seed), steps=10, observe=("entropy",))
    first, again, other = run(0), run(0), run(1)
    np.testing.assert_array_equal(first.entropy, again.entropy)
    assert np.abs(np.asarray(first.entropy - other.entropy)).max() > 1e-3
    lanes = jax.jit(jax.vmap(run))(jnp.arange(2))
    np.testing.assert_allclose(lanes.entropy, np.stack([first.entropy, other.entropy]), rtol=1e-6)
    data = ska.sweep(
        network, weights, x, make, steps=10, over=ska.grid(seed=[0, 1]), observe=("entropy",)
    )
    np.testing.assert_allclose(data.entropy, lanes.entropy, rtol=1e-6)
    more = ska.extend(
        ska.simulate(network, weights, x, make(1), steps=4, observe=("entropy",)), steps=10
    )
    np.testing.assert_array_equal(more.entropy, other.entropy)


def test_derivatives_go_through():
    network, weights, x = ref.SMALL.arrays(jnp.float32)
    fine = Fixed(22, 18)

    def left(weights, method):
        run = ska.simulate(network, weights, x, method, steps=5, observe=("entropy",))
        return run.entropy[-1].sum()

    slope = lambda method: jax.jit(jax.grad(lambda w: left(w, method)))(weights)
    exact = slope(ska.Euler(0.1))
    rounded = slope(ska.Rounded(ska.Euler(0.1), fine, fine, fine))
    for a, b in zip(jax.tree.leaves(rounded), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * np.abs(b).max())


def test_stages_rates_and_other_layers():
    """A convolution, a pool, a recurrence and a rate, with formats so fine that nothing changes."""
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 6, 6, 1)), jnp.float32)
    fine = Fixed(24, 20)
    network = ska.Network(
        (
            ska.layers.Conv(2, (3, 3), scale=0.5), ska.layers.Pool(2), ska.layers.Flatten(),
            ska.Paced(ska.Dense(3, scale=0.5, decision="tanh"), 2.0),
        )
    )  # fmt: skip
    weights = network.init(jax.random.key(0), x)
    run = lambda method: ska.simulate(network, weights, x, method, steps=10, observe=("entropy",))
    want, got = run(ska.Euler(0.1)), run(ska.Rounded(ska.Euler(0.1), *[fine] * 4))
    np.testing.assert_allclose(got.entropy, want.entropy, rtol=1e-4)
    assert np.abs(np.asarray(got.entropy - want.entropy)).max() > 0


def test_what_does_not_fit(untyped):
    with pytest.raises(
        ValueError, match=r"^Argument method must be a .* steps.* it was Adaptive\.$"
    ):
        ska.Rounded(ska.Adaptive())
    with pytest.raises(ValueError, match="Argument reads must be None or a format"):
        ska.Rounded(ska.Euler(0.1), reads=8)
