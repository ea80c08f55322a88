"""Four devices: run by test_pipelined.py in a process of its own, whose devices are four of one CPU."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import reference as ref
from jax.sharding import Mesh

import skajax as ska
from skajax import pipeline

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

COLLECTIVE = re.compile(
    r"(all-reduce|all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter)"
    r"(?:-start)?\("
)
TICK = ska.Pipelined(0.02)


def assert_same_bits(network, weights, x, devices=None):
    """A layer on each device, and all layers on one: all weights, and the entropies of the first layer."""
    ended = pipeline.simulate(network, weights, x, TICK, steps=30, devices=devices)
    alone = ska.simulate(network, weights, x, TICK, steps=30, reduction="off", observe=("entropy",))
    jax.tree.map(np.testing.assert_array_equal, ended.weights, alone.final.weights)
    assert not np.array_equal(ended.weights[0], weights[0])
    # What the first layer reads has no lag, and its entropy is the weights' own.
    np.testing.assert_allclose(ended.entropy[:, 0], alone.entropy[:-1, 0], rtol=1e-13)
    assert ended.entropy.shape == (30, len(network.rows))


def compiled(network, weights, x):
    """The program of all devices, as text."""
    calls, program = [], pipeline.ticks

    def heard(*arguments):
        calls.append(arguments)
        return program(*arguments)

    pipeline.ticks = heard
    pipeline.simulate(network, weights, x, TICK, steps=30)
    pipeline.ticks = program
    return program.lower(*calls[0]).compile().compiled.as_text()


if __name__ == "__main__":
    assert len(jax.devices()) == 4
    dense = ref.DEEP.arrays()
    assert_same_bits(*dense)
    backwards = Mesh(np.asarray(jax.devices())[::-1], (pipeline.LAYERS,))
    assert_same_bits(*dense, devices=backwards)
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(5, 6, 6, 2)))
    spatial = ska.Network(
        (
            ska.layers.Conv(3, (3, 3), scale=0.5), ska.layers.Pool(2), ska.layers.Flatten(),
            ska.layers.Paced(ska.Dense(4, scale=0.5), 2.0), ska.Dense(3, scale=0.5),
        )
    )  # fmt: skip
    assert_same_bits(spatial, spatial.init(jax.random.key(0), images), images)
    # One exchange between neighbours, in the body of the one loop; nothing else that is collective.
    text = compiled(*dense)
    assert COLLECTIVE.findall(text) == ["collective-permute"]
    assert "source_target_pairs={{0,1},{1,2},{2,3}}" in text
    print("four devices agree with one")
