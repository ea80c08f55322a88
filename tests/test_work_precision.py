"""Work against precision: labels, errors that fall, and the rules that read the numbers."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import skajax as ska
from skajax.observables import DIAGNOSTICS
from skajax.plot._work_precision import work_precision as draw
from skajax.study import cost_table, precision_floor, recommend, work_precision
from skajax.study.errors import relative_error

NETWORK = ska.mlp([6, 4], scale=0.3)


def problem():
    x = np.random.default_rng(0).random((8, 5)).astype(np.float32)
    return NETWORK, NETWORK.init(jax.random.key(0), x), x


@pytest.fixture(scope="module")
def data():
    return work_precision(
        *problem(),
        t1=(0.5, 1),
        solvers={"Bosh3": diffrax.Bosh3()},
        tolerances=(1e-2, 1e-4, 1e-6),
        fixed={"Euler": diffrax.Euler(), "own": ska.Euler},
        budgets=(20, 200),
        records=3,
        rounds=1,
    )


def test_everything_has_its_label(data):
    assert dict(data["error"].sizes) == {
        "scale": 1,
        "T": 2,
        "precision": 2,
        "solver": 3,
        "level": 3,
    }
    assert list(data["solver"].values) == ["Bosh3", "Euler, fixed", "own, fixed"]
    assert list(data["kind"].values) == ["adaptive", "fixed", "fixed"]
    assert list(data["observable"].values) == list(DIAGNOSTICS)
    np.testing.assert_allclose(data["setting"].sel(solver="Bosh3"), [1e-2, 1e-4, 1e-6])
    np.testing.assert_array_equal(data["setting"].sel(solver="Euler, fixed"), [20, 200, np.nan])
    tried = data["setting"].notnull()
    for name in ("error", "seconds", "steps", "rejected", "evaluations", "observable_error"):
        assert data[name].where(tried, 0).notnull().all(), name
        assert data[name].where(~tried).isnull().all(), name
    assert (data["compile_seconds"] >= 0).all()


def test_the_switch_of_precision_is_left_as_it_was(data):
    assert not jax.config.read("jax_enable_x64")
    assert jnp.zeros(()).dtype == jnp.float32


def test_errors_fall_with_the_tolerance(data):
    errors = data["error"].sel(solver="Bosh3", precision="float64")
    assert (errors.diff("level") < 0).all()
    # Of order 3, with a local error of order h³ under control: about in proportion to rtol.
    assert (errors.isel(level=2) < 1e-2 * errors.isel(level=0)).all()


@pytest.mark.parametrize("name", ["Euler, fixed", "own, fixed"])
def test_euler_has_order_one(data, name):
    errors = data["error"].sel(solver=name, precision="float64").isel(level=slice(0, 2))
    order = np.log10(errors.isel(level=0) / errors.isel(level=1))
    np.testing.assert_allclose(order, 1, atol=0.1)
    seen = data["observable_error"].sel(solver=name, precision="float64").isel(level=[0, 1])
    entropies = seen.sel(observable="entropy")
    np.testing.assert_allclose(np.log10(entropies[:, :, 0] / entropies[:, :, 1]), 1, atol=0.15)


def test_budgets_are_spent(data):
    np.testing.assert_array_equal(
        data["evaluations"].sel(solver="Euler, fixed", T=0.5, precision="float32")[0, :2],
        [20, 200],
    )


def test_both_spellings_of_eulers_method_agree(data):
    both = data["error"].isel(level=[0, 1]).sel(precision="float64")
    np.testing.assert_allclose(
        both.sel(solver="Euler, fixed"), both.sel(solver="own, fixed"), rtol=1e-6
    )


def test_a_reference_for_float32_alone_is_as_good_to_it(data):
    alone = work_precision(
        *problem(),
        t1=0.5,
        precisions=["float32"],
        solvers={"Bosh3": diffrax.Bosh3()},
        tolerances=(1e-2, 1e-4, 1e-6),
        fixed={},
        records=3,
        rounds=0,
    )
    assert (alone.attrs["reference"], data.attrs["reference"]) == (
        "Dopri8, float64, rtol 1e-09",
        "Dopri8, float64, rtol 1e-11",
    )
    both = data.sel(T=[0.5], precision=["float32"], solver=["Bosh3"])
    for name in ("error", "observable_error"):
        rounding = np.finfo(np.float32).eps
        np.testing.assert_allclose(alone[name], both[name], rtol=0, atol=0.1 * rounding)


def test_scales_multiply_the_weights():
    network, weights, x = problem()
    options = {"t1": 0.5, "solvers": {}, "fixed": {"Euler": diffrax.Euler()}, "budgets": (4,)}
    options |= {"precisions": ["float32"], "records": 0, "rounds": 1}
    scaled = work_precision(network, weights, x, scales=(1, 2), **options)
    assert "observable_error" not in scaled
    doubled = jax.tree.map(lambda w: 2 * w, weights)
    once = work_precision(network, doubled, x, **options)
    np.testing.assert_allclose(scaled["error"].sel(scale=2), once["error"].sel(scale=1))


def test_relative_error_is_over_all_arrays():
    w, r = (
        {"a": np.array([3.0, 1.0]), "b": np.ones(2)},
        {"a": np.array([3.0, 0]), "b": np.ones(2)},
    )
    assert relative_error(w, r) == pytest.approx(1 / np.sqrt(11))


def made(errors, evaluations, *, ends=(0.5,), precisions=("float32",)):
    """A dataset by hand: errors and evaluations over (T, solver, level) or with precision before."""
    shape = (1, len(ends), len(precisions), 2, 3)
    dims = ("scale", "T", "precision", "solver", "level")
    fill = lambda values: (dims, np.broadcast_to(np.asarray(values, float), shape).copy())
    return xr.Dataset(
        {
            "error": fill(errors),
            "evaluations": fill(evaluations),
            "seconds": fill(1.0),
            "steps": fill(7.0),
            "rejected": fill(0.0),
            "compile_seconds": (("precision", "solver"), np.ones((len(precisions), 2))),
        },
        {
            "scale": [1.0],
            "T": list(ends),
            "precision": list(precisions),
            "solver": ["A", "B, fixed"],
            "kind": ("solver", ["adaptive", "fixed"]),
            "level": [0, 1, 2],
            "setting": (("solver", "level"), [[1e-2, 1e-3, 1e-4], [10, 20, 40]]),
        },
    )


def test_recommended_is_the_cheapest_that_qualifies():
    data = made([[1e-1, 1e-3, 1e-4], [1e-2, 1e-3, 1e-5]], [[10, 20, 40], [5, 9, 30]])
    assert recommend(data, 1e-3) == ("A", 1e-3, 1e-3, 20)
    assert recommend(data, 1e-3, kind=None) == ("B, fixed", 20, 1e-3, 9)
    assert recommend(data, 1e-5, kind="fixed") == ("B, fixed", 40, 1e-5, 30)
    assert recommend(data, 1e-5) is None
    assert recommend(data, 1e-3, cost="seconds") == ("A", 1e-3, 1e-3, 1)


def test_luck_does_not_qualify():
    data = made([[1e-5, 1e-2, 1e-4], [1, 1, 1]], [10, 20, 40])
    assert recommend(data, 1e-4) == ("A", 1e-4, 1e-4, 40)


def test_a_recommendation_holds_at_every_end_time():
    errors = np.array([[[1e-5, 1e-5, 1e-5], [1, 1, 1]], [[1e-2, 1e-5, 1e-6], [1, 1, 1]]])
    data = made(errors[None, :, None], [10, 20, 40], ends=(0.5, 2.0))
    assert recommend(data, 1e-4) == ("A", 1e-3, 1e-5, 40)  # 20 at each of two
    failed = data.copy(deep=True)
    failed["error"][0, 1, 0, 0, 2] = np.nan
    assert recommend(failed, 1e-4) == ("A", 1e-3, 1e-5, 40)
    failed["error"][0, 1, 0, 0, 1] = np.nan
    assert recommend(failed, 1e-4) is None


def test_the_floor_is_where_float32_leaves_float64():
    single = [[1e-2, 1e-5, 2e-5], [1e-2, 1e-3, 1e-4]]
    double = [[1e-2, 1e-6, 1e-8], [1e-2, 1e-3, 1e-4]]
    data = made([single, double], [10, 20, 40], precisions=("float32", "float64"))
    floor = precision_floor(data).isel(scale=0, T=0)
    assert floor["floor"].item() == 1e-5
    np.testing.assert_array_equal(floor["from_setting"], [1e-3, np.nan])
    np.testing.assert_array_equal(floor["error"], [1e-5, np.nan])
    with pytest.raises(ValueError, match="Argument data must hold both precisions, but it holds"):
        precision_floor(data.sel(precision=["float32"]))


def test_the_table_says_what_was_measured():
    data = made([[1e-1, 1e-3, 1e-4], [1e-2, 1e-3, np.nan]], [[10, 20, 40], [5, 9, 30]])
    lines = cost_table(data, targets=(1e-3, 1e-5)).splitlines()
    assert lines[0] == "**T = 0.5, float32**"
    assert lines[4] == ("| A | 20 evaluations, 1000 ms (rtol 0.001) | – | 1.0e-04 | 1.0 |")
    assert lines[5] == "| B, fixed | 9 evaluations, 1000 ms (7 steps) | – | 1.0e-03 | 1.0 |"


def test_the_figure_draws_every_curve(data):
    ax = draw(data.sel(T=0.5))
    assert len(ax.lines) == 6  # three solvers in two precisions
    np.testing.assert_allclose(
        np.sort(ax.lines[0].get_ydata())[::-1],
        data["error"].sel(T=0.5, precision="float32", solver="Bosh3").values[0],
    )
    assert draw(data.sel(T=1, precision="float32"), cost="seconds", error="entropy", ax=ax) is ax
    with pytest.raises(ValueError, match="Argument data must have one T"):
        draw(data)
    with pytest.raises(ValueError, match="Argument error must be 'weights' or one of"):
        draw(data.sel(T=1), error="loss")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t1": -1.0}, "Argument t1 must be an end time, positive and finite, but"),
        ({"t1": (1.0, 1.0)}, "Argument t1 must name each number once, but"),
        ({"scales": (0.0,)}, "Argument scales must be a factor, positive and finite, but"),
        ({"tolerances": ()}, "Argument tolerances must hold at least one, but it was empty"),
        (
            {"precisions": ("float16",)},
            "Argument precisions must hold 'float32', 'float64' or both",
        ),
        ({"budgets": (0,)}, "Argument budgets must be a whole number, at least 1, but it was 0"),
        ({"rounds": -1}, "Argument rounds must be a whole number, at least 0, but it was -1"),
        ({"solvers": {}, "fixed": {}}, "Argument solvers must name at least one, or else fixed"),
        ({"solvers": {"a": 3}}, r"Argument solvers\['a'\] must be a Diffrax solver, or a function"),
    ],
)
def test_bad_arguments_are_named(options, message, untyped):
    with pytest.raises(ValueError, match=message):
        work_precision(*problem(), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 0.0}, "Argument target must be an error to reach, positive and finite"),
        ({"cost": "money"}, "Argument cost must be evaluations, seconds or steps"),
        ({"kind": "some"}, "Argument kind must be adaptive, fixed or None"),
        ({"precision": "float64"}, "Argument precision must be one of the dataset's"),
    ],
)
def test_bad_questions_are_named(options, message):
    data = made(1.0, 1.0)
    with pytest.raises(ValueError, match=message):
        recommend(data, **{"target": 1e-3, **options})
