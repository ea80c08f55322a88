"""What is drawn is what was run: data, landmarks, colours and labels, read back off the figures."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

import skajax as ska
from skajax import landmarks, plot
from skajax.observables import BY_NAME, NAMES
from skajax.plot import _style

PER_LAYER = [name for name in NAMES if name != "output_mean"]
RATES = ["entropy_rate", "dissipation", "transport", "lagrangian"]
SIGNED = [n for n in PER_LAYER if n.startswith("tensor_net")] + RATES
RED, GREEN = _style.MINIMUM.colour, _style.CROSSING.colour


@pytest.fixture(autouse=True)
def headless(monkeypatch):
    """No window is opened, no setting changed, and no figure left."""
    plt.switch_backend("Agg")
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("a plot called show"))
    monkeypatch.setattr(plt.Figure, "show", lambda *_, **__: pytest.fail("a plot called show"))
    before = dict(mpl.rcParams)
    assert not plt.get_fignums()
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == before


def lay_out():
    """Places everything in every open figure: what does not fit warns, and warnings are errors."""
    for number in plt.get_fignums():
        plt.figure(number).draw_without_rendering()


def resized(run, layers, records):
    """The run with some of its first records, and its layers over again to make up their number."""
    sized = {name: jnp.tile(getattr(run, name), 4)[..., :records, :layers] for name in NAMES}
    return run.replace(t=run.t[..., :records], **sized)


def make(dt=0.1, method=ska.Published):
    x = jnp.asarray(np.random.default_rng(0).random((12, 7), np.float32))
    network = ska.mlp([6, 5, 3], scale=0.3)
    return ska.simulate(network, network.init(jax.random.key(2), x), x, method(dt), steps=60)


@pytest.fixture(scope="module")
def run():
    """A run of three layers with all landmarks: peaks, minima and crossings within it."""
    made = make()
    assert all(m.interior for m in landmarks.minima(made) + landmarks.peaks(made))
    assert len(landmarks.crossings(made)) >= 3
    return made


@pytest.fixture(scope="module")
def short_run(run):
    """Its records before any layer's entropy rate turns."""
    made = resized(run, 3, 7)
    assert not any(m.interior for m in landmarks.minima(made))
    return made


@pytest.fixture(scope="module")
def runs():
    """Five seeds."""
    x = jnp.asarray(np.random.default_rng(0).random((12, 7), np.float32))
    network = ska.mlp([6, 5, 3], scale=0.3)

    @jax.jit
    @jax.vmap
    def simulate(key):
        return ska.simulate(network, network.init(key, x), x, ska.Published(0.1), steps=40)

    return simulate(jax.random.split(jax.random.key(1), 5))


@pytest.fixture(scope="module")
def swept():
    """Six lanes over two axes, of the same five seeds: one of them is there twice."""
    x = jnp.asarray(np.random.default_rng(0).random((12, 7), np.float32))
    network = ska.mlp([6, 5, 3], scale=0.3)
    keys = jax.random.split(jax.random.key(1), 5)
    keys = [keys[n] for n in (0, 1, 2, 3, 4, 2)]
    weights = lambda seed, half: network.init(keys[seed + 3 * half], x)
    over = ska.grid(half=[0, 1], seed=range(3))
    return ska.sweep(network, weights, x, ska.Published(0.1), steps=40, over=over)


ONE = {
    "history": plot.history,
    "heatmap": plot.heatmap,
    "output_mean": plot.output_mean,
    "phase_portrait": plot.phase_portrait,
}
PANELS = {
    "flow_against_knowledge": plot.flow_against_knowledge,
    "tensor_net_against_knowledge": plot.tensor_net_against_knowledge,
    "comparison": lambda run, **options: plot.comparison({"a run": run}, **options),
}


def curve(ax, label):
    (line,) = [line for line in ax.lines if line.get_label() == label]
    return line


def marks(ax, colour, *, hollow=False):
    """Coordinates of the landmarks in this colour."""
    found = []
    for line in ax.lines:
        filled = line.get_markerfacecolor() == colour
        edged = line.get_markeredgecolor() == colour and line.get_markerfacecolor() == "white"
        if line.get_linestyle() == "None" and (edged if hollow else filled):
            found += zip(*line.get_data(), strict=True)
    return np.array(sorted(found)).reshape(-1, 2)


def expected_marks(found, x, y):
    return np.array(sorted((x(f), y(f)) for f in found)).reshape(-1, 2)


def legend_texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def test_public_names():
    assert set(plot.__all__) == {
        *("STYLE", "animate", "attention", "comparison", "convergence", "ensemble"),
        *("families", "flow_against_knowledge", "graph", "heatmap", "history", "invariance"),
        *(
            "costs",
            "maps",
            "net_phases",
            "output_mean",
            "overview",
            "phase_portrait",
            "precision",
            "predicted_times",
            "rules",
            "separation",
        ),
        *("step_sizes", "tensor_net_against_knowledge", "work_precision"),
    }
    assert ska.plot is plot


