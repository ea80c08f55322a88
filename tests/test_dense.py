"""Adaptive runs as functions of time: save modes, steps, dense output, exact landmarks."""

import itertools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import skajax as ska
from skajax import _solution
from skajax._messages import tell_once
from skajax.methods import _adaptive, _integrate, _integration
from skajax.methods._outcome import Code
from skajax.system import System, growth_bound

NETWORK = ska.mlp([9, 4], scale=0.3)
T = 6.0
OBSERVE = ("entropy_rate", "knowledge_norm", "flow_norm", "tensor_net", "tensor_net_rate")


@pytest.fixture
def problem(x64):
    x = jax.random.uniform(jax.random.key(5), (12, 10), float)
    return x, NETWORK.init(jax.random.key(1), x)


def run(problem, method=None, t1=T, observe=OBSERVE, **options):
    x, weights = problem
    method = ska.Adaptive(rtol=1e-8, atol=1e-10) if method is None else method
    return ska.simulate(NETWORK, weights, x, method, t1, observe=observe, **options)


def assert_close(got, want, **tolerance):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def test_what_is_saved_changes_nothing_else(problem):
    observe = ("flow_norm", "tensor_net")
    grid = run(problem, observe=observe)
    assert len(grid.t) == _adaptive.SAVES
    for save_at in ("steps", "end"):
        other = run(problem, observe=observe, save_at=save_at)
        assert_close(other.final, grid.final, rtol=0, atol=0)
        assert_close(other.stats, grid.stats, rtol=0)
        assert_close(other.path, grid.path, rtol=0)
        assert other.t[-1] == T and (save_at == "steps" or len(other.t) == 1)
    steps = run(problem, observe=observe, save_at="steps")
    np.testing.assert_array_equal(steps.t, steps.path.t)
    on_grid = run(
        problem, observe=observe, save_at=steps.t
    )  # the interpolant meets the steps at their ends
    for name in observe:
        want = np.asarray(getattr(steps, name))
        got = np.asarray(getattr(on_grid, name))
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9 * np.abs(want).max())


def test_the_path_is_the_steps_that_were_made(problem):
    result = run(
        problem, ska.Adaptive(rtol=1e-6, atol=1e-8, dt0=3.0), observe=()
    )  # too large: rejected
    path, stats = result.path, result.stats
    assert path.t[0] == 0 and path.t[-1] == T
    assert (np.diff(path.t) > 0).all()
    assert len(path.t) - 1 == int(stats.steps - stats.rejected)
    assert int(path.rejected.sum()) == int(stats.rejected) > 0
    assert path.rejected[0] > 0 and path.weights is None


def test_the_first_step_is_the_linear_regimes(problem):
    x, _ = problem
    network = ska.mlp([9, 7, 4], scale=0.3)
    weights = network.init(jax.random.key(1), x)
    B, ln2 = len(x), np.log(2)
    rate = (max(np.mean(np.sum(np.asarray(x) ** 2, axis=1)), 9 / 4) + 1) / (4 * ln2)
    for rtol in (1e-3, 1e-4):
        method = ska.Adaptive(rtol=rtol, atol=rtol / 100)
        result = ska.simulate(network, weights, x, method, T, observe=())
        assert int(result.path.rejected[0]) == 0
        assert float(result.path.t[1]) == pytest.approx(8 * rtol ** (1 / 5) / rate, rel=1e-12)
    # It bounds how fast knowledge of the first layer can grow while it is small.
    growth = np.linalg.eigvalsh(np.asarray(x) @ np.asarray(x).T + 1) / (4 * B * ln2)
    assert growth.max() <= rate


KINDS = {
    "convolution": (ska.layers.Conv(4, (3, 3)), (8, 6, 6, 2)),
    "recurrent": (ska.layers.Recurrent(5), (6, 9, 3)),
    "gated": (ska.layers.Recurrent(5, gated=True, scale=0.3), (6, 9, 3)),
    "graph": (ska.layers.GraphConv(4, [[0, 1], [1, 2], [2, 3]]), (4, 5)),
    "attention": (ska.layers.SelfAttention(4, heads=2, scale=0.1), (5, 7, 3)),
    "tanh": (ska.Dense(5, decision="tanh"), (6, 4)),
    "softmax": (ska.Dense(5, decision="softmax"), (6, 4)),
    "fast": (ska.Paced(ska.Dense(5), 30.0), (6, 4)),
}  # fmt: skip


