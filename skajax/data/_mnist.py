"""The subset of MNIST that the paper trains on, inside the package."""

import importlib.resources

import numpy as np
from jaxtyping import Float32, Int32

from skajax.data._labelled import Labelled, labelled, require_whole
from skajax.data._layout import arrange

FILE = "mnist_subset.npz"


def mnist_subset(per_class: int = 100) -> Labelled:
    """The paper's 1000 MNIST images, or the first ``per_class`` of each class; needs no network.

    Order: digit by digit, 0 to 9, and within a digit as in the MNIST training set, so that row
    ``digit * per_class + k`` is the training set's k-th image of that digit, k = 0, 1, ...
    The images of any ``per_class`` are the first ones, class by class, of any larger one.

    Args:
        per_class: Images of each digit, 1 to 100. The paper uses all 100.

    Returns:
        ``(x, y)``: images x, float32 of shape (10 * per_class, 784), each a row of 28 x 28 pixels
        from the top left, line by line, pixel / 255 in [0, 1]; and labels y, int32 of shape
        (10 * per_class,).

    Raises:
        ValueError: ``per_class`` is no whole number from 1 to 100.

    Source:
        Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits";
        Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Proc. IEEE 86 (1998) 2278-2324. Licensed
        CC BY-SA 3.0: see ``MNIST_LICENSE.md`` beside this file.

    >>> x, y = ska.data.mnist_subset(per_class=100)
    >>> x.shape, y.shape, float(x.max())
    ((1000, 784), (1000,), 1.0)
    """
    require_whole("per_class", per_class, "be a whole number from 1 to 100", most=100)
    resource = importlib.resources.files("skajax.data") / FILE
    with resource.open("rb") as file, np.load(file) as arrays:
        images = arrays["images"]
    return labelled(images[:, :per_class].reshape(-1, 784), [per_class] * 10)


def mnist(
    per_class: int = 100, layout: str = "image", *, size: int = 7
) -> tuple[Float32[np.ndarray, "samples ..."], Int32[np.ndarray, " samples"]]:
    """The images of :func:`mnist_subset` as a layer wants them; needs no network.

    Args:
        per_class: Images of each digit, 1 to 100.
        layout: Which shape x has, with samples = 10 * per_class:

            - ``"image"``: (samples, 28, 28, 1), for convolutions;
            - ``"rows"``: (samples, 28, 28), sequences of 28 rows of pixels, the top one first, for
              recurrences and attention;
            - ``"patches"``: (samples, (28 / size)², size²), sequences of square patches from the top left,
              line by line, each of its pixels line by line;
            - ``"flat"``: (samples, 784), as :func:`mnist_subset` has them.
        size: Pixels of a patch's side, which divide 28: 1, 2, 4, 7, 14 or 28.

    Returns:
        ``(x, y)``: pixels x, float32 in [0, 1], and labels y, int32 of shape (samples,), in the order of
        :func:`mnist_subset`.

    Raises:
        ValueError: An argument is none of these.

    Source:
        As of :func:`mnist_subset`; CC BY-SA 3.0.

    >>> x, y = ska.data.mnist(per_class=2, layout="rows")
    >>> x.shape
    (20, 28, 28)
    """
    x, y = mnist_subset(per_class)
    return arrange(x, layout, size), y
