"""Characteristic times: read off series with known ones, off exact solutions, and ranked by spread."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import expit
from synthetic import synthetic

import skajax as ska
from skajax import timescales

FINE = np.linspace(0, 2, 2001)
OBSERVE = ("entropy", "entropy_rate", "flow_norm", "knowledge_norm", "tensor_net_rate")


@pytest.fixture(autouse=True)
def double(x64):
    """Double precision for all tests of this file."""


def one(data, definition, layer=None):
    if layer is None:
        return data["network_time"].sel(definition=definition).item()
    return data["time"].sel(definition=definition, layer=layer).item()


def why(data, definition, layer=None):
    if layer is None:
        return data["network_reason"].sel(definition=definition).item()
    return data["reason"].sel(definition=definition, layer=layer).item()


def hump(t, rate, peak):
    """sech(rate (t - peak)): grows like e^{rate t} long before its peak."""
    return 1 / np.cosh(rate * (t - peak))


def test_peaks_and_minima_of_known_series(template):
    flow = [hump(FINE, 9.0, 0.7), 3 * hump(FINE, 9.0, 1.2)]
    rate = [-hump(FINE, 9.0, 0.6), -hump(FINE, 9.0, 1.1)]
    data = timescales.measure(synthetic(template, FINE, flow_norm=flow, entropy_rate=rate))
    np.testing.assert_allclose(data["time"].sel(definition="flow_peak"), [0.7, 1.2], atol=1e-6)
    found = data["time"].sel(definition="entropy_rate_minimum")
    np.testing.assert_allclose(found, [0.6, 1.1], atol=1e-6)
    tenth = np.arccosh(10) / 9  # sech falls to a tenth
    found = data["time"].sel(definition="flow_converged")
    np.testing.assert_allclose(found, [0.7 + tenth, 1.2 + tenth], atol=1e-6)
    whole = np.sqrt(flow[0] ** 2 + flow[1] ** 2)  # of the network: all neurons in one layer
    np.testing.assert_allclose(one(data, "flow_peak"), FINE[whole.argmax()], atol=1e-3)
    np.testing.assert_allclose(
        one(data, "entropy_rate_minimum"), FINE[sum(rate).argmin()], atol=1e-3
    )


def test_growth_is_one_over_the_rate_of_an_exponential(template):
    # ln sech falls below the line e^{rate t} by e^{-2 rate (peak - t)}: nothing, early on.
    flow = [hump(FINE, 14.0, 1.0), hump(FINE, 5.0, 1.9)]
    data = timescales.measure(synthetic(template, FINE, flow_norm=flow))
    np.testing.assert_allclose(one(data, "growth", 1), 1 / 14, rtol=1e-6)
    np.testing.assert_allclose(one(data, "growth", 2), 1 / 5, rtol=1e-6)


@given(rate=st.floats(2, 30), spacing=st.sampled_from([0.003, 0.07, 0.2]))
def test_growth_needs_no_fine_records_of_an_exponential(rate, spacing, template):
    t = np.arange(0, 4 / rate, spacing / rate)
    flow = np.exp(rate * t)
    data = timescales.measure(
        synthetic(template, t, flow_norm=[flow, flow]), [timescales.DEFINITIONS["growth"]]
    )
    np.testing.assert_allclose(data["time"], 1 / rate, rtol=1e-9)


def test_residence_and_its_values_at_instants(template):
    # ‖Z‖ / ‖Φ‖ of z = e^{r(t)}: 1 / r'(t).
    slope = [4 - (FINE - 0.5) ** 2, 2 - (FINE - 1.25) ** 2 / 2]
    Z = [np.exp(4 * FINE - (FINE - 0.5) ** 3 / 3), np.exp(2 * FINE - (FINE - 1.25) ** 3 / 6)]
    flow = [s * z for s, z in zip(slope, Z, strict=True)]
    run = synthetic(template, FINE, knowledge_norm=Z, flow_norm=flow)
    curve = timescales.residence(run)
    np.testing.assert_allclose(curve.sel(layer=1), 1 / slope[0], rtol=1e-12)
    assert curve.dims == ("time", "layer")
    data = timescales.measure(
        run, [timescales.DEFINITIONS["residence_minimum"], timescales.residence_at(1.5)]
    )
    found = data["time"].sel(definition="residence_minimum")
    np.testing.assert_allclose(found, [1 / 4, 1 / 2], rtol=1e-9)
    found = data["time"].sel(definition="residence_at_1.5")
    np.testing.assert_allclose(found, [1 / 3, 1 / (2 - 0.25**2 / 2)], rtol=1e-9)
    total = np.hypot(*Z), np.hypot(*flow)
    np.testing.assert_allclose(
        one(data, "residence_at_1.5"), np.interp(1.5, FINE, total[0] / total[1]), rtol=1e-6
    )


def test_residence_at_the_flows_peak(template):
    flow = [hump(FINE, 9.0, 0.7), hump(FINE, 9.0, 1.2)]
    Z = [1 + FINE, 2 + FINE]
    run = synthetic(template, FINE, flow_norm=flow, knowledge_norm=Z)
    data = timescales.measure(run)
    found = data["time"].sel(definition="residence_at_flow_peak")
    np.testing.assert_allclose(found, [1.7, 3.2], rtol=1e-5)


def test_entropy_left_and_crossings(template):
    H = [8 * np.exp(-FINE), 4 * np.exp(-0.1 * FINE)]
    net = [np.cos(3 * FINE), 1 + FINE]
    run = synthetic(template, FINE, entropy=H, tensor_net_rate=net)
    data = timescales.measure(
        run, [timescales.DEFINITIONS["tensor_net_crossing"], timescales.entropy_left(0.5)]
    )
    np.testing.assert_allclose(one(data, "entropy_left_0.5", 1), np.log(2), rtol=1e-6)
    assert np.isnan(one(data, "entropy_left_0.5", 2))
    assert why(data, "entropy_left_0.5", 2) == "0.819 of the entropy is left at the end"
    np.testing.assert_allclose(
        one(data, "entropy_left_0.5"), np.interp(-6, -(H[0] + H[1]), FINE), rtol=1e-6
    )
    np.testing.assert_allclose(one(data, "tensor_net_crossing", 1), np.pi / 6, rtol=1e-6)
    assert np.isnan(one(data, "tensor_net_crossing", 2))
    assert why(data, "tensor_net_crossing", 2) == "the Tensor Net's rate keeps its sign"


def test_entropy_left_is_the_first_fall(template):
    H = [1 + np.sin(6 * FINE), 1 + FINE]  # rises, falls through 0.5, and rises again
    data = timescales.measure(synthetic(template, FINE, entropy=H), [timescales.entropy_left(0.5)])
    np.testing.assert_allclose(one(data, "entropy_left_0.5", 1), 7 * np.pi / 6 / 6, rtol=1e-6)
    assert np.isnan(one(data, "entropy_left_0.5", 2))


def test_what_a_run_has_not_is_nan_with_a_reason(template):
    falling, rising = np.exp(-FINE), np.exp(FINE / 10)
    run = synthetic(template, FINE + 0.1, flow_norm=[falling, rising], entropy_rate=[-falling] * 2)
    data = timescales.measure(run)
    reasons = {
        ("flow_peak", 1): "the flow is largest at the start of the run",
        ("flow_peak", 2): "the flow is largest at the end of the run",
        ("entropy_rate_minimum", 1): "the entropy falls fastest at the start of the run",
        ("growth", 1): "the flow grows by less than the factor e before its peak",
        ("growth", 2): "the flow grows by less than the factor e before its peak",
        ("residence_minimum", 2): "the residence time still falls at the end",
        ("residence_at_flow_peak", 1): "the flow is largest at the start of the run",
        ("entropy_left_0.5", 1): "the run has no record at t = 0",
        ("flow_converged", 2): "the flow is at 1 of its peak at the end",
    }
    for (definition, layer), reason in reasons.items():
        assert np.isnan(one(data, definition, layer)), definition
        assert why(data, definition, layer) == reason
    assert one(data, "residence_minimum", 1) == 1.0  # at the start, where it is smallest
    assert ((data["reason"] == "") == data["time"].notnull()).all()
    assert ((data["network_reason"] == "") == data["network_time"].notnull()).all()


def test_a_stop_rule_is_a_definition(template):
    flow = [hump(FINE, 9.0, 0.7), hump(FINE, 9.0, 1.2)]
    run = synthetic(template, FINE, flow_norm=flow)
    rule = timescales.by_rule(ska.stop.FlowConverged(0.5))
    data = timescales.measure(run, [rule])
    (name,) = data["definition"].values
    assert name == "FlowConverged(fraction=0.5)"
    halved = np.arccosh(2) / 9  # sech falls to a half
    np.testing.assert_allclose(
        data["time"].sel(definition=name), [0.7 + halved, 1.2 + halved], atol=1.1e-3
    )
    assert one(data, name) == one(data, name, 2)  # all at once: the last to come down
    compared = ska.stop.compare(run, [ska.stop.FlowConverged(0.5)])
    assert one(data, name) == compared["t"].item()


def test_the_registry_is_frozen_and_open(template):
    with pytest.raises(TypeError):
        timescales.DEFINITIONS["mine"] = None
    for name, definition in timescales.DEFINITIONS.items():
        assert definition.name == name
        with pytest.raises(dataclasses.FrozenInstanceError):
            definition.name = "other"
    mine = timescales.Definition(
        "half",
        "half the run",
        lambda run: timescales.Times(np.full(2, float(run.t[-1]) / 2), ("", "")),
    )
    run = synthetic(template, FINE)
    data = timescales.measure(run, [*timescales.DEFINITIONS.values(), mine])
    assert data["time"].sel(definition="half").values.tolist() == [1.0, 1.0]
    assert why(data, "half") == "the definition is one of single layers"
    assert data["text"].sel(definition="half") == "half the run"


def unit():
    """One neuron, one sample, small: z' = (x² + 1) z D'(z) / ln 2, in closed form up to quadrature."""
    x, z0 = 1.5, 1e-3
    network = ska.mlp([1])
    weights = (ska.DenseWeights(jnp.full((1, 1), z0 / x), jnp.zeros(1)),)
    return network, weights, jnp.full((1, 1), x), (x**2 + 1) / ref.LN2, z0


def test_an_exact_solution_has_its_times():
    network, weights, x, c, z0 = unit()
    method = ska.Adaptive(rtol=1e-10, atol=1e-12)
    run = ska.simulate(
        network, weights, x, method, t1=30.0, dense=True, save_at="end", observe=OBSERVE
    )
    data = timescales.measure(run)
    # The flow peaks, and entropy falls fastest (z zdot D' = c z² D'²), at known z.
    slope = lambda z: expit(z) * expit(-z)
    solved = solve_ivp(
        lambda _, z: c * z * slope(z), (0, 30), [z0], rtol=1e-11, atol=1e-13, dense_output=True
    )
    when = lambda z: solved_time(solved, z)
    saturated = 1.5434046384182085  # z tanh(z/2) = 1, of both
    for name in ("flow_peak", "entropy_rate_minimum"):
        np.testing.assert_allclose(one(data, name, 1), when(saturated), rtol=1e-6)
    h = lambda z: (np.logaddexp(0, z) - z * expit(z)) / ref.LN2
    half = np.interp(-0.5 * h(z0), -h(np.linspace(0, 4, 400001)), np.linspace(0, 4, 400001))
    np.testing.assert_allclose(one(data, "entropy_left_0.5", 1), when(half), rtol=1e-6)
    np.testing.assert_allclose(one(data, "residence_minimum", 1), 4 / c, rtol=1e-6)  # D' = 1/4
    np.testing.assert_allclose(one(data, "growth", 1), 4 / c, rtol=1e-4)
    at_peak = 1 / (c * slope(saturated))
    np.testing.assert_allclose(one(data, "residence_at_flow_peak", 1), at_peak, rtol=1e-6)
    for name in timescales.DEFINITIONS:
        if name != "tensor_net_crossing":
            assert one(data, name) == pytest.approx(one(data, name, 1), rel=1e-9)  # one layer


def solved_time(solved, z):
    times = np.linspace(0, 12, 120001)
    return float(np.interp(z, solved.sol(times)[0], times))


def test_dense_runs_and_fine_records_agree():
    network, weights, x = ref.SMALL.arrays()
    weights = jax.tree.map(lambda w: 0.05 * w, weights)
    method = ska.Adaptive(rtol=1e-8, atol=1e-10)
    times = np.linspace(0, 20, 2001)
    observe = ("entropy", "flow_norm")
    run = ska.simulate(
        network, weights, x, method, t1=20.0, dense=True, save_at=times, observe=observe
    )
    chosen = [timescales.DEFINITIONS[n] for n in ("flow_peak", "entropy_left_0.5", "growth")]
    dense = timescales.measure(run, chosen)
    recorded = timescales.measure(jax.tree.map(lambda a: a, run), chosen)  # without its steps
    assert dense["time"].notnull().all()
    np.testing.assert_allclose(dense["time"], recorded["time"], rtol=1e-3)
    np.testing.assert_allclose(dense["network_time"], recorded["network_time"], rtol=1e-3)


def test_linear_growth_is_the_spectrums():
    # While z is small a first layer grows like e^{λt}, λ the largest of eig(x xᵀ + 1) / (4 B ln 2).
    x = np.random.default_rng(3).uniform(size=(9, 5))
    network = ska.mlp([4], scale=1e-6)
    weights = network.init(jax.random.key(0), jnp.asarray(x))
    rate = np.linalg.eigvalsh(x @ x.T + 1)[-1] / (4 * len(x) * ref.LN2)
    method = ska.Adaptive(rtol=1e-9, atol=1e-16)
    run = ska.simulate(
        network, weights, jnp.asarray(x), method, t1=30 / rate, save_at="steps", observe=OBSERVE
    )
    data = timescales.measure(run)
    np.testing.assert_allclose(one(data, "growth", 1), 1 / rate, rtol=1e-3)
    np.testing.assert_allclose(one(data, "residence_minimum", 1), 1 / rate, rtol=1e-3)


def test_float32_lanes_are_their_single_runs():
    network, weights, x = ref.SMALL.arrays(jnp.float32)
    scales = jnp.asarray([0.01, 0.1, 1.0], jnp.float32)
    lane = lambda s: ska.simulate(
        network, jax.tree.map(lambda w: s * w, weights), x, ska.Euler(0.05), steps=100,
        observe=OBSERVE,
    )  # fmt: skip
    runs = jax.vmap(lane)(scales)
    data = timescales.measure(runs, lanes=["scale"])
    assert data["time"].dims == ("scale", "definition", "layer")
    assert data.attrs["precision"] == "float32"
    for k in range(3):
        single = timescales.measure(jax.tree.map(lambda a, k=k: a[k], runs))
        xr.testing.assert_equal(data.isel(scale=k)[["time", "reason"]], single[["time", "reason"]])


def test_the_published_rules_first_record_flows_not():
    network, weights, x = ref.SMALL.arrays()
    run = ska.simulate(
        network, jax.tree.map(lambda w: 0.05 * w, weights), x, ska.Published(0.05), steps=200,
        observe=OBSERVE,
    )  # fmt: skip
    assert np.isnan(timescales.residence(run)[0]).all()
    data = timescales.measure(run)
    assert data["time"].sel(definition=["flow_peak", "growth", "residence_minimum"]).notnull().all()


def lanes(values, name="seed"):
    """Measured times of one layer and given definitions: {definition: one value a lane}."""
    array = np.asarray(list(values.values()), float).T[:, :, None]
    return xr.Dataset(
        {"time": ((name, "definition", "layer"), array)},
        {"definition": list(values), "layer": [1]},
    )


def test_spread_is_that_of_the_quartiles():
    t = np.asarray([1.0, 2, 3, 4, 10])
    data = lanes({"a": t, "b": [np.nan, 2, 2, 2, 2], "c": [np.nan] * 4 + [1], "d": [np.nan] * 5})
    found = timescales.spread(data, "seed").isel(layer=0)
    for name, value in (
        ("median", 3),
        ("lower", 2),
        ("upper", 4),
        ("relative", 2 / 3),
        ("full", 3),
    ):
        np.testing.assert_allclose(found[name].sel(definition="a"), value)
    assert found["relative"].sel(definition="b") == 0
    assert np.isnan(found["relative"].sel(definition=["c", "d"])).all()
    assert found["undefined"].values.tolist() == [0, 1, 4, 5]
    assert found["defined"].values.tolist() == [5, 4, 1, 0]


@given(factor=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_a_relative_spread_has_no_unit(factor, seed):
    t = np.random.default_rng(seed).uniform(1, 2, size=9)
    before, after = (timescales.spread(lanes({"a": s * t}), "seed") for s in (1, factor))
    for name in ("relative", "full"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-9)
    np.testing.assert_allclose(after["median"], factor * before["median"], rtol=1e-9)


def test_ranks_put_the_least_spread_first_and_the_vague_last():
    steady, loose = [1.0, 1.01, 1.02, 1.03], [1.0, 2, 3, 4]
    vague = [np.nan, np.nan, np.nan, 1.0]
    seeds = lanes({"loose": loose, "vague": vague, "steady": steady})
    scales = lanes({"loose": steady, "vague": steady, "steady": loose}, "scale")
    table = timescales.rank({"seed": seeds, "scale": scales})
    assert table["rank"].sel(
        axis="seed", definition=["steady", "loose", "vague"]
    ).values.tolist() == [1, 2, 3]
    assert table["rank"].sel(axis="scale", definition="steady") == 3
    assert list(table["definition"].values)[-1] == "vague"
    np.testing.assert_allclose(table["undefined"].sel(axis="seed", definition="vague"), 0.75)
    iqr = (3.25 - 1.75) / 2.5
    np.testing.assert_allclose(table["worst"].sel(definition="loose"), iqr)
    only = timescales.rank({"seed": seeds})
    assert list(only["definition"].values) == ["steady", "loose", "vague"]


def test_a_definition_gains_nothing_by_being_undefined():
    whole = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]
    partial = [1.0, 1.01, 1.02, 1.03, np.nan, np.nan, np.nan]
    table = timescales.rank({"seed": lanes({"partial": partial, "whole": whole})})
    assert list(table["definition"].values) == ["whole", "partial"]


def test_a_lane_that_failed_harms_no_other():
    network, x = (
        ska.mlp([6, 4], scale=0.5),
        jnp.asarray(np.random.default_rng(0).uniform(size=(9, 3))),
    )
    drawn = jax.vmap(lambda key: network.init(key, x))(jax.random.split(jax.random.key(0), 3))
    ensemble = jax.tree.map(lambda w: w.at[1].set(jnp.nan), drawn)
    single = lambda w: ska.simulate(network, w, x, ska.Euler(0.1), steps=40, observe=OBSERVE)
    runs = jax.jit(jax.vmap(single))(ensemble)
    found = timescales.measure(runs, lanes=["seed"])
    assert (
        np.isnan(found["time"].sel(seed=1)).all()
        and np.isnan(found["network_time"].sel(seed=1)).all()
    )
    assert all("diverged" in text for text in found["reason"].sel(seed=1).values.ravel())
    for lane in (0, 2):
        alone = timescales.measure(single(jax.tree.map(lambda w, lane=lane: w[lane], ensemble)))
        np.testing.assert_allclose(found["time"].sel(seed=lane), alone["time"], rtol=1e-6)
    for name in ("layer", "definition"):
        with pytest.raises(
            ValueError, match="Argument lanes must name each of the run's 1 vmapped"
        ):
            timescales.measure(runs, lanes=[name])


def test_where_nothing_flows_it_is_said(template):
    run = synthetic(template, FINE, flow_norm=[np.zeros_like(FINE), hump(FINE, 0.5, 0.7)])
    reason = timescales.measure(run)["reason"].sel(definition="residence_minimum", layer=1)
    assert reason == "nothing flows"


@pytest.mark.parametrize("spacing", [np.linspace, np.geomspace])
@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_exponents_interval_covers(spacing, rho):
    rng = np.random.default_rng(0)
    t, hits, draws = spacing(1.0, 10.0, 100), 0, 300
    for _ in range(draws):
        noise, shocks = np.zeros(300), rng.normal(size=300)
        for k in range(1, 300):  # stationary, of unit variance and lag-1 correlation rho
            noise[k] = rho * noise[k - 1] + np.sqrt(1 - rho**2) * shocks[k]
        fit = timescales.power_law(t, 3 * t**-1.2 * np.exp(0.05 * noise[200:]))
        hits += fit.low <= 1.2 <= fit.high
    assert 0.92 <= hits / draws <= 0.99


def test_the_standard_error_is_that_of_independent_records():
    rng = np.random.default_rng(1)
    t = np.geomspace(1, 10, 400)
    fits = [
        timescales.power_law(t, t**-1.0 * np.exp(0.1 * rng.normal(size=400))) for _ in range(200)
    ]
    expected = 0.1 / np.sqrt(((np.log(t) - np.log(t).mean()) ** 2).sum())
    np.testing.assert_allclose(np.std([fit.exponent for fit in fits]), expected, rtol=0.15)
    np.testing.assert_allclose(np.median([fit.error for fit in fits]), expected, rtol=0.1)


@given(p=st.floats(0.2, 3), C=st.floats(1e-3, 1e3), unit=st.floats(1e-3, 1e3))
def test_a_pure_power_is_its_exponent(p, C, unit):
    t = unit * np.linspace(1, 5, 30)
    fit = timescales.power_law(t, C * t**-p)
    np.testing.assert_allclose([fit.exponent, fit.low, fit.high, fit.early, fit.late], p, rtol=1e-6)


def test_a_bend_shows_in_its_halves():
    t = np.geomspace(1, 100, 200)
    fit = timescales.power_law(t, t**-1.0 / (1 + t / 10))  # from p = 1 to p = 2
    assert fit.early < fit.exponent < fit.late
    assert (fit.low, fit.high) == (fit.early, fit.late)
    assert fit.effective == 3


def test_late_flow_of_one_neuron_decays_like_one_over_t():
    network, weights, x, c, _ = unit()
    method = ska.Adaptive(rtol=1e-8, atol=1e-10)
    widths = []
    for end in (300.0, 3000.0):
        times = np.concatenate([np.linspace(0, 8, 100), np.geomspace(8.1, end, 200)])
        observe = ("flow_norm", "knowledge_norm")
        run = ska.simulate(network, weights, x, method, t1=end, save_at=times, observe=observe)
        fit = timescales.decay(run)
        # By the equation: d ln zdot / d ln t = t zdot (1/z - tanh(z/2)), between the window's ends.
        z = np.asarray(run.knowledge_norm)[:, 0]
        zdot = c * z * expit(z) * expit(-z)
        local = -times * zdot * (1 / z - np.tanh(z / 2))
        inside = times >= fit["start"].item()
        logs = np.log(times[inside])
        middle = np.interp((logs[0] + logs[-1]) / 2, logs, local[inside])
        assert 1 < fit["late"].item() < fit["early"].item()  # from above
        assert fit["low"].item() < middle < fit["high"].item()
        np.testing.assert_allclose(fit["exponent"], middle, atol=fit["error"].item())
        widths.append(fit["high"].item() - fit["low"].item())
    # The later it is looked at, the less it bends.
    assert widths[1] < 0.8 * widths[0] < 0.2


def test_late_flow_of_two_layers_decays_as_its_local_slopes_say():
    weights, x = ref.SMALL.numpy()
    weights = [(0.05 * W, 0.05 * b) for W, b in weights]
    end = 1000.0
    times = np.concatenate([np.linspace(0, 15, 100), np.geomspace(15.1, end, 300)])
    method = ska.Adaptive(rtol=1e-8, atol=1e-10)
    start = ref.to_skajax(weights)
    run = ska.simulate(
        ref.SMALL.network, start, jnp.asarray(x), method, t1=end, save_at=times,
        observe=("flow_norm",),
    )  # fmt: skip
    fit = timescales.decay(run)
    # d ln ‖Φ‖ / d ln t, by differences of an integration of its own.
    solved = solve_ivp(
        lambda _, y: ref.flat(ref.flow(ref.unflat(y, weights), x)), (0, end), ref.flat(weights),
        "LSODA", rtol=1e-10, atol=1e-13, dense_output=True,
    )  # fmt: skip

    def ln_flow(t):
        now = ref.unflat(solved.sol(t), weights)
        Zdot, _ = ref.tangents(now, ref.flow(now, x), x)
        return np.log([np.linalg.norm(rate) for rate in Zdot])

    for column in range(2):
        layer = fit.isel(layer=column)
        late = times[times >= layer["start"].item()]  # evenly spaced in ln t
        u = np.log(late)
        local = -np.gradient([ln_flow(t)[column] for t in late], u)
        # A line by least squares has the mean of the slopes, weighed by (u - u_0)(u_n - u).
        first = u <= (u[0] + u[-1]) / 2
        for name, part in (("exponent", u > 0), ("early", first), ("late", ~first)):
            weigh = (u[part] - u[part][0]) * (u[part][-1] - u[part])
            want = np.average(local[part], weights=weigh)
            np.testing.assert_allclose(layer[name], want, atol=5e-4)
        middle = np.interp(u.mean(), u, local)
        assert local.min() < layer["low"] < middle < layer["high"] < local.max()


def test_decay_says_why_there_is_no_fit(template):
    run = synthetic(template, FINE, flow_norm=[np.exp(-FINE), hump(FINE, 9.0, 0.7)])
    fit = timescales.decay(run)
    assert np.isnan(fit["exponent"]).all()
    assert fit["reason"].sel(layer=1) == "it has no peak within the run"
    assert fit["reason"].sel(layer=2).item().startswith("of t > 2.8, the run, to 2, has 0 records")


def test_what_does_not_fit_is_named(template, untyped):
    run = synthetic(template, FINE)
    data = timescales.measure(run)
    short = timescales.Definition("short", "", lambda run: timescales.Times(np.zeros(1), ("",)))
    flow = timescales.DEFINITIONS["flow_peak"]
    t = np.linspace(1, 2, 9)
    for function, argument in (
        (lambda: timescales.measure(run, []), "definitions"),
        (lambda: timescales.measure(run, [flow, flow]), "definitions"),
        (lambda: timescales.measure(run, [short]), "definitions['short']"),
        (lambda: timescales.measure(run, lanes=["seed"]), "lanes"),
        (lambda: timescales.measure(data), "run"),
        (lambda: timescales.entropy_left(1.0), "fraction"),
        (lambda: timescales.residence_at(-1.0), "t"),
        (lambda: timescales.by_rule("flow"), "rule"),
        (lambda: timescales.spread(data, "seed"), "over"),
        (lambda: timescales.spread(run, "seed"), "data"),
        (lambda: timescales.rank({}), "axes"),
        (lambda: timescales.power_law(t[:5], t[:5]), "t"),
        (lambda: timescales.power_law(t[::-1], t), "t"),
        (lambda: timescales.power_law(t, -t), "y"),
        (lambda: timescales.power_law(t, t, confidence=1.0), "confidence"),
        (lambda: timescales.decay(run, after=0.0), "after"),
        (lambda: timescales.decay(run, confidence=2.0), "confidence"),
        (lambda: timescales.residence_at("a"), "t"),
        (lambda: timescales.residence_at(np.ones(2)), "t"),
        (lambda: jax.jit(timescales.measure)(run), "run"),
    ):
        with pytest.raises(ValueError) as error:
            function()
        assert str(error.value).startswith(f"Argument {argument} must ")
