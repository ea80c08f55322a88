"""What a caller hands in, arrays and numbers: it is what is simulated, or refused by its name."""

import functools
import warnings

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import skajax as ska
from skajax._checks import as_array, as_number, as_whole, is_whole
from skajax._modes import enable_x64
from skajax.study.separation import fisher_ratio

NETWORK = ska.mlp([3, 2], scale=0.3)
X = np.random.default_rng(0).uniform(size=(5, 4)).astype(np.float32)
WEIGHTS = NETWORK.init(jax.random.key(0), X)
HOST = jax.tree.map(np.array, WEIGHTS)
OBSERVE = ("entropy", "flow_norm", "knowledge_norm")
simulate = functools.partial(ska.simulate, observe=OBSERVE)
sweep = functools.partial(ska.sweep, observe=OBSERVE)


def aligned(array):
    """The array in memory that JAX would share on a CPU: aligned to 64 bytes."""
    raw = np.empty(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    buffer = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(buffer, array)
    return buffer


def same(a, b):
    """Whether all numbers of two trees are the same bits."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    arrays = ((np.asarray(p), np.asarray(q)) for p, q in pairs)
    return all(np.array_equal(p, q, equal_nan=p.dtype.kind == "f") for p, q in arrays)


def records(run):
    return run.t, run.observables, run.final.weights


def refused(function, argument, *words):
    with pytest.raises((ValueError, TypeError)) as error:
        function()
    message = str(error.value)
    assert message.startswith(f"Argument {argument} must "), message
    assert all(word in message for word in words), message


# Memory.


def test_arrays_do_not_share_the_callers_memory():
    buffer = aligned(X)
    array = as_array("x", buffer)
    buffer[:] = 0
    np.testing.assert_array_equal(np.asarray(array), X)


def test_arrays_of_jax_are_not_copied():
    array = jnp.asarray(X)
    assert as_array("x", array) is array


def test_an_extension_goes_on_from_what_was_handed_in():
    x, weights = aligned(X), jax.tree.map(aligned, HOST)
    run = simulate(NETWORK, weights, x, ska.Euler(0.01), steps=2)
    for buffer in jax.tree.leaves((x, weights)):
        buffer[:] = 0
    whole = simulate(NETWORK, WEIGHTS, X.copy(), ska.Euler(0.01), steps=4)
    assert same(records(ska.extend(run, steps=4)), records(whole))


def test_a_dense_run_keeps_what_was_handed_in():
    x, times = aligned(X), aligned(np.array([0.1, 0.3], np.float32))
    run = simulate(
        NETWORK, WEIGHTS, x, ska.Adaptive(), t1=0.3, save_at=times, dense=True, reduction="off"
    )
    before = run.at(0.2).Z[0].copy()
    x[:] = 0
    times[:] = 0
    assert same(run.at(0.2).Z[0], before)
    np.testing.assert_allclose(np.asarray(run.t), [0.1, 0.3], rtol=1e-6)


def test_a_methods_numbers_are_those_at_its_construction(untyped):
    dt, rtol = np.array(0.01), np.array(1e-3)
    euler, adaptive = ska.Euler(dt), ska.Adaptive(rtol=rtol, dt0=dt)
    rule = ska.stop.FlowConverged(rtol)
    dt[...] = rtol[...] = 7.0
    assert (euler.dt, adaptive.controller.rtol, adaptive.dt0) == (0.01, 1e-3, 0.01)
    assert rule.fraction == 1e-3


@pytest.mark.filterwarnings("ignore:.*saturated")
@pytest.mark.parametrize("which", ["x", "weights"])
@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "in a store"])
def test_each_lane_has_what_its_function_gave(which, stored, tmp_path):
    values = {"x": [X, 1 - X, X / 2], "weights": [HOST, *(scaled(k) for k in (2, 3))]}[which]
    buffers = jax.tree.map(aligned, values[0])

    def refill(k):
        jax.tree.map(np.copyto, buffers, values[k])
        return buffers

    def swept(function, **options):
        arguments = {"x": X, "weights": WEIGHTS, which: function}
        return sweep(
            NETWORK, arguments["weights"], arguments["x"], ska.Euler(0.1), steps=3,
            over=ska.grid(k=range(3)), **options,
        )  # fmt: skip

    got = swept(refill, store=tmp_path / "store" if stored else None)
    want = swept(lambda k: jax.tree.map(np.copy, values[k]))
    np.testing.assert_array_equal(got.entropy.values, want.entropy.values)


def scaled(factor):
    return jax.tree.map(lambda w: (factor * w).astype(w.dtype), HOST)


def test_a_sweep_does_not_see_a_later_change_of_its_inputs():
    x = aligned(X)

    def weights(k):
        x[:] = 0
        return WEIGHTS

    got = sweep(NETWORK, weights, x, ska.Euler(0.1), steps=2, over=ska.grid(k=[0, 1]))
    want = simulate(NETWORK, WEIGHTS, X, ska.Euler(0.1), steps=2)
    np.testing.assert_allclose(got.entropy.values[0], np.asarray(want.entropy), rtol=1e-5)


# Precision.


def test_a_refusal_outside_of_double_precision_spoils_nothing_inside_it():
    with enable_x64(True):
        x = jnp.asarray(X, jnp.float64)
        weights = NETWORK.init(jax.random.key(0), x)
    method = ska.Euler(0.1)
    for argument, function in (
        ("x", lambda: NETWORK.init(jax.random.key(0), x)),
        ("x", lambda: simulate(NETWORK, weights, x, method, steps=2)),
        ("weights", lambda: sweep(NETWORK, weights, x, [method], steps=2)),
    ):
        refused(function, argument, "float64", "enable_x64")
    with enable_x64(True):
        again = NETWORK.init(jax.random.key(0), x)
        assert {leaf.dtype for leaf in jax.tree.leaves(again)} == {np.dtype("float64")}
        run = simulate(NETWORK, weights, x, ska.Euler(0.1), steps=2)
        assert run.entropy.dtype == np.float64 and bool(run.outcome.completed)


METHODS = {
    "euler": (ska.Euler(0.1), {"steps": 2}, {"steps": 4}),
    "adaptive": (ska.Adaptive(), {"t1": 0.2, "dense": True}, {"t1": 0.4}),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("made_inside", [False, True], ids=["made outside", "made inside"])
def test_a_run_goes_on_in_the_mode_that_it_was_made_in(method, double, made_inside):
    if double and not made_inside:
        pytest.skip("there is no float64 outside of double precision")
    method, first, later = METHODS[method]
    with enable_x64(made_inside):
        x = jnp.asarray(X, jnp.float64 if double else jnp.float32)
        weights = NETWORK.init(jax.random.key(0), x)
        run = simulate(NETWORK, weights, x, method, **first)
        want = ska.extend(run, **later)
    with enable_x64(not made_inside):
        got = ska.extend(run, **later)
    assert same(records(got), records(want))
    assert got.entropy.dtype == want.entropy.dtype


@pytest.mark.parametrize("made_inside", [False, True], ids=["made outside", "made inside"])
def test_a_dense_run_is_read_in_another_mode(made_inside):
    with enable_x64(made_inside):
        x = jnp.asarray(X, jnp.float64 if made_inside else jnp.float32)
        weights = NETWORK.init(jax.random.key(0), x)
        run = simulate(NETWORK, weights, x, ska.Adaptive(), t1=2.0, dense=True)
        want = run.at(0.7), ska.landmarks.peaks(run)
    with enable_x64(not made_inside):
        assert same((run.at(0.7), ska.landmarks.peaks(run)), want)


def test_a_float64_run_may_not_be_reused_outside_of_double_precision():
    with enable_x64(True):
        x = jnp.asarray(X, jnp.float64)
        weights = NETWORK.init(jax.random.key(0), x)
        run = simulate(NETWORK, weights, x, ska.Euler(0.1), steps=2)
    refused(
        lambda: simulate(NETWORK, run.final.weights, X, ska.Euler(0.1), steps=2),
        "weights",
        "float64",
        "enable_x64",
    )


# Numbers.

NUMBERS = {
    "int": 1,
    "float": 1.0,
    "int8": np.int8(1),
    "uint64": np.uint64(1),
    "float16": np.float16(1),
    "float32": np.float32(1),
    "float64": np.float64(1),
    "longdouble": np.longdouble(1),
    "0-d array": np.array(1.0),
    "0-d integer array": np.array(1),
    "jax": jnp.asarray(1.0),
    "jax integer": jnp.asarray(1),
    "bfloat16": jnp.asarray(1, jnp.bfloat16),
    "big-endian": np.array(1, ">f8"),
    "xarray": xr.DataArray(1.0),
}
NONE = {
    "True": True,
    "numpy bool": np.True_,
    "None": None,
    "text": "1",
    "complex": 1 + 0j,
    "numpy complex": np.complex64(1),
    "jax complex": jnp.asarray(1 + 0j),
    "with an axis": np.ones(1),
    "list": [1.0],
    "duration": np.timedelta64(1),
    "date": np.datetime64("2020-01-01"),
    "masked": np.ma.masked,
    "not finite": float("nan"),
    "too large": 10**400,
}
TAKERS = {
    "dt": lambda value: ska.Euler(value).dt,
    "rtol": lambda value: ska.Adaptive(rtol=value).controller.rtol,
    "atol": lambda value: ska.Adaptive(atol=value).controller.atol,
    "dt0": lambda value: ska.Adaptive(dt0=value).dt0,
    "rate": lambda value: ska.layers.Paced(ska.Dense(2), value).rate,
    "scale": lambda value: ska.Dense(2, scale=value).scale,
    "bias": lambda value: ska.Dense(2, bias=value).bias,
    "time": lambda value: ska.stop.ResidenceTime(value).time,
    "limit": lambda value: ska.stop.ErrorBudget(value).limit,
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_all_libraries_are_one_number(taker, kind, untyped):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = TAKERS[taker](NUMBERS[kind])
    assert type(found) is float and found == 1.0


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("kind", NONE)
def test_what_is_no_number_is_refused_by_name(taker, kind, untyped):
    if (taker, kind) in {(name, "None") for name in ("rtol", "atol", "dt0")}:
        pytest.skip("None stands for the default")
    refused(lambda: TAKERS[taker](NONE[kind]), taker)


@pytest.mark.parametrize(
    "value",
    [3, np.int8(3), np.uint32(3), np.array(3), jnp.asarray(3)],
    ids=lambda v: type(v).__name__,
)
def test_whole_numbers_of_all_libraries(value, untyped):
    assert is_whole(value) and type(as_whole(value)) is int
    assert ska.Dense(value) == ska.Dense(3) and hash(ska.Dense(value)) == hash(ska.Dense(3))
    assert ska.stop.StructureStart(value).layer == 3
    assert len(simulate(NETWORK, WEIGHTS, X, ska.Euler(0.1), steps=value).t) == 4


@pytest.mark.parametrize("value", [3.0, True, np.True_, None, "3", 3 + 0j, np.ones(1, int), 0])
def test_what_is_no_whole_number_is_refused(value, untyped):
    refused(lambda: ska.Dense(value), "width")
    refused(lambda: ska.Adaptive(max_steps=value), "max_steps")


def test_an_integer_step_is_a_step():
    runs = [
        simulate(NETWORK, WEIGHTS, X, ska.Euler(dt), steps=3)
        for dt in (1, np.int64(1), jnp.asarray(1))
    ]
    assert {float(run.parameters["dt"]) for run in runs} == {1.0}
    assert len({ska.landmarks.peaks(run)[0].K for run in runs}) == 1


def test_traced_integers_are_numbers(untyped):
    rates = jax.jit(lambda dt: simulate(NETWORK, WEIGHTS, X, ska.Euler(dt), steps=2).entropy)
    np.testing.assert_array_equal(np.asarray(rates(1)), np.asarray(rates(1.0)))


def test_a_controllers_numbers_are_those_of_python(untyped):
    controller = diffrax.PIDController(rtol=np.float64(1e-3), atol=np.array(0))
    method = ska.Adaptive(controller=controller)
    assert type(method.controller.rtol) is float and type(method.controller.atol) is float
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = simulate(NETWORK, WEIGHTS, X, method, t1=0.1)
    assert float(run.parameters["controller_atol"]) == 0


def test_a_number_that_the_precision_cannot_hold_has_its_own_name(untyped):
    refused(
        lambda: simulate(NETWORK, WEIGHTS, X, ska.Adaptive(atol=1e-60), t1=0.1),
        "atol",
        "representable",
    )


def test_numbers_stay_what_they_are():
    assert as_number("text") == "text" and as_number(True) is True
    assert as_whole(1.5) == 1.5


# Arrays.


def masked():
    mask = np.zeros(X.shape, bool)
    mask[0, 0] = True
    return np.ma.MaskedArray(X, mask)


def test_masked_values_are_refused_by_name(untyped):
    refused(lambda: NETWORK.init(jax.random.key(0), masked()), "x", "masked")
    refused(lambda: simulate(NETWORK, WEIGHTS, masked(), ska.Euler(0.1), steps=1), "x", "masked")
    first = WEIGHTS[0]._replace(W=np.ma.MaskedArray(np.asarray(WEIGHTS[0].W), True))
    weights = (first, *WEIGHTS[1:])
    refused(lambda: simulate(NETWORK, weights, X, ska.Euler(0.1), steps=1), "weights", "masked")
    times = np.ma.MaskedArray([0.1, 0.2], [False, True])
    run = lambda: simulate(NETWORK, WEIGHTS, X, ska.Adaptive(), t1=0.2, save_at=times)
    refused(run, "save_at", "masked")
    labels = np.ma.MaskedArray([0, 1, 0, 1, 1], [True, False, False, False, False])
    refused(lambda: fisher_ratio(X, labels), "labels", "masked")


def test_a_mask_that_hides_nothing_is_no_mask(untyped):
    run = simulate(NETWORK, WEIGHTS, np.ma.MaskedArray(X), ska.Euler(0.1), steps=2)
    assert same(records(run), records(simulate(NETWORK, WEIGHTS, X, ska.Euler(0.1), steps=2)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e5m2"])
def test_short_floats_are_refused_by_name(dtype, untyped):
    refused(
        lambda: simulate(NETWORK, WEIGHTS, jnp.asarray(X, dtype), ska.Euler(0.1), steps=1),
        "x",
        dtype,
        "float32",
    )


@pytest.mark.parametrize(
    "x",
    [
        X.astype(complex),
        X.astype(object),
        X.astype(str),
        X.astype("m8[s]"),
        X.astype("M8[s]"),
        [[1], [1, 2]],
    ],
    ids=["complex", "object", "text", "durations", "dates", "ragged"],
)
def test_what_are_no_numbers_is_refused_by_name(x, untyped):
    refused(lambda: simulate(NETWORK, WEIGHTS, x, ska.Euler(0.1), steps=1), "x", "numbers")


def test_images_are_refused_with_what_to_do(untyped):
    images = np.zeros((5, 2, 2), np.uint8)
    init = lambda x: lambda: NETWORK.init(jax.random.key(0), x)
    refused(init(images), "x", "uint8", "/ 255")
    refused(init(images.astype(np.float32)), "x", "x.reshape(len(x), -1)")


def test_a_key_is_a_key(untyped):
    old = jax.random.PRNGKey(0)
    assert same(NETWORK.init(old, X), WEIGHTS) and same(NETWORK.init(np.asarray(old), X), WEIGHTS)
    for value in (0, None, "key", np.float32(0), np.zeros(5, np.uint32), jax.random.split(old)):
        refused(lambda value=value: NETWORK.init(value, X), "key", "jax.random.key")


def test_transfers_that_were_asked_for_are_made():
    with jax.transfer_guard("disallow"):
        run = simulate(NETWORK, WEIGHTS, X, ska.Adaptive(), t1=0.2, dense=True)
        assert float(ska.extend(run, 0.4).final.t) == pytest.approx(0.4)
        assert float(run.at(0.1).t) == pytest.approx(0.1)
        assert NETWORK.init(jax.device_put(np.array([0, 0], np.uint32)), X) is not None
        lanes = sweep(
            NETWORK, WEIGHTS, X, lambda dt: ska.Euler(dt), steps=2, over=ska.grid(dt=[0.1, 0.2])
        )
    assert lanes.entropy.shape[0] == 2


# All of it at once.

ARRAYS = {
    "C": np.array,
    "F": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=0)[::2],
    "reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "read-only": lambda a: read_only(a),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "aligned": aligned,
    "jax": jnp.asarray,
    "lists": lambda a: a.tolist(),
    "xarray": xr.DataArray,
    "pandas": lambda a: pd.DataFrame(a) if a.ndim == 2 else pd.Series(a),
    "float64": lambda a: a.astype(np.float64),
    "longdouble": lambda a: a.astype(np.longdouble),
    "unmasked": np.ma.MaskedArray,
    "float16": lambda a: a.astype(np.float16),
    "bfloat16": lambda a: jnp.asarray(a, jnp.bfloat16),
    "integers": lambda a: a.astype(int),
    "complex": lambda a: a.astype(complex),
    "object": lambda a: a.astype(object),
    "text": lambda a: a.astype(str),
    "masked": lambda a: np.ma.MaskedArray(a, True),
}
REFUSED_X = {"float16", "bfloat16", "integers", "complex", "object", "text", "masked"}
SCALARS = {kind: lambda v, kind=kind: cast(v, kind) for kind in NUMBERS} | {
    kind: lambda v, kind=kind: NONE[kind] for kind in NONE
}


def read_only(array):
    array = array.copy()
    array.setflags(write=False)
    return array


def cast(value, kind):
    """A number of this kind with the value, where the kind can hold it."""
    like = NUMBERS[kind]
    if isinstance(like, xr.DataArray):
        return xr.DataArray(float(value))
    if isinstance(like, jax.Array):
        return jnp.asarray(value, like.dtype)
    if isinstance(like, int):
        return value
    return (
        np.asarray(value, np.asarray(like).dtype)[()]
        if isinstance(like, np.generic)
        else (np.asarray(value, like.dtype) if isinstance(like, np.ndarray) else float(value))
    )


WHOLE = ("int", "int8", "uint64", "0-d integer array", "jax integer", "float", "True", "text")
AXES = {
    "simulate": lambda: None,
    "list": lambda: [0, 1],
    "range": lambda: range(2),
    "numpy": lambda: np.arange(2),
    "jax": lambda: jnp.arange(2),
}
CALLS = st.fixed_dictionaries(
    {
        "x": st.sampled_from(sorted(ARRAYS)),
        "weights": st.sampled_from(sorted(set(ARRAYS) - {"lists"})),
        "dt": st.sampled_from(sorted(SCALARS)),
        "steps": st.sampled_from(WHOLE),
        "through": st.sampled_from(sorted(AXES)),
        "double": st.booleans(),
    }
)
WANTED = {}


def want(double):
    """The same call with plain NumPy copies, made once in each mode."""
    if double not in WANTED:
        run = simulate(NETWORK, HOST, X.copy(), ska.Euler(1.0), steps=2)
        WANTED[double] = np.asarray(run.entropy)
    return WANTED[double]


def entropy_of(call):
    """What the call gives."""
    weights = jax.tree.map(ARRAYS[call["weights"]], HOST)
    x, steps = ARRAYS[call["x"]](X), SCALARS[call["steps"]](2)
    method, axis = ska.Euler(SCALARS[call["dt"]](1)), AXES[call["through"]]()
    if axis is None:
        return np.asarray(simulate(NETWORK, weights, x, method, steps=steps).entropy)
    over = ska.grid(k=axis)
    return sweep(NETWORK, weights, lambda k: x, method, steps=steps, over=over).entropy.values[1]


def attempt(function, *arguments):
    """What it gives, or the refusal that it raises."""
    try:
        return function(*arguments), None
    except (ValueError, TypeError) as error:
        return None, error


@settings(max_examples=80)
@given(call=CALLS)
def test_a_call_gives_the_right_numbers_or_says_what_is_wrong(call, untyped):
    with enable_x64(call["double"]):
        got, error = attempt(entropy_of, call)
        expected = want(call["double"])
    if error is not None:
        assert str(error).startswith("Argument "), (call, repr(error))
        return
    assert call["x"] not in REFUSED_X, call
    np.testing.assert_allclose(got, expected, rtol=1e-5, err_msg=str(call))
