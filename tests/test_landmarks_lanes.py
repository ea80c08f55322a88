"""Landmarks of a run's dataset, and of the lanes of a sweep: those of the runs themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref

import skajax as ska
from skajax import landmarks

EXCESS = ska.Observable("excess", lambda now: jnp.stack([jnp.mean(z) for z in now.Z]))
NAMES = ("flow_norm", "knowledge_norm", EXCESS)
MINUS = lambda o: o.flow_norm - 0.3 * o.knowledge_norm


def compare(found, expected):
    """The same landmarks, but for the rounding of lanes that go together."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.layer, one.kind, one.direction) == (other.layer, other.kind, other.direction)
        assert one.interior == other.interior
        numbers = lambda mark: (mark.t, mark.step, mark.K, mark.value, mark.knowledge_norm)
        np.testing.assert_allclose(numbers(one), numbers(other), rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def problem():
    network, _, x = ref.SMALL.arrays(jnp.float32)
    return network, lambda seed: network.init(jax.random.key(seed), x), x


@pytest.fixture(scope="module")
def data(problem):
    network, draw, x = problem
    over = ska.grid(dt=[0.1, 0.2], seed=range(3))
    return ska.sweep(network, draw, x, ska.Euler, 4.0, over=over, observe=NAMES)


@pytest.mark.parametrize(("dt", "seed"), [(0.1, 0), (0.2, 2)])
def test_a_lane_has_the_landmarks_of_its_run(problem, data, dt, seed):
    network, draw, x = problem
    run = ska.simulate(network, draw(seed), x, ska.Euler(dt), 4.0, observe=NAMES)
    assert landmarks.crossings(run, MINUS)
    for one in (data.sel(dt=dt, seed=seed), run.to_dataset()):
        compare(landmarks.peaks(one), landmarks.peaks(run))
        compare(landmarks.minima(one, "excess"), landmarks.minima(run, "excess"))
        compare(landmarks.crossings(one, MINUS), landmarks.crossings(run, MINUS))
        compare(landmarks.timeline(one, "excess"), landmarks.timeline(run, "excess"))
        for a, b in zip(landmarks.series(one, MINUS), landmarks.series(run, MINUS), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_lane_on_common_times_has_them_too(data):
    lane = ska.on_times(data, np.linspace(0, 4, 21)).sel(dt=0.2, seed=1)
    compare(landmarks.peaks(lane), landmarks.peaks(data.sel(dt=0.2, seed=1)))


def test_a_lane_of_a_method_without_a_step_is_told_on_the_papers_axis(problem):
    network, draw, x = problem
    both = [ska.Euler(0.2), ska.Adaptive()]
    data = ska.sweep(network, draw(0), x, both, 1.0, observe=("flow_norm",))
    for n, dt in enumerate((0.2, landmarks.PAPER_DT)):
        peak = landmarks.peaks(data.isel(method=n))[0]
        np.testing.assert_allclose(peak.K, 1 + peak.t / dt, rtol=1e-6)


def test_lanes_beside_deeper_networks_and_longer_runs(problem):
    _, _, x = problem
    networks = {2: ska.mlp([5, 3], scale=0.7), 3: ska.mlp([5, 4, 3], scale=0.7)}
    depths = ska.grid(depth=[2, 3])
    draw = lambda depth: networks[depth].init(jax.random.key(0), x)
    end = lambda depth: 1.0 * depth
    data = ska.sweep(
        lambda depth: networks[depth], draw, x, ska.Euler(0.2), end, over=depths, observe=NAMES
    )
    assert np.isnan(data.flow_norm.sel(depth=2)).any()
    t, flow = landmarks.series(data.sel(depth=2), "flow_norm")
    assert t[-1] == pytest.approx(2.0)
    assert flow.shape == (11, 2)
    assert [peak.layer for peak in landmarks.peaks(data.sel(depth=2))] == [1, 2]
    assert [peak.layer for peak in landmarks.peaks(data.sel(depth=3))] == [1, 2, 3]


def test_a_lane_that_failed_says_why(problem):
    network, draw, x = problem
    scale = ska.grid(scale=[1.0, np.nan])
    start = lambda scale: jax.tree.map(lambda w: jnp.float32(scale) * w, draw(0))
    with pytest.warns(ska.sweeps.LanesFailed):
        data = ska.sweep(network, start, x, ska.Euler(0.2), 1.0, over=scale, observe=("flow_norm",))
    with pytest.raises(ValueError, match=r"Argument run must .* record.*refused: Argument weights"):
        landmarks.peaks(data.isel(scale=1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda data: data,
            r"one lane of a sweep, but .* over \['dt', 'seed'\] \(take one: data.isel",
        ),
        (lambda data: data.isel(dt=0), r"over \['seed'\] \(take one: data.isel\(seed=0\)\)"),
        (lambda data: data.isel(dt=0, seed=0).flow_norm, "be a Trajectory, or a dataset of one"),
        (lambda data: data[["flow_norm"]].isel(dt=0, seed=0), "be a Trajectory, or a dataset of"),
        (lambda data: None, "be a Trajectory, or a dataset of one, but it was a NoneType"),
    ],
)
def test_what_is_no_lane_is_refused(data, untyped, make, message):
    with pytest.raises(ValueError, match=f"Argument run must .*{message}"):
        landmarks.peaks(make(data))


def test_an_observable_that_was_not_recorded_is_named(data):
    with pytest.raises(ValueError, match=r"observable must be one of .*'excess'.* 'entropy'"):
        landmarks.peaks(data.isel(dt=0, seed=0), "entropy")
