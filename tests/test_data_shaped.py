"""Images as images and sequences, a time series, a text: which they are, and in which order."""

import hashlib
import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import skajax as ska


def test_layouts_hold_each_pixel_in_its_place():
    flat, labels = ska.data.mnist_subset(2)
    shapes = {"image": (20, 28, 28, 1), "rows": (20, 28, 28), "flat": (20, 784)}
    for layout, shape in shapes.items():
        x, y = ska.data.mnist(2, layout)
        assert (x.shape, x.dtype) == (shape, np.float32)
        np.testing.assert_array_equal(y, labels)
    np.testing.assert_array_equal(ska.data.mnist(2)[0], ska.data.mnist(2, "image")[0])
    for n, row, column in ((3, 14, 13), (11, 7, 20)):
        pixel = flat[n, 28 * row + column]
        assert ska.data.mnist(2, "image")[0][n, row, column, 0] == pixel
        assert ska.data.mnist(2, "rows")[0][n, row, column] == pixel
        for size in (1, 2, 4, 7, 14, 28):
            patches = ska.data.mnist(2, "patches", size=size)[0]
            assert patches.shape == (20, (28 // size) ** 2, size**2)
            patch = row // size * (28 // size) + column // size
            assert patches[n, patch, row % size * size + column % size] == pixel
            assert patches.sum(dtype=float) == pytest.approx(flat.sum(dtype=float), rel=1e-12)
    assert ska.data.mnist()[0].shape == (1000, 28, 28, 1)


def test_the_sequences_are_the_papers_images_bit_for_bit():
    found = {
        layout: hashlib.sha256(ska.data.mnist(1, layout)[0].tobytes()).hexdigest()[:12]
        for layout in ("rows", "patches")
    }
    assert found == {"rows": "6ae8166d8e9a", "patches": "449480902075"}


def test_the_digits_of_scikit_learn_have_layouts_too():
    flat, labels = ska.data.sklearn("digits")
    x, y = ska.data.sklearn("digits", "image")
    np.testing.assert_array_equal(x, flat.reshape(1797, 8, 8, 1))
    np.testing.assert_array_equal(y, labels)
    np.testing.assert_array_equal(ska.data.sklearn("digits", "rows")[0], x[..., 0])
    patches = ska.data.sklearn("digits", "patches", size=4)[0]
    np.testing.assert_array_equal(patches[:, 1], x[:, :4, 4:, 0].reshape(-1, 16))


def test_layouts_that_are_none_are_refused(untyped):
    with pytest.raises(ValueError, match=r"Argument layout must be one of .*'patches'.*'row'"):
        ska.data.mnist(1, "row")
    for size in (3, 0, 56, 7.0, None):
        with pytest.raises(ValueError, match=r"Argument size must .* that divides 28, but it was"):
            ska.data.mnist(1, "patches", size=size)
    with pytest.raises(ValueError, match=r"Argument per_class must"):
        ska.data.mnist(0)
    with pytest.raises(ValueError, match=r"Argument layout must be 'flat' for iris"):
        ska.data.sklearn("iris", "image")


def test_sunspots_are_the_sources_in_the_order_of_years():
    x, y = ska.data.series()
    assert (x.shape, y.shape, x.dtype, y.dtype) == ((277, 32, 1), (277, 32, 1), *[np.float32] * 2)
    values = np.append(x[:, 0, 0], y[-1, :, 0])
    assert len(values) == 309 and (values.min(), values.max()) == (0, 1)
    found = np.round(values.astype(float) * 190.2, 1)
    np.testing.assert_array_equal(found[:5], [5, 11, 16, 23, 36])  # from 1700 on
    np.testing.assert_array_equal(found[-3:], [15.2, 7.5, 2.9])  # to 2008
    assert found[1957 - 1700] == 190.2
    assert found.sum() == pytest.approx(15373.4, abs=0.05)
    power = np.abs(np.fft.rfft(values - values.mean()))
    assert 10 < 309 / power.argmax() < 12  # the Sun's cycle, years


def test_the_text_is_the_zen_of_python(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "this", raising=False)
    x, y, vocabulary = ska.data.text()
    assert (x.shape, y.shape, x.dtype, y.dtype) == ((824, 32), (824, 32), *[np.int32] * 2)
    assert capsys.readouterr().out == ""  # the module that has it prints it
    written = "".join(vocabulary[k] for k in np.append(x[:, 0], y[-1]))
    assert len(written) == 856
    assert written.startswith(
        "The Zen of Python, by Tim Peters\n\nBeautiful is better than ugly.\n"
    )
    assert written.endswith("let's do more of those!")
    assert hashlib.sha256(written.encode()).hexdigest()[:12] == "e250f274f33b"
    assert vocabulary == "".join(sorted(set(written)))
    assert (x.min(), x.max()) == (0, len(vocabulary) - 1)


SETS = {"series": (ska.data.series, 309), "text": (lambda *a, **k: ska.data.text(*a, **k)[:2], 856)}


@pytest.mark.parametrize("name", SETS)
@given(times=st.integers(1, 60), every=st.integers(1, 70))
def test_windows_hold_what_is_there_and_what_comes_next(name, times, every):
    get, length = SETS[name]
    x, y = get(times, every=every)
    first, after = get(1)
    values = np.append(first[:, 0], after[-1:, 0], axis=0)
    starts = range(0, length - times, every)
    assert len(x) == len(y) == len(starts) == (length - times - 1) // every + 1
    np.testing.assert_array_equal(x, [values[s : s + times] for s in starts])
    np.testing.assert_array_equal(y, [values[s + 1 : s + times + 1] for s in starts])


@pytest.mark.parametrize("name", SETS)
def test_windows_that_are_none_are_refused(untyped, name):
    get, length = SETS[name]
    assert len(get(length - 1)[0]) == 1
    for times in (0, length, 2.5, None):
        with pytest.raises(
            ValueError, match=rf"times must be a whole number from 1 to {length - 1}"
        ):
            get(times)
    with pytest.raises(ValueError, match="Argument every must be a whole number, at least 1"):
        get(4, every=0)


@pytest.mark.parametrize("name", [*SETS, "mnist"])
def test_the_caller_owns_the_arrays(name):
    get = SETS[name][0] if name in SETS else lambda: ska.data.mnist(1, "rows")
    again = get()
    for array in get():
        array[:] = 0  # writeable, and its own
    for a, b in zip(get(), again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_statsmodels_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels.datasets.sunspots", None)
    with pytest.raises(ImportError, match=r'pip install "skajax\[series\]"'):
        ska.data.series()


def test_targets_are_those_of_the_energies():
    losses = {"series": ska.energies.SquaredError(), "text": ska.energies.CrossEntropy()}
    for name, (get, _) in SETS.items():
        x, y = get(8, every=100)
        width = {"series": 1, "text": 45}[name]
        knowledge = jax.ShapeDtypeStruct((*x.shape[:2], width), np.float32)
        losses[name].check(ska.Batch(x, jax.numpy.asarray(y)), (knowledge,))
