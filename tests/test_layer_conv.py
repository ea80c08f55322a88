"""The convolution: a dense layer on patches; Equinox's; and what every layer must show."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import layer_checks as checks
import numpy as np
import pytest

import skajax as ska
from skajax.layers import Conv, ConvWeights


def patches(layer, x):
    """What the layer reads at every position: (samples, positions, *window, channels), in NumPy."""
    space = x.shape[1:-1]
    spans = [(w - 1) * d + 1 for w, d in zip(layer.window, layer.dilation, strict=True)]
    pads = layer.padding
    if pads == "VALID":
        pads = [(0, 0)] * len(space)
    elif pads == "SAME":
        wants = [
            max((-(-n // s) - 1) * s + span - n, 0)
            for n, s, span in zip(space, layer.strides, spans, strict=True)
        ]
        pads = [(want // 2, want - want // 2) for want in wants]
    x = np.pad(x, [(0, 0), *pads, (0, 0)])
    axes = tuple(range(1, len(space) + 1))
    views = np.lib.stride_tricks.sliding_window_view(x, spans, axis=axes)
    views = views[(slice(None), *(slice(None, None, s) for s in layer.strides))]
    views = views[(..., *(slice(None, None, d) for d in layer.dilation))]
    return np.moveaxis(views, len(space) + 1, -1), np.array(views.shape[1 : len(space) + 1])


PROBLEMS = {
    "1-D, padded": (Conv(2, 3, strides=2, dilation=2, padding=((2, 1),)), (2, 7, 3)),
    "1-D, same": (Conv(4, 2, strides=3, padding="SAME", groups=2), (3, 7, 2)),
    "2-D, groups": (Conv(3, (3, 2), strides=(2, 1), groups=3), (2, 6, 5, 3)),
    "2-D, same": (
        Conv(4, (2, 3), strides=(2, 3), dilation=(2, 1), padding="SAME", groups=2),
        (2, 5, 7, 4),
    ),
    "2-D, padded": (
        Conv(2, (1, 3), strides=(1, 2), dilation=(1, 2), padding=((1, 2), (0, 1))),
        (1, 5, 6, 2),
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_it_is_a_linear_map_of_patches(x64, case):
    """In NumPy: z of each position is its patch's, and the flow the sum over positions."""
    layer, shape = PROBLEMS[case]
    rng = np.random.default_rng(0)
    x, network = rng.normal(size=shape), ska.Network((layer,))
    inputs, outputs = (n // layer.groups for n in (shape[-1], layer.channels))
    W = rng.normal(scale=0.5, size=(*layer.window, inputs, layer.channels))
    b = rng.normal(size=layer.channels)
    run = jax.jit(lambda w, x: (layer.knowledge(w, x), ska.flow(network, (w,), x)))
    z, ((W_flow, b_flow),) = run(ConvWeights(W, b), x)
    views, positions = patches(layer, x)
    assert z.shape == (shape[0], *positions, layer.channels)
    for g in range(layer.groups):
        mine = slice(g * outputs, (g + 1) * outputs)
        read = views[..., g * inputs : (g + 1) * inputs].reshape(shape[0] * positions.prod(), -1)
        want = read @ W[..., mine].reshape(-1, outputs) + b[mine]
        D = 1 / (1 + np.exp(-want))
        gradient = -want * D * (1 - D) / np.log(2)
        for got, exact in (
            (z[..., mine].reshape(want.shape), want),
            (W_flow[..., mine].reshape(-1, outputs), -read.T @ gradient / shape[0]),
            (b_flow[mine], -gradient.sum(0) / shape[0]),
        ):
            np.testing.assert_allclose(got, exact, rtol=1e-12, atol=1e-12)


def test_it_is_a_dense_layer_on_patches(x64):
    """Dense averages its flow over rows, which here are positions of samples: positions add up."""
    layer = Conv(6, (3, 2), strides=(2, 1), padding="SAME", scale=0.5)
    x = jax.random.normal(jax.random.key(0), (4, 6, 5, 2), float)
    conv, dense = ska.Network((layer,)), ska.Network((ska.Dense(6),))
    ((W, b),) = weights = conv.init(jax.random.key(1), x)
    views, positions = patches(layer, np.asarray(x))
    unfolded = (ska.DenseWeights(W.reshape(-1, 6), b),), jnp.asarray(views.reshape(-1, 12))
    both = jax.jit(lambda n, w, x: (n.forward(w, x)[0][0], ska.flow(n, w, x)), static_argnums=0)
    (z, (got,)), (Z, (want,)) = both(conv, weights, x), both(dense, *unfolded)
    np.testing.assert_allclose(z.reshape(-1, 6), Z, rtol=1e-12, atol=1e-12)
    many = float(positions.prod())
    np.testing.assert_allclose(got.W.reshape(-1, 6), many * want.W, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(got.b, many * want.b, rtol=1e-12, atol=1e-12)


EQUINOX = {
    "1-D, strided": (Conv(6, 4, strides=2, padding=((2, 1),), groups=2), (3, 9, 4)),
    "2-D, dilated": (
        Conv(6, (3, 2), strides=(2, 1), padding=((1, 2), (0, 1)), dilation=(2, 3), groups=2),
        (3, 8, 9, 4),
    ),
    "2-D, SAME": (Conv(6, (3, 3), padding="SAME"), (3, 8, 9, 4)),
}


@pytest.mark.parametrize("case", EQUINOX)
def test_equinox_has_the_same_knowledge(case):
    layer, shape = EQUINOX[case]
    kind = {1: eqx.nn.Conv1d, 2: eqx.nn.Conv2d}[len(layer.window)]
    theirs = kind(
        shape[-1], layer.channels, layer.window, layer.strides, layer.padding, layer.dilation,
        layer.groups, key=jax.random.key(0),
    )  # fmt: skip
    W = jnp.moveaxis(theirs.weight, (0, 1), (-1, -2))
    x = jax.random.normal(jax.random.key(1), shape)
    z = layer.knowledge(ConvWeights(W, theirs.bias.reshape(-1)), x)
    want = jnp.moveaxis(jax.vmap(theirs)(jnp.moveaxis(x, -1, 1)), 1, -1)
    assert z.dtype == jnp.float32
    np.testing.assert_allclose(z, want, rtol=1e-6, atol=1e-6)


def images(below=True):
    """Two convolutions and a dense layer on top; or but one."""
    x = 0.5 * jax.random.uniform(jax.random.key(2), (5, 5, 4, 2), float)
    layers = (
        Conv(4, (3, 3), scale=0.3, padding="SAME", groups=2),
        Conv(3, (3, 2), strides=2, scale=0.3),
        ska.layers.Flatten(),
        ska.Dense(4, scale=0.2),
    )
    network = ska.Network(layers if below else layers[1:])
    return network, network.init(jax.random.key(3), x), x


def sequences():
    """The same along one axis."""
    x = 0.5 * jax.random.uniform(jax.random.key(4), (5, 12, 2), float)
    layers = (
        Conv(4, 3, scale=0.3, dilation=2),
        Conv(3, 2, strides=2, scale=0.3, padding=((1, 0),)),
        ska.layers.Flatten(),
        ska.Dense(4, scale=0.2),
    )
    network = ska.Network(layers)
    return network, network.init(jax.random.key(5), x), x


@pytest.mark.parametrize("problem", [images, sequences])
def test_flow_walls_and_tangents(problem, x64):
    checks.check_flow(*problem())


def test_entropy_net_and_balance(x64):
    checks.check_closed_forms(*images(below=False), t1=0.25)


def test_methods(tmp_path, x64):
    network, _, x = images(below=False)
    checks.check_methods(network, x, tmp_path)


def test_lanes_that_use_few_weights_at_many_positions_go_one_by_one():
    """160 weights at 169 positions are as much work for a lane as 27,040 that are used once."""
    network = ska.Network((Conv(16, (3, 3), strides=2),))
    for samples, together in ((1, True), (250, False)):
        x = jax.random.uniform(jax.random.key(0), (samples, 28, 28, 1))
        plan = ska.sweep(
            network, lambda seed, x=x: network.init(jax.random.key(seed), x), x, ska.Euler(0.1),
            steps=1, over=ska.grid(seed=range(3)), observe=(), dry=True,
        )  # fmt: skip
        assert (plan.groups[0].width > 1) is together


def test_a_file_tells_the_layer(tmp_path):
    network = ska.Network((Conv(2, (2, 2), padding=((1, 0), (0, 1))), Conv(2, (2, 2), strides=2)))
    x = jax.random.uniform(jax.random.key(0), (3, 5, 5, 1))
    weights = network.init(jax.random.key(1), x)
    run = ska.simulate(network, weights, x, ska.Euler(0.1), steps=2, observe=("entropy",))
    run.save(tmp_path / "run.nc")
    back = ska.load(tmp_path / "run.nc")
    assert back.network == network
    assert isinstance(back.final.weights[0], ConvWeights)


def test_one_number_stands_for_all_axes(untyped):
    assert Conv(2, (3, 3), strides=2) == Conv(2, (3, 3), strides=(2, 2), dilation=(1, 1))
    assert Conv(2, 3) == Conv(np.int32(2), [np.int32(3)]) != Conv(2, (3, 3))
    assert Conv(2, 3, scale=1.0, bias=2.0).running() == Conv(2, 3)


BAD = {
    "channels": ({"channels": 0}, "channels must be a whole number"),
    "three axes": ({"window": (3, 3, 3)}, r"window must .* 1 or 2 axes, but it was \(3, 3, 3\)"),
    "no number": ({"window": "3"}, "window must be a whole number of positions"),
    "a fraction": ({"window": (2.5, 3)}, "window must be a whole number of positions"),
    "strides": ({"strides": 0}, "strides must be a whole number, at least 1"),
    "axes": ({"dilation": (1,)}, r"dilation must .* each axis of the window \(3, 3\), but it was"),
    "padding": ({"padding": "same"}, "padding must be 'VALID', 'SAME' or pairs .* was 'same'"),
    "one pair": ({"padding": ((1, 1),)}, "padding must .* one for each axis"),
    "no pairs": ({"padding": (1, 1)}, "padding must .* pairs"),
    "negative": ({"padding": ((1, 1), (-1, 0))}, "padding must .* whole numbers"),
    "groups": ({"groups": 3}, "groups must divide the 8 channels, but it was 3"),
    "scale": ({"scale": -1.0}, "scale must be a finite standard deviation"),
    "precision": ({"precision": "exact"}, "precision must be"),
    "decision": ({"decision": "logistic"}, "decision must be"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(untyped, case):
    given, message = BAD[case]
    with pytest.raises(ValueError, match=f"Argument {message}"):
        Conv(**{"channels": 8, "window": (3, 3), **given})


MISFITS = {
    "larger than the image": (
        Conv(8, (3, 6)),
        r"window must be at most as large as the padded image, \(5, 5\) for x of shape"
        r" \(2, 5, 5, 4\), but it was \(3, 6\)",
    ),
    "larger when dilated": (
        Conv(8, (3, 4), dilation=2, padding=((0, 0), (0, 1))),
        r"window must .* \(5, 6\) for x of shape \(2, 5, 5, 4\), but it was \(3, 4\), \(5, 7\) dilated",
    ),
    "axes": (Conv(8, 3), r"x must be of shape \(samples, length, channels\) .* \(2, 5, 5, 4\)"),
    "groups": (Conv(6, (3, 3), groups=3), r"groups must divide .* 3 groups, and x had 4 channels"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_shapes_that_do_not_fit(case):
    layer, message = MISFITS[case]
    network = ska.Network((Conv(4, (1, 1)), layer))
    with pytest.raises(ValueError, match=message + r".*\(layers\[1\] \(Conv\) of the network\)"):
        network.init(jax.random.key(0), jnp.ones((2, 5, 5, 1)))


def test_the_largest_window_that_fits():
    x = jnp.ones((2, 5, 5, 1))
    for layer in (Conv(1, (5, 5)), Conv(1, (3, 3), dilation=2), Conv(1, (7, 7), padding="SAME")):
        network = ska.Network((layer,))
        assert network.forward(network.init(jax.random.key(0), x), x)[0][0].shape[0] == 2


@pytest.mark.parametrize("energy", [None, ska.energies.Entropy(local=False)], ids=["own", "global"])
def test_on_cpus_only_the_forward_pass_is_a_convolution(energy):
    """XLA has no fast code for other axes within a loop: gradients and tangents are products of matrices."""
    x = jax.random.uniform(jax.random.key(0), (4, 9, 9, 1))
    network = ska.Network((Conv(3, (3, 3), strides=2), Conv(2, (2, 2))))
    weights = network.init(jax.random.key(1), x)
    asked = {"steps": 2, "energy": energy, "observe": ("entropy_rate",)}
    run = lambda w: ska.simulate(network, w, x, ska.Euler(0.1), **asked).records.values
    with jax.default_device(jax.devices("cpu")[0]):
        program = jax.jit(run).lower(weights).compile().as_text()
    labels = set(re.findall(r"dim_labels=([\w>-]+)", program))
    assert labels == {"b01f_01io->b01f"}