def test_figures_of_ones_own_look_as_these_do(run):
    """The colours, dashes and widths of layers, and axes without a box."""
    with plt.rc_context(plot.STYLE):
        _, (mine, theirs) = plt.subplots(1, 2)
        for column in np.asarray(run.flow_norm).T:
            mine.plot(run.t, column)
        plot.history(run, ax=theirs)
    look = lambda line: (line.get_color(), line._unscaled_dash_pattern, line.get_linewidth())
    assert [look(line) for line in mine.lines] == [look(line) for line in theirs.lines[:3]]
    assert [side for side, spine in mine.spines.items() if spine.get_visible()] == [
        "left",
        "bottom",
    ]
    plt.close("all")


class TestAxes:
    @pytest.mark.parametrize("name", ONE)
    def test_one_axes_given_is_returned(self, run, name):
        figure, ax = plt.subplots(layout="constrained")
        assert ONE[name](run, ax=ax) is ax
        lay_out()
        assert plt.get_fignums() == [figure.number]

    @pytest.mark.parametrize("name", PANELS)
    @pytest.mark.parametrize("shape", ["list", "grid"])
    def test_panels_given_are_returned(self, run, name, shape):
        figure, grid = plt.subplots(3, 1, squeeze=False, layout="constrained")
        given = grid if shape == "grid" else list(grid.flat)
        axes = PANELS[name](run, axes=given)
        assert isinstance(axes, np.ndarray)
        assert axes.shape == (3,)
        assert all(ax is its for ax, its in zip(axes, grid.flat, strict=True))
        assert plt.get_fignums() == [figure.number]
        assert all(ax.get_xlabel() and ax.get_ylabel() for ax in axes)
        lay_out()

    @pytest.mark.parametrize(("depth", "records"), [(1, 1), (9, 3)])
    def test_any_number_of_layers_and_records(self, run, depth, records):
        made = resized(run, depth, records)
        for draw in ONE.values():
            ax = draw(made)
            assert isinstance(ax, plt.Axes)
        for draw in PANELS.values():
            axes = draw(made)
            assert axes.shape == (depth,)
            assert [ax.get_title("left") for ax in axes] == [
                f"layer {n}" for n in range(1, depth + 1)
            ]
            assert axes[-1].get_xlabel()
            assert axes[0].get_ylabel()
        lay_out()

    def test_layouts_without_constraint_and_axes_with_log_scale(self, run):
        _, axes = plt.subplots(1, 3)
        plot.flow_against_knowledge(run, axes=axes)
        _, ax = plt.subplots()
        ax.set_yscale("log")
        formatter = ax.yaxis.get_major_formatter()
        plot.history(run, "knowledge_norm", ax=ax)
        assert ax.get_yscale() == "log"
        assert ax.yaxis.get_major_formatter() is formatter


