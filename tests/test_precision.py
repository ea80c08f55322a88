"""The check of a device's matrix products, with products that are short by themselves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import skajax as ska
from skajax._precision import _at


@dataclasses.dataclass(frozen=True)
class Short(ska.Dense):
    """Products as an accelerator would make them: of factors with 10, or with ``bits``, bits."""

    bits: int = 10

    def knowledge(self, weights, x):
        if self.precision == "highest" or x.dtype == jnp.float64:
            return super().knowledge(weights, x)
        cut = lambda a: jax.lax.reduce_precision(a, exponent_bits=8, mantissa_bits=self.bits)
        return jnp.matmul(cut(x), cut(weights.W)) + weights.b[None, :]


def problem(bits):
    x = jax.random.uniform(jax.random.key(1), (40, 12))
    return ska.Network((Short(8, scale=0.3, bits=bits), Short(5, scale=0.3, bits=bits))), x


def test_shortened_products_drift_and_full_ones_do_not():
    network, x = problem(10)
    found = ska.check_precision(network, x, t1=4.0)
    assert found.drift.dims == ("precision", "layer")
    drift = found.drift
    assert (drift.sel(precision="highest") < 1e-5).all()
    # Ten bits round by 2^-11 = 5e-4 at most, of each factor.
    assert (drift.sel(precision="default") > 5e-6).all() and (drift < 1e-2).all()
    np.testing.assert_array_equal(drift.sel(precision="default"), drift.sel(precision="high"))


def test_drift_is_the_distance_to_float64(x64):
    network, x = problem(6)
    found = ska.check_precision(network, x, t1=2.0, tolerance=10.0)
    weights = network.init(jax.random.key(0), x)
    run = lambda network, dtype: ska.simulate(
        network, jax.tree.map(lambda a: a.astype(dtype), weights), x.astype(dtype), ska.Euler(0.04),
        steps=50, observe=(),
    )  # fmt: skip
    exact, short = run(network, jnp.float64), run(_at(network, "default"), jnp.float32)
    flat = lambda w: np.concatenate([np.float64(leaf).ravel() for leaf in w])
    for layer in range(2):
        a, b, c = (flat(w[layer]) for w in (short.final.weights, exact.final.weights, weights))
        want = np.linalg.norm(a - b) / np.linalg.norm(b - c)
        got = found.drift.sel(precision="default", layer=layer + 1)
        np.testing.assert_allclose(got, want, rtol=1e-3)


def test_a_moved_peak_is_warned_of_by_its_layer():
    network, x = problem(2)
    with pytest.warns(ska.SkajaxWarning, match="precision 'default' and 'high' spoil .* layer 1's"):
        found = ska.check_precision(network, x, t1=6.0, tolerance=1e-3)
    assert np.isfinite(found.peak).all()
    moved = np.abs(found.peak_shift.sel(precision="default")) > 1e-3 * found.peak
    assert moved.sel(layer=1)


def test_a_layer_without_a_peak_before_the_end_is_named():
    network, x = problem(10)
    with pytest.warns(ska.SkajaxWarning, match=r"t1 = 0.01 .* layers 1, 2, .*take a later t1"):
        found = ska.check_precision(network, x, t1=0.01)
    assert np.isnan(found.peak).all()


def test_weights_in_the_place_of_x_are_recognised(untyped):
    network, x = problem(10)
    with pytest.raises(
        ValueError, match=r"^Argument x must be an array .* weights and x swapped\?"
    ):
        ska.check_precision(network, network.init(jax.random.key(0), x), x)


def test_every_layer_of_a_network_is_set():
    block = ska.layers.Residual((ska.Dense(3, pointwise=True),))
    network = ska.Network((ska.Paced(ska.Dense(3, pointwise=True), 2.0), block, ska.Dense(2)))
    assert repr(_at(network, "high")).count("precision='high'") == 3
    assert "high'" not in repr(network)


@pytest.mark.parametrize(("name", "value"), [("t1", -1.0), ("tolerance", 0.0)])
def test_bad_numbers(untyped, name, value):
    network, x = problem(10)
    with pytest.raises(ValueError, match=f"^Argument {name} must"):
        ska.check_precision(network, x, **{name: value})
