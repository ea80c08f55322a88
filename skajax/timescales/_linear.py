"""The linear regime in closed form: what the flow does while |z| is small."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from skajax._checks import as_array, is_traced, require
from skajax._types import Array, Float, Inputs, Scalar, ScalarLike, Weights
from skajax.entropy import growth_rate, hidden_growth
from skajax.layers import DenseWeights
from skajax.network import Network, check_inputs, check_weights
from skajax.system import State, state
from skajax.timescales._spectrum import spectrum
from skajax.timescales._thin import dense_layers, pace


def linear(network: Network, weights: Weights, x: Inputs, t: ScalarLike) -> State:
    """The state at time t, from the flow's expansion for small knowledge (eq. 3-4 with D' = 1/4).

    With w = [W; b] and x̃ = [x 1], z D' = z/4 makes the flow linear in w. In the first layer its
    matrix is constant, and with the modes V, λ of the batch (:func:`spectrum`)

        w(t) = w(0) + V (e^{λt} - 1) Vᵀ w(0).

    A hidden layer reads D = 1/2 + z/4 + O(z³) of the layer below. To zeroth order all samples
    have one input v = (1/2, ..., 1/2, 1), and one mode grows, v̂ = v/|v|, at μ = (n_{l-1}/4 + 1) / (4 ln 2).
    To first order the input's mean over the batch moves: v + u(t), with u = mean(z)/4 a sum of the
    exponentials of the layer below, and

        dw/dt = (v vᵀ + v uᵀ + u vᵀ) w / (4 ln 2),

    whose solution to first order in u is :func:`_drifted`. That z is then as exact as the first
    layer's: what is left out is of relative order z² in every layer, 1e-6 at |z| = 1e-3.

    Returns the :class:`skajax.State` at t; where the largest |z| of it is no longer small against 1, it has
    left the linear regime, and grows on past all bounds. Works inside jit, vmap and grad. Raises
    ValueError for arguments that do not fit: their names, what they must be, what they were.

    >>> early = ska.timescales.linear(network, weights, x, 0.1)
    >>> early.Z[0].shape
    (20, 8)
    """
    dense_layers(network)
    x = as_array("x", x)
    check_inputs(x)
    weights = jax.tree.map(lambda leaf: as_array("weights", leaf), weights)
    check_weights(network, weights, x)
    time = as_array("t", t)
    real = jnp.issubdtype(time.dtype, jnp.integer) or jnp.issubdtype(time.dtype, jnp.floating)
    fits = real and time.ndim == 0 and (is_traced(time) or 0 <= float(time) < math.inf)
    require(fits, "t", "be one finite time, 0 or later", f"it was {t!r}")
    return _linear(network, weights, x, time.astype(x.dtype))


@eqx.filter_jit
def _linear(network: Network, weights: Weights, x: Array, t: Array) -> State:
    moved = []
    drift = None
    rates = pace(network, x.dtype)
    for number, entry in enumerate(weights):
        w = jnp.concatenate([entry.W, entry.b[None, :]])
        if number == 0:
            known = spectrum(x)
            growing = rates[0] * known.rates
            V, along = known.directions, known.directions.T @ w
            now = w + V @ (jnp.expm1(growing * t)[:, None] * along)
            mean = jnp.append(x.mean(axis=0), 1) @ V
            drift = growing, mean[:, None] * along / 4
        else:
            assert drift is not None
            now, drift = _drifted(w, rates[number], *drift, t)
        moved.append(DenseWeights(now[:-1], now[-1]))
    return state(network, tuple(moved), x, t)


def _drifted(
    w: Float[Array, "inputs_and_one outputs"],
    own: Scalar,
    rates: Float[Array, " modes"],
    terms: Float[Array, "modes inputs"],
    t: Array,
) -> tuple[Array, tuple[Array, Array]]:
    """w(t) of a hidden layer whose mean input is v + Σ_k c_k e^{λ_k t}; and its own mean z/4, likewise.

    w(t) = E(t) w + (1/(4 ln 2)) ∫₀ᵗ E(t - s) (v u(s)ᵀ + u(s) vᵀ) E(s) w ds,
    E(t) = 1 + (e^{μt} - 1) v̂ v̂ᵀ.
    """
    inputs = w.shape[0] - 1
    v = jnp.append(jnp.full(inputs, 0.5, w.dtype), jnp.ones(1, w.dtype))
    length = math.sqrt(inputs / 4 + 1)
    rate = own * hidden_growth(inputs)
    unit, along = v / length, v @ w / length  # v̂ and v̂ᵀw
    c = jnp.concatenate([terms, jnp.zeros((len(terms), 1), w.dtype)], axis=1)
    # ∫ e^{μ(t-s)+λs} ds, e^{μt} ∫ e^{λs} ds and ∫ e^{(μ+λ)s} ds, from 0 to t.
    grown = jnp.exp(rate * t)
    chasing = grown * _integral(rates - rate, t)
    steady = grown * _integral(rates, t)
    both = _integral(rates + rate, t)
    c_unit = c @ unit
    onto_v = chasing @ (c @ w) + ((steady - chasing) @ c_unit) * along
    onto_c = both @ c + ((steady - both) @ c_unit) * unit
    first = length * (jnp.outer(unit, onto_v) + jnp.outer(onto_c, along)) * growth_rate(own)
    now = w + (grown - 1) * jnp.outer(unit, along) + first
    return now, (rate[None], (length * along / 4)[None])


def _integral(rates: Float[Array, " modes"], t: Array) -> Float[Array, " modes"]:
    """∫₀ᵗ e^{λs} ds, at λ = 0 too."""
    still = rates == 0
    return jnp.where(still, t, jnp.expm1(rates * t) / jnp.where(still, 1, rates))
