"""The form of every data set here: rows of pixels in [0, 1] and labels, class by class."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from skajax._checks import is_whole, require

Labelled: TypeAlias = tuple[Float32[np.ndarray, "samples features"], Int32[np.ndarray, " samples"]]


def labelled(images: UInt8[np.ndarray, "samples ..."], counts: Sequence[int]) -> Labelled:
    """One row of pixel / 255 an image, and labels: 0 for the first counts[0] images, and so on."""
    x = images.reshape(len(images), -1).astype(np.float32)
    x /= np.float32(255)
    return x, np.repeat(np.arange(len(counts), dtype=np.int32), counts)


def require_whole(argument: str, value: object, must: str, most: float | int = math.inf) -> None:
    """Refuse anything but a whole number from 1 to ``most``."""
    require(
        is_whole(value) and value <= most,  # pyright: ignore[reportOperatorIssue]
        argument,
        must,
        f"it was {value!r}",
    )
