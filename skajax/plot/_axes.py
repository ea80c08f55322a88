"""Axes, their labels and legends, and the landmarks on them: what all figures share."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from numpy.typing import NDArray

from skajax._checks import require
from skajax.observables import BY_NAME, Observable
from skajax.plot._style import GREY, Mark, has_palette, layer_colour

AxesArray: TypeAlias = NDArray[np.object_]
"""Axes in a row, one a layer."""
AxesLike: TypeAlias = Sequence[Axes] | NDArray[np.object_]
"""Axes as they are given: a list, or what ``plt.subplots`` returns."""

TIME = "time $t$"

_PLAIN: dict[str, Any] = {"frameon": False, "fontsize": "small"}


def label(observable: str | Observable, *, narrow: bool = False) -> str:
    """Name, symbol and unit for an axis; a pure number has no unit. Narrow for panels."""
    what = BY_NAME[observable] if isinstance(observable, str) else observable
    name, *qualifier = (what.label or what.name).split(", ")
    quantity = what.symbol if what.unit == "1" else f"{what.symbol} ({what.unit})".lstrip()
    parts = [name, quantity] if narrow else [f"{name} {quantity}"]
    return "\n".join(parts + qualifier)


def number(value: float, digits: int = 2) -> str:
    """A number of so many digits, with powers of ten as they are printed: 7.2 × 10⁵."""
    shown, _, exponent = f"{value:.{digits}g}".partition("e")
    return rf"${shown} \times 10^{{{int(exponent)}}}$" if exponent else shown


def single(ax: Axes | None, *, size: tuple[float, float] = (6.6, 3.9)) -> Axes:
    """The axes given, or those of a new figure; dressed."""
    if ax is None:
        _, ax = plt.subplots(figsize=size, layout="constrained")
    _dress(ax)
    return ax


def panels(axes: AxesLike | None, count: int, *, titled: bool = True) -> AxesArray:
    """The axes given, or those of a new figure; dressed, and titled, where each is of one layer."""
    given = _grid(count) if axes is None else np.asarray(axes, dtype=object).ravel()
    require(
        len(given) == count,
        "axes",
        f"hold one Axes for each of the {count} {'layers' if titled else 'observables'}",
        f"there were {len(given)}",
    )
    for layer, ax in enumerate(given, 1):
        _dress(ax)
        if titled:
            title_layer(ax, layer, count)
    return given


def title_layer(ax: Axes, layer: int, layers: int) -> None:
    """Which layer the axes are of, in its colour."""
    colour = layer_colour(layer, layers)
    ax.set_title(f"layer {layer}", loc="left", color=colour, fontsize="medium", fontweight="bold")


def pair(axes: AxesLike | None) -> AxesArray:
    """Two axes given, or those of a new figure, one above the other and sharing time; dressed."""
    if axes is None:
        _, axes = plt.subplots(2, figsize=(6.6, 5.2), layout="constrained", sharex=True)
    given = np.asarray(axes, dtype=object).ravel()
    require(len(given) == 2, "axes", "hold two Axes", f"there were {len(given)}")
    for ax in given:
        _dress(ax)
    return given


def _grid(layers: int) -> AxesArray:
    columns = layers if layers <= 3 else int(np.ceil(np.sqrt(layers)))
    rows = -(-layers // columns)
    size = (max(3.35 * columns, 4.4), 2.45 * rows + 0.45)
    figure, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for ax in grid.flat:  # as many ticks at any width: the layout settles, and cuts no last label
        ax.locator_params("x", nbins=6)
    for spare in grid.flat[layers:]:
        figure.delaxes(spare)
    return grid.ravel()[:layers]


def name_panels(axes: AxesArray, x: str, y: str, *, outer: bool) -> None:
    """Name both axes of every panel, or, in a grid of our own, of the outer ones only."""
    for index, ax in enumerate(axes):
        spec = ax.get_subplotspec() if outer else None
        columns = spec.get_gridspec().ncols if spec else 1
        if spec is None or index + columns >= len(axes):
            ax.set_xlabel(x)
        if spec is None or index % columns == 0:
            ax.set_ylabel(y)
    if outer:
        axes[0].figure.align_ylabels(axes)


def _dress(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="0.9", linewidth=0.7)
    ax.set_axisbelow(True)
    _format_numbers(ax.xaxis)
    _format_numbers(ax.yaxis)


def _format_numbers(axis: Axis) -> None:
    """Powers of ten for what is long, where the axis is not logarithmic or otherwise special."""
    if isinstance(axis.get_major_formatter(), ScalarFormatter):
        formatter = ScalarFormatter(useMathText=True)
        formatter.set_powerlimits((-3, 4))
        axis.set_major_formatter(formatter)


def zero_line(ax: Axes) -> None:
    """A thin line at 0, below the curves."""
    ax.axhline(0, color=GREY, linewidth=0.8, zorder=1)


def draw_marks(
    ax: Axes, mark: Mark, points: Iterable[tuple[float, float, bool]], edge: str = "white"
) -> None:
    """Landmarks at (x, y), filled if they are interior to the run, and hollow if at its edge.

    A legend lists each kind once. ``edge`` is the colour around the filled ones.
    """
    points = list(points)
    known = {line.get_label() for line in ax.lines}
    for interior, text in ((True, mark.text), (False, f"{mark.text},\nat the run's edge")):
        chosen = [(x, y) for x, y, inside in points if inside == interior]
        if chosen:
            x, y = zip(*chosen, strict=True)
            ax.plot(
                x,
                y,
                label="_" if text in known else text,
                linestyle="",
                marker=mark.marker,
                markersize=mark.size,
                markerfacecolor=mark.colour if interior else "white",
                markeredgecolor=edge if interior else mark.colour,
                markeredgewidth=0.9 if interior and edge == "white" else 1.6,
                zorder=6,
                clip_on=False,
            )


def legend_beside(ax: Axes, handles: Sequence[Artist], **options: Any) -> None:
    """A legend to the right of the axes, never on the data."""
    place: dict[str, Any] = {
        "loc": "upper left",
        "bbox_to_anchor": (1.0, 1.02),
        "borderaxespad": 0.4,
    }
    ax.legend(handles=handles, **_PLAIN, handlelength=2.8, **place, **options)


def legend_above(ax: Axes, handles: Sequence[Artist]) -> None:
    """A legend of two columns above the axes, for those that have a colour bar to the right."""
    if handles:
        texts = [_in_a_row(handle) for handle in handles]
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0)}
        columns = min(len(handles), 2)  # three entries are wider than the axes
        ax.legend(handles, texts, **_PLAIN, ncols=columns, borderaxespad=0.2, **place)


def legend_at_the_right(ax: Axes) -> None:
    """A legend in a row above the axes, at their right end, for those with a title at the left."""
    handles = named(ax)
    texts = [_in_a_row(handle) for handle in handles]
    place: dict[str, Any] = {
        "loc": "lower right",
        "bbox_to_anchor": (1.0, 1.0),
        "borderaxespad": 0.2,
    }
    ax.legend(handles, texts, **_PLAIN, ncols=len(handles), handletextpad=0.3, **place)


def legend_below(axes: AxesArray, *, own: bool, also: Sequence[Artist] = ()) -> None:
    """One legend for all panels: below them in a figure of our own, else in the last one."""
    found = {_in_a_row(handle): handle for handle in also[::-1]}
    found |= {_in_a_row(handle): handle for ax in axes[::-1] for handle in named(ax)[::-1]}
    texts, handles = list(found)[::-1], list(found.values())[::-1]
    if own and handles:
        columns = min(len(handles), max(1, int(axes[0].figure.get_figwidth() / 1.6)))
        place = {"loc": "outside lower center", "ncols": columns}
        axes[0].figure.legend(handles, texts, **_PLAIN, handlelength=2.2, **place)
    elif handles:
        axes[-1].legend(handles, texts, fontsize="small", handlelength=2.2)


def named(ax: Axes) -> list[Artist]:
    """What has a name on these axes, in the order in which it was drawn."""
    return ax.get_legend_handles_labels()[0]


def _in_a_row(handle: Artist) -> str:
    return str(handle.get_label()).replace("\n", " ")


def layer_key(ax: Axes, layers: int, also: Sequence[Artist] = ()) -> None:
    """Which curve is which layer: a legend, or a bar of colours where there are many."""
    handles = [*named(ax), *also]
    if has_palette(layers):
        legend_beside(ax, handles)
        return
    layer_bar([ax], layers)
    legend_above(ax, [h for h in handles if not is_layer(h)])


def is_layer(handle: Artist) -> bool:
    """Whether it is a layer's curve that a legend would list here."""
    return str(handle.get_label()).startswith("layer ")


def layer_bar(axes: Sequence[Axes] | AxesArray, layers: int) -> None:
    """Which curve is which of many layers: a bar of their colours."""
    colours = ListedColormap([layer_colour(layer, layers) for layer in range(1, layers + 1)])
    norm = BoundaryNorm(np.arange(layers + 1) + 0.5, layers)
    colour_bar(ScalarMappable(norm, colours), axes, "layer", ticks=MaxNLocator(8, integer=True))


def colour_bar(
    mappable: ScalarMappable, axes: Sequence[Axes] | AxesArray, text: str, **options: Any
) -> None:
    """A slim colour bar to the right: of one Axes at its side, of several beside them all."""
    figures = {ax.figure for ax in axes}
    require(len(figures) == 1, "axes", "share a figure, and its colour bar", "they did not")
    if len(axes) == 1:
        place = {"cax": axes[0].inset_axes((1.02, 0.0, 0.025, 1.0))}
    else:
        place = {"ax": list(axes), "pad": 0.02, "aspect": 30}
    bar = figures.pop().colorbar(mappable, label=text, **place, **options)
    bar.outline.set_visible(False)
    bar.ax.minorticks_off()
    _format_numbers(bar.ax.yaxis)
