"""Square images as layers want them: rows of numbers, images, sequences of rows or of patches."""

import math

import numpy as np
from jaxtyping import Float32

from skajax._checks import is_whole, require

LAYOUTS = ("flat", "image", "rows", "patches")


def arrange(
    x: Float32[np.ndarray, "samples pixels"], layout: str, size: int
) -> Float32[np.ndarray, "samples ..."]:
    """The same pixels in another shape; of square images, line by line.

    - ``"flat"``: (samples, pixels), as they are;
    - ``"image"``: (samples, height, width, 1);
    - ``"rows"``: (samples, height, width), a sequence from the top row to the bottom one;
    - ``"patches"``: (samples, patches, size * size), squares of ``size`` pixels a side from the top left,
      line by line, each line by line too. ``size`` must divide the height.
    """
    require(layout in LAYOUTS, "layout", f"be one of {list(LAYOUTS)}", f"it was {layout!r}")
    if layout == "flat":
        return x
    side = math.isqrt(x.shape[1])
    if layout == "image":
        return x.reshape(-1, side, side, 1)
    if layout == "rows":
        return x.reshape(-1, side, side)
    require(
        is_whole(size) and side % size == 0,
        "size",
        f"be a whole number of pixels that divides {side}",
        f"it was {size!r}",
    )
    count = side // size
    tiles = x.reshape(-1, count, size, count, size).swapaxes(2, 3)
    return tiles.reshape(-1, count * count, size * size)