class TestHistory:
    @pytest.mark.parametrize("observable", PER_LAYER)
    def test_draws_the_observable(self, run, observable):
        ax = plot.history(run, observable)
        values = np.array(getattr(run, observable), float)
        if observable == "alignment":  # undefined where nothing flows: the published first record
            assert np.all(np.asarray(run.flow_norm)[0] == 0)
            values[0] = np.nan
        for layer in (1, 2, 3):
            line = curve(ax, f"layer {layer}")
            np.testing.assert_array_equal(line.get_xdata(), np.asarray(run.t, float))
            np.testing.assert_array_equal(line.get_ydata(), values[:, layer - 1])
        what = BY_NAME[observable]
        text, symbol, unit = what.label, what.symbol, what.unit
        assert symbol in ax.get_ylabel()
        assert text.split(",")[0] in ax.get_ylabel()
        assert (unit == "1") != (f"({unit})" in ax.get_ylabel())
        assert ax.get_xlabel() == "time $t$"
        lay_out()

    def test_passes(self, run):
        ax = plot.history(run, against="K")
        np.testing.assert_allclose(curve(ax, "layer 2").get_xdata(), np.arange(1, 60), rtol=1e-6)
        assert "0.1" in ax.get_xlabel()
        assert "K" in ax.get_xlabel()

    def test_passes_of_a_method_without_steps_are_the_papers(self, run):
        adaptive = run.replace(parameters={"rtol": jnp.asarray(1e-3)})
        line = curve(plot.history(adaptive, against="K"), "layer 1")
        np.testing.assert_allclose(line.get_xdata(), 1 + np.asarray(run.t, float) / 0.01)

    @pytest.mark.parametrize("against", ["time", "K"])
    @pytest.mark.parametrize(
        ("observable", "colour", "find"),
        [
            ("flow_norm", _style.PEAK.colour, landmarks.peaks),
            ("entropy_rate", RED, landmarks.minima),
            ("tensor_net_rate", GREEN, landmarks.crossings),
            ("tensor_net", GREEN, landmarks.crossings),
            ("tensor_net_rate_equation", GREEN, landmarks.crossings),
        ],
    )
    def test_marks_the_observables_own_landmarks(self, run, observable, colour, find, against):
        ax = plot.history(run, observable, against=against)
        place = {"time": lambda f: f.t, "K": lambda f: f.K}[against]
        expected = expected_marks(find(run, observable), place, lambda f: f.value)
        np.testing.assert_allclose(marks(ax, colour), expected)
        for other in {_style.PEAK.colour, RED, GREEN} - {colour}:
            assert not len(marks(ax, other))

    @pytest.mark.parametrize("observable", ["knowledge_norm", "entropy", "lagrangian", "alignment"])
    def test_marks_nothing_else(self, run, observable):
        lines = plot.history(run, observable).lines
        assert not [line for line in lines if line.get_linestyle() == "None"]

    def test_extremum_at_the_edge_is_hollow(self, short_run):
        ax = plot.history(short_run, "entropy_rate")
        expected = expected_marks(
            landmarks.minima(short_run), lambda f: f.t, lambda f: float(f.value)
        )
        np.testing.assert_allclose(marks(ax, RED, hollow=True), expected)
        assert not len(marks(ax, RED))
        assert any("edge" in text for text in legend_texts(ax.get_legend()))

    @pytest.mark.parametrize("observable", SIGNED)
    def test_signed_quantities_have_a_zero_line(self, run, observable):
        lines = plot.history(run, observable).lines
        assert any(np.all(np.asarray(line.get_ydata()) == 0) for line in lines)

    def test_crossings_have_an_edge_in_their_layers_colour(self, run):
        ax = plot.history(run, "tensor_net_rate")
        for f in landmarks.crossings(run):
            (mark,) = [
                line for line in ax.lines
                if line.get_linestyle() == "None" and np.any(np.isclose(line.get_xdata(), f.t, rtol=1e-12))
            ]  # fmt: skip
            assert to_hex(mark.get_markeredgecolor()) == _style.layer_colour(f.layer, 3).lower()
        assert legend_texts(ax.get_legend()).count(_style.CROSSING.text) == 1

    def test_a_second_run_on_the_same_axes_is_told_apart(self, run, short_run):
        ax = plot.history(run)
        plot.history(short_run, ax=ax)
        first, second = curve(ax, "layer 2"), curve(ax, "layer 2, run 2")
        assert first.get_alpha() is None and second.get_alpha() == 0.5
        assert first.get_color() == second.get_color()
        assert "layer 3, run 2" in legend_texts(ax.get_legend())

    def test_one_record_is_visible(self, run):
        line = curve(plot.history(resized(run, 1, 1), "entropy"), "layer 1")
        assert len(line.get_xdata()) == 1
        assert line.get_marker() == "o"

    def test_draws_up_to_a_failure(self, run):
        failed = after_failure(run, 20)
        line = curve(plot.history(failed, "entropy"), "layer 1")
        np.testing.assert_array_equal(line.get_ydata(), np.asarray(run.entropy, float)[:20, 0])
        for draw in (*ONE.values(), *PANELS.values()):
            draw(failed)


def after_failure(run, first):
    """The run as vmap would leave it, had record ``first`` overflowed: NaN from there."""
    spoilt = {
        name: jnp.asarray(getattr(run, name)).at[..., first:, :].set(jnp.nan) for name in NAMES
    }
    return run.replace(**spoilt)


class TestComparison:
    def test_draws_every_run_and_the_reference(self, run):
        coarse, reference = make(dt=0.3), make(method=ska.Euler)
        named = {"coarse": coarse, "fine": run}
        for observable in ("entropy_rate", "knowledge_norm"):
            axes = plot.comparison(named, observable, reference=reference)
            for column, ax in enumerate(axes):
                for name, its in {**named, "ODE limit": reference}.items():
                    line = curve(ax, name)
                    values = np.asarray(getattr(its, observable), float)[:, column]
                    np.testing.assert_array_equal(line.get_xdata(), np.asarray(its.t, float))
                    np.testing.assert_array_equal(line.get_ydata(), values)
                assert to_hex(curve(ax, "ODE limit").get_color()) == "#000000"
                assert curve(ax, "ODE limit").is_dashed()
            (legend,) = axes[0].figure.legends
            assert legend_texts(legend) == ["coarse", "fine", "ODE limit"]
            assert BY_NAME[observable].symbol in axes[0].get_ylabel()
        assert axes[0].get_ylabel().endswith(r"$\Vert Z\Vert_F$")

    def test_finer_steps_are_darker_whatever_the_order(self):
        steps = {"b": 0.1, "d": 0.3, "a": 0.05, "c": 0.2}
        axes = plot.comparison({name: make(dt) for name, dt in steps.items()})
        light = [
            np.dot(to_rgb(curve(axes[0], name).get_color()), (0.3, 0.6, 0.1)) for name in "abcd"
        ]
        assert light == sorted(light)
        assert min(np.diff(light)) > 0.1


