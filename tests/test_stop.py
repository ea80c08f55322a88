"""Stop rules: each fires where NumPy says that it should, on every method."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference as ref

import skajax as ska
from skajax import stop
from skajax.methods._outcome import Code

KEY = jax.random.key(5)
X = jax.random.uniform(KEY, (12, 9))
NETWORK = ska.mlp([7, 5, 3], scale=0.3)
WEIGHTS = NETWORK.init(jax.random.key(1), X)
EULER = ska.Euler(0.02)
METHODS = {
    "Euler": (EULER, {"t1": 6.0}),
    "Published": (ska.Published(0.02), {"t1": 6.0}),
    "Descent": (ska.Descent(optax.sgd(0.02)), {"steps": 300}),
    "Adaptive": (ska.Adaptive(), {"t1": 6.0, "save_at": np.linspace(0, 6, 301)}),
}


# What rules look at.
OBSERVE = ("entropy", "entropy_rate", "knowledge_norm", "flow_norm", "tensor_net_rate")


END = {"save_at": "end", "observe": ()}


def run(method=EULER, weights=WEIGHTS, x=X, observe=OBSERVE, **options):
    span = {} if "steps" in options else {"t1": 6.0}
    return ska.simulate(NETWORK, weights, x, method, observe=observe, **span | options)


def first(condition):
    """The first record where a condition holds, of (times,) or (times, layers)."""
    held = np.asarray(condition)
    return int(np.argmax(held.all(axis=-1) if held.ndim == 2 else held))


def flow_converged(full, fraction):
    flow = np.asarray(full.flow_norm)
    return first(flow < fraction * np.maximum.accumulate(flow, axis=0))


def entropy_converged(full, rate):
    speed, H = np.abs(np.asarray(full.entropy_rate)), np.asarray(full.entropy)
    return first((speed < np.maximum.accumulate(speed, axis=0)) & (speed <= rate * H))


def residence(full, time):
    Z, flow = np.asarray(full.knowledge_norm), np.asarray(full.flow_norm)
    return first((flow > 0) & (time * flow <= Z))


def structure(full, layer):
    rate = np.asarray(full.tensor_net_rate)
    crossed = np.zeros_like(rate, bool)
    crossed[1:] = np.cumsum(rate[1:] * rate[:-1] < 0, axis=0) > 0
    return first(crossed.any(axis=1) if layer is None else crossed[:, layer - 1])


RULES = {
    "flow": (stop.FlowConverged(0.6), lambda full: flow_converged(full, 0.6)),
    "entropy": (stop.EntropyConverged(0.5), lambda full: entropy_converged(full, 0.5)),
    "residence": (stop.ResidenceTime(1.0), lambda full: residence(full, 1.0)),
}


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        *(("Euler", rule) for rule in RULES),
        ("Adaptive", "flow"),
        pytest.param("Adaptive", "entropy", marks=pytest.mark.thorough),
        pytest.param("Adaptive", "residence", marks=pytest.mark.thorough),
        ("Published", "residence"),
        ("Descent", "flow"),
    ],
)
def test_a_rule_ends_the_run_where_its_records_say(name, rule):
    method, span = METHODS[name]
    rule, find = RULES[rule]
    full = run(method, **span)
    k = find(full)
    assert 0 < k < len(full.t) - 1  # else the test shows nothing
    ended = run(method, until=rule, **span)
    assert ended.outcome.stopped and not ended.outcome.completed
    assert str(ended.outcome).startswith(f"stopped at t = {float(ended.final.t):.6g} by")
    assert rule.names()[0] in str(ended.outcome)
    np.testing.assert_array_equal(ended.t[-1], ended.final.t)
    if name == "Adaptive":  # between two records, where it begins to hold
        assert full.t[k - 1] < ended.final.t <= full.t[k] * (1 + 1e-6)
    else:
        assert int(ended.outcome.step) == k == len(ended.t) - 1
        np.testing.assert_array_equal(ended.t, full.t[: k + 1])
        np.testing.assert_array_equal(ended.entropy, full.entropy[: k + 1])
    if name != "Adaptive":  # the layer that decides is the slowest
        flow, Z = np.asarray(full.flow_norm), np.asarray(full.knowledge_norm)
        slowness = {
            "FlowConverged": flow[k] / flow[: k + 1].max(axis=0),
            "EntropyConverged": np.abs(full.entropy_rate[k]) / full.entropy[k],
            "ResidenceTime": flow[k] / Z[k],
        }[type(rule).__name__]
        assert int(ended.outcome.layer) == int(np.argmax(slowness)) + 1
    found = stop.compare(full, [rule])
    assert found.fired.item() and found.t.item() == pytest.approx(float(full.t[k]))


def test_structure_starts_at_the_first_crossing(x64):
    x, weights = X.astype(float), jax.tree.map(lambda w: w.astype(float), WEIGHTS)
    method = ska.Adaptive(rtol=1e-9, atol=1e-11)
    full = run(method, weights, x, dense=True, **END)
    crossings = sorted(ska.landmarks.crossings(full), key=lambda c: c.t)
    assert crossings
    ended = run(method, weights, x, until=stop.StructureStart(), **END)
    assert float(ended.final.t) == pytest.approx(crossings[0].t, abs=1e-7)
    assert int(ended.outcome.layer) == crossings[0].layer
    records = run(observe=("tensor_net_rate",))
    k = structure(records, None)
    assert k > 0
    assert run(until=stop.StructureStart(), observe=()).t[-1] == records.t[k]


def test_the_state_is_that_of_the_stop(x64):
    x, weights = X.astype(float), jax.tree.map(lambda w: w.astype(float), WEIGHTS)
    method = ska.Adaptive(rtol=1e-10, atol=1e-12)
    observe = ("knowledge_norm", "flow_norm")
    ended = run(method, weights, x, observe, until=stop.ResidenceTime(1.0))
    straight = run(method, weights, x, t1=ended.final.t, **END)
    for got, want in zip(
        jax.tree.leaves(ended.final.weights), jax.tree.leaves(straight.final.weights), strict=True
    ):
        np.testing.assert_allclose(got, want, atol=1e-9)
    # There, the rule begins to hold.
    residence = ended.knowledge_norm[-1] / ended.flow_norm[-1]
    assert float(residence.min()) == pytest.approx(1.0, abs=1e-7)


def test_any_ends_with_the_first_and_all_with_the_last():
    early, late = stop.ResidenceTime(0.5), stop.ResidenceTime(1.0)
    t_early, t_late = (float(run(until=rule).final.t) for rule in (early, late))
    assert t_early < t_late
    either = run(until=late | early)
    assert float(either.final.t) == t_early
    assert int(either.outcome.rule) == 1 and early.names()[0] in str(either.outcome)
    both = run(until=late & early)
    assert float(both.final.t) == t_late
    assert int(both.outcome.rule) == 0
    nested = run(until=stop.FlowConverged(1e-3) | (late & early))
    assert float(nested.final.t) == t_late
    assert str(nested.outcome).count("&") == 1


def test_the_error_budget_counts_second_differences_of_the_weights(x64):
    x, weights = X.astype(float), jax.tree.map(lambda w: w.astype(float), WEIGHTS)
    dt, steps = 0.02, 24
    flat = [jax.flatten_util.ravel_pytree(weights)[0]]
    for _ in range(steps):
        weights = run(ska.Euler(dt), weights, x, (), steps=1).final.weights
        flat.append(jax.flatten_util.ravel_pytree(weights)[0])
    W = np.asarray(flat)
    norm = np.linalg.norm(W, axis=1)
    each = np.linalg.norm(W[2:] - 2 * W[1:-1] + W[:-2], axis=1) / norm[1:-1] / 2
    spent = np.concatenate([[0, 0], np.cumsum(each)])
    limit = spent[16] * (1 + 1e-9)
    start = jax.tree.map(lambda w: w.astype(float), WEIGHTS)
    ended = run(ska.Euler(dt), start, x, (), steps=steps, until=stop.ErrorBudget(limit))
    assert int(ended.outcome.step) == 17
    # An adaptive run spends within its tolerance, step by step.
    loose = ska.Adaptive(rtol=1e-3, atol=1e-5)
    ended = run(loose, start, x, until=stop.ErrorBudget(1e-4), **END)
    assert ended.outcome.stopped
    tight = ska.Adaptive(rtol=1e-9, atol=1e-11)
    unspent = run(tight, start, x, until=stop.ErrorBudget(1e-4), **END)
    assert unspent.outcome.completed


def test_the_error_budget_is_of_the_whole_weights(x64):
    x = jax.random.uniform(KEY, (5, 60), float)
    network = ska.mlp([7], scale=0.3)
    weights = network.init(jax.random.key(1), x)
    for method, limit in ((ska.Euler(0.02), 4e-4), (ska.Adaptive(), 2e-6)):
        options = {"until": stop.ErrorBudget(limit), "observe": ()}
        ends = [
            ska.simulate(network, weights, x, method, 4.0, reduction=effort, **options)
            for effort in ("off", "full")
        ]
        assert all(end.outcome.stopped for end in ends) and int(ends[1].stats.rank) == 5
        assert float(ends[0].final.t) == pytest.approx(float(ends[1].final.t), abs=1e-8)


def test_comparison_reads_a_lane_that_has_ended():
    rule = stop.ResidenceTime(1.0)
    lane = lambda w: run(weights=w, steps=300, until=rule)
    batch = jax.vmap(lane)(jax.tree.map(lambda w: w[None], WEIGHTS))
    table = stop.compare(jax.tree.map(lambda a: a[0], batch), [rule, stop.ResidenceTime(0.5)])
    single = stop.compare(run(until=rule), [rule, stop.ResidenceTime(0.5)])
    for name in ("t", "entropy_left", "flow_left", "time_saved"):
        np.testing.assert_allclose(table[name], single[name], rtol=1e-4)
    assert np.isfinite(table.entropy_left).all()


def test_names_survive_jit_and_fields_of_any_kind():
    rule = stop.FlowConverged(0.7) & (stop.ResidenceTime(9) | stop.StructureStart(2))
    name = "FlowConverged(fraction=0.7) & (ResidenceTime(time=9) | StructureStart(layer=2))"
    assert rule.names() == (name,)
    inside = jax.jit(lambda w: run(weights=w, steps=300, until=rule))(WEIGHTS)
    assert inside.outcome.rules == (name,)

    class Mine(stop.ResidenceTime):
        mode: str = "fast"
        limits: tuple = (1.0, 2.0)

    assert Mine(1.0).names() == ("Mine(time=1, mode='fast', limits=(1.0, 2.0))",)


@pytest.mark.parametrize("name", METHODS)
def test_a_rule_that_never_fires_is_named_with_what_to_do(name):
    method, span = METHODS[name]
    result = run(method, until=stop.FlowConverged(1e-6), **span)
    assert result.outcome.completed and int(result.outcome.rule) == -1
    for word in ("FlowConverged(fraction=1e-06)", "never held", "Try a later end"):
        assert word in str(result.outcome)


def test_a_rule_that_holds_at_once_ends_before_the_first_step():
    for method, span in METHODS.values():
        if isinstance(method, ska.Published):
            continue  # whose first record has no flow
        result = run(method, until=stop.ResidenceTime(1e-6), **span)
        assert result.outcome.stopped
        assert len(result.t) == 1 and float(result.final.t) == 0
        np.testing.assert_array_equal(result.final.weights[0].W, WEIGHTS[0].W)


@pytest.mark.parametrize(
    "method", [EULER, pytest.param(ska.Published(0.02), marks=pytest.mark.thorough)]
)
def test_lanes_stop_each_for_itself(method):
    scales = jnp.asarray([0.5, 1.0, 2.0])
    rule = stop.FlowConverged(0.7) | stop.ResidenceTime(0.8)

    def lane(scale):
        weights = jax.tree.map(lambda w: scale * w, WEIGHTS)
        return run(method, weights, observe=("entropy",), steps=300, until=rule)

    batch = jax.jit(jax.vmap(lane))(scales)
    ends = set()
    for n, scale in enumerate(scales):
        single = lane(scale)
        assert single.outcome.stopped
        assert int(batch.outcome.code[n]) == Code.STOPPED
        assert int(batch.outcome.step[n]) == int(single.outcome.step)
        assert int(batch.outcome.layer[n]) == int(single.outcome.layer)
        assert int(batch.outcome.rule[n]) == int(single.outcome.rule)
        np.testing.assert_allclose(batch.final.t[n], single.final.t, rtol=1e-6)
        np.testing.assert_allclose(batch.final.Z[-1][n], single.final.Z[-1], rtol=1e-4, atol=1e-5)
        kept = len(single.t)
        np.testing.assert_allclose(batch.entropy[n][:kept], single.entropy, rtol=1e-5)
        assert np.isnan(np.asarray(batch.entropy[n][kept:])).all()
        ends.add(kept)
    assert len(ends) > 1


@pytest.mark.filterwarnings("ignore::skajax.SkajaxWarning")
def test_adaptive_lanes_stop_where_single_runs_do(x64):
    x, weights = jax.tree.map(lambda a: a.astype(float), (X, WEIGHTS))

    def lane(scale, rate, time):
        start = jax.tree.map(lambda w: scale * w, weights)
        rule = stop.EntropyConverged(rate) | stop.ResidenceTime(time)
        return run(ska.Adaptive(), start, x, ("entropy",), save_at=range(4), until=rule)

    # Inside a step, never, at once, behind the last record, and a failure.
    lanes = [(1.0, 0.5, 1e9), (1.0, 1e-9, 1e9), (1.0, 1e-9, 1e-9), (0.5, 1.5, 1e9), (1e200, 1, 1e9)]
    batch = jax.jit(jax.vmap(lane))(*jnp.asarray(lanes).T)
    assert batch.t.shape == (len(lanes), 5)
    for n, numbers in enumerate(lanes):
        single, got = lane(*numbers), jax.tree.map(lambda a, n=n: a[n], batch)
        for name in ("code", "layer", "rule", "step"):
            assert getattr(got.outcome, name) == getattr(single.outcome, name), (numbers, name)
        for name in ("evaluations", "steps", "rejected"):
            assert getattr(got.stats, name) == getattr(single.stats, name), (numbers, name)
        kept = len(single.t)
        # A stop is found to 1e-8 of the time.
        np.testing.assert_allclose(got.outcome.t, single.outcome.t, rtol=2e-8)
        np.testing.assert_allclose(got.t[:kept], single.t, rtol=2e-8)
        before = slice(max(kept - 1, 0))
        np.testing.assert_allclose(got.t[before], single.t[before], rtol=1e-12)
        np.testing.assert_allclose(got.entropy[before], single.entropy[before], rtol=1e-10)
        np.testing.assert_allclose(got.final.Z[-1], single.final.Z[-1], rtol=1e-7)
        assert np.isnan(np.asarray(got.t[kept:])).all()
    fired = np.asarray(batch.outcome.rule)
    assert set(fired) == {0, 1, -1} and bool(batch.outcome.stopped[0])
    # A stop after the last save time has a record too.
    assert batch.final.t[3] == batch.t[3, 4] > 3 and bool(batch.outcome.stopped[3])


def test_comparison_tells_what_was_left_undone():
    full = run()
    early, never = stop.ResidenceTime(0.5), stop.FlowConverged(1e-6)
    table = stop.compare(full, [early, never])
    k = residence(full, 0.5)
    H, flow = np.asarray(full.entropy, float), np.asarray(full.flow_norm, float)
    np.testing.assert_array_equal(table.fired, [True, False])
    np.testing.assert_allclose(table.t, [full.t[k], np.nan])
    np.testing.assert_allclose(table.entropy_left[0], (H[k] - H[-1]) / (H[0] - H[-1]))
    np.testing.assert_allclose(table.flow_left[0], flow[k] / flow.max(axis=0))
    np.testing.assert_allclose(table.time_saved, [1 - full.t[k] / full.t[-1], np.nan], rtol=1e-6)
    assert int(table.layer_that_decided[1]) == 0 and np.isnan(table.entropy_left[1]).all()
    assert list(table["rule"].values) == [early.names()[0], never.names()[0]]


BAD = {
    "fraction 0": (lambda: stop.FlowConverged(0.0), "fraction", "positive"),
    "fraction 1": (lambda: stop.FlowConverged(1.0), "fraction", "below 1"),
    "rate": (lambda: stop.EntropyConverged(-1.0), "rate", "positive"),
    "time": (lambda: stop.ResidenceTime(float("inf")), "time", "finite"),
    "limit": (lambda: stop.ErrorBudget(0.0), "limit", "positive"),
    "layer 0": (lambda: stop.StructureStart(0), "layer", "from 1"),
    "layer 9": (lambda: run(until=stop.StructureStart(9)), "layer", "3 layers"),
    "any of nothing": (lambda: stop.AnyOf(), "rules", "at least one"),
    "compare with one": (
        lambda: stop.compare(run(), stop.ResidenceTime(1.0)),
        "rules",
        "list of stop rules",
    ),
    "no rule": (lambda: run(until="converged"), "until", "stop rule"),
    "compare a budget": (lambda: stop.compare(run(), [stop.ErrorBudget(1.0)]), "rules", "records"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rules_are_refused(untyped, case):
    make, argument, word = BAD[case]
    with pytest.raises(ValueError, match=f"Argument {argument} must .*{word}"):
        make()


def test_other_limits_compile_nothing(compilations):
    def at(time):
        result = run(ska.Adaptive(diffrax.Tsit5()), until=stop.ResidenceTime(time))
        assert result.outcome.stopped and len(result.t) > 1

    at(1.0)
    with compilations() as found:
        at(1.1)
        at(2)
    assert found == []


def test_a_run_that_ends_within_a_step_compiles_its_loop_once(compilations):
    # A network of this test's own, so that nothing was compiled before.
    network, weights, x = ref.Problem("", 5, (4, 2), 8).arrays(jnp.float32)
    rule = stop.FlowConverged(0.5)
    with compilations() as found:
        ended = ska.simulate(
            network, weights, x, ska.Adaptive(), 40.0, until=rule, observe=("flow_norm",)
        )
    assert ended.outcome.stopped and float(ended.final.t) not in np.asarray(ended.path.t[:-1])
    assert found.count("jit(advance)") == 1
