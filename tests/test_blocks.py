"""Lanes that go together: each is its single run to rounding, and none makes a step of another."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import skajax as ska
from skajax.methods import _integration
from skajax.observables import NAMES
from skajax.sweeps import _block, _plan

NETWORK = ska.mlp([6, 4], scale=0.3)
FEW = {"observe": ("entropy", "tensor_net")}
PAIRS = {0.02: 25, 0.01: 50, 0.005: 100, 0.5 / 150: 150, 0.0025: 200, 0.001: 500}
"""The six published pairs."""


def inputs(seed=0, samples=10):
    return jax.random.uniform(jax.random.key(seed), (samples, 8))


def start(seed, scale=0.3):
    return ska.mlp([6, 4], scale=scale).init(jax.random.key(seed), inputs())


LARGE = {
    "transport": lambda data: data.dissipation,
    "tensor_net": lambda data: data.entropy,
    "tensor_net_equation": lambda data: data.entropy,
    # |Σ D ż| <= ‖D‖ ‖ż‖, and ‖D‖ is half the root of how many decisions there are.
    "tensor_net_rate": lambda data: np.sqrt(60) / 2 * data.flow_norm,
    "tensor_net_rate_equation": lambda data: np.sqrt(60) / 2 * data.flow_norm,
}
"""Of sums in which large numbers cancel: how large those are."""


def assert_alike(data, want, rtol=1e-12):
    """To rounding, of each observable's largest value, or of what cancels in it."""
    assert data.sizes == want.sizes
    np.testing.assert_array_equal(data.outcome, want.outcome)
    np.testing.assert_array_equal(data.steps, want.steps)
    np.testing.assert_allclose(data.t, want.t, rtol=rtol)
    for name in set(NAMES) & set(want):
        sizes = want[name], LARGE.get(name, lambda data, name=name: data[name])(want)
        scale = max(float(np.nanmax(np.abs(size.values))) for size in sizes)
        np.testing.assert_allclose(data[name], want[name], rtol, rtol * scale, err_msg=name)


SGD = optax.sgd(0.05, momentum=0.9)
METHODS = {
    "Published": (lambda dt: ska.Published(dt), {"t1": 0.5}),
    "Descent": (ska.Descent(SGD), {"steps": lambda dt: round(0.5 / dt)}),
    "Adaptive": (lambda dt: ska.Adaptive(rtol=0.1 * dt), {"t1": lambda dt: 5 * dt}),
}


@pytest.mark.parametrize("name", METHODS)
def test_lanes_of_a_block_are_their_single_runs(x64, name):
    method, ends = METHODS[name]
    sweep = lambda **options: ska.sweep(
        NETWORK, start, inputs(), method, over=ska.grid(dt=[0.1, 0.02, 0.05], seed=range(3)),
        final=True, **ends, **options, **({} if name == "Adaptive" else FEW),
    )  # fmt: skip
    alone = sweep(at_once=1)
    together = sweep(at_once=16)
    assert_alike(together, alone)
    for name in ("final_weights_0_W", "final_Z_1", "final_t"):
        np.testing.assert_allclose(together[name], alone[name], 1e-11, 1e-12)


def test_in_float32():
    sweep = lambda at_once: ska.sweep(
        NETWORK, start, inputs(), lambda dt: ska.Published(dt), t1=0.5,
        over=ska.grid(dt=[0.1, 0.05], seed=range(4)), at_once=at_once, **FEW,
    )  # fmt: skip
    # 32 roundings: in which order a sum is taken depends on the processor.
    assert_alike(sweep(8), sweep(1), 4e-6)


def test_everything_that_lanes_may_have_for_themselves(x64):
    sweep = lambda at_once: ska.sweep(
        lambda scale: ska.mlp([6, 4], scale=scale), start, inputs, ska.Euler(0.1), t1=0.5,
        over=ska.grid(seed=range(3), scale=[0.1, 0.3]), at_once=at_once, **FEW,
    )  # fmt: skip
    alone = sweep(1)
    for at_once in (3, 8):  # however they are divided
        assert_alike(sweep(at_once), alone)


@pytest.mark.parametrize(
    "method",
    [ska.Published(0.1), pytest.param(ska.Adaptive(), marks=pytest.mark.thorough)],
    ids=["Published", "Adaptive"],
)
def test_in_the_row_space(x64, method):
    x = jnp.zeros((10, 40)).at[:, ::5].set(inputs())
    network = ska.mlp([6, 4], scale=0.3)
    sweep = lambda **options: ska.sweep(
        network, lambda seed: network.init(jax.random.key(seed), x), x,
        method, t1=0.5, over=ska.grid(seed=range(3)),
        observe=("entropy", "weight_norm"), **options,
    )  # fmt: skip
    whole = sweep(reduction="off", at_once=1)
    for at_once in (1, 4):
        reduced = sweep(reduction="full", at_once=at_once)
        assert (whole["rank"] == 40).all() and (reduced["rank"] == 8).all()
        assert_alike(reduced, whole, 1e-11)