FEW = ("softmax", "fast")


@pytest.mark.parametrize(
    "kind", [k if k in FEW else pytest.param(k, marks=pytest.mark.thorough) for k in KINDS]
)
def test_no_layer_grows_faster_than_its_bound(x64, kind):
    """By the rates of the linearised flow; so that no first step is made again."""
    layer, shape = KINDS[kind]
    network = ska.Network((layer,))
    bounded = jax.jit(lambda w, x: growth_bound(System(network.running(), ska.Batch(x)), w))
    for seed in range(2):
        x = jax.random.normal(jax.random.key(seed), shape)
        weights = network.init(jax.random.key(10 + seed), x)
        rates = ska.timescales.growth(network, weights, x, count=1).rates[0]
        bound = float(bounded(weights, x))
        assert float(rates[0]) <= bound <= 6 * float(rates[0])
    result = ska.simulate(network, weights, x, ska.Adaptive(), 0.05, observe=())
    assert int(result.path.rejected[0]) == 0


@pytest.mark.parametrize(
    "method",
    [
        ska.Adaptive(rtol=1e-6, atol=1e-8),
        pytest.param(
            ska.Adaptive(diffrax.Dopri8(), controller=diffrax.PIDController(1e-5, 1e-7)),
            marks=pytest.mark.thorough,
        ),
        ska.Adaptive(diffrax.Heun(), controller=diffrax.ConstantStepSize(), dt0=0.1),
    ],
    ids=["Tsit5", "Dopri8", "constant Heun"],
)
def test_outside_of_jit_and_inside_are_the_same_solve(problem, method):
    x, weights = problem
    observe = ("entropy", "tensor_net")
    out = run(problem, method, observe=observe)
    inside = jax.jit(lambda w: run((x, w), method, observe=observe))(weights)
    assert inside.path is None and inside.resume is None
    assert_close(inside.stats, out.stats, rtol=0)
    assert_close(inside.final, out.final, rtol=1e-10, atol=1e-11)
    for name in ("t", *observe):
        want = np.asarray(getattr(out, name))
        size = 1e-10 * np.abs(want).max()
        np.testing.assert_allclose(getattr(inside, name), want, rtol=1e-9, atol=size)


def test_an_implicit_solver_steps_by_hand_as_diffrax_does():
    x = jax.random.uniform(jax.random.key(5), (5, 2))
    network = ska.mlp([2])
    weights = network.init(jax.random.key(1), x)
    method = ska.Adaptive(diffrax.Kvaerno3(), rtol=1e-4, atol=1e-6)
    go = lambda w, at: ska.simulate(network, w, x, method, 2.0, save_at=at, observe=())
    out, inside = go(weights, "end"), jax.jit(lambda w: go(w, [2.0]))(weights)
    assert out.outcome.completed and out.stats.evaluations is None
    assert int(out.stats.steps) == int(inside.stats.steps)
    assert_close(out.final, inside.final, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "solver",
    [
        diffrax.Tsit5(),
        diffrax.Dopri8(),
        pytest.param(diffrax.Bosh3(), marks=pytest.mark.thorough),
    ],
)
def test_the_state_at_any_time(problem, solver):
    method = ska.Adaptive(solver, rtol=1e-7, atol=1e-9)
    dense = run(problem, method, dense=True, save_at="end", observe=())
    for t in (0.0, 0.123, 2.5, T):
        state = dense.at(t)
        assert float(state.t) == t
        if t:
            tight = ska.Adaptive(diffrax.Dopri8(), rtol=1e-11, atol=1e-13)
            want = run(problem, tight, t1=t, save_at="end", observe=()).final
            assert_close(state, want, rtol=1e-4, atol=2e-6)
    assert_close(dense.at(0.0).weights, problem[1], rtol=0, atol=1e-15)
    assert_close(dense.at(T), dense.final, rtol=1e-12, atol=1e-12)
    # Where a step ended, its weights were kept.
    k = len(dense.path.t) // 2
    kept = jax.tree.map(lambda w: w[k], dense.path.weights)
    assert_close(dense.at(dense.path.t[k]).weights, kept, rtol=1e-12, atol=1e-13)


