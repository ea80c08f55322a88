"""Landmarks read off synthetic records with known peaks and crossings."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from hypothesis import given
from hypothesis import strategies as st
from synthetic import synthetic as records

import skajax as ska
from skajax import landmarks

EVEN = np.linspace(0, 2, 21)
UNEVEN = np.array([0, 0.1, 0.15, 0.4, 0.5, 0.8, 1.1, 1.2, 1.7, 2.0])
GRIDS = {"even": EVEN, "uneven": UNEVEN}


@pytest.fixture(autouse=True)
def double(x64):
    """Double precision for all tests of this file."""


def synthetic(template, t, **observables):
    """‖Z‖ = 10 + t, and the observables given."""
    return records(template, t, **{"knowledge_norm": [10 + t, 20 + t]} | observables)


def parabola(t, peak, height, curvature=-3.0):
    return height + curvature * (t - peak) ** 2


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("peak", [0.33, 0.47, 1.0, 1.5])
def test_the_peak_of_a_parabola_is_exact(grid, peak, template):
    t = GRIDS[grid]
    series = [parabola(t, peak, 7.0), parabola(t, 0.6, -2.0)]
    run = synthetic(template, t, flow_norm=series)
    first, second = landmarks.peaks(run)
    for landmark, layer, time, value in ((first, 1, peak, 7.0), (second, 2, 0.6, -2.0)):
        assert landmark.layer == layer
        assert landmark.interior
        assert landmark.direction == 0
        np.testing.assert_allclose(landmark.t, time, rtol=1e-12)
        np.testing.assert_allclose(landmark.value, value, rtol=1e-12)
        np.testing.assert_allclose(landmark.knowledge_norm, 10 * layer + time, rtol=1e-12)
        np.testing.assert_allclose(landmark.step, np.interp(time, t, np.arange(len(t))))
        np.testing.assert_allclose(landmark.K, 1 + time / 0.1)  # the template's dt


@pytest.mark.parametrize("grid", GRIDS)
def test_the_minimum_of_a_parabola_is_exact(grid, template):
    t = GRIDS[grid]
    run = synthetic(
        template, t, entropy_rate=[parabola(t, 0.71, -5.0, 2.0), parabola(t, 1.3, 1.0, 0.5)]
    )
    for found, time, value in zip(landmarks.minima(run), (0.71, 1.3), (-5.0, 1.0), strict=True):
        assert found.interior
        np.testing.assert_allclose((found.t, found.value), (time, value), rtol=1e-12)


def test_extrema_at_the_ends_are_none_within_the_run(template):
    run = synthetic(template, EVEN, flow_norm=[1 + EVEN, 5 - EVEN])
    rising, falling = landmarks.peaks(run)
    assert (rising.t, rising.value, rising.step, rising.interior) == (2.0, 3.0, 20.0, False)
    assert (falling.t, falling.value, falling.step, falling.interior) == (0.0, 5.0, 0.0, False)
    lowest, other = landmarks.minima(run, "flow_norm")
    assert (lowest.t, other.t, lowest.interior, other.interior) == (0.0, 2.0, False, False)


def test_flat_tops(template):
    flat = np.where(np.abs(EVEN - 1) < 0.25, 4.0, 1.0)
    constant = np.full_like(EVEN, 3.0)
    top, nothing = landmarks.peaks(synthetic(template, EVEN, flow_norm=[flat, constant]))
    assert top.interior
    assert 0.7 <= top.t <= 1.3
    assert 4.0 <= top.value < 5.0
    assert not nothing.interior
    assert nothing.value == 3.0


@pytest.mark.parametrize("records", [1, 2])
def test_runs_of_few_records(records, template):
    t = EVEN[:records]
    run = synthetic(template, t, flow_norm=[1 + t, 1 + t], tensor_net_rate=[t - 0.04, 1 + t])
    assert not any(found.interior for found in landmarks.peaks(run))
    assert len(landmarks.crossings(run)) == records - 1


@pytest.mark.parametrize("grid", GRIDS)
def test_a_linear_crossing_is_exact(grid, template):
    t = GRIDS[grid]
    run = synthetic(template, t, tensor_net_rate=[4 * (t - 0.83), -2 * (t - 1.61)])
    up, down = landmarks.crossings(run)
    for found, layer, time, direction in ((up, 1, 0.83, +1), (down, 2, 1.61, -1)):
        assert found.layer == layer
        assert found.direction == direction
        assert found.interior
        assert found.value == 0
        np.testing.assert_allclose(found.t, time, rtol=1e-12)
        np.testing.assert_allclose(found.knowledge_norm, 10 * layer + time, rtol=1e-12)
        np.testing.assert_allclose(found.step, np.interp(time, t, np.arange(len(t))))


def test_every_crossing_is_found_by_layer_and_then_by_time(template):
    wave = np.sin(2 * np.pi * 1.5 * (EVEN + 0.07))
    run = synthetic(template, EVEN, tensor_net=[wave, -wave])
    found = landmarks.crossings(run, "tensor_net")
    zeros = np.arange(1, 7) / 3 - 0.07
    assert [one.layer for one in found] == [1] * 6 + [2] * 6
    assert [one.direction for one in found] == [-1, 1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1]
    for one, time in zip(found, [*zeros, *zeros], strict=True):
        # A straight line between records 0.1 apart: third order in the spacing.
        np.testing.assert_allclose(one.t, time, atol=(0.1 * 3 * np.pi) ** 2 * 0.1 / 8)


def test_zeros_that_are_no_crossings(template):
    t = EVEN
    begins = np.where(t < 0.55, 0.0, t - 0.5)  # zero for a while, then positive
    touches = np.abs(t - 1.0)  # comes down to zero and goes up again
    run = synthetic(template, t, tensor_net_rate=[begins, touches])
    assert landmarks.crossings(run) == ()
    ends = np.where(t > 1.45, 0.0, t - 1.5)
    nothing = np.zeros_like(t)
    assert landmarks.crossings(synthetic(template, t, tensor_net_rate=[ends, nothing])) == ()


def test_a_record_that_is_exactly_zero_is_the_crossing(template):
    t = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    one = np.array([-2.0, -1.0, 0.0, 3.0, 4.0, 5.0])
    stretch = np.array([5.0, 0.0, 0.0, 0.0, -1.0, -2.0])
    run = synthetic(template, t, tensor_net_rate=[one, stretch])
    first, second = landmarks.crossings(run)
    assert (first.t, first.direction, first.step) == (2.0, 1, 2.0)
    assert second.direction == -1
    assert 1.0 <= second.t <= 3.0


def test_tiny_values_change_sign_too(template):
    series = 1e-200 * (EVEN - 0.83)  # whose products underflow
    (found,) = landmarks.crossings(synthetic(template, EVEN, tensor_net_rate=[series, 1 + EVEN]))
    np.testing.assert_allclose(found.t, 0.83, rtol=1e-12)


@pytest.mark.parametrize("times_too", [True, False])
def test_records_after_a_failure_are_no_landmarks(times_too, template):
    # A lane of a vmapped run that diverged: NaN from some record on.
    flow = parabola(EVEN, 0.5, 7.0)
    rate = EVEN - 0.83
    gone = EVEN > 1.55
    run = synthetic(
        template,
        np.where(gone & times_too, np.nan, EVEN),
        flow_norm=[np.where(gone, np.nan, flow)] * 2,
        tensor_net_rate=[np.where(gone, np.nan, rate)] * 2,
        knowledge_norm=[np.where(gone, np.nan, 10 + EVEN)] * 2,
    )
    for found in landmarks.peaks(run):
        np.testing.assert_allclose((found.t, found.value), (0.5, 7.0), rtol=1e-12)
        np.testing.assert_allclose((found.step, found.knowledge_norm), (5.0, 10.5), rtol=1e-9)
    for found in landmarks.crossings(run):
        np.testing.assert_allclose(found.t, 0.83, rtol=1e-12)
        np.testing.assert_allclose(found.knowledge_norm, 10.83, rtol=1e-9)


def test_the_papers_axis(template):
    # Pass K is recorded at t = (K - 1) dt; without a dt, the paper's 0.01.
    run = synthetic(template, EVEN, flow_norm=[parabola(EVEN, 0.27, 1.0)] * 2)
    np.testing.assert_allclose(landmarks.peaks(run)[0].K, 1 + 2.7)
    without = run.replace(parameters={})
    np.testing.assert_allclose(landmarks.peaks(without)[0].K, 1 + 27)


def test_a_published_runs_landmarks_are_on_the_papers_axis():
    network, weights, x = ref.DEEP.arrays()
    observe = ("flow_norm", "knowledge_norm")
    run = ska.simulate(network, weights, x, ska.Published(0.05), steps=400, observe=observe)
    for found in landmarks.peaks(run):
        assert found.interior
        best = int(np.argmax(run.flow_norm[:, found.layer - 1]))
        assert abs(found.step - best) <= 1
        np.testing.assert_allclose(found.K, 1 + found.step, rtol=1e-9)


@given(
    seed=st.integers(0, 2**16),
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-5, 5),
)
def test_landmarks_move_with_the_records(seed, scale, shift, template):
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.uniform(0.01, 1, size=12))
    series = [rng.normal(size=12), rng.normal(size=12)]
    plain = synthetic(template, t, flow_norm=series, tensor_net=series)
    scaled = synthetic(
        template,
        t + shift,
        flow_norm=[scale * s for s in series],
        tensor_net=[-scale * s for s in series],
        knowledge_norm=[10 + t, 20 + t],
    )
    peaks, moved = landmarks.peaks(plain), landmarks.peaks(scaled)
    for before, after in zip(peaks, moved, strict=True):
        np.testing.assert_allclose(after.t - shift, before.t, atol=1e-9)
        np.testing.assert_allclose(after.value, scale * before.value, rtol=1e-9)
        # A parabola's vertex lies within half a step, and no lower than the records.
        assert t[0] <= before.t <= t[-1]
        assert before.value >= series[before.layer - 1].max() - 1e-12
    found, mirrored = (
        landmarks.crossings(plain, "tensor_net"),
        landmarks.crossings(scaled, "tensor_net"),
    )
    assert [one.direction for one in mirrored] == [-one.direction for one in found]
    np.testing.assert_allclose(
        [one.t - shift for one in mirrored], [one.t for one in found], atol=1e-9
    )
    for layer in (1, 2):
        signs = [one.direction for one in found if one.layer == layer]
        assert all(a == -b for a, b in itertools.pairwise(signs))  # they alternate
        assert len(signs) == np.count_nonzero(np.diff(np.sign(series[layer - 1])))


def test_what_cannot_be_read_is_named(template, untyped):
    run = synthetic(template, EVEN, flow_norm=[EVEN, EVEN])
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), run)
    empty = synthetic(template, EVEN[:0], flow_norm=[EVEN[:0], EVEN[:0]])
    for function, argument, said in (
        (lambda: landmarks.peaks(run, "output_mean"), "observable", "'output_mean'"),
        (lambda: landmarks.crossings(run, "net"), "observable", "'net'"),
        (lambda: landmarks.peaks(batch), "run", "(2, 21)"),
        (lambda: landmarks.minima(empty), "run", "(0,)"),
    ):
        with pytest.raises(ValueError) as error:
            function()
        assert str(error.value).startswith(f"Argument {argument} must ")
        assert said in str(error.value)