def counted(monkeypatch):
    """The lane-steps that blocks make."""
    made, advance = [], _block.advance

    def counting(fixed, moving, rule, count, mesh):
        made.append(int(count) * len(moving[0].k))
        return advance(fixed, moving, rule, count, mesh)

    monkeypatch.setattr(_block, "advance", counting)
    return made


@pytest.mark.parametrize("at_once", [6, 4])
def test_six_pairs_are_1025_lane_steps(x64, monkeypatch, at_once):
    sweep = lambda **options: ska.sweep(
        NETWORK, start(0), inputs(), lambda dt: ska.Published(dt), t1=0.5,
        over=ska.grid(dt=list(PAIRS)), **FEW, **options,
    )  # fmt: skip
    assert sweep(dry=True, at_once=at_once).lane_steps == 1025
    made = counted(monkeypatch)
    data = sweep(at_once=at_once)
    # K - 1 updates, and one more look at what they end in.
    assert sum(made) == 1025
    assert data.steps.values.tolist() == [K - 1 for K in PAIRS.values()]
    assert data.t.notnull().sum("record").values.tolist() == [K - 1 for K in PAIRS.values()]


def test_a_rule_ends_each_lane_for_itself(x64, monkeypatch):
    rule = ska.stop.FlowConverged(0.6) | ska.stop.EntropyConverged(1e-9)
    sweep = lambda at_once: ska.sweep(
        NETWORK, start, inputs(), ska.Euler(0.02), t1=6.0, until=rule,
        over=ska.grid(seed=range(5)), at_once=at_once, **FEW,
    )  # fmt: skip
    alone, together = sweep(1), sweep(8)
    assert len(set(alone.steps.values)) > 1
    assert_alike(together, alone)
    np.testing.assert_array_equal(together.outcome_rule, alone.outcome_rule)
    np.testing.assert_allclose(together.outcome_t, alone.outcome_t, rtol=1e-12)


def test_bad_lanes_harm_no_good_ones(x64):
    def weights(lane):
        return jax.tree.map(lambda w: w * (jnp.nan if lane == 5 else 1.0), start(lane))

    def method(lane):
        return (
            ska.Adaptive(rtol=1e-8, max_steps=2)
            if lane == 10
            else ska.Euler(1e300 if lane == 7 else 0.1)
        )

    sweep = lambda lanes, **options: ska.sweep(
        NETWORK, weights, inputs(), method, lambda lane: 1e301 if lane == 7 else 0.5,
        over=ska.grid(lane=lanes), **FEW, **options,
    )  # fmt: skip
    with pytest.warns(ska.sweeps.LanesFailed, match="3 of 16 lanes"):
        data = sweep(range(16), at_once=16)
    told = data.outcome.values
    assert told[5].startswith("refused: Argument weights must be finite")
    assert told[7].startswith("diverged") and told[10].startswith("stopped")
    assert "max_steps = 2" in told[10] and np.isfinite(data.entropy.values[7, 0]).all()
    good = [lane for lane in range(16) if lane not in (5, 7, 10)]
    assert all(text.startswith("completed") for text in told[good])
    alone = sweep(good, at_once=1)
    width = alone.sizes["record"]
    assert_alike(data.isel(lane=good, record=slice(width)), alone)


def test_what_lanes_share_is_there_once(x64):
    lane = lambda seed, x: _block.Lane(
        ska.Euler(0.1), _block.System(NETWORK, ska.Batch(x)), start(seed), _block.Request(steps=3)
    )
    x = inputs()
    stack = _block._Stack([lane(seed, x).system for seed in range(5)], None)
    assert stack.axes == (None,) and stack.leaves[0] is x
    apart = _block._Stack([lane(seed, inputs(seed)).system for seed in range(5)], None)
    assert apart.axes == (0,) and apart.leaves[0].shape == (5, 10, 8)


def test_other_numbers_compile_nothing(compilations):
    sweep = lambda dts, seed, scale: ska.sweep(
        ska.mlp([6, 4], scale=scale), start(seed), inputs(seed), lambda dt: ska.Euler(dt), t1=0.5,
        over=ska.grid(dt=dts), at_once=4, **FEW,
    )  # fmt: skip
    sweep([0.1, 0.05], 0, 0.3)
    with compilations() as found:
        sweep([0.1, 0.25], 1, 0.1)
    assert found == []


def test_widths_are_few_and_fill_the_devices():
    assert _block.widths(100, 64) == [64, 32, 4]
    assert _block.widths(3, 128) == [2, 1]
    assert _block.widths(19, 128, 8) == [16, 8]
    assert _block.widths(5, 1) == [1] * 5


