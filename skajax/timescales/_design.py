"""Layers that peak at wanted times: initial scales, or rates of learning, found by prediction."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from skajax._checks import require, require_positive
from skajax._types import Array, Bool, Count, Inputs, Key, PerLayer
from skajax.layers import Paced
from skajax.network import Network
from skajax.timescales._predict import Prediction, asked, prediction, require_known, thinned
from skajax.timescales._spectrum import Spectrum
from skajax.timescales._thin import Size, dense_layers

FINEST = 1e-3
"""To which the reduced model is solved."""
STEPS = 12
"""How far the other side of a wanted time is looked for."""


class Design(eqx.Module):
    """A network whose layers are predicted to peak at the wanted times, or the nearest that was found."""

    network: Network = eqx.field(static=True)
    """Dense layers with the scales found, or :class:`skajax.Paced` ones with the rates."""
    values: PerLayer
    """The scales, or the rates."""
    wanted: PerLayer
    prediction: Prediction
    """Of that network."""
    reached: Bool[Array, " layers"]
    """Whether the predicted peak is where it was to be."""
    tried: Count
    """Predictions that it took."""

    @property
    def succeeded(self) -> bool:
        """Whether every layer's is."""
        return bool(np.all(self.reached))

    def __str__(self) -> str:
        """What was found, layer by layer."""
        lines = [
            f"layer {number}: {value:.4g} for a peak at t = {peak:.4g}"
            + ("" if reached else f", not at {wanted:.4g}: no value that was tried makes it")
            for number, (value, peak, wanted, reached) in enumerate(
                zip(self.values, self.prediction.peak, self.wanted, self.reached, strict=True), 1
            )
        ]
        return "\n".join(lines)


def design(
    network: Network,
    x: Inputs,
    times: float | Sequence[float],
    *,
    by: Literal["scale", "rate"] = "scale",
    spectrum: Spectrum | None = None,
    key: Key | None = None,
    draws: int = 4,
    size: Size | None = None,
    tolerance: float = 1e-2,
) -> Design:
    """The initial scale, or the rate of learning, of each layer for which it peaks at a wanted time.

        t_l(v_1, ..., v_l) = times_l,    where t_l is :func:`predict`'s peak of ‖Φ^(l)‖,

    one layer after the other from the first, because no layer feels those above it: each is one
    number and one equation, bracketed and solved by Brent's method on their logarithms.

    Main arguments: a network of dense layers, the batch, and the times, one for all layers or one each.

    - ``by="scale"``: σ in W(0) ~ N(0, σ²). A layer peaks later by 1/λ_l for each factor e that σ is
      smaller, λ_l its growth rate; much earlier than 2/λ_l no σ makes it: the layer begins saturated. Near to
      that σ is large, predictions fail, and seeds differ by half of the time: look at ``prediction``.
    - ``by="rate"``: r in dW/dt = -r ∇H, as a :class:`skajax.Paced` layer. The first layer's time is
      as 1/r; a hidden layer's nearly so, as long as the input's own motion does not carry its peak.
    - ``spectrum``, ``key``, ``draws``, ``size``: as in :func:`predict`, whose assumptions these are.
    - ``tolerance``: how far a predicted peak may be from its time, relative to it; at least 1e-3.

    Returns a :class:`Design`, whose ``network`` is to be initialised and run as any: ``weights =
    found.network.init(key, x)``, then ``ska.simulate(found.network, weights, x, ...)`` by any method.
    That a time cannot be reached is no error: ``found.reached`` and ``str(found)`` say so. For given
    weights and exact times, at the price of simulations, see ``skajax.study.synchronise``.

    Works outside of jit, vmap and grad. Raises ValueError for arguments that do not fit: their names,
    what they must be, what they were.

    >>> found = ska.timescales.design(network, x, 2.0)  # doctest: +SKIP
    >>> weights = found.network.init(jax.random.key(0), x)  # doctest: +SKIP
    """
    layers = dense_layers(network)
    wanted = _wanted(times, len(layers))
    require(by in ("scale", "rate"), "by", "be 'scale' or 'rate'", f"it was {by!r}")
    tolerance = require_positive("tolerance", tolerance, "a relative tolerance")
    fits = tolerance >= FINEST
    require(fits, "tolerance", f"be at least {FINEST:g}, the model's own", f"it was {tolerance!r}")
    require_known(x)
    question = asked(network, None, x, spectrum, key, draws, size)
    stack, dtype = question.stack, question.x.dtype
    values = np.array(stack.scales if by == "scale" else stack.pace, float)
    require(
        by == "rate" or bool((values > 0).all()),
        "network",
        "have scales above 0, to begin from",
        f"they were {values.tolist()}",
    )
    tried = 0

    def look(trial: np.ndarray) -> Prediction:
        nonlocal tried
        tried += 1
        number = jnp.asarray(trial, dtype)
        changed = eqx.tree_at(lambda s: s.scales if by == "scale" else s.pace, stack, number)
        changed = question._replace(stack=changed)
        return prediction(changed, thinned(changed), None)

    found = look(values)
    for layer, time in enumerate(map(float, wanted)):
        slope = -1 / float(found.rates[layer]) if by == "scale" else None

        def late(log: float, layer: int = layer, time: float = time) -> float:
            """The logarithm of the predicted time over the wanted one; 0 where they agree."""
            trial = values.copy()
            trial[layer] = math.exp(log)
            peak = float(look(trial).peak[layer])
            off = math.log(max(peak, 1e-6 * time) / time)
            return 0.0 if abs(off) < tolerance / 2 else off

        values[layer] = math.exp(_solve(late, math.log(values[layer]), time, slope))
        found = look(values)

    peaks = np.asarray(found.peak, float)
    return Design(
        network=_designed(network, values, by),
        values=jnp.asarray(values, dtype),
        wanted=jnp.asarray(wanted, dtype),
        prediction=found,
        reached=found.inside & jnp.asarray(np.abs(peaks / wanted - 1) <= tolerance),
        tried=tried,
    )


