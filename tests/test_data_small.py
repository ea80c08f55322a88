"""Small data sets: scikit-learn's, graphs, and inputs made of a spectrum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import skajax as ska

SHAPES = {
    "breast_cancer": ((569, 30), [212, 357]),
    "digits": ((1797, 64), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]),
    "iris": ((150, 4), [50, 50, 50]),
    "wine": ((178, 13), [59, 71, 48]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_set_is_whole_scaled_and_class_by_class(name):
    x, y = ska.data.sklearn(name)
    shape, counts = SHAPES[name]
    assert (x.shape, x.dtype, y.dtype) == (shape, np.float32, np.int32)
    np.testing.assert_array_equal(y, np.repeat(np.arange(len(counts)), counts))
    assert (x.min(), x.max()) == (0, 1)
    if name != "digits":  # whose corner pixels are always 0
        np.testing.assert_array_equal(x.min(axis=0), 0)
        np.testing.assert_array_equal(x.max(axis=0), 1)


def test_values_are_the_sources():
    x, _ = ska.data.sklearn("digits")
    np.testing.assert_array_equal(
        x[0, :8] * 16, [0, 0, 5, 13, 9, 1, 0, 0]
    )  # the set's first image, a 0
    x, _ = ska.data.sklearn("iris")
    # The first flower is 5.1, 3.5, 1.4, 0.2; the ranges are those that the set's description gives.
    low, high = np.array([4.3, 2.0, 1.0, 0.1]), np.array([7.9, 4.4, 6.9, 2.5])
    np.testing.assert_allclose(
        x[0], (np.array([5.1, 3.5, 1.4, 0.2]) - low) / (high - low), rtol=1e-6
    )


def test_another_name_is_refused():
    with pytest.raises(ValueError, match=r"Argument name must be one of .*'digits'.*'titanic'"):
        ska.data.sklearn("titanic")


@given(seed=st.integers(0, 999), count=st.integers(1, 6))
def test_inputs_have_the_spectrum_they_are_made_of(seed, count):
    values = np.random.default_rng(seed).uniform(0.1, 50, size=count)
    x = ska.data.known_spectrum(list(values), 9, 7, seed=seed)
    assert x.dtype == np.float32
    gram = x.astype(float) @ x.T.astype(float)
    found = np.linalg.eigvalsh(gram / 9)[::-1]
    np.testing.assert_allclose(found[:count], np.sort(values)[::-1], rtol=1e-4)
    np.testing.assert_allclose(found[count:], 0, atol=1e-5 * values.max())
    with_bias = np.linalg.eigvalsh((gram + 1) / 9)[::-1][: count + 1]
    np.testing.assert_allclose(with_bias, np.sort([*values, 1.0])[::-1], rtol=1e-4, atol=1e-4)


def test_seeds_differ_and_repeat():
    a, b, c = (ska.data.known_spectrum([3.0, 1.0], 8, 5, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.1


def test_an_impossible_spectrum_is_refused():
    for values, samples, inputs in (
        ([1.0] * 5, 5, 9),
        ([1.0] * 5, 9, 4),
        ([], 5, 5),
        ([0.0], 5, 5),
    ):
        with pytest.raises(ValueError, match="Argument values must"):
            ska.data.known_spectrum(values, samples, inputs)
    with pytest.raises(ValueError, match="Argument samples must"):
        ska.data.known_spectrum([1.0], 0, 5)


def test_the_karate_club_is_zacharys():
    x, y, edges = ska.data.graph("karate")
    assert (x.dtype, y.dtype, edges.dtype) == (np.float32, np.int32, np.int32)
    np.testing.assert_array_equal(x, np.eye(34))
    assert edges.shape == (78, 2) and len({frozenset(pair) for pair in edges.tolist()}) == 78
    np.testing.assert_array_equal(np.bincount(y), [17, 17])
    assert (y[0], y[33]) == (0, 1)  # the instructor and the officer, who are no friends
    # Their numbers of friends, the largest that there are, and the smallest: member 12's.
    degrees = np.bincount(edges.ravel())
    assert (degrees[0], degrees[33], degrees[11]) == (16, 17, 1)
    assert not ((edges == 0).any(axis=1) & (edges == 33).any(axis=1)).any()
    # Friendships are mostly within what became one club: its modularity is 0.3582 (Newman, 2006: 0.358).
    within = (y[edges[:, 0]] == y[edges[:, 1]]).mean()
    shares = np.bincount(y, degrees) / degrees.sum()
    np.testing.assert_allclose(within - (shares**2).sum(), 0.3582, atol=5e-5)


def test_the_southern_women_meet_at_events_only():
    x, y, edges = ska.data.graph("southern_women")
    np.testing.assert_array_equal(x, np.eye(32))
    np.testing.assert_array_equal(y, np.repeat([0, 1], [18, 14]))
    assert edges.shape == (89, 2)
    np.testing.assert_array_equal(y[edges], np.tile([0, 1], (89, 1)))
    # The best attended event, the eighth, had 14 of the women.
    assert np.bincount(edges[:, 1])[18:].tolist() == [3, 3, 6, 4, 8, 8, 10, 14, 12, 5, 4, 6, 3, 3]


def test_another_graph_is_refused():
    with pytest.raises(ValueError, match=r"Argument name must be one of .*'karate'.*'cora'"):
        ska.data.graph("cora")
