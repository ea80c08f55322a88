"""The paper's images: which they are, in which order, and that nothing was lost on the way."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

import skajax as ska
from skajax.data import make_mnist_subset

DIGITS = 10


@pytest.fixture(scope="module")
def everything():
    return ska.data.mnist_subset(per_class=100)


def test_the_default_is_the_papers_thousand_images(everything):
    x, y = ska.data.mnist_subset()
    assert x.shape == (1000, 784)
    assert x.dtype == np.float32
    assert y.shape == (1000,)
    assert y.dtype == np.int32
    np.testing.assert_array_equal(x, everything[0])
    np.testing.assert_array_equal(y, everything[1])


def test_the_images_are_the_papers_bit_for_bit(everything):
    x, _ = everything
    pixels = np.rint(x * 255).astype(np.uint8)
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == make_mnist_subset.SHA256
    assert make_mnist_subset.checksum(pixels.reshape(10, 100, 784)) == make_mnist_subset.SHA256


def test_each_value_is_its_pixel_over_255(everything):
    x, _ = everything
    steps = np.arange(256, dtype=np.float32) / np.float32(255)
    np.testing.assert_array_equal(x, steps[np.rint(x * 255).astype(int)])
    assert x.min() == 0
    assert x.max() == 1


def test_digits_follow_each_other_and_each_keeps_the_order_of_the_training_set(everything):
    x, y = everything
    np.testing.assert_array_equal(y, np.repeat(np.arange(DIGITS), 100))
    # Pixels of the training set's first image (a 5), its second (a 0), and its hundredth: the
    # fourteenth 1.
    known = {
        (5, 0): (152, [3, 18, 18, 18, 126, 136, 175, 26, 166, 255, 247, 127]),
        (0, 0): (127, [51, 159, 253, 159, 50]),
        (1, 13): (460, [17, 145, 253, 231, 35]),
    }
    for (digit, k), (start, pixels) in known.items():
        row = x[100 * digit + k, start : start + len(pixels)]
        np.testing.assert_array_equal(np.rint(row * 255), pixels)


@pytest.mark.parametrize("per_class", range(1, 101))
def test_fewer_images_are_the_first_of_each_digit(everything, per_class):
    x, y = ska.data.mnist_subset(per_class=per_class)
    np.testing.assert_array_equal(y, np.repeat(np.arange(DIGITS), per_class))
    first = everything[0].reshape(DIGITS, 100, 784)[:, :per_class]
    np.testing.assert_array_equal(x.reshape(DIGITS, per_class, 784), first)


def test_the_caller_owns_the_arrays(everything):
    x, y = ska.data.mnist_subset(1)
    x[:], y[:] = -1, -1
    np.testing.assert_array_equal(ska.data.mnist_subset(1)[0], everything[0][::100])


def test_numpy_whole_numbers_are_whole_numbers(untyped):
    x, _ = ska.data.mnist_subset(np.int64(2))
    assert x.shape == (20, 784)


@pytest.mark.parametrize("per_class", [0, -1, 101, 2.5, True, "10", None])
def test_a_bad_number_of_images_is_refused(untyped, per_class):
    with pytest.raises(ValueError) as refusal:
        ska.data.mnist_subset(per_class=per_class)
    assert str(refusal.value) == (
        f"Argument per_class must be a whole number from 1 to 100, but it was {per_class!r}."
    )


def test_the_authors_get_their_credit():
    text = Path(ska.data.__file__).with_name("MNIST_LICENSE.md").read_text()
    for due in ("Yann LeCun", "Corinna Cortes", "Burges", "ShareAlike 3.0", "by-sa/3.0"):
        assert due in text
