"""The published network comes to the numbers that it came to before the core was written anew."""

import jax.numpy as jnp
import make_golden
import numpy as np
import pytest


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [pytest.param(jnp.float32, 5e-6, marks=pytest.mark.thorough), (jnp.float64, 1e-12)],
    ids=["float32", "float64"],
)
def test_the_published_network(x64, dtype, tolerance):
    """Each observable, relative to its largest value or to that of the terms that it is a sum of.

    Single precision: other compilers' flags alone move a cosine by 2e-6.
    """
    with np.load(make_golden.FILE) as golden:
        found = dict(make_golden.runs(dtype))
        assert set(found) == {key for key in golden.files if f"/{np.dtype(dtype).name}/" in key}
        for key, value in found.items():
            method, precision, name = key.split("/")
            before = golden[key]
            terms = {
                "transport": "dissipation",
                "tensor_net": "knowledge_norm",
                "tensor_net_equation": "knowledge_norm",
                "tensor_net_rate": "flow_norm",
                "tensor_net_rate_equation": "flow_norm",
            }
            size = max(
                np.abs(golden[f"{method}/{precision}/{n}"]).max()
                for n in {name, terms.get(name, name)}
            )
            np.testing.assert_allclose(value, before, rtol=0, atol=tolerance * size, err_msg=key)
