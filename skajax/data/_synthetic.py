"""Inputs whose spectrum is known, because they are made of it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from skajax._checks import require
from skajax.data._labelled import require_whole


def known_spectrum(
    values: Sequence[float], samples: int, inputs: int, *, seed: int = 0
) -> Float32[np.ndarray, "samples inputs"]:
    """Random inputs x, float32, with eig(x xᵀ / B) = values, the other eigenvalues being 0.

    The columns sum to 0 over the samples, so that x xᵀ + 1 has these and, for the bias, one more:
    eig((x xᵀ + 1) / B) = values and 1. Over 4 ln 2, they are the linear growth rates of a first layer.
    x = √B U √values Vᵀ, with U and V random orthonormal columns; not in [0, 1].

    Raises ValueError unless the values are positive and fewer than samples, and no more than inputs.

    >>> x = ska.data.known_spectrum([3.0, 1.0], samples=20, inputs=5)
    >>> np.linalg.eigvalsh(x @ x.T / 20)[-2:].round(4).tolist()
    [1.0, 3.0]
    """
    require_whole("samples", samples, "be a whole number, at least 1")
    require_whole("inputs", inputs, "be a whole number, at least 1")
    powers = np.asarray(values, np.float64)
    require(
        powers.ndim == 1 and 1 <= len(powers) <= min(samples - 1, inputs),
        "values",
        f"hold from 1 to {min(samples - 1, inputs)} numbers, for {samples} samples of {inputs} inputs",
        f"its shape was {powers.shape}",
    )
    good = bool((powers > 0).all() and np.isfinite(powers).all())
    require(good, "values", "be positive and finite", f"they were {values!r}")
    rng = np.random.default_rng(seed)
    count = len(powers)
    # Orthogonal to the constant vector, which comes first.
    drawn = np.column_stack([np.ones(samples), rng.normal(size=(samples, count))])
    U = np.linalg.qr(drawn)[0][:, 1:]
    V = np.linalg.qr(rng.normal(size=(inputs, count)))[0]
    return (np.sqrt(samples * powers) * U @ V.T).astype(np.float32)
