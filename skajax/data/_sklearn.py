"""The small real data sets that scikit-learn ships, in the form of all others here."""

from types import MappingProxyType

import numpy as np
from jaxtyping import Float32, Int32

from skajax._checks import require
from skajax._extras import take
from skajax._messages import nearest
from skajax.data._layout import arrange

SETS = MappingProxyType({"breast_cancer": None, "digits": 16.0, "iris": None, "wine": None})
"""Names, and the largest value that a feature can have; None: each feature has its own range."""


def sklearn(
    name: str, layout: str = "flat", *, size: int = 4
) -> tuple[Float32[np.ndarray, "samples ..."], Int32[np.ndarray, " samples"]]:
    """A data set of scikit-learn's, scaled to [0, 1], class by class; needs no network.

    ``"digits"``: 1797 images of 8 x 8 pixels, 10 classes, pixel / 16. ``"breast_cancer"``: 569 samples of 30
    measurements, 2 classes. ``"wine"``: 178 of 13, 3 classes. ``"iris"``: 150 of 4, 3 classes. Measurements
    have different units: each is scaled by its own range, so that its least value is 0 and its largest 1.

    Returns ``(x, y)``: x float32 of shape (samples, features), y int32; within a class, in
    scikit-learn's order. Of the digits, x may have another ``layout``: ``"image"``, (samples, 8, 8, 1);
    ``"rows"``, sequences (samples, 8, 8) of rows; or ``"patches"``, sequences (samples, (8 / size)², size²)
    of square patches; as of :func:`mnist`.

    Raises ValueError for another name, for a layout that is none, and for measurements as images.

    Source: E. Alpaydin and C. Kaynak; W. Wolberg et al.; S. Aeberhard and M. Forina; R. A. Fisher, by way
    of the UCI Machine Learning Repository (CC BY 4.0), and F. Pedregosa et al., JMLR 12 (2011) 2825-2830.

    >>> x, y = ska.data.sklearn("digits")
    >>> x.shape
    (1797, 64)
    """
    require(name in SETS, "name", f"be one of {list(SETS)}", f"it was {nearest(name, SETS)}")
    require(
        layout == "flat" or name == "digits",
        "layout",
        f"be 'flat' for {name}, whose samples are no images",
        f"it was {layout!r}",
    )
    datasets = take("skajax.data.sklearn", "study", "sklearn.datasets")  # slow to import
    values, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = np.argsort(labels, kind="stable")
    x, largest = np.asarray(values, np.float64)[order], SETS[name]
    if largest is None:
        least = x.min(axis=0)
        x = (x - least) / (x.max(axis=0) - least)
    else:
        x = x / largest
    return arrange(x.astype(np.float32), layout, size), np.asarray(labels, np.int32)[order]
