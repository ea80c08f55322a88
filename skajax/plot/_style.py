"""What everything looks like: one colour and line a layer, one marker a landmark, the colour maps.

The eight layer colours differ from one another for normal sight and for the three kinds of colour
blindness (ΔE > 24 under Machado's simulation), and none is the red or the green that the paper
keeps for its landmarks. For print in greys, layers differ in their dashes, and landmarks in shape.
"""

from typing import Any, NamedTuple

import numpy as np
from cycler import cycler
from matplotlib import colormaps
from matplotlib.colors import Colormap, ListedColormap, to_hex

from skajax._types import Float

_DASHES = (
    "-",
    (0, (7, 1.5)),
    (0, (7, 1.5, 1.2, 1.5)),
    (0, (2.2, 1.2)),
    (0, (10, 1.5, 1.2, 1.5, 1.2, 1.5)),
    (0, (1.2, 1.2)),
    (0, (12, 2.5)),
    (0, (4, 1.2, 2, 1.2)),
)
_LAYERS = (
    "#0072B2",  # blue, orange and sky blue are Okabe and Ito's
    "#E69F00",
    "#4B0F5E",
    "#56B4E9",
    "#8C6D1F",
    "#6E6E6E",
    "#000000",
    "#DDCC77",
)
_OUTPUTS = (  # Petroff's ten, arXiv 2107.02270, for sight of every kind
    "#3F90DA",
    "#FFA90E",
    "#BD1F01",
    "#94A4A2",
    "#832DB6",
    "#A96B59",
    "#E76300",
    "#B9AC70",
    "#717581",
    "#92DADD",
)


def _part(name: str, low: float, high: float) -> Colormap:
    return ListedColormap(colormaps[name](np.linspace(low, high, 256)), f"{name} in part")


# One map a meaning. All but SIGNED run evenly from dark to light, and end before white paper does.
STEPS = _part("viridis", 0.0, 0.9)
"""Of step sizes, the finest dark."""
TIMES = _part("Blues_r", 0.0, 0.64)
"""Of time along a curve, dark blue at first, as in the paper; red and green stand out from it."""
LAYERS = _part("cividis", 0.0, 0.92)
"""Of more layers than there are colours."""
MAGNITUDE = colormaps["viridis"]
"""Of quantities that are never negative, over whole areas."""
SIGNED = _part("PuOr_r", 0.1, 0.9)
"""Of quantities with a sign: purple below 0, white at 0, orange above."""


def shades(values: Float[np.ndarray, "..."], *, signed: bool) -> dict[str, Any]:
    """Colour map and limits of values, for images and scatters: symmetric about 0 if they have a sign."""
    top = float(np.abs(values).max(initial=0.0)) or 1.0
    if signed:
        return {"cmap": SIGNED, "vmin": -top, "vmax": top}
    return {"cmap": MAGNITUDE, "vmin": 0.0, "vmax": top}


GREY = "0.55"
INK = "0.15"
LINE_WIDTH = 1.6


STYLE = {
    "axes.prop_cycle": cycler(color=_LAYERS, linestyle=_DASHES),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.7,
    "lines.linewidth": LINE_WIDTH,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
"""matplotlib's settings for figures of your own that look as these do: ``plt.rc_context(ska.plot.STYLE)``.

Curves take the layers' colours and dashes in their order.
"""


class Mark(NamedTuple):
    """How one kind of landmark is drawn, and what the legend calls it."""

    text: str
    marker: str
    colour: str
    size: float


PEAK = Mark("flow peak", "^", INK, 7.0)
MINIMUM = Mark("entropy minimum", "o", "#D7191C", 7.0)
CROSSING = Mark("zero crossing", "D", "#1A9641", 6.0)


def has_palette(layers: int) -> bool:
    """Whether there is a colour apiece; more layers are told apart by a colour map."""
    return layers <= len(_LAYERS)


def layer_colour(layer: int, layers: int) -> str:
    """The colour of layer 1..layers: the same in every figure."""
    if has_palette(layers):
        return _LAYERS[layer - 1]
    return to_hex(LAYERS((layer - 1) / (layers - 1)))


def layer_line(layer: int, layers: int, records: int = 2) -> dict[str, Any]:
    """How a layer's curve is drawn; a single record is a dot, because a line of one is nothing."""
    dashes = _DASHES[layer - 1] if has_palette(layers) else "-"
    return _line(layer_colour(layer, layers), dashes, records)


def output_line(output: int, outputs: int, records: int = 2) -> dict[str, Any]:
    """How the curve of output neuron 0..outputs-1 is drawn."""
    if outputs <= len(_OUTPUTS):
        return _line(_OUTPUTS[output], _DASHES[output % len(_DASHES)], records)
    return _line(to_hex(LAYERS(output / (outputs - 1))), "-", records)


def _line(colour: str, dashes: Any, records: int) -> dict[str, Any]:
    return {
        "color": colour,
        "linestyle": dashes,
        "linewidth": LINE_WIDTH,
        "marker": "o" if records == 1 else "",
        "markersize": 4.0,
    }
