"""Invariance at fixed η K: errors known in closed form, orders, and the step for an accuracy."""

import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given

import skajax as ska
from skajax import plot
from skajax.observables import DIAGNOSTICS
from skajax.study import errors, invariance, invariance_table

RATE, END = 3.0, 0.5
PAIRS = [(END / K, K) for K in (10, 40, 20)]


def euler_error(K, power=1):
    """Of ẏ = 3 y by Euler's method at t_k = k T / K, (1 + 3 T / K)^k against e^{3 t}: l2 and max."""
    k = np.arange(K + 1)
    f, g = (1 + RATE * END / K) ** (power * k), np.exp(power * RATE * END / K * k)
    return math.sqrt(((f - g) ** 2).sum() / (g**2).sum()), (g - f)[-1] / g[-1]


class TestErrors:
    def test_of_known_curves(self):
        g = np.array([[3.0, 0.0, 1.0], [4.0, 0.0, -2.0]])
        f = g + np.array([[0.0, 1.0, 0.2], [0.5, 0.0, -0.1]])
        found = errors.curve_error(f, g)
        np.testing.assert_allclose(found.l2, [0.5 / 5, np.nan, math.sqrt(0.05 / 5)])
        np.testing.assert_allclose(found.max, [0.5 / 4, np.nan, 0.2 / 2])
        assert np.isnan(errors.curve_error(f[:0], g[:0])).all()

    @given(st.floats(0.25, 8.0), st.floats(1e-6, 1e6))
    def test_orders_of_a_power_law(self, p, constant):
        dts = np.array([0.1, 0.04, 0.01])
        law = constant * dts**p
        assert errors.order(dts, law) == pytest.approx(p)
        np.testing.assert_allclose(errors.local_orders(dts, law), [np.nan, p, p])

    @given(st.floats(0.25, 4.0), st.floats(1e-4, 10.0))
    def test_the_step_of_a_power_law(self, p, dt):
        dts = np.array([0.01, 0.1, 0.04])
        assert errors.step_for(dts, 7 * dts**p, 7 * dt**p) == pytest.approx(dt)

    def test_the_step_is_one_below_which_all_do(self):
        # Of the two steps where the curve passes 0.1 going down, the finer one.
        dts, found = np.array([1.0, 0.5, 0.25, 0.125]), np.array([0.8, 0.05, 0.2, 0.025])
        step = errors.step_for(dts, found, 0.1)
        assert 0.125 < step < 0.25
        assert step == pytest.approx(0.125 * 2 ** (math.log(4) / math.log(8)))

    def test_too_little_is_known(self):
        assert math.isnan(errors.step_for([0.1, 0.2], [0.3, np.nan], 0.1))
        assert math.isnan(errors.step_for([0.1, 0.2], [0.3, 0.2], 0.1))  # grows towards 0
        assert math.isnan(errors.order([0.1], [0.3]))
        with pytest.raises(ValueError, match="Argument accuracy must be a relative error"):
            errors.step_for([0.1, 0.2], [0.1, 0.2], 0.0)


def linear():
    """One neuron, one sample, |z| < 1e-3: ż = (|x|² + 1) / (4 ln 2) z, to 1e-7, at the rate 3."""
    x = jnp.array([[math.sqrt(12 * math.log(2) - 1)]])
    network = ska.mlp([1])
    weights = jax.tree.map(lambda w: jnp.full(w.shape, 3e-5), network.init(jax.random.key(0), x))
    return network, weights, x