DENSE = ska.mlp([48, 24, 10])
ON_TOP = (ska.layers.Flatten(), ska.Dense(10))
SIZES = {
    "Published": (ska.Published(0.01), 8, (300, 128), DENSE),
    "many weights": (ska.Euler(0.01), 4, (5, 128), ska.mlp([128, 64, 10])),
    "Adaptive": (ska.Adaptive(), 8, (300, 128), DENSE),
    "convolution": (
        ska.Euler(0.01), 4, (100, 12, 12, 3),
        ska.Network((ska.layers.Conv(8, (3, 3), scale=0.1), *ON_TOP)),
    ),
    "attention": (
        ska.Euler(0.01), 4, (20, 48, 8),
        ska.Network((ska.layers.SelfAttention(16, heads=4, scale=0.3), *ON_TOP)),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [*list(SIZES)[:-1], pytest.param("attention", marks=pytest.mark.thorough)],
)
def test_the_bytes_on_a_device_are_those_of_the_program(monkeypatch, case):
    method, lanes, shape, network = SIZES[case]
    observe = {} if case in ("Published", "attention") else FEW
    x = jax.random.uniform(jax.random.key(0), shape)
    calls = {}
    for name in ("advance", "integrate"):
        program = getattr(_block, name)

        def heard(*arguments, name=name, program=program):
            calls.setdefault(name, (program, arguments))
            return program(*arguments)

        monkeypatch.setattr(_block, name, heard)
    sweep = lambda **options: ska.sweep(
        network, lambda seed: network.init(jax.random.key(seed), x), x, method, t1=0.5,
        over=ska.grid(seed=range(lanes)), at_once=lanes, **observe, **options,
    )  # fmt: skip
    (group,) = sweep(dry=True).groups
    calls.clear()
    sweep()
    ((program, arguments),) = calls.values()
    planned = program.lower(*arguments).compile().compiled.memory_analysis()
    size = (
        planned.argument_size_in_bytes + planned.output_size_in_bytes + planned.temp_size_in_bytes
    )
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(network.init(jax.random.key(0), x)))
    size += lanes * weights * (1 if "integrate" in calls else 2)  # what the lanes begin with
    most = 2 if case in ("attention", "convolution") else 1.4
    # Unoptimised, as tests compile, programs need a little more or less than they do for users.
    assert 0.8 * size <= group.device_bytes <= most * size


POOLED = (ska.layers.Pool(None), ska.Dense(10))
RING = [[n, (n + 1) % 300] for n in range(300)]
FAMILIES = {
    "convolution": ((50, 12, 12, 3), (ska.layers.Conv(8, (3, 3)), *ON_TOP)),
    "groups": (
        (50, 40, 1), (ska.layers.Conv(16, 3), ska.layers.Conv(16, 3, groups=4), *ON_TOP),
    ),
    "recurrent": ((50, 12, 8), (ska.layers.Recurrent(16), ska.layers.Recurrent(16), *POOLED)),
    "gated": ((50, 12, 8), (ska.layers.Recurrent(16, gated=True), *POOLED)),
    "graph": ((300, 30), (ska.layers.GraphConv(16, RING), ska.Dense(4))),
    "attention": ((20, 24, 8), (ska.layers.SelfAttention(16, heads=4), *POOLED)),
}  # fmt: skip


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=pytest.mark.thorough) if name in ("groups", "gated") else name
        for name in FAMILIES
    ],
)
def test_a_run_takes_no_more_than_was_planned(monkeypatch, family):
    """Of a run by itself: what XLA plans for the programs that begin it and that step, in every family."""
    shape, layers = FAMILIES[family]
    network, x = ska.Network(layers), jax.random.uniform(jax.random.key(0), shape)
    calls = {}
    for name in ("begin", "advance"):
        program = getattr(_integration, name)

        def heard(*arguments, name=name, program=program, **options):
            calls.setdefault(name, program.lower(*arguments, **options))
            return program(*arguments, **options)

        monkeypatch.setattr(_integration, name, heard)
    sweep = lambda **options: ska.sweep(
        network, lambda seed: network.init(jax.random.key(seed), x), x, ska.Adaptive(), t1=0.01,
        over=ska.grid(seed=[0]), observe=("entropy", "flow_norm"), **options,
    )  # fmt: skip
    (group,) = sweep(dry=True).groups
    sweep()
    sizes = {}
    for name, lowered in calls.items():
        planned = lowered.compile().compiled.memory_analysis()
        sizes[name] = (
            planned.argument_size_in_bytes
            + planned.output_size_in_bytes
            + planned.temp_size_in_bytes
        )
    assert sizes.keys() == {"begin", "advance"}
    assert max(sizes.values()) <= group.device_bytes <= 2 * sizes["advance"]


