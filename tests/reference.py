"""The equations once more, in NumPy float64 and by other means, and problems to put to skajax.

Nothing here uses skajax's mathematics. ``solve`` integrates with SciPy's DOP853 close to rounding;
for one layer and one sample ``exact`` needs no integrator at all. Weights are lists of (W, b).
"""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import expit, shichi, xlogy

import skajax as ska

LN2 = np.log(2.0)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A network with weights and inputs drawn by NumPy, so that they come from outside."""

    name: str
    inputs: int
    widths: tuple[int, ...]
    samples: int
    scale: float = 0.7
    seed: int = 0

    @property
    def network(self):
        return ska.mlp(self.widths, scale=0.7)

    def numpy(self):
        """Weights [(W, b), ...] and x, float64, biases not zero."""
        rng = np.random.default_rng(self.seed)
        sizes = (self.inputs, *self.widths)
        weights = [
            (self.scale * rng.normal(size=(n, m)), self.scale * rng.normal(size=m))
            for n, m in itertools.pairwise(sizes)
        ]
        return weights, rng.uniform(size=(self.samples, self.inputs))

    def arrays(self, dtype=jnp.float64):
        """The network, its weights and x, for skajax."""
        weights, x = self.numpy()
        return self.network, to_skajax(weights, dtype), jnp.asarray(x, dtype)


UNIT = Problem("one sample, one layer, one neuron", 1, (1,), 1)
SAMPLE = Problem("one sample, one layer", 3, (4,), 1)
SMALL = Problem("two layers", 4, (5, 3), 7)
ODD = Problem("widths that divide nothing", 3, (13, 1, 7), 11)
DEEP = Problem("four layers", 6, (9, 8, 7, 5), 10)
PROBLEMS = (UNIT, SAMPLE, SMALL, ODD, DEEP)


def to_skajax(weights, dtype=jnp.float64):
    return tuple(ska.DenseWeights(jnp.asarray(W, dtype), jnp.asarray(b, dtype)) for W, b in weights)


def to_numpy(weights):
    return [(np.asarray(w.W, np.float64), np.asarray(w.b, np.float64)) for w in weights]


def flat(weights):
    """All weights in one vector."""
    return np.concatenate([np.ravel(leaf) for entry in weights for leaf in entry])


def unflat(vector, like):
    weights, start = [], 0
    for W, b in like:
        middle, stop = start + W.size, start + W.size + b.size
        weights.append((vector[start:middle].reshape(W.shape), vector[middle:stop]))
        start = stop
    return weights


def forward(weights, x):
    Z, D = [], []
    for W, b in weights:
        Z.append(x @ W + b)
        D.append(expit(Z[-1]))
        x = D[-1]
    return Z, D


def slope(z):
    """D' = sigma (1 - sigma)."""
    return expit(z) * expit(-z)


def shannon(z):
    """Binary entropy of sigma(z), bits: by its definition, from both probabilities."""
    D, rest = expit(z), expit(-z)
    return -(xlogy(D, D) + xlogy(rest, rest)) / LN2


def flow(weights, x):
    """Eq. 3-4: the batch's mean of the outer products of each sample's input and gradient."""
    rates = []
    for W, b in weights:
        z = x @ W + b
        gradient = -z * slope(z) / LN2
        rates.append((-np.einsum("bi,bj->ij", x, gradient) / len(x), -gradient.mean(axis=0)))
        x = expit(z)
    return rates


def tangents(weights, velocity, x):
    """dZ/dt and dD/dt, layer by layer, by the product rule."""
    xdot = np.zeros_like(x)
    Zdot, Ddot = [], []
    for (W, b), (dW, db) in zip(weights, velocity, strict=True):
        z = x @ W + b
        Zdot.append(x @ dW + xdot @ W + db)
        Ddot.append(slope(z) * Zdot[-1])
        x, xdot = expit(z), Ddot[-1]
    return Zdot, Ddot


def observables(weights, velocity, x, start):
    """Every observable at one instant of a motion that began with the weights ``start``."""
    Z, D = forward(weights, x)
    Z0, _ = forward(start, x)
    Zdot, Ddot = tangents(weights, velocity, x)
    inputs, inputs_dot = [x, *D[:-1]], [np.zeros_like(x), *Ddot[:-1]]
    rows = []
    for (W, _), (dW, db), a, adot, z, d, z0, zdot, ddot in zip(
        weights, velocity, inputs, inputs_dot, Z, D, Z0, Zdot, Ddot, strict=True
    ):
        gradient = -z * slope(z) / LN2
        softplus = np.sum(np.logaddexp(0, z) - np.logaddexp(0, z0))
        change = np.sum(shannon(z)) - np.sum(shannon(z0))
        rows.append(
            {
                "entropy": np.sum(shannon(z)),
                "energy": np.sum(shannon(z)),
                "entropy_rate": -np.sum(z * ddot) / LN2,
                "dissipation": -np.sum(gradient * (a @ dW + db)),
                "transport": np.sum(gradient * (adot @ W)),
                "alignment": np.sum(z * ddot) / np.linalg.norm(z) / np.linalg.norm(ddot),
                "knowledge_norm": np.linalg.norm(z),
                "flow_norm": np.linalg.norm(zdot),
                "weight_norm": np.linalg.norm(W),
                "tensor_net_rate": np.sum((d + gradient) * zdot),
                "tensor_net": softplus + change,
                "tensor_net_rate_equation": np.sum((d - gradient) * zdot),
                "tensor_net_equation": softplus - change,
                "lagrangian": -np.sum(z * slope(z) * zdot),
            }
        )
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return found | {"output_mean": D[-1].mean(axis=0)}


def solve(weights, x, times):
    """Weights along the ODE at the times, to about 1e-13: each time is the end of an integration."""
    found, t, y = [], 0.0, flat(weights)
    for end in map(float, times):
        if end > t:
            run = solve_ivp(
                lambda _, y: flat(flow(unflat(y, weights), x)),
                (t, end),
                y,
                "DOP853",
                t_eval=[end],
                rtol=2.3e-14,
                atol=1e-15,
            )
            t, y = end, run.y[:, -1]
        found.append(unflat(y, weights))
    return found


def exact(weights, x, t):
    """One layer and one sample: weights at time t in closed form.

    The neurons are then independent, c = |x|^2 + 1 and dz/dt = c z D'(z) / ln 2, which separates:
    1 / D' = 2 + 2 cosh z, so c t / (2 ln 2) = [ln z + Chi(z)] from z(0) to z(t), and W moves along x.
    """
    ((W, b),) = weights
    (sample,) = x
    c = sample @ sample + 1
    z0 = sample @ W + b

    def passed(z):
        return np.log(z) + shichi(z)[1]

    def knowledge(z):
        goal = passed(z) + c * t / (2 * LN2)
        return brentq(lambda v: passed(v) - goal, z, z + 50, xtol=1e-15, rtol=1e-15)

    moved = np.array([np.sign(z) * (knowledge(abs(z)) - abs(z)) for z in z0]) / c
    return [(W + np.outer(sample, moved), b + moved)]