class TestAgainstKnowledge:
    def test_flow(self, run):
        axes = plot.flow_against_knowledge(run)
        for column, ax in enumerate(axes):
            dots = ax.collections[0]
            drawn = np.column_stack([run.knowledge_norm[:, column], run.flow_norm[:, column]])
            np.testing.assert_allclose(dots.get_offsets(), drawn)
            np.testing.assert_array_equal(dots.get_array(), np.asarray(run.t, float))
            minimum = landmarks.minima(run)[column]
            flow = np.interp(minimum.t, run.t, run.flow_norm[:, column])
            np.testing.assert_allclose(marks(ax, RED), [[minimum.knowledge_norm, flow]])
        assert "(1/time)" in axes[0].get_ylabel()

    def test_time_runs_from_dark_to_light(self, run):
        dots = plot.flow_against_knowledge(run)[0].collections[0]
        light = dots.to_rgba(np.asarray(run.t))[:, :3] @ (0.3, 0.6, 0.1)
        assert np.all(np.diff(light) >= 0)
        assert light[-1] - light[0] > 0.3

    @pytest.mark.parametrize("observable", ["tensor_net_rate", "tensor_net", "tensor_net_equation"])
    def test_tensor_net(self, run, observable):
        axes = plot.tensor_net_against_knowledge(run, observable=observable)
        values, t = np.asarray(getattr(run, observable), float), np.asarray(run.t, float)
        for column, ax in enumerate(axes):
            Z = np.asarray(run.knowledge_norm, float)[:, column]
            drawn = ax.collections[0].get_offsets()
            np.testing.assert_array_equal(drawn, np.column_stack([Z, values[:, column]]))
            crossed = [c for c in landmarks.crossings(run, observable) if c.layer == column + 1]
            expected = expected_marks(crossed, lambda c: c.knowledge_norm, lambda c: 0.0)
            np.testing.assert_allclose(marks(ax, GREEN), expected, atol=1e-6 * np.ptp(values))
            minimum = landmarks.minima(run)[column]
            net = np.interp(minimum.t, t, values[:, column])
            np.testing.assert_allclose(marks(ax, RED), [[minimum.knowledge_norm, net]])
            assert any(np.all(np.asarray(line.get_ydata()) == 0) for line in ax.lines)
        sign = "equation's sign" if observable.endswith("equation") else "published sign"
        assert sign in axes[0].get_ylabel()

    def test_phase_portrait(self, run):
        ax = plot.phase_portrait(run)
        for layer in (1, 2, 3):
            Z, flow = (
                np.asarray(a, float)[:, layer - 1] for a in (run.knowledge_norm, run.flow_norm)
            )
            line = curve(ax, f"layer {layer}")
            np.testing.assert_allclose(line.get_xdata(), Z / Z.max())
            np.testing.assert_allclose(line.get_ydata(), flow / flow.max())
        assert len(marks(ax, RED)) == 3

    def test_arrows_point_forward_in_time(self, run):
        made = resized(run, 1, 60)
        ax = plot.phase_portrait(made)
        Z = np.asarray(made.knowledge_norm, float)[:, 0]
        assert np.all(np.diff(Z[1:]) > 0)  # so that forward in time is to the right
        assert len(ax.texts) == 2
        assert all(arrow.xy[0] > arrow.xyann[0] for arrow in ax.texts)


