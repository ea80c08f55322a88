"""The explorer itself: sliders and menus beside the figures of a run, in a browser or a notebook."""

import base64
import html
import io
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import panel as pn
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from skajax import landmarks
from skajax.explore._run import Runner, Seen
from skajax.explore._settings import DATA, ENERGIES, LAYERS, METHODS, PANELS, Settings
from skajax.observables import PAPER
from skajax.plot import overview
from skajax.plot._style import layer_colour

WIDTHS = (2, 3, 4, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
LAYERS_OFFERED = 5
SAMPLES = (10, 20, 50, 100, 200, 500, 1000, 1797)
SCALES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
RTOLS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
TIMES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0, 50.0, 100.0)
"""Each a whole number of any of the steps."""
FOURTH = tuple(o.name for o in PAPER if o.per_layer and o.name not in PANELS)
SIZE = (11.4, 6.5)
"""Of the figure, inches."""
DPI = 160
POLL = 150
"""Milliseconds between two looks at a run."""
SIDEBAR = 264
"""Pixels."""

CSS = """
table.landmarks { border-collapse: collapse; width: 100%; font: 13px/1.5 sans-serif; color: #262626; }
table.landmarks th { font-weight: 600; color: #6b6b6b; border-bottom: 1px solid #bbb; }
table.landmarks th, table.landmarks td { text-align: right; padding: 3px 14px 3px 6px; }
table.landmarks th:first-child, table.landmarks td:first-child { text-align: left; }
table.landmarks td { border-bottom: 1px solid #eee; font-variant-numeric: tabular-nums; }
table.landmarks i { display: inline-block; width: 18px; height: 3px; margin-right: 8px;
  vertical-align: middle; }
img { display: block; width: 100%; }
p.status { font: 13px/1.4 sans-serif; color: #262626; margin: 0; }
p.status b { font-weight: 600; }
p.status.failed b { color: #b3261e; }
pre.code { font: 12.5px/1.5 monospace; background: #f7f7f7; padding: 12px 14px; margin: 0;
  border: 1px solid #e4e4e4; overflow-x: auto; }
h1 { font: 600 17px/1.2 sans-serif; margin: 0; color: #262626; }
h2 { font: 600 11px/1.2 sans-serif; margin: 6px 0 0 0; color: #6b6b6b; text-transform: uppercase;
  letter-spacing: 0.06em; }
"""