def test_a_plan_tells_what_a_sweep_will_do(x64):
    published, adaptive, uneven = ska.Published(0.1), ska.Adaptive(), ska.Euler(0.3)
    sweep = lambda methods, widths, **options: ska.sweep(
        lambda width: ska.mlp([width, 4]),
        lambda width, seed: ska.mlp([width, 4]).init(jax.random.key(seed), inputs()),
        inputs(), methods, t1=0.5,
        over=ska.grid(width=widths, seed=range(4)), **FEW, **options,
    )  # fmt: skip
    plan = sweep([published, uneven], [5, 6], dry=True)
    assert plan.lanes == 16 and len(plan.refused) == 8 and plan.done == 0
    assert "whole number of steps" in str(plan.refused[8])
    assert [(len(g.lanes), g.lane_steps) for g in plan.groups] == [(4, 20), (4, 20)]
    assert plan.seconds > 0 and plan.device_bytes > 0
    table = str(plan)
    assert "Published, 8-5-4, 10 samples" in table and "8 refused" in table
    assert len(table.splitlines()) == 5
    methods = [published, adaptive, uneven]
    plan = sweep(methods, [5], dry=True)
    assert [(len(g.lanes), g.lane_steps) for g in plan.groups] == [(4, 20), (4, None)]
    with pytest.warns(
        ska.sweeps.LanesFailed, match=r"4 lanes refused: .*\(method = Euler, width = 5"
    ):
        data = sweep(methods, [5])
    numbers = sum(int(data[name].notnull().sum()) for name in (*FEW["observe"], "t"))
    assert plan.record_bytes == pytest.approx(8 * numbers, rel=0.1)


def test_what_cannot_fit_is_refused_beforehand(monkeypatch):
    sweep = lambda **options: ska.sweep(
        NETWORK, start, inputs(), ska.Euler(0.1), t1=0.5, over=ska.grid(seed=range(4)), **options
    )
    (group,) = sweep(dry=True, at_once=4).groups
    assert group.width == 4
    monkeypatch.setattr(_plan, "available_bytes", lambda: group.device_bytes)
    assert sweep(dry=True, at_once=4).groups[0].width < 4
    monkeypatch.setattr(_plan, "available_bytes", lambda: 1000)
    with pytest.raises(ValueError, match=r"Argument network must fit .* there are 1 kB"):
        sweep()


@pytest.mark.parametrize("at_once", [0, 1.5, True])
def test_bad_numbers_of_lanes(untyped, at_once):
    with pytest.raises(ValueError, match="Argument at_once must be a whole number"):
        ska.sweep(NETWORK, start, inputs(), ska.Euler(0.1), t1=0.5, over=ska.grid(seed=[0]),
                  at_once=at_once)  # fmt: skip


def test_common_times(x64):
    data = ska.sweep(
        NETWORK, start, inputs(), lambda dt: ska.Euler(dt), t1=0.5,
        over=ska.grid(dt=[0.25, 0.05, 0.0125], seed=range(2)), **FEW,
    )  # fmt: skip
    common = ska.on_times(data)
    assert common.sizes["time"] == 101 and common.entropy.dims == ("dt", "seed", "time", "layer")
    assert float(common.time[-1]) == 0.5 and "record" not in common.dims
    assert np.isfinite(common.entropy).all()
    at = ska.on_times(data, data.t.sel(dt=0.05, seed=0).dropna("record").values)
    fine = data.sel(dt=0.05, seed=1).dropna("record", subset=["entropy"])
    np.testing.assert_allclose(at.entropy.sel(dt=0.05, seed=1), fine.entropy, rtol=1e-12)
    # A cubic through four points is itself.
    t = np.array([0.0, 0.1, 0.4, 1.0])
    cubic = data.isel(dt=[0], seed=[0], record=slice(4)).assign_coords(
        t=(("dt", "seed", "record"), t[None, None])
    )
    cubic["entropy"] = (cubic.entropy.dims, np.stack([t**3 - t, 2 * t**2], -1)[None, None])
    between = ska.on_times(cubic, [0.2, 0.7, 1.5]).entropy.values[0, 0]
    np.testing.assert_allclose(between[0], [0.2**3 - 0.2, 2 * 0.2**2], rtol=1e-12)
    np.testing.assert_allclose(between[1], [0.7**3 - 0.7, 2 * 0.7**2], rtol=1e-12)
    assert np.isnan(between[2]).all()
    with pytest.raises(ValueError, match=re.escape("Argument times must be at least one time")):
        ska.on_times(data, [0.2, 0.1])
    with pytest.raises(ValueError, match="Argument data must be a sweep's dataset"):
        ska.on_times(common)