@pytest.fixture(scope="module")
def data():
    """In float64, by Euler's method, of the linear problem."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield invariance(*linear(), PAIRS, methods={"Euler": ska.Euler}, judge="knowledge_norm")
    jax.config.update("jax_enable_x64", before)


def test_errors_of_eulers_method_are_those_in_closed_form(data):
    assert data["K"].values.tolist() == [10, 20, 40]
    for name, power in (("knowledge_norm", 1), ("flow_norm", 1), ("entropy_rate", 2)):
        for p, K in enumerate((10, 20, 40)):
            found = data["error"].sel(observable=name)[0, 0, p, :, 0]
            np.testing.assert_allclose(found, euler_error(K, power), rtol=1e-5)


def test_orders_are_those_of_the_closed_form(data):
    want = np.array([euler_error(K) for K in (10, 20, 40)])
    found = data["local_order"].sel(observable="flow_norm", layer=1)[0, 0]
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1:], np.log2(want[:-1] / want[1:]), rtol=1e-5)
    order = data["order"].sel(observable="flow_norm", layer=1)[0, 0]
    np.testing.assert_allclose(
        order, -np.polyfit(np.log([10, 20, 40]), np.log(want), 1)[0], rtol=1e-5
    )
    np.testing.assert_allclose(order, 1, atol=0.1)


def test_the_step_found_is_the_coarsest_that_meets_the_accuracy(data):
    K = int(data["verified_K"][0])
    assert float(data["verified_error"][0]) == pytest.approx(euler_error(K)[0], rel=1e-5)
    assert euler_error(K)[0] <= 0.01
    # Predicted from 10, 20 and 40 steps: within 2 % of the first number of steps that does.
    coarsest = next(K for K in range(10, 1000) if euler_error(K)[0] <= 0.01)
    assert coarsest <= K <= 1.02 * coarsest
    assert float(data["verified_dt"][0]) == pytest.approx(END / K)
    needed = data["needed_dt"].sel(norm="l2", observable="knowledge_norm")[0, 0, 0]
    assert float(needed) == pytest.approx(END / coarsest, rel=0.02)


def test_the_reference_is_far_better_than_the_errors(data):
    assert (data["reference_error"].sel(observable="knowledge_norm") < 1e-7).all()


X = jax.random.uniform(jax.random.key(0), (10, 8))
NETWORK = ska.mlp([6, 4], scale=0.3)


def start(seed):
    return NETWORK.init(jax.random.key(seed), X)


@pytest.fixture(scope="module")
def ensemble():
    """Two seeds, both methods, in float32, and a method that diverges."""
    methods = {"published": ska.Published, "Euler": ska.Euler, "wild": lambda dt: ska.Euler(1e38)}
    return invariance(
        NETWORK, start, X, [(0.1, 10), (1 / 160, 160), (0.025, 40)], methods=methods,
        seeds=range(2), accuracy=0.02, judge="entropy_rate",
    )  # fmt: skip


def test_every_axis_has_its_label(ensemble):
    assert dict(ensemble["error"].sizes) == {
        "rule": 3, "seed": 2, "pair": 3, "norm": 2, "observable": len(DIAGNOSTICS), "layer": 2,
    }  # fmt: skip
    assert ensemble["observable"].values.tolist() == list(DIAGNOSTICS)
    assert ensemble["dt"].values.tolist() == [0.1, 0.025, 1 / 160]


def test_errors_are_those_of_single_runs(ensemble):
    run = ska.simulate(NETWORK, start(1), X, ska.Published(0.025), steps=40)
    tight = ska.simulate(
        NETWORK, start(1), X, ska.Adaptive(rtol=1e-6, atol=1e-8), t1=1.0, save_at=run.t[1:]
    )
    case = ensemble["error"].sel(rule="published", seed=1).isel(pair=1)
    for name in ("entropy", "alignment", "tensor_net_rate"):
        f, g = (np.asarray(getattr(r, name), float) for r in (run, tight))
        off = f[1:] - g  # pass 1 has no flow
        want = np.sqrt((off**2).sum(0) / (g**2).sum(0)), np.abs(off).max(0) / np.abs(g).max(0)
        np.testing.assert_allclose(case.sel(observable=name), want, rtol=1e-3)
    f, g = (np.asarray(r.output_mean, float) for r in (run, tight))
    want = math.sqrt(((f[1:] - g) ** 2).sum() / (g**2).sum())
    found = case.sel(observable="output_mean", norm="l2")
    np.testing.assert_allclose(found, [np.nan, want], rtol=1e-3)


def test_both_methods_converge_with_order_one(ensemble):
    for method in ("published", "Euler"):
        last = ensemble["local_order"].sel(rule=method, norm="l2", observable="knowledge_norm")
        np.testing.assert_allclose(last.isel(pair=-1), 1, atol=0.1)


def test_what_diverges_leaves_no_number(ensemble):
    wild = ensemble.sel(rule="wild")
    assert np.isnan(wild["error"]).all() and np.isnan(wild["order"]).all()
    assert np.isnan(wild["verified_K"])
    assert all(text.startswith("diverged") for text in wild["outcome"].values.ravel())


def test_the_step_holds_for_every_seed(ensemble):
    for method, make in (("published", ska.Published), ("Euler", ska.Euler)):
        K = int(ensemble["verified_K"].sel(rule=method))
        assert ensemble["verified_error"].sel(rule=method) <= 0.02
        again = invariance(
            NETWORK, start, X, [(1 / K, K), (2 / K, K // 2)],
            methods={method: make}, seeds=range(2), judge="entropy_rate", most=1,
        )  # fmt: skip
        found = again["error"].sel(norm="l2", observable="entropy_rate").isel(pair=-1)
        assert float(found.max()) == pytest.approx(
            float(ensemble["verified_error"].sel(rule=method)), rel=1e-3
        )
        assert np.isnan(again["verified_K"]).all()  # more steps than were allowed


def test_the_table_says_what_was_measured(ensemble, data):
    text = invariance_table(ensemble)
    assert text.count("median of 2 seeds, worst layer") == 3
    lines = invariance_table(data).splitlines()
    assert lines[0] == "**Euler**: worst layer"
    assert lines[2] == "| observable | η = 0.05 | η = 0.025 | η = 0.0125 | order | η for 1 % |"
    (row,) = [line for line in lines if line.startswith("| knowledge |")]
    cells = [cell.strip() for cell in row.split("|")[2:5]]
    assert cells == [f"{100 * euler_error(K)[0]:.2g} %" for K in (10, 20, 40)]
    assert lines[-1].startswith("Verified: η = ")
    with pytest.raises(ValueError, match="Argument norm must be one of"):
        invariance_table(data, norm="l1")


def test_the_figure_shows_the_errors_and_the_accuracy(ensemble, data):
    plt.switch_backend("Agg")
    ax = plot.invariance(ensemble.sel(rule="published"), "knowledge_norm")
    errors = ensemble["error"].sel(
        rule="published", norm="l2", observable="knowledge_norm", layer=2
    )
    (line,) = [line for line in ax.lines if line.get_label() == "layer 2"]
    np.testing.assert_allclose(line.get_xdata(), [1 / 160, 0.025, 0.1])
    np.testing.assert_allclose(line.get_ydata()[::-1], errors.median("seed"))
    (level,) = [line for line in ax.lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(level.get_ydata(), 0.02)
    assert len(ax.collections) == 4  # two bands a layer
    again = plot.invariance(data, "flow_norm", norm="max", ax=plt.subplots()[1])
    np.testing.assert_allclose(again.lines[0].get_ydata()[-1], euler_error(10)[1], rtol=1e-5)
    for options, message in [
        ((ensemble, "entropy"), "Argument data must have one rule"),
        ((data, "loss"), "Argument observable must be one of"),
        ((ensemble.sel(rule="wild"), "entropy"), "Argument data must have an error of entropy"),
    ]:
        with pytest.raises(ValueError, match=message):
            plot.invariance(*options)
    plt.close("all")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": [(0.1, 5)]}, "Argument pairs must hold two or more pairs, each with its own η"),
        ({"pairs": [(0.1, 5), (0.1, 6)]}, "Argument pairs must hold two or more pairs"),
        ({"pairs": [(0.0, 5), (0.1, 6)]}, "Argument pairs must be pairs of a step size η"),
        ({"pairs": [(0.2, 1), (0.1, 6)]}, "Argument pairs must have whole K, at least 2"),
        ({"seeds": (0, 1)}, "Argument weights must be a function of the seed where"),
        ({"seeds": ()}, "Argument seeds must hold at least one seed, each once"),
        ({"methods": {}}, "Argument methods must name at least one"),
        ({"methods": {"a": 1}}, r"Argument methods\['a'\] must be a function that makes a method"),
        ({"judge": "loss"}, "Argument judge must be one of"),
        ({"accuracy": 0.0}, "Argument accuracy must be a relative error, positive and finite"),
        ({"rtol": -1.0}, "Argument rtol must be a relative tolerance"),
    ],
)
def test_bad_arguments_are_named(options, message, untyped):
    with pytest.raises(ValueError, match=message):
        invariance(NETWORK, start(0), X, **{"pairs": [(0.1, 10), (0.05, 20)], **options})