class Explorer(pn.viewable.Viewer):
    """What :func:`skajax.explore.widget` returns: Panel and notebooks show it."""

    def __init__(self, settings: Settings) -> None:
        """Sliders and menus stand as the settings say; the run starts when it is shown."""
        super().__init__()
        self.controls = _controls(settings)
        self.fourth = pn.widgets.Select(
            label="Fourth panel", options={n.replace("_", " "): n for n in FOURTH}, width=150,
            value="entropy_rate", css_classes=["fourth"], margin=(0, 5),
        )  # fmt: skip
        self.button = pn.widgets.Button(
            label="Cancel",
            color="primary",
            css_classes=["run"],
            width=SIDEBAR - 20,
            margin=(12, 10, 4, 10),
        )
        self.figure = _html("", ["figure"], margin=0, sizing_mode="stretch_width")
        self.status = _html("", ["status"], margin=(12, 5, 0, 5), sizing_mode="stretch_width")
        self.table = _html("", ["landmarks"], sizing_mode="stretch_width")
        self.code = _html("", ["code"], sizing_mode="stretch_width")
        download = pn.widgets.FileDownload
        self.script = download(
            callback=lambda: io.StringIO(self.runner.seen.code(self.fourth.value)), filename="run.py",
            label="Code", css_classes=["script"], width=SIDEBAR // 2 - 15, margin=(4, 5, 4, 10),
        )  # fmt: skip
        self.file = download(
            callback=self._saved, filename="run.nc", label="File", css_classes=["file"],
            width=SIDEBAR // 2 - 15, margin=(4, 10, 4, 5),
        )  # fmt: skip
        self.layout = self._lay_out()

        self.runner = Runner(settings)
        self.drawer = ThreadPoolExecutor(1, "skajax explore, figure")
        self.drawing: Future[bytes] | None = None
        self.drawn: Any = None
        self.clock = pn.state.add_periodic_callback(self._look, POLL, start=False)
        self.button.on_click(lambda _: self._cancel_or_run())
        self.fourth.param.watch(lambda _: self._wake(), "value")
        for name, widget in self.controls.items():
            throttled = "value_throttled" if hasattr(widget, "value_throttled") else "value"
            widget.param.watch(lambda _, name=name: self._changed(name), throttled)
        self._fit()
        if pn.state.curdoc is not None:
            pn.state.on_session_destroyed(lambda _: self.runner.cancel())
        pn.state.onload(self.run)

    def __panel__(self) -> Any:
        """The layout."""
        return self.layout

    def chosen(self) -> Settings:
        """The settings as sliders and menus stand. Raises ValueError where they do not go together."""
        value = {name: widget.value for name, widget in self.controls.items()}
        widths = tuple(value.pop(f"width{n}") for n in range(1, LAYERS_OFFERED + 1))
        return Settings(widths=widths[: value.pop("depth")], **value)

    def run(self) -> None:
        """Run what is chosen, instead of what runs."""
        self.runner.cancel()
        try:
            self.runner = Runner(self.chosen()).start()
        except ValueError as error:
            self.status.object = _status("failed", str(error))
            return
        self._wake()

    def _cancel_or_run(self) -> None:
        if self.runner.seen.going:
            self.runner.cancel()
            self._wake()
        else:
            self.run()

    def _changed(self, name: str) -> None:
        self._fit()
        self.run()

    def _fit(self) -> None:
        """Show what belongs to the choices that were made, and offer what goes with them."""
        value = {name: widget.value for name, widget in self.controls.items()}
        for n in range(1, LAYERS_OFFERED + 1):
            self.controls[f"width{n}"].visible = n <= value["depth"]
        self.controls["rtol"].visible = value["method"] == "adaptive"
        self.controls["dt"].visible = value["method"] != "adaptive"
        kinds = list(LAYERS) if DATA[value["data"]].patch else ["dense"]
        if self.controls["layer"].options != kinds:
            chosen = value["layer"] if value["layer"] in kinds else "dense"
            self.controls["layer"].param.update(options=kinds, value=chosen)

    def _wake(self) -> None:
        if not self.clock.running:
            self.clock.start()
        self._look()

    def _look(self) -> None:
        """Show what is new."""
        busy, seen = self.runner.busy, self.runner.seen
        self.button.label = "Cancel" if seen.going else "Run"
        self.button.color = "default" if seen.going else "primary"
        self.status.object = _status(*_told(seen))
        if self.drawing is not None and self.drawing.done():
            image, self.drawing = base64.b64encode(self.drawing.result()).decode(), None
            self.figure.object = (
                f'<img alt="Four observables over time" src="data:image/png;base64,{image}">'
            )
        wanted = (seen, self.fourth.value)
        if self.drawing is None and wanted != self.drawn and seen.run is not None:
            self.drawn = wanted
            self.table.object = _table(seen)
            self.code.object = (
                f'<pre class="code">{html.escape(seen.code(self.fourth.value))}</pre>'
            )
            self.drawing = self.drawer.submit(picture, *wanted)
        elif not busy and self.drawing is None:
            self.clock.stop()

    def _saved(self) -> io.BytesIO:
        """The run's file."""
        seen = self.runner.seen
        if seen.run is None:
            raise ValueError("there is no run yet")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.nc"
            seen.run.save(path, attrs={"seed": seen.settings.seed, "data": seen.settings.data})
            return io.BytesIO(path.read_bytes())

    def _lay_out(self) -> pn.Row:
        shown = self.controls
        part = lambda title, *names: [_html(f"<h2>{title}</h2>"), *(shown[name] for name in names)]
        widths = [f"width{n}" for n in range(1, LAYERS_OFFERED + 1)]
        side = pn.Column(
            _html("<h1>skajax explorer</h1>"),
            *part("Data", "data", "samples"),
            *part("Network", "layer", "depth", *widths, "scale", "seed"),
            *part("Run", "energy", "method", "rtol", "dt", "t1"),
            self.button,
            pn.Row(self.script, self.file, margin=0),
            width=SIDEBAR,
            margin=(10, 10),
        )
        view = pn.Column(self.figure, self.table, margin=0, sizing_mode="stretch_width")
        main = pn.Column(
            pn.Row(self.status, self.fourth, sizing_mode="stretch_width"),
            pn.Tabs(("Figures", view), ("Code", self.code), sizing_mode="stretch_width"),
            sizing_mode="stretch_width",
            max_width=1240,
            margin=(10, 10),
        )
        return pn.Row(side, main, sizing_mode="stretch_width")