def test_a_reduced_dense_run_has_the_whole_weights(x64):
    x = jax.random.uniform(jax.random.key(0), (20, 784), float)
    network = ska.mlp([64])
    weights = network.init(jax.random.key(0), x)
    dense, plain = (
        ska.simulate(
            network,
            weights,
            x,
            ska.Adaptive(),
            0.1,
            dense=True,
            save_at="end",
            reduction=effort,
            observe=("weight_norm",),
        )
        for effort in ("full", "off")
    )
    assert int(dense.stats.rank) == 20 and plain.stats.rank is None
    # The controller sees the whole weights, so that the steps are the same, to rounding.
    np.testing.assert_allclose(dense.path.t, plain.path.t, rtol=1e-11)
    for t in (0.0, 0.05, 0.1):
        assert_close(dense.at(t), plain.at(t), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(dense.weight_norm, plain.weight_norm, rtol=1e-12)


def test_landmarks_do_not_depend_on_what_was_saved(problem):
    few = run(problem, save_at=np.linspace(0, T, 6), dense=True, observe=())
    many = run(problem, save_at=np.linspace(0, T, 1000), dense=True, observe=("entropy",))
    coarse = run(problem, save_at=np.linspace(0, T, 6))
    off = 0.0
    for find in (ska.landmarks.peaks, ska.landmarks.minima, ska.landmarks.crossings):
        exact, again, rough = find(few), find(many), find(coarse)
        assert exact and [p.layer for p in exact] == [p.layer for p in again]
        for a, b in zip(exact, again, strict=True):
            assert a.t == pytest.approx(b.t, abs=1e-6 * T)
            assert a._replace(t=0, K=0, step=0) == pytest.approx(b._replace(t=0, K=0, step=0))
        off = max([off, *(abs(a.t - b.t) for a, b in zip(exact, rough, strict=False))])
    assert off > 1e-3  # of six records, one could not tell


def test_landmarks_are_where_the_solution_turns_and_crosses(problem):
    tight = ska.Adaptive(rtol=1e-10, atol=1e-12)
    dense = run(problem, tight, dense=True, save_at="end", observe=())
    solution = dense.solution()
    for point in ska.landmarks.timeline(dense, "tensor_net_rate"):
        value, slope = solution.read("tensor_net_rate", point.t)
        column = point.layer - 1
        if point.kind == "crossing":
            assert abs(value[column]) < 1e-6 * max(abs(slope[column]), 1)
            assert np.sign(slope[column]) == point.direction
        else:
            assert abs(slope[column]) < 1e-5
            beside = solution.read("tensor_net_rate", point.t + 0.01)[0][column]
            assert (beside < value[column]) == (point.kind == "peak")
    # Against records so dense that the parabola through three of them is exact.
    records = run(problem, tight, save_at=np.linspace(0, T, 4001))
    for find in (ska.landmarks.peaks, ska.landmarks.minima, ska.landmarks.crossings):
        for a, b in zip(find(dense), find(records), strict=True):
            assert (a.layer, a.direction, a.interior) == (b.layer, b.direction, b.interior)
            assert a.t == pytest.approx(b.t, abs=3e-6)
            assert a.value == pytest.approx(b.value, rel=1e-5, abs=1e-5)
            assert a.knowledge_norm == pytest.approx(b.knowledge_norm, rel=1e-5)


def test_the_timeline_reads_the_curve_once_and_in_batches(problem, monkeypatch):
    dense, calls = run(problem, dense=True), []
    read = _solution._read
    monkeypatch.setattr(_solution, "_read", lambda *args: calls.append(args[4]) or read(*args))
    events, steps = ska.landmarks.timeline(dense), len(dense.path.t) - 1
    assert sum(map(int, calls[:steps])) == 4 * steps + 1  # each step's start, and within it
    # Each kind is read in the steps that have one: the observable, seldom twice, and ‖Z‖.
    assert len(calls) - steps < 2.5 * len(events)
    calls.clear()
    ska.landmarks.timeline(dense)
    assert len(calls) < 2.5 * len(events)  # the samples are kept


@pytest.mark.parametrize("dense", [False, True])
def test_the_timeline_is_in_order_and_whole(problem, dense):
    result = run(problem, dense=dense)
    events = ska.landmarks.timeline(result)
    assert [e.t for e in events] == sorted(e.t for e in events)
    assert {e.kind for e in events} == {"peak", "minimum", "crossing"}
    assert all(e.interior for e in events)
    crossings = ska.landmarks.crossings(result)
    assert len([e for e in events if e.kind == "crossing"]) == len(crossings)
    assert ska.landmarks.timeline(result, kinds=["crossing"]) == tuple(
        sorted(crossings, key=lambda c: (c.t, c.layer))
    )
    # Between two crossings of a layer's Net rate it turns.
    for layer in (1, 2):
        kinds = [e.kind for e in events if e.layer == layer]
        pairs = itertools.pairwise(kinds)
        assert ("crossing", "crossing") not in pairs


@pytest.mark.parametrize("dense", [False, True])
def test_landmarks_of_ones_own_function(problem, dense):
    observe = ("knowledge_norm", "flow_norm")
    result = run(problem, dense=dense, save_at=np.linspace(0, T, 1501), observe=observe)
    half = lambda o: o.flow_norm - 0.8 * o.knowledge_norm  # where the residence time is 1.25
    events = ska.landmarks.crossings(result, half)
    assert events
    for event in events:
        flow = np.interp(event.t, result.t, result.flow_norm[:, event.layer - 1])
        assert flow == pytest.approx(0.8 * event.knowledge_norm, rel=1e-4)
    own = ska.landmarks.peaks(result, lambda o: 2 * o.flow_norm)
    named = ska.landmarks.peaks(result)
    assert [p.t for p in own] == pytest.approx([p.t for p in named], abs=1e-7)
    assert [p.value for p in own] == pytest.approx([2 * p.value for p in named])


def test_a_run_that_ends_at_once_or_fails_is_dense_as_far_as_it_came(problem):
    stopped = run(problem, until=ska.stop.ResidenceTime(1e-9), dense=True)
    assert float(stopped.at(0.0).t) == 0 and len(stopped.path.t) == 1
    assert ska.landmarks.peaks(stopped)[0].interior is False
    failed = run(problem, ska.Adaptive(max_steps=5), dense=True)
    assert not failed.outcome.completed
    assert_close(failed.at(float(failed.final.t)), failed.final, rtol=1e-12, atol=1e-12)


def test_many_records_hold_no_more_memory_than_their_own(problem):
    tight = ska.Adaptive(rtol=1e-11, atol=1e-13)
    result = run(problem, tight, save_at=np.linspace(0, T, 2000), dense=True, observe=())
    for leaf in jax.tree.leaves(result.path.weights):
        assert leaf.base is None or leaf.base.nbytes <= leaf.nbytes
    peak = ska.landmarks.peaks(run(problem, save_at="end", dense=True, observe=()))[0]
    assert peak.step > 1  # among its steps: there is one record


def test_as_many_steps_as_are_needed_are_enough(problem):
    needed = int(run(problem).stats.steps)
    exactly = lambda n: ska.Adaptive(rtol=1e-8, atol=1e-10, max_steps=n)
    assert run(problem, exactly(needed)).outcome.completed
    short = run(problem, exactly(needed - 1))
    assert not short.outcome.completed and f"max_steps = {needed - 1}" in str(short.outcome)


def test_a_dense_run_says_what_it_keeps_and_stops_before_the_memory_is_full(
    problem, monkeypatch, caplog
):
    tell_once.cache_clear()
    for _ in range(2):
        run(problem, dense=True, save_at="end")
    told = [record.getMessage() for record in caplog.records if record.name == "skajax"]
    assert told == ["skajax: dense=True keeps the weights of every step, 1.11 kB each"]
    each = sum(w.nbytes for w in jax.tree.leaves(problem[1]))
    rows = _integrate.CHUNK
    monkeypatch.setattr(_adaptive, "host_bytes", lambda: 2 * rows * each - 1)
    with pytest.raises(ValueError, match="Argument dense must be False, or the network smaller"):
        run(problem, dense=True)
    monkeypatch.setattr(_adaptive, "host_bytes", lambda: 10 * rows * each)
    monkeypatch.setattr(_integration, "host_bytes", lambda: 4 * rows * each)
    tight = ska.Adaptive(rtol=1e-12, atol=1e-14)
    full = run(problem, tight, t1=100.0, dense=True)
    assert int(full.outcome.code) == Code.OUT_OF_MEMORY
    for word in ("fill the memory", "dense=True", "loosen"):
        assert word in str(full.outcome)
    assert 0 < float(full.final.t) < 100 and len(full.path.t) >= rows
    with pytest.raises(ska.RunFailed, match="memory"):
        run(problem, tight, t1=100.0, dense=True, throw=True)


def test_an_implicit_solver_without_memory_for_its_jacobian(problem, monkeypatch):
    monkeypatch.setattr(_adaptive, "available_bytes", lambda: 1000)
    message = r"Argument solver must be explicit .* Jacobian of Kvaerno5 for 139 weights .* 309 kB"
    with pytest.raises(ValueError, match=message):
        run(problem, ska.Adaptive(diffrax.Kvaerno5()))


BAD = {
    "save_at": (lambda p: run(p, save_at="often"), "save_at", "'steps'"),
    "steps inside jit": (
        lambda p: jax.jit(lambda w: run((p[0], w), save_at="steps"))(p[1]),
        "save_at",
        "not inside jit",
    ),
    "dense inside jit": (
        lambda p: jax.jit(lambda w: run((p[0], w), dense=True))(p[1]),
        "dense",
        "inside jit",
    ),
    "checkpoint inside jit": (
        lambda p: jax.jit(lambda w: run((p[0], w), checkpoint="a.nc"))(p[1]),
        "checkpoint",
        "inside jit",
    ),
    "dense Euler": (lambda p: run(p, ska.Euler(0.1), dense=True), "dense", "every step"),
    "dense with a memory": (
        lambda p: run(
            p,
            ska.Adaptive(
                diffrax.LeapfrogMidpoint(), controller=diffrax.ConstantStepSize(), dt0=0.1
            ),
            dense=True,
        ),
        "dense",
        "LeapfrogMidpoint",
    ),
    "not dense": (lambda p: run(p).at(0.1), "run", "dense=True"),
    "beyond": (lambda p: run(p, dense=True).at(T + 1), "t", "within the run"),
    "before": (lambda p: run(p, dense=True).at(-0.1), "t", "within the run"),
    "kinds": (lambda p: ska.landmarks.timeline(run(p), kinds=["dip"]), "kinds", "crossing"),
    "no observable": (lambda p: ska.landmarks.peaks(run(p), "loss"), "observable", "entropy"),
    "no shape": (
        lambda p: ska.landmarks.peaks(run(p), lambda o: o.flow_norm.sum()),
        "observable",
        "one number a layer",
    ),
    "reduction": (lambda p: run(p, reduction="yes"), "reduction", "'auto'"),
    "too little": (lambda p: run(p, t1=1e-310), "t1", "representable"),
    "too much": (lambda p: run(p, t1=float("inf")), "t1", "finite"),
    "backwards": (lambda p: run(p, t1=-1.0), "t1", "positive"),
    "nowhere": (lambda p: run(p, t1=0.0), "t1", "positive"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_are_refused(untyped, problem, case):
    make, argument, word = BAD[case]
    with pytest.raises(ValueError, match=f"Argument {argument} must .*{word}"):
        make(problem)


class Sick(ska.Dense):
    """A layer whose gradient is not finite once its bias has grown."""

    def knowledge(self, weights, x):
        z = super().knowledge(weights, x)
        return z + 0 * jnp.sqrt(1e-3 - jnp.sum(weights.b))


def test_a_flow_that_stops_being_finite_ends_the_run_and_says_so(problem):
    network = ska.Network((Sick(3),))
    x, _ = problem
    weights = network.init(jax.random.key(0), x)
    weights = (weights[0]._replace(b=weights[0].b + 1e-4),)
    result = ska.simulate(network, weights, x, ska.Adaptive(), 50.0)
    assert not result.outcome.completed
    assert "Try" in str(result.outcome)
    assert np.isfinite(np.asarray(result.entropy)).all()
    assert np.isfinite(np.asarray(result.final.weights[0].W)).all()


@jax.custom_vjp
def product(x, w):
    return x @ w


product.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))


class ReverseOnly:
    """A layer that has no forward derivatives."""

    def init(self, key, x):
        return 0.1 * jax.random.normal(key, (x.shape[-1], 3))

    def knowledge(self, weights, x):
        return product(x, weights)


def test_a_layer_needs_no_forward_derivatives_to_begin():
    x = jax.random.uniform(jax.random.key(0), (5, 4))
    network = ska.Network((ReverseOnly(),))
    weights = network.init(jax.random.key(1), x)
    run = ska.simulate(network, weights, x, ska.Adaptive(), t1=1.0, observe=(), save_at="end")
    assert bool(run.outcome.completed) and int(run.path.rejected[0]) == 0
