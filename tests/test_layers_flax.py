"""Convolutions and attention are Flax's, with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from skajax.layers import Conv, SelfAttention
from skajax.layers._conv import ConvWeights

linen = pytest.importorskip("flax.linen")

CONVOLUTIONS = {
    "1-D": (Conv(6, 3), (3, 9, 4)),
    "1-D, strided, groups": (Conv(6, 4, strides=2, padding=((2, 1),), groups=2), (3, 9, 4)),
    "2-D, SAME": (Conv(6, (3, 3), padding="SAME"), (3, 8, 9, 4)),
    "2-D, dilated": (Conv(6, (3, 2), strides=(2, 1), dilation=(2, 3)), (3, 8, 9, 4)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_flax_has_the_same_convolution(case):
    layer, shape = CONVOLUTIONS[case]
    theirs = linen.Conv(
        layer.channels, layer.window, layer.strides, layer.padding, kernel_dilation=layer.dilation,
        feature_group_count=layer.groups, precision="highest",
    )  # fmt: skip
    x = jax.random.normal(jax.random.key(1), shape)
    kernel = jax.random.normal(jax.random.key(2), (*layer.window, 4 // layer.groups, 6)) / 4
    bias = jnp.linspace(-1, 1, 6)
    with jax.numpy_rank_promotion("allow"):
        want = theirs.apply({"params": {"kernel": kernel, "bias": bias}}, x)
    got = layer.knowledge(ConvWeights(kernel, bias), x)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_flax_has_the_same_attention(causal):
    layer = SelfAttention(12, 3, causal, scale=0.5)
    x = jax.random.normal(jax.random.key(1), (4, 7, 5))
    weights = layer.init(jax.random.key(0), x)
    weights = weights._replace(b=jnp.linspace(-1, 1, 12))
    theirs = linen.MultiHeadDotProductAttention(
        3, qkv_features=12, out_features=12, precision="highest"
    )
    read = lambda W: {"kernel": W.reshape(5, 3, 4), "bias": jnp.zeros((3, 4))}
    parts = dict(zip(("query", "key", "value"), map(read, weights[:3]), strict=True))
    out = {"kernel": weights.O.reshape(3, 4, 12), "bias": weights.b}
    mask = linen.make_causal_mask(x[..., 0]) if causal else None
    with jax.numpy_rank_promotion("allow"):
        want = theirs.apply({"params": parts | {"out": out}}, x, mask=mask)
    np.testing.assert_allclose(layer.knowledge(weights, x), want, rtol=1e-6, atol=1e-6)
