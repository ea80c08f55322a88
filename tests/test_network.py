"""Networks: what init draws, what forward computes, and what cannot be one."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref

import skajax as ska
from skajax.layers import Layer

KEY = jax.random.key(7)


def test_initial_weights_are_normal_with_the_given_scale():
    network = ska.mlp([100, 80], scale=[0.01, 0.3], bias=[0.0, -0.25])
    x = jnp.zeros((3, 120))
    first, second = network.init(KEY, x)
    for w, scale, bias, shape in (
        (first, 0.01, 0.0, (120, 100)),
        (second, 0.3, -0.25, (100, 80)),
    ):
        assert w.W.shape == shape
        np.testing.assert_array_equal(w.b, np.full(shape[1], bias, np.float32))
        draws = np.asarray(w.W, float) / scale
        # 8000 draws or more: five standard errors of the mean, the deviation and the kurtosis.
        n = draws.size
        assert abs(draws.mean()) < 5 / np.sqrt(n)
        assert abs(draws.std() - 1) < 5 / np.sqrt(2 * n)
        assert abs((draws**4).mean() - 3) < 5 * np.sqrt(96 / n)
    # Independent layers, rows and columns.
    overlap = np.corrcoef(first.W[:100].ravel()[:8000], second.W.ravel())[0, 1]
    assert abs(overlap) < 5 / np.sqrt(8000)


def test_layers_on_top_do_not_change_those_below():
    x = jnp.zeros((1, 6))
    small, large = ska.mlp([5, 4], scale=1.0), ska.mlp([5, 4, 3, 2], scale=1.0)
    for got, want in zip(large.init(KEY, x), small.init(KEY, x), strict=False):
        np.testing.assert_array_equal(got.W, want.W)
    other = small.init(jax.random.key(8), x)
    assert not np.array_equal(other[0].W, small.init(KEY, x)[0].W)


def test_equal_layers_draw_differently():
    first, second = ska.mlp([6, 6], scale=1.0).init(KEY, jnp.zeros((1, 6)))
    assert not np.array_equal(first.W, second.W)


def test_only_the_shape_and_dtype_of_x_are_read(x64):
    network = ska.mlp([5, 4])
    rng = np.random.default_rng(0)
    want = network.init(KEY, jnp.zeros((3, 6)))
    for x in (rng.normal(size=(3, 6)), rng.normal(size=(90, 6)), jnp.ones((1, 6))):
        got = network.init(KEY, jnp.asarray(x))
        for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_array_equal(g, w)
    for dtype in (jnp.float32, jnp.float64):
        weights = network.init(KEY, jnp.zeros((3, 6), dtype))
        assert {leaf.dtype for leaf in jax.tree.leaves(weights)} == {np.dtype(dtype)}


def test_init_under_jit_and_vmap():
    network = ska.mlp([4, 2], scale=1.0)
    x = jnp.zeros((2, 3))
    keys = jax.random.split(KEY, 3)
    batch = jax.jit(jax.vmap(lambda key: network.init(key, x)))(keys)
    for lane in range(3):
        alone = network.init(keys[lane], x)
        for got, want in zip(jax.tree.leaves(batch), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(got[lane], want, rtol=1e-6)


@pytest.mark.parametrize("problem", ref.PROBLEMS, ids=lambda p: p.name)
def test_forward_is_numpys(problem, x64):
    network, weights, x = problem.arrays()
    Z, D = jax.jit(network.forward)(weights, x)
    want_Z, want_D = ref.forward(*problem.numpy())
    for got, want in zip((*Z, *D), (*want_Z, *want_D), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-14)


def test_a_network_is_a_value():
    # Static under jit: equal networks must be equal, and hash alike, or every run compiles anew.
    same = ska.mlp((3, 2), scale=(0.1, 0.2))
    assert ska.mlp([3, 2], scale=[0.1, 0.2]) == same
    assert hash(ska.mlp([3, 2], scale=[0.1, 0.2])) == hash(same)
    assert same == ska.Network((ska.Dense(3, scale=0.1), ska.Dense(2, scale=0.2)))
    for other in (
        ska.mlp([3, 2], scale=0.1),
        ska.mlp([3, 2], scale=[0.1, 0.2], bias=1.0),
        ska.mlp([3, 2], scale=[0.1, 0.2], precision="high"),
        ska.mlp([2, 3], scale=[0.1, 0.2]),
    ):
        assert other != same
    with pytest.raises(dataclasses.FrozenInstanceError):
        same.layers[0].width = 4
    assert isinstance(same.layers[0], Layer)


def test_matrix_products_are_exact_by_default():
    # Accelerators shorten float32 factors unless told not to; on CPUs the program must say so too.
    x = jnp.ones((2, 3))
    for precision, word in (("highest", "HIGHEST"), ("high", "HIGH"), ("default", "DEFAULT")):
        network = ska.mlp([2], precision=precision)
        weights = network.init(KEY, x)
        flow = jax.jit(lambda w, network=network: ska.flow(network, w, x))
        program = flow.lower(weights).as_text()
        products = [line for line in program.splitlines() if "dot_general" in line]
        assert len(products) == 2
        for line in products:
            assert f"precision = [{word}, {word}]" in line or word == "DEFAULT"
    assert ska.mlp([2]).layers[0].precision == "highest"


class Linear:
    """z = f(x W)."""

    of, dtype = staticmethod(lambda z: z), jnp.float32

    def init(self, key, x):
        return jnp.zeros((x.shape[1], 4), self.dtype)

    def knowledge(self, weights, x):
        return self.of(x @ weights.astype(x.dtype))


@dataclasses.dataclass
class Thawed(Linear):
    """One that could change, and so has no hash."""


@dataclasses.dataclass(frozen=True)
class Own(Linear):
    """One with f and the weights' type of the user's."""

    of: Callable = lambda z: z
    decided: Callable = lambda z: z
    dtype: Any = jnp.float32

    def decide(self, z):
        return self.decided(z)


@dataclasses.dataclass(frozen=True)
class Thinned:
    """A stage that leaves samples out, unless it is told otherwise."""

    of: Callable = lambda x: x[::2]

    def init(self, key, x):
        return ()

    def apply(self, weights, x):
        return self.of(x)


def staged(item):
    """Initial weights with a layer or stage in a place of its own."""
    layers = (ska.Dense(5), ska.layers.Residual((item, ska.Dense(4))))
    return ska.Network(layers).init(KEY, jnp.ones((20, 2), jnp.float32))


def own(of, **fields):
    return ska.Network((ska.Dense(3), Own(of, **fields))).init(KEY, jnp.ones((20, 2), jnp.float32))


def test_a_list_of_layers_is_a_stack():
    assert ska.Network([ska.Dense(3), ska.Dense(2)]) == ska.mlp([3, 2])


BAD = {
    "no widths": (lambda: ska.mlp([]), "widths", "at least one", "[]"),
    "one number": (lambda: ska.mlp(5), "widths", "sequence", "5"),
    "text": (lambda: ska.mlp("12"), "widths", "sequence", "'12'"),
    "width 0": (lambda: ska.mlp([3, 0]), "width", "at least 1", "0"),
    "width -1": (lambda: ska.Dense(-1), "width", "at least 1", "-1"),
    "half a neuron": (lambda: ska.mlp([2.5]), "width", "whole number", "2.5"),
    "width true": (lambda: ska.mlp([True]), "width", "whole number", "True"),
    "scale < 0": (lambda: ska.mlp([3], scale=-0.1), "scale", "at least 0", "-0.1"),
    "scale nan": (lambda: ska.Dense(3, scale=float("nan")), "scale", "finite", "nan"),
    "too few scales": (lambda: ska.mlp([3, 2], scale=[0.1]), "scale", "2 layers", "1 entries"),
    "too many biases": (lambda: ska.mlp([3], bias=[0.0, 1.0]), "bias", "1 layers", "2 entries"),
    "bias inf": (lambda: ska.mlp([3], bias=float("inf")), "bias", "finite", "inf"),
    "precision": (lambda: ska.mlp([3], precision="low"), "precision", "'highest'", "'low'"),
    "no layers": (lambda: ska.Network(()), "layers", "at least one", "()"),
    "a layer alone": (lambda: ska.Network(ska.Dense(3)), "layers", "tuple", "Dense("),
    "a class": (
        lambda: ska.Network((ska.Dense(3), ska.Dense)),
        "layers",
        "themselves",
        "layers[1] was the class Dense (Dense(...)",
    ),
    "a layer without a hash": (
        lambda: ska.Network((Thawed(),)),
        "layers",
        "@dataclass(frozen=True)",
        "layers[0] (Thawed) was not",
    ),
    "one within another": (
        lambda: ska.Network((ska.Paced(Thawed(), 2.0),)),
        "layers",
        "@dataclass(frozen=True)",
        "layers[0] (Paced) was not",
    ),
    "fewer samples": (lambda: own(lambda z: z[:5]), "knowledge", "20 samples in front", "(5, 4)"),
    "a mean over samples": (
        lambda: own(lambda z: z.mean(0)),
        "knowledge",
        "20 samples in front",
        "(4,) (layers[1] (Own) of the network)",
    ),
    "decisions of fewer samples": (
        lambda: staged(Own(decided=lambda z: z[::2])),
        "decisions",
        "20 samples in front, as what it reads, of shape (20, 5)",
        "(10, 4) (layers[1].stack[0] (Own) of the network)",
    ),
    "a stage that loses samples": (
        lambda: staged(Thinned()),
        "output",
        "20 samples in front, as what it reads, of shape (20, 5)",
        "(10, 5) (layers[1].stack[0] (Thinned) of the network)",
    ),
    "a stage of two arrays": (
        lambda: staged(Thinned(lambda x: (x, x))),
        "output",
        "be one array",
        "a tuple (layers[1].stack[0] (Thinned) of the network)",
    ),
    "a sum": (lambda: own(lambda z: z.sum()), "knowledge", "20 samples in front", "()"),
    "no knowledge": (
        lambda: own(lambda z: None),
        "knowledge",
        "floating-point array",
        "None (layers[1] (Own) of the network)",
    ),
    "two arrays": (lambda: own(lambda z: (z, z)), "knowledge", "one floating", "tuple"),
    "whole knowledge": (lambda: own(lambda z: z.astype(int)), "knowledge", "floating", "int"),
    "whole weights": (
        lambda: own(lambda z: z, dtype=int),
        "weights",
        "floating-point",
        "init made some of type int32 (layers[1] (Own) of the network)",
    ),
    "numbers for layers": (lambda: ska.Network((3, 2)), "layers", "layer", "(3, 2)"),
    "labels": (lambda: ska.mlp([3]).init(KEY, np.arange(4)), "x", "floating-point", "int"),
    "one sample": (
        lambda: ska.mlp([3]).init(KEY, np.ones(4, "f")),
        "x",
        "(samples, inputs)",
        "(4,)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_networks_are_named(case, untyped):
    function, argument, must, but = BAD[case]
    with pytest.raises(ValueError) as error:
        function()
    message = str(error.value)
    assert message.startswith(f"Argument {argument} must ")
    promise, _, fact = message.rpartition(", but ")
    assert must in promise
    assert but in fact