class TestHeatmap:
    def test_rows_over_their_largest(self, run):
        ax = plot.heatmap(run)
        values = np.asarray(run.entropy_rate, float)
        mesh = ax.collections[0]
        largest = np.abs(values).max(axis=0)
        np.testing.assert_allclose(mesh.get_array(), (values / largest).T)
        assert mesh.get_clim() == (-1, 1)
        names = [label.get_text() for label in ax.get_yticklabels()]
        assert [name.split("\n")[0] for name in names] == ["layer 1", "layer 2", "layer 3"]
        assert all(name.endswith(" bit/time") for name in names)
        assert f"±{largest[0]:.2g} " in names[0]
        assert ax.get_ylim() == (3.5, 0.5)

    def test_cells_are_centred_on_the_records(self, run):
        edges = plot.heatmap(run).collections[0].get_coordinates()[0, :, 0]
        np.testing.assert_allclose((edges[1:] + edges[:-1]) / 2, run.t, atol=1e-6)

    @pytest.mark.parametrize("observable", ["entropy_rate", "entropy"])
    def test_values_as_they_are(self, run, observable):
        ax = plot.heatmap(run, observable, normalise=False)
        values = np.asarray(getattr(run, observable), float)
        mesh = ax.collections[0]
        np.testing.assert_array_equal(mesh.get_array(), values.T)
        top = np.abs(values).max()
        assert mesh.get_clim() == pytest.approx((-top if observable == "entropy_rate" else 0, top))
        (bar,) = ax.child_axes
        assert f"({BY_NAME[observable].unit})" in bar.get_ylabel()

    def test_alignment_is_a_cosine(self, run):
        mesh = plot.heatmap(run, "alignment").collections[0]
        assert mesh.get_clim() == (-1, 1)
        drawn = mesh.get_array()
        assert np.all(drawn.mask[:, 0])
        np.testing.assert_array_equal(drawn[:, 1:], np.asarray(run.alignment, float)[1:].T)

    @pytest.mark.parametrize("draw", [plot.heatmap, plot.history])
    def test_alignment_of_a_record_without_flow_is_blank(self, run, draw):
        ax = draw(resized(run, 3, 1), "alignment")
        lay_out()
        assert not len(ax.texts)

    def test_zero_is_white_and_signs_are_written(self, run):
        ax = plot.heatmap(run, "tensor_net_rate")
        mesh = ax.collections[0]
        assert min(mesh.to_rgba(0.0)[:3]) > 0.95
        drawn = mesh.get_array()
        assert {text.get_text() for text in ax.texts} == {"+", "−"}
        for text in ax.texts:
            t, row = text.get_position()
            value = np.interp(t, run.t, drawn[round(row + 0.27) - 1])
            assert (text.get_text() == "+") == (value > 0)

    def test_landmarks(self, run):
        red = marks(plot.heatmap(run), RED)
        np.testing.assert_allclose(
            red, expected_marks(landmarks.minima(run), lambda f: f.t, lambda f: f.layer)
        )
        green = marks(plot.heatmap(run, "tensor_net_rate"), GREEN)
        np.testing.assert_allclose(
            green, expected_marks(landmarks.crossings(run), lambda f: f.t, lambda f: f.layer)
        )


class TestOverview:
    def test_panels_are_histories_that_share_a_legend(self, run):
        names = ("flow_norm", "tensor_net_rate", "entropy_rate")
        axes = plot.overview(run, names, predicted=[0.5, float("nan"), 1.25])
        figure = axes[0].figure
        (legend,) = figure.legends
        texts = legend_texts(legend)
        assert len(set(texts)) == len(texts) and not any(ax.get_legend() for ax in axes)
        assert {"layer 1", "layer 3", "flow peak", "zero crossing", "flow peak, predicted"} <= {
            *texts
        }
        for ax, name in zip(axes, names, strict=True):
            alone = plot.history(run, name)
            for label in ("layer 1", "layer 2", "layer 3"):
                np.testing.assert_array_equal(
                    curve(ax, label).get_data(), curve(alone, label).get_data()
                )
            for colour in (_style.INK, RED, GREEN):
                np.testing.assert_array_equal(marks(ax, colour), marks(alone, colour))
        dotted = lambda ax: [
            (n.get_xdata()[0], n.get_color())
            for n in ax.lines
            if n.get_linestyle() == ":" and len(n.get_xdata())
        ]
        colours = [_style.layer_colour(layer, 3) for layer in (1, 3)]
        at = [place for place in dotted(axes[0]) if place[1] in colours]
        assert at == [(0.5, colours[0]), (1.25, colours[1])]
        assert dotted(axes[1]) == [] and dotted(axes[2]) == []
        lay_out()

    def test_among_other_axes_the_legend_is_in_the_last_panel(self, run):
        figure, axes = plt.subplots(1, 3, layout="constrained")
        plot.overview(run, ("flow_norm", "entropy"), axes=axes[:2])
        assert not figure.legends and axes[0].get_legend() is None and axes[1].get_legend()

    def test_many_layers_have_one_bar(self, run):
        axes = plot.overview(resized(run, 9, 3))
        figure = axes[0].figure
        assert len(figure.axes) == 5 and figure.axes[4].get_ylabel() == "layer"
        assert not any(text.startswith("layer") for text in legend_texts(figure.legends[0]))
        lay_out()

    def test_what_does_not_fit_is_refused(self, run):
        with pytest.raises(
            ValueError, match="predicted must hold one time for each of the 3 layers"
        ):
            plot.overview(run, predicted=[1.0])
        with pytest.raises(ValueError, match="observables must hold at least one"):
            plot.overview(run, ())
        with pytest.raises(ValueError, match="observable must be one of"):
            plot.overview(run, ("flow",))


def test_output_mean(run):
    ax = plot.output_mean(run)
    values = np.asarray(run.output_mean, float)
    for neuron in range(3):
        np.testing.assert_array_equal(curve(ax, f"{neuron}").get_ydata(), values[:, neuron])
    ranked = [int(text) for text in legend_texts(ax.get_legend())]
    assert np.all(np.diff(values[-1, ranked]) <= 0)
    plot.output_mean(resized(run, 12, 3))


