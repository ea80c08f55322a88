"""The polynomial through evenly spaced samples of a step: what lies between them."""

import numpy as np

INTERVALS = 8
"""Between the samples of a step, so that there is one more of these."""
GRID = np.linspace(-1, 1, INTERVALS + 1)
COEFFICIENTS = np.linalg.inv(np.vander(GRID, increasing=True))
"""Values at the samples to coefficients of 1, x, x², ... on [-1, 1]."""