def _solve(late: Callable[[float], float], log: float, time: float, slope: float | None) -> float:
    """Where ``late`` is 0, from a first guess; or the nearest to it of those tried."""
    from scipy.optimize import brentq

    seen: dict[float, float] = {}

    def look(log: float) -> float:
        if log not in seen:
            seen[log] = late(log)
        return seen[log]

    here = look(log)
    for _ in range(STEPS):
        if here == 0:
            return log
        # By rate the time is as 1/r; by scale it moves by 1/λ for each factor e.
        step = here if slope is None else (math.exp(here) - 1) * time / -slope
        step = max(-6.0, min(6.0, step))
        there = log + (1.25 * step if abs(step) > 0.05 else math.copysign(0.1, here))
        if look(there) * here <= 0:
            root: Any = brentq(look, log, there, xtol=1e-6, maxiter=30, disp=False)
            seen.setdefault(root, look(root))
            break
        log, here = there, look(there)
    return min(seen, key=lambda tried: abs(seen[tried]))


def _designed(network: Network, values: np.ndarray, by: str) -> Network:
    layers = []
    dense = dense_layers(network)
    for layer, plain, value in zip(network.layers, dense, map(float, values), strict=True):
        scaled = dataclasses.replace(plain, scale=value)
        if by == "rate":
            layers.append(Paced(plain, value))
        else:
            layers.append(Paced(scaled, layer.rate) if isinstance(layer, Paced) else scaled)
    return Network(tuple(layers))


def _wanted(times: object, layers: int) -> np.ndarray:
    try:
        wanted = np.broadcast_to(np.asarray(times, float), (layers,))
    except (TypeError, ValueError):
        wanted = np.zeros(layers)
    require(
        bool(((wanted > 0) & np.isfinite(wanted)).all()),
        "times",
        f"be one positive time, or one for each of the {layers} layers",
        f"it was {times!r}",
    )
    return wanted
