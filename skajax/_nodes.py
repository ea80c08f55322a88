"""The polynomial through evenly spaced samples of a step: what lies between them."""

import numpy as np

INTERVALS = 8
"""Between the samples of a step, so that there is one more of these."""
GRID = np.linspace(-1, 1, INTERVALS + 1)
COEFFICIENTS = np.linalg.inv(np.vander(GRID, increasing=True))
"""Values at the samples to coefficients of 1, x, x², ... on [-1, 1], ..."""
DERIVATIVES = COEFFICIENTS[1:] * np.arange(1, INTERVALS + 1)[:, None]
"""... to those of the derivative, ..."""
SLOPES = np.vander(GRID, INTERVALS, increasing=True) @ DERIVATIVES
"""... and to the derivative's values at the samples."""