def _controls(settings: Settings) -> dict[str, Any]:
    """Sliders and menus, by the settings' names."""
    widths = [*settings.widths, *[settings.widths[-1]] * LAYERS_OFFERED][:LAYERS_OFFERED]
    look = {"width": SIDEBAR - 20, "margin": (2, 10)}

    def slider(name: str, title: str, offered: Sequence[Any], value: Any) -> Any:
        options = sorted({*offered, value})
        return pn.widgets.DiscreteSlider(
            label=title, options=options, value=value, css_classes=[name], **look
        )

    def menu(name: str, title: str, options: Iterable[str], value: str) -> Any:
        return pn.widgets.Select(
            label=title, options=list(options), value=value, css_classes=[name], **look
        )

    return {
        "data": menu("data", "Set", DATA, settings.data),
        "samples": slider("samples", "At most so many samples", SAMPLES, settings.samples),
        "layer": menu("layer", "Kind of layers (the last is dense)", LAYERS, settings.layer),
        "depth": pn.widgets.IntSlider(
            label="Number of layers", start=1, end=LAYERS_OFFERED, value=len(settings.widths),
            css_classes=["depth"], **look,
        ),
        **{
            f"width{n}": slider(f"width{n}", f"Width of layer {n}", WIDTHS, width)
            for n, width in enumerate(widths, start=1)
        },
        "scale": slider("scale", "Deviation of first weights", SCALES, settings.scale),
        "seed": pn.widgets.IntSlider(
            label="Seed", start=0, end=max(31, settings.seed), value=settings.seed,
            css_classes=["seed"], **look,
        ),
        "energy": menu("energy", "Energy", ENERGIES, settings.energy),
        "method": menu("method", "Method", METHODS, settings.method),
        "rtol": slider("rtol", "Relative tolerance", RTOLS, settings.rtol),
        "dt": slider("dt", "Step dt", STEPS, settings.dt),
        "t1": slider("t1", "End time T", TIMES, settings.t1),
    }  # fmt: skip


def _html(text: str, classes: Sequence[str] = (), **options: Any) -> pn.pane.HTML:
    options = {"margin": (2, 10)} | options
    return pn.pane.HTML(text, stylesheets=[CSS], css_classes=list(classes), **options)


def picture(seen: Seen, fourth: str) -> bytes:
    """The figures as a PNG image, by a figure of its own: this may be any thread."""
    assert seen.run is not None
    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    predicted = None if seen.theory is None else seen.theory.peak
    axes = figure.subplots(2, 2)
    overview(seen.run, (*PANELS, fourth), predicted=predicted, axes=axes)
    for ax in axes.flat:
        ax.set_xlim(-0.02 * seen.settings.t1, 1.02 * seen.settings.t1)
    image = io.BytesIO()
    figure.savefig(image, dpi=DPI)
    return image.getvalue()


def _told(seen: Seen) -> tuple[str, str]:
    """The state of a run, and what is said of it."""
    t = 0.0 if seen.run is None else float(seen.run.t[-1])
    end = f"t = {t:.4g} of {seen.settings.t1:g}"
    said = {
        "compiling": "the first records come when the program is compiled",
        "running": end,
        "done": "" if seen.run is None else str(seen.run.stats.summary().sentences[0]),
        "cancelled": f"at {end}; code and file hold what there is",
        "failed": "",
    }[seen.state]
    return seen.state, "; ".join(part for part in (said, seen.words) if part)


def _status(state: str, words: str) -> str:
    kind = "failed" if state == "failed" else ""
    return f'<p class="status {kind}"><b>{state}</b>&ensp;{html.escape(words)}</p>'


def rows(seen: Seen) -> list[list[str]]:
    """Of each layer its landmarks and what is foreseen of them, as the table has them."""
    run, theory = seen.run, seen.theory
    assert run is not None
    layers = range(1, len(run.network.rows) + 1)
    peaks, minima = landmarks.peaks(run), landmarks.minima(run)
    crossings = [
        ", ".join(f"{c.t:.4g}" for c in landmarks.crossings(run) if c.layer == layer)
        for layer in layers
    ]
    H = np.asarray(run.entropy, float)

    def time(found: landmarks.Landmark) -> str:
        if found.interior:
            return f"{found.t:.4g}"
        return "at the start" if found.t == 0 else f"after {float(run.t[-1]):.4g}"

    def number(values: Any, layer: int) -> str:
        if theory is None or not np.isfinite(values(theory)[layer - 1]):
            return "–"
        value = values(theory)[layer - 1]
        return f"{value:.4g}" if value > 0 else f"{-value:.4g}, decaying"

    return [
        [
            str(layer),
            time(peaks[layer - 1]),
            number(lambda t: t.peak, layer),
            number(lambda t: t.growth, layer),
            time(minima[layer - 1]),
            crossings[layer - 1] or "–",
            f"{H[-1, layer - 1] / H[0, layer - 1]:.1%}",
        ]
        for layer in layers
    ]


HEAD = (
    "layer", "flow peaks at t", "predicted", "growth time 1/λ", "entropy falls fastest at t",
    "Tensor Net's rate is zero at t", "entropy left",
)  # fmt: skip


def _table(seen: Seen) -> str:
    found = rows(seen)
    head = "".join(f"<th>{title}</th>" for title in HEAD)
    body = ""
    for layer, row in enumerate(found, start=1):
        key = f'<i style="background: {layer_colour(layer, len(found))}"></i>'
        cells = [key + row[0], *row[1:]]
        body += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return f'<table class="landmarks"><tr>{head}</tr>{body}</table>'