class TestEnsemble:
    @pytest.mark.parametrize("observable", ["flow_norm", "tensor_net_rate", "alignment"])
    def test_median_and_bands(self, runs, observable):
        ax = plot.ensemble(runs, observable)
        values = np.array(getattr(runs, observable), float)
        start = int(observable == "alignment")
        bands = [collection.get_datalim(ax.transData) for collection in ax.collections]
        for column in range(3):
            quantiles = np.quantile(values[..., column], [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
            line = curve(ax, f"layer {column + 1}")
            np.testing.assert_array_equal(line.get_xdata(), np.asarray(runs.t, float)[0])
            np.testing.assert_allclose(line.get_ydata()[start:], quantiles[2, start:])
            for band, low, high in (
                (bands[2 * column], quantiles[0], quantiles[4]),
                (bands[2 * column + 1], quantiles[1], quantiles[3]),
            ):
                assert band.y0 == pytest.approx(low[start:].min())
                assert band.y1 == pytest.approx(high[start:].max())
        assert any("5 runs" in text for text in legend_texts(ax.get_legend()))

    def test_failed_lanes_count_up_to_their_failure(self, runs):
        lane = after_failure(jax.tree.map(lambda leaf: leaf[0], runs), 10)
        lane = eqx.tree_at(lambda r: r.outcome.code, lane, jnp.ones_like(lane.outcome.code))
        spoilt = jax.tree.map(lambda a, b: a.at[0].set(b), runs, lane)
        ax = plot.ensemble(spoilt, "entropy")
        values = np.asarray(runs.entropy, float)[..., 0]
        median = np.concatenate([np.median(values[:, :10], 0), np.median(values[1:, 10:], 0)])
        np.testing.assert_allclose(curve(ax, "layer 1").get_ydata(), median)
        assert any("5 runs, 1 failed" in text for text in legend_texts(ax.get_legend()))

    def test_many_layers(self, runs):
        ax = plot.ensemble(resized(runs, 9, 4))
        lay_out()
        assert any("5 runs" in text for text in legend_texts(ax.get_legend()))

    def test_a_sweep_is_an_ensemble(self, runs, swept):
        """The same lanes by vmap and by a sweep over two axes draw the same."""
        runs = jax.tree.map(lambda leaf: leaf[jnp.array([0, 1, 2, 3, 4, 2])], runs)
        for draw in (plot.ensemble, plot.history):
            by_vmap, by_sweep = draw(runs, "alignment"), draw(swept, "alignment")
            for layer in (1, 2, 3):
                want, found = (curve(ax, f"layer {layer}") for ax in (by_vmap, by_sweep))
                np.testing.assert_allclose(found.get_data(), want.get_data(), rtol=1e-4)
            assert legend_texts(by_sweep.get_legend()) == legend_texts(by_vmap.get_legend())
        assert "0.1$" in plot.history(swept, against="K").get_xlabel()

    def test_a_sweep_on_common_times_is_one_too(self, swept):
        """At the records' own times nothing is interpolated: the same curves."""
        moved = ska.on_times(swept, swept.t.values.reshape(-1, swept.sizes["record"])[0])
        for draw in (plot.ensemble, plot.history):
            axes = [draw(data, "entropy") for data in (swept, moved)]
            for layer in (1, 2):
                want, found = (curve(ax, f"layer {layer}") for ax in axes)
                np.testing.assert_allclose(found.get_data(), want.get_data(), rtol=1e-5)

    def test_one_lane_of_a_sweep_is_a_curve(self, runs, swept):
        ax = plot.history(swept.isel(seed=0, half=0))
        assert len(ax.collections) == 0
        values = np.asarray(runs.flow_norm, float)[0, :, 1]
        np.testing.assert_allclose(curve(ax, "layer 2").get_ydata(), values, rtol=1e-4)

    def test_failed_lanes_of_a_sweep_are_counted(self, swept):
        spoilt = swept.copy(deep=True)
        spoilt["outcome_code"][0, 1] = 1
        spoilt["flow_norm"][0, 1, 10:] = np.nan
        ax = plot.ensemble(spoilt)
        assert any("6 runs, 1 failed" in text for text in legend_texts(ax.get_legend()))
        assert np.isfinite(curve(ax, "layer 1").get_ydata()).all()

    @pytest.mark.parametrize(
        "name", ["flow_against_knowledge", "tensor_net_against_knowledge", "comparison"]
    )
    def test_panels_of_an_ensemble(self, runs, name):
        observable = {
            "tensor_net_against_knowledge": "tensor_net_rate", "comparison": "entropy_rate",
        }.get(name, "flow_norm")  # fmt: skip
        axes = PANELS[name](runs)
        lay_out()
        values = np.asarray(getattr(runs, observable), float)
        for column, ax in enumerate(axes):
            line = next(line for line in ax.lines if len(line.get_xdata()) == 39)
            np.testing.assert_allclose(line.get_ydata(), np.median(values[..., column], axis=0))
            outer = ax.collections[0].get_datalim(ax.transData)
            low, high = np.quantile(values[..., column], [0.05, 0.95], axis=0)
            assert (outer.y0, outer.y1) == pytest.approx((low.min(), high.max()))
        key = axes[0].figure.legends[0]
        assert any("5 runs" in text for text in legend_texts(key))

    def test_the_plane_of_an_ensemble(self, runs):
        ax = plot.phase_portrait(runs)
        Z, flow = (np.asarray(a, float) for a in (runs.knowledge_norm, runs.flow_norm))
        line = curve(ax, "layer 2")
        for found, values in zip(line.get_data(), (Z, flow), strict=True):
            scaled = values[..., 1] / values[..., 1].max(axis=1, keepdims=True)
            np.testing.assert_allclose(found, np.median(scaled, axis=0))
        lay_out()

    def test_output_means_of_an_ensemble(self, runs):
        ax = plot.output_mean(runs)
        values = np.median(np.asarray(runs.output_mean, float), axis=0)
        np.testing.assert_allclose(curve(ax, "1").get_ydata(), values[:, 1])
        shown = [text for text in legend_texts(ax.get_legend()) if text.isdigit()]
        assert shown == [str(n) for n in np.argsort(-values[-1])]


class TestConvergence:
    dts = np.array([0.02, 0.005, 0.01])

    def test_draws_errors_by_step_and_first_order(self):
        errors = {"layer 1": np.array([0.2, 0.05, 0.11]), "layer 2": np.array([0.3, np.nan, 0.1])}
        ax = plot.convergence(self.dts, errors)
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        line = curve(ax, "layer 1")
        np.testing.assert_array_equal(line.get_xdata(), [0.005, 0.01, 0.02])
        np.testing.assert_array_equal(line.get_ydata(), [0.05, 0.11, 0.2])
        (guide,) = [line for line in ax.lines if "first order" in line.get_label()]
        x, y = guide.get_data()
        assert np.ptp(np.log(y)) / np.ptp(np.log(x)) == pytest.approx(1)

    def test_errors_of_many_runs(self):
        many = np.random.default_rng(0).uniform(0.1, 0.2, (7, 3))
        many[2, 1] = np.nan
        ax = plot.convergence(self.dts, {"layer 1": many, "layer 2": many[0]})
        median = np.nanmedian(many, axis=0)
        np.testing.assert_allclose(curve(ax, "layer 1").get_ydata(), median[[1, 2, 0]])
        assert len(ax.collections) == 2  # two bands, of the first alone
        assert any("7 runs" in text for text in legend_texts(ax.get_legend()))
        lay_out()

    def test_lists_many_decades_and_no_errors_at_all(self):
        plot.convergence([1e-4, 1e-2], {"a": [1e-9, 1e-1]})
        plot.convergence([0.1, 0.2], {"a": [float("nan")] * 2})
        _, ax = plt.subplots(layout="constrained")
        assert plot.convergence([0.1], {"a": [0.5]}, ax=ax) is ax

    @pytest.mark.parametrize(
        ("dts", "errors", "argument"),
        [
            ([0.1, -0.1], {"a": [1.0, 1.0]}, "dts"),
            ([0.1, 0.2], {}, "errors"),
            ([0.1, 0.2], {"a": [1.0]}, r"errors\['a'\]"),
            ([0.1, 0.2], {"a": [1.0, 0.0]}, r"errors\['a'\]"),
        ],
    )
    def test_refuses(self, dts, errors, argument):
        with pytest.raises(ValueError, match=f"Argument {argument} must .*, but .*"):
            plot.convergence(dts, errors)


class TestColours:
    def test_a_layer_is_the_same_in_every_figure(self, run, runs):
        figures = [plot.history(run), plot.history(run, "entropy"), plot.phase_portrait(run)]
        titles = plot.flow_against_knowledge(run)
        for layer in (1, 2, 3):
            lines = [curve(ax, f"layer {layer}") for ax in (*figures, plot.ensemble(runs))]
            assert {to_hex(line.get_color()) for line in lines} == {
                _style.layer_colour(layer, 3).lower()
            }
            assert len({line.get_linestyle() for line in lines}) == 1
            title = titles[layer - 1]._left_title.get_color()
            assert title == _style.layer_colour(layer, 3)

    def test_the_number_of_layers_changes_no_colour(self):
        for layer in range(1, 9):
            same = {_style.layer_colour(layer, layers) for layers in range(layer, 9)}
            assert len(same) == 1

    @pytest.mark.parametrize("layers", [8, 9, 40])
    def test_layers_differ_in_colour(self, layers):
        assert len({_style.layer_colour(n, layers) for n in range(1, layers + 1)}) == layers

    def test_layers_differ_in_dashes_for_print_in_greys(self):
        assert len({str(_style.layer_line(n, 8)["linestyle"]) for n in range(1, 9)}) == 8

    @pytest.mark.parametrize("sight", ["normal", "protan", "deutan", "tritan"])
    def test_layers_differ_to_colour_blind_eyes(self, sight):
        colours = [lab(_style.layer_colour(n, 8), sight) for n in range(1, 9)]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(colours, 2)) > 23

    def test_red_and_green_are_kept_for_landmarks(self):
        for landmark in (RED, GREEN):
            distances = [
                np.linalg.norm(lab(_style.layer_colour(n, 8), "normal") - lab(landmark, "normal"))
                for n in range(1, 9)
            ]
            assert min(distances) > 40
        assert _style.MINIMUM.marker != _style.CROSSING.marker


SIGHT = {  # Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
    "normal": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def lab(colour, sight):
    """CIELAB of a colour as it is seen."""
    c = np.array(to_rgb(colour))
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(SIGHT[sight]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ seen / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


class TestRefusals:
    def test_a_batch_where_one_run_is_wanted(self, runs):
        with pytest.raises(ValueError, match=r"Argument runs?.* must be one run, but .*\(5, 39\)"):
            plot.heatmap(runs)

    def test_one_run_where_a_batch_is_wanted(self, run):
        with pytest.raises(ValueError, match="Argument runs must be a batch of runs"):
            plot.ensemble(run)

    def test_lanes_at_different_times(self, runs):
        uneven = runs.replace(t=runs.t * jnp.arange(1.0, 6.0)[:, None])
        with pytest.raises(ValueError, match="Argument runs must be recorded at the same times"):
            plot.ensemble(uneven)

    @pytest.mark.parametrize("observable", ["temperature", "output_mean"])
    def test_unknown_observables(self, run, runs, observable):
        draws = [
            lambda: plot.history(run, observable),
            lambda: plot.heatmap(run, observable),
            lambda: plot.comparison({"a": run}, observable),
            lambda: plot.ensemble(runs, observable),
            lambda: plot.tensor_net_against_knowledge(run, observable=observable),
        ]
        for draw in draws:
            with pytest.raises(
                ValueError, match=f"Argument observable must be one of .*{observable}"
            ):
                draw()

    def test_tensor_net_of_something_else(self, run):
        with pytest.raises(ValueError, match=r"Argument observable must be one of .*tensor_net"):
            plot.tensor_net_against_knowledge(run, observable="entropy")

    def test_against_neither_time_nor_passes(self, run):
        with pytest.raises(ValueError, match="Argument against must be 'time' or 'K'"):
            plot.history(run, against="steps")

    def test_no_runs(self):
        with pytest.raises(ValueError, match="Argument runs must hold at least one run"):
            plot.comparison({})

    def test_runs_of_different_depth(self, run):
        with pytest.raises(ValueError, match="Argument runs must have equally many layers"):
            plot.comparison({"a": run, "b": resized(run, 1, 3)})
        with pytest.raises(ValueError, match="Argument runs must have equally many layers"):
            plot.comparison({"a": run}, reference=resized(run, 1, 3))

    def test_a_run_of_nothing_finite(self, run):
        with pytest.raises(ValueError, match="Argument run must have at least one finite record"):
            plot.history(after_failure(run, 0))

    @pytest.mark.parametrize("name", PANELS)
    def test_wrong_number_of_axes(self, run, name):
        _, axes = plt.subplots(1, 2)
        with pytest.raises(ValueError, match=r"Argument axes must .* 3 layers, but there were 2"):
            PANELS[name](run, axes=axes)

    def test_axes_of_several_figures_with_one_colour_bar(self, run):
        axes = [plt.figure().add_subplot() for _ in range(3)]
        with pytest.raises(ValueError, match="Argument axes must share a figure"):
            plot.flow_against_knowledge(run, axes=axes)


class TestStepSizes:
    def test_steps_and_flow_are_drawn_as_they_are(self):
        network = ska.mlp([5, 3], scale=0.3)
        x = jax.random.uniform(jax.random.key(0), (8, 6))
        weights = network.init(jax.random.key(1), x)
        result = ska.simulate(network, weights, x, ska.Adaptive(dt0=3.0), 4.0)  # rejected at first
        above, below = axes = plot.step_sizes(result)
        assert axes.shape == (2,) and above.get_yscale() == "log"
        stairs = above.patches[0].get_data()
        np.testing.assert_allclose(stairs.edges, result.path.t)
        np.testing.assert_allclose(stairs.values, np.diff(result.path.t), rtol=1e-5)
        (crosses,) = above.lines
        assert len(crosses.get_xdata()) == int((np.asarray(result.path.rejected) > 0).sum()) > 0
        for layer, line in enumerate(below.lines):
            flow = np.asarray(result.flow_norm[:, layer])
            np.testing.assert_allclose(line.get_ydata(), flow / flow.max(), rtol=1e-5)
        _, given = plt.subplots(2)
        assert plot.step_sizes(result, axes=given)[0] is given[0]

    def test_other_runs_have_none(self):
        network = ska.mlp([2])
        x = jnp.ones((3, 2))
        weights = network.init(jax.random.key(0), x)
        with pytest.raises(ValueError, match="Argument run must be an adaptive one"):
            plot.step_sizes(ska.simulate(network, weights, x, ska.Euler(0.1), steps=2))
