"""Figures of layers with space draw the run's own numbers: maps, animations, attention, graphs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import networkx
import numpy as np
import pytest
from matplotlib.animation import PillowWriter
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgba
from PIL import Image
from test_plot import headless, lay_out  # noqa: F401

import skajax as ska
from skajax import landmarks, plot
from skajax.plot import _style

METHOD = ska.Adaptive(rtol=1e-3, atol=1e-4)
WHAT = ["knowledge", "flow", "decisions"]
EDGES = [[0, 1], [1, 2], [2, 0], [2, 3]]


def random(*shape):
    return jnp.asarray(np.random.default_rng(7).random(shape, np.float32))


@pytest.fixture(scope="module")
def images():
    """A run of a convolution on 3 images of 5 x 4, z (3, 4, 3, 5), below a dense layer; its x."""
    x = random(3, 5, 4, 1)
    conv = ska.layers.Conv(5, (2, 2), scale=0.3)
    network = ska.Network((conv, ska.layers.Flatten(), ska.Dense(2, scale=0.3)))
    weights = network.init(jax.random.key(1), x)
    run = ska.simulate(network, weights, x, METHOD, 8.0, dense=True, observe=())
    assert landmarks.peaks(run)[0].interior
    return run, x


@pytest.fixture(scope="module")
def sequences():
    """A run of two self-attentions on 2 sequences, the second one of which has 3 of 4 positions; its x."""
    x = random(2, 4, 3)
    mask = np.arange(4) < np.array([[4], [3]])
    layer = ska.layers.SelfAttention(4, heads=2, mask=mask, scale=0.7)
    above = ska.layers.Paced(ska.layers.SelfAttention(4, causal=True, scale=0.7), 0.5)
    network = ska.Network((layer, above))
    weights = network.init(jax.random.key(2), x)
    return ska.simulate(network, weights, x, METHOD, 2.0, dense=True, observe=()), x


def truth(run, x, what, layer, t):
    """From the weights alone, by the public functions of a state."""
    return np.asarray(of_weights(run.network, run.at(t).weights, x)[what][layer - 1])


@eqx.filter_jit
def of_weights(network, weights, x):
    Z, D = network.forward(weights, x)
    flow, _ = ska.tangents(network, weights, ska.flow(network, weights, x), x)
    return {"knowledge": Z, "flow": flow, "decisions": D}


def drawn(ax):
    (image,) = ax.images
    return image.get_array()


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def bar_label(figure):
    """The text at the one bar of colours, which matplotlib makes axes of."""
    (text,) = [ax.get_ylabel() for ax in figure.axes if ax.get_label() == "<colorbar>"]
    return text


class TestMaps:
    @pytest.mark.parametrize("what", WHAT)
    def test_a_map_for_each_channel_and_time(self, images, what):
        run, x = images
        axes = plot.maps(run, what=what, times=[0.0, 1.5])
        assert axes.shape == (1 + 4 * 2,)
        for column, t in enumerate((0.0, 1.5)):
            z = truth(run, x, what, 1, t)
            for channel in range(4):
                close(drawn(axes[1 + 2 * channel + column]), z[0, :, :, channel])
        assert what[:-1] in bar_label(axes[0].figure)
        assert [ax.get_title() for ax in axes[1:3]] == ["$t$ = 0", "$t$ = 1.5"]
        assert [ax.get_ylabel() for ax in axes[1::2]] == [f"channel {n}" for n in range(4)]
        assert len(plt.get_fignums()) == 1
        lay_out()

    def test_samples_and_channels(self, images):
        run, x = images
        axes = plot.maps(run, 1, samples=[2, 0], channels=(4, 1), times=[0.7])
        z = truth(run, x, "knowledge", 1, 0.7)
        for ax, (sample, channel) in zip(axes[1:], [(2, 4), (2, 1), (0, 4), (0, 1)], strict=True):
            close(drawn(ax), z[sample, :, :, channel])
            assert ax.get_ylabel() == f"sample {sample}\nchannel {channel}"
        axes = plot.maps(run, samples=1, channels=3, times=1)
        close(drawn(axes[1]), truth(run, x, "knowledge", 1, 0.0)[1, :, :, 3])

    def test_by_default_the_landmarks(self, images):
        run, x = images
        axes = plot.maps(run, what="flow", channels=0)
        peak = landmarks.peaks(run)[0]
        times = [0.0, peak.t, 8.0]
        for ax, t, name in zip(axes[1:], times, ["start", "flow peak", "end"], strict=True):
            close(drawn(ax), truth(run, x, "flow", 1, t)[0, :, :, 0])
            assert ax.get_title().split("\n")[0] == name
        lines = axes[0].lines
        (curve,) = [line for line in lines if line.get_color() == _style.layer_colour(1, 2)][:1]
        t, flow = landmarks.series(run, "flow_norm")
        np.testing.assert_array_equal(curve.get_data(), [t, flow[:, 0]])
        across = [line.get_xdata()[0] for line in lines if line.get_color() == _style.GREY]
        assert across == times
        (dots,) = [line for line in lines if line.get_marker() == "o"]
        norms = [np.linalg.norm(truth(run, x, "flow", 1, t)) for t in times]
        np.testing.assert_allclose(dots.get_ydata(), norms, rtol=1e-2)
        (mark,) = [line for line in lines if line.get_marker() == _style.PEAK.marker]
        np.testing.assert_array_equal(mark.get_data(), [[peak.t], [peak.value]])
        assert axes[0].get_xlabel() == "time $t$" and axes[0].get_title("left") == "layer 1"

    def test_without_a_peak_within_the_run(self, images):
        _, x = images
        network = ska.Network((ska.layers.Conv(1, (2, 2), scale=8.0),))  # saturated at first
        weights = jax.tree.map(jnp.abs, network.init(jax.random.key(0), x))
        with pytest.warns(ska.SkajaxWarning):
            run = ska.simulate(network, weights, x, METHOD, 0.5, dense=True, observe=())
        axes = plot.maps(run)
        assert [ax.get_title().split("\n")[0] for ax in axes[1:]] == ["start", "end"]

    def test_a_number_of_times(self, images):
        titles = [ax.get_title() for ax in plot.maps(images[0], times=3, channels=1)[1:]]
        assert titles == ["$t$ = 0", "$t$ = 4", "$t$ = 8"]

    def test_one_scale_of_colours(self, images):
        run, _ = images
        for what in WHAT:
            shown = [ax.images[0] for ax in plot.maps(run, what=what)[1:]]
            top = max(np.abs(image.get_array()).max() for image in shown)
            bottom = 0.0 if what == "decisions" else -top
            assert {image.get_clim() for image in shown} == {(bottom, top)}
            colours = _style.MAGNITUDE if what == "decisions" else _style.SIGNED
            assert all(image.get_cmap() == colours for image in shown)

    @pytest.mark.parametrize("what", WHAT)
    def test_sequences_have_positions_to_the_right_and_features_upwards(self, sequences, what):
        run, x = sequences
        axes = plot.maps(run, what=what, samples=[1, 0], times=[0.0, 2.0])
        assert axes.shape == (1 + 2 * 2,)
        for column, t in enumerate((0.0, 2.0)):
            z = truth(run, x, what, 1, t)
            for row, sample in enumerate((1, 0)):
                ax = axes[1 + 2 * row + column]
                close(drawn(ax), z[sample].T)
                assert ax.images[0].origin == "lower"
        assert axes[1].get_ylabel() == "sample 1\nfeature" and axes[3].get_xlabel() == "position"
        lay_out()

    def test_features_by_their_numbers(self, sequences):
        run, x = sequences
        _, ax = plot.maps(run, 2, channels=[2, 0], times=[1.0])
        close(drawn(ax), truth(run, x, "knowledge", 2, 1.0)[0][:, [2, 0]].T)
        assert [text.get_text() for text in ax.get_yticklabels()] == ["2", "0"]
        assert ax.get_ylabel() == "feature"

    def test_axes_given(self, images):
        figure, grid = plt.subplots(3, 1, layout="constrained")
        axes = plot.maps(images[0], channels=[0, 1], times=[2.0], axes=grid)
        assert all(a is b for a, b in zip(axes, grid, strict=True))
        assert plt.get_fignums() == [figure.number]
        lay_out()

    def test_moments_in_the_row_space_of_the_inputs(self, x64):
        """Where fewer directions of x are simulated than x has, in float64."""
        x = jnp.concatenate([random(4, 3).astype(float), jnp.zeros((4, 5))], axis=1)
        network = ska.mlp([3, 2], scale=0.3)
        weights = network.init(jax.random.key(0), x)
        run = ska.simulate(
            network, weights, x, METHOD, 1.0, dense=True, reduction="full", observe=()
        )
        assert run.resume.system.space is not None
        found = run.solution().see(lambda instant: instant.Zdot, 0.4)
        for layer in (1, 2):
            expected = truth(run, x, "flow", layer, 0.4)
            np.testing.assert_allclose(found[layer - 1], expected, rtol=1e-9, atol=1e-12)


class TestAnimate:
    def test_frames_are_the_maps(self, images, tmp_path):
        run, x = images
        animation = plot.animate(run, 1, what="flow", channels=[3, 1], times=3, interval=50)
        assert len(plt.get_fignums()) == 1
        animation.save(tmp_path / "maps.gif", writer=PillowWriter(fps=4), dpi=30)
        with Image.open(tmp_path / "maps.gif") as made:
            assert made.n_frames == 3
        strip, *axes = [ax for ax in plt.gcf().axes if ax.get_label() != "<colorbar>"]
        assert [ax.get_title() for ax in axes] == ["channel 3", "channel 1"]
        (dot,) = [line for line in strip.lines if line.get_marker() == "o"]
        seen = []
        for frame, t in enumerate((0.0, 4.0, 8.0)):
            animation._draw_frame(frame)
            flow = truth(run, x, "flow", 1, t)
            for ax, channel in zip(axes, (3, 1), strict=True):
                close(drawn(ax), flow[0, :, :, channel])
                seen.append(ax.images[0].get_clim())
            np.testing.assert_allclose(dot.get_data(), [[t], [np.linalg.norm(flow)]], rtol=1e-2)
            (line,) = [line for line in strip.lines if line.get_color() == _style.GREY]
            assert list(line.get_xdata()) == [t, t]
            assert strip.get_title() == f"$t$ = {t:g}"
        assert len(set(seen)) == 1
        lay_out()

    def test_at_the_landmarks_in_axes_given(self, sequences):
        figure, grid = plt.subplots(1, 2, layout="constrained")
        animation = plot.animate(sequences[0], samples=1, times=None, axes=grid)
        animation._draw_frame(0)
        assert grid[0].get_title() == "start, $t$ = 0"
        animation._init_draw()
        animation._draw_was_started = True
        assert plt.get_fignums() == [figure.number]


class TestAttention:
    def test_a_row_for_each_time_and_a_panel_for_each_head(self, sequences):
        run, x = sequences
        axes = plot.attention(run, times=[0.5, 2.0])
        assert axes.shape == (4,)
        for row, t in enumerate((0.5, 2.0)):
            A = run.network.layers[0].attention(run.at(t).weights[0], x)
            for head in range(2):
                found = drawn(axes[2 * row + head])
                close(found, A[0, head])
                close(found.sum(axis=1), np.ones(4))
                assert not found.mask.any()
        assert [ax.get_title() for ax in axes] == ["head 0", "head 1", "", ""]
        assert axes[2].get_ylabel() == "$t$ = 2\nposition"
        assert bar_label(axes[0].figure) == "attention $A$"
        lay_out()

    def test_padding_is_grey(self, sequences):
        axes = plot.attention(sequences[0], times=1, sample=1)
        padded = np.arange(4) == 3
        for ax in axes:
            np.testing.assert_array_equal(drawn(ax).mask, padded[:, None] | padded[None, :])
            assert tuple(ax.images[0].get_cmap().get_bad()) == to_rgba(_style.GREY)

    def test_a_layer_above_reads_decisions_and_no_future(self, sequences):
        run, _ = sequences
        axes = plot.attention(run, 2)
        names = [ax.get_ylabel().split("\n")[0] for ax in axes]
        assert names[0] == "start" and names[-1] == "end"
        state = run.at(2.0)
        A = run.network.layers[1].layer.attention(state.weights[1], state.D[0])
        close(drawn(axes[-1]).filled(0.0), A[0, 0])
        np.testing.assert_array_equal(drawn(axes[-1]).mask, np.triu(np.ones((4, 4), bool), 1))

    def test_weights_as_they_are(self):
        A = np.random.default_rng(0).random((3, 2, 5, 5))
        _, given = plt.subplots(1, 2)
        axes = plot.attention(A, sample=2, axes=given)
        for head, ax in enumerate(axes):
            assert ax is given[head] and ax.get_ylabel() == ("position" if head == 0 else "")
            close(drawn(ax), A[2, head])
            assert ax.images[0].get_clim() == pytest.approx((0.0, A[2].max()))


def nodes(ax):
    """Places and values of all nodes, in the order in which they are drawn."""
    found = [each for each in ax.collections if isinstance(each, PathCollection)]
    return (np.concatenate([f(each) for each in found]) for f in (
        lambda each: each.get_offsets(), lambda each: each.get_array()
    ))  # fmt: skip


def segments(ax):
    (lines,) = [each for each in ax.collections if isinstance(each, LineCollection)]
    return np.asarray(lines.get_segments())


def middles(lines):
    """Of lines from point to point, whichever way they go."""
    return {tuple(np.round(line.mean(axis=0), 4)) for line in np.asarray(lines, float)}


class TestGraph:
    positions = np.array([[0.0, 0.0], [1.0, 0.5], [0.2, 2.0], [3.0, 1.0]])
    values = np.array([-0.5, 1.0, 0.25, 2.0])

    def test_nodes_and_edges(self):
        ax = plot.graph(EDGES, self.values, positions=self.positions, name="flow")
        places, values = nodes(ax)
        np.testing.assert_allclose(places, self.positions, rtol=1e-6)
        np.testing.assert_array_equal(values, self.values)
        assert middles(segments(ax)) == middles(self.positions[EDGES])
        assert len(segments(ax)) == len(EDGES)
        (points,) = [each for each in ax.collections if isinstance(each, PathCollection)]
        assert points.get_clim() == (-2.0, 2.0) and points.get_cmap() == _style.SIGNED
        assert ax.child_axes[0].get_ylabel() == "flow" and ax.get_legend() is None
        lay_out()

    def test_a_layer_a_graph_and_its_edges_are_the_same(self):
        layer = ska.layers.GraphConv(2, EDGES)
        forms = [EDGES, np.array(EDGES).T, layer, ska.layers.Paced(layer, 2.0)]
        forms.append(networkx.from_edgelist([(a, b) for a, b in EDGES]))
        axes = [plot.graph(form, jnp.abs(self.values)) for form in forms]
        places, _ = nodes(axes[0])
        assert len(np.unique(places, axis=0)) == 4
        for ax in axes:
            np.testing.assert_allclose(next(nodes(ax)), places, atol=1e-6)
            assert middles(segments(ax)) == middles(places[EDGES])
            (points,) = [each for each in ax.collections if isinstance(each, PathCollection)]
            assert points.get_clim() == (0.0, 2.0) and points.get_cmap() == _style.MAGNITUDE

    def test_labels_are_shapes(self):
        _, given = plt.subplots(layout="constrained")
        style = {"positions": self.positions, "labels": ["b", "a", "b", "a"], "ax": given}
        ax = plot.graph(EDGES, self.values, **style)
        assert ax is given
        first, second = [each for each in ax.collections if isinstance(each, PathCollection)]
        np.testing.assert_array_equal(first.get_array(), self.values[[1, 3]])
        np.testing.assert_array_equal(second.get_array(), self.values[[0, 2]])
        assert first.get_clim() == second.get_clim() == (-2.0, 2.0)
        assert len(first.get_paths()[0].vertices) != len(second.get_paths()[0].vertices)
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
        lay_out()

    def test_one_node_alone(self):
        ax = plot.graph(np.zeros((0, 2), int), np.ones(1))
        assert len(next(nodes(ax))) == 1
        lay_out()

    @pytest.mark.parametrize(
        ("argument", "changed"),
        [
            ("values", {"values": [1.0, 2.0], "edges": ska.layers.GraphConv(2, EDGES)}),
            ("values", {"values": np.ones((4, 1))}),
            ("edges", {"values": [1.0, 2.0]}),
            ("edges", {"edges": [0, 1, 2]}),
            ("positions", {"positions": np.ones((3, 2))}),
            ("labels", {"labels": [0, 1, 0]}),
        ],
    )
    def test_refuses(self, untyped, argument, changed):
        with pytest.raises(ValueError, match=f"Argument {argument} must .*, but .*"):
            plot.graph(**{"edges": EDGES, "values": self.values} | changed)
        assert not plt.get_fignums()


class TestRefusals:
    @pytest.mark.parametrize("draw", [plot.maps, plot.animate])
    @pytest.mark.parametrize(
        ("argument", "changed"),
        [
            ("layer", {"layer": 2}),  # dense
            ("layer", {"layer": 3}),
            ("layer", {"layer": 0}),
            ("what", {"what": "entropy"}),
            ("times", {"times": [0.0, 9.0]}),
            ("times", {"times": [-1.0]}),
            ("times", {"times": []}),
            ("times", {"times": [float("nan")]}),
            ("times", {"times": 0}),
            ("times", {"times": "steps"}),
            ("samples", {"samples": 3}),
            ("samples", {"samples": [0, -1]}),
            ("channels", {"channels": [5]}),
            ("channels", {"channels": []}),
        ],
    )
    def test_what_is_not_there(self, images, untyped, draw, argument, changed):
        with pytest.raises(ValueError, match=f"Argument {argument} must .*, but .*"):
            draw(images[0], **changed)
        assert not plt.get_fignums()

    @pytest.mark.parametrize("draw", [plot.maps, plot.animate, plot.attention])
    def test_a_run_that_is_not_dense(self, draw, template):
        with pytest.raises(ValueError, match="Argument run must be dense"):
            draw(template)

    def test_a_network_without_space(self):
        network, x = ska.mlp([2]), random(3, 2)
        weights = network.init(jax.random.key(0), x)
        run = ska.simulate(network, weights, x, METHOD, 0.1, dense=True, observe=())
        for draw, kind in ((plot.maps, "in space"), (plot.attention, "SelfAttention")):
            with pytest.raises(ValueError, match=f"Argument run must have a layer .*{kind}"):
                draw(run)

    @pytest.mark.parametrize("draw", [plot.maps, plot.animate, plot.attention])
    def test_too_few_axes(self, sequences, draw):
        _, axes = plt.subplots(1, 5)
        with pytest.raises(ValueError, match=r"Argument axes must hold .*, but there were 5"):
            draw(sequences[0], axes=axes)

    @pytest.mark.parametrize(
        ("argument", "call"),
        [
            ("run", {"run": np.ones((2, 3, 3))}),
            ("run", {"run": np.ones((1, 2, 3, 4))}),
            ("sample", {"run": np.ones((1, 2, 3, 3)), "sample": 1}),
            ("times", {"run": np.ones((1, 2, 3, 3)), "times": 3}),
        ],
    )
    def test_attention_weights_that_are_none(self, argument, call):
        with pytest.raises(ValueError, match=f"Argument {argument} must .*, but .*"):
            plot.attention(**call)
        assert not plt.get_fignums()
