"""When each layer will learn, before it does: from data and architecture alone."""

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import as_array, as_key, is_traced, is_whole, require
from skajax._summary import Summarised, Summary, lanes, numbered, per_layer
from skajax._types import (
    Array,
    Bool,
    Float,
    Inputs,
    Key,
    PerLayer,
    SaveTimes,
    Scalar,
    TimeSeries,
    Weights,
)
from skajax.network import Network, check_inputs, check_weights
from skajax.timescales._reduced import Curves, Thin, observe, solve
from skajax.timescales._spectrum import Spectrum, spectrum
from skajax.timescales._thin import Size, Stack, dense_layers, drawn, stack_of, taken

RECORDS = 48
"""Instants at which the reduced model is looked at."""
REACH = 1.75
"""They lie within so many times the time that a layer needs to saturate if it grows as at first."""
SATURATED = 3.0
"""|z| at about which it does: z D'(z), which drives it, is largest at z tanh(z/2) = 1, |z| = 1.54."""
DOUBLINGS = 8
"""How often later times are tried where a flow still rises at the last."""


class Prediction(Summarised, eqx.Module):
    """When each layer's flow will peak, and the curves on the way, predicted.

    Under ``jax.vmap`` every array has the mapped axes in front.
    """

    peak: Float[Array, "*lanes layers"]
    """When ‖Φ‖ is largest, one time a layer."""
    inside: Bool[Array, "*lanes layers"]
    """False where the flow is largest at t = 0 (it starts saturated), or had found no end of rising."""
    spread: Float[Array, "*lanes layers"]
    """Standard deviation of the peak's time over the draws; 0 for weights given, and for one draw. Less than
    over initialisations, a half or a third of it: each draw is made to be near to what is to be expected."""
    steepest: Float[Array, "*lanes layers"]
    """When the entropy falls fastest, the minimum of its rate."""
    rates: Float[Array, "*lanes layers"]
    """The leading growth rate at the start: λ_1, and r (n_{l-1}/4 + 1) / (4 ln 2) above it."""
    t: Float[Array, "*lanes times"]
    """Times of the curves, 0 the first."""
    knowledge_norm: Float[Array, "*lanes times layers"]
    """‖Z‖_F, (times, layers)."""
    flow_norm: Float[Array, "*lanes times layers"]
    """‖Φ‖_F."""
    entropy: Float[Array, "*lanes times layers"]
    """H, bits."""
    entropy_rate: Float[Array, "*lanes times layers"]
    """Bits per time."""
    share: Scalar
    """What an evaluation of the reduced flow costs, of one of the network's: in products' operations."""

    def summary(self) -> Summary:
        """Of each layer when its flow peaks, its growth rate and the entropy that is left."""
        if np.ndim(self.peak) > 1:
            return Summary((f"Prediction: {lanes(np.shape(self.peak)[:-1])}",))
        cost = f"an evaluation costs {float(self.share):.2%} of the network's own"
        t = f"Prediction to t = {float(self.t[-1]):.4g}; {cost}"
        peaks = per_layer("flow peaks at t", np.asarray(self.peak))
        marked = [
            number if inside else f"({number})"
            for number, inside in zip(peaks[1:], np.asarray(self.inside), strict=True)
        ]
        rows = [
            numbered(len(marked)),
            (peaks[0], *marked),
            per_layer("spread of that", np.asarray(self.spread), "{:.2g}"),
            per_layer("first growth rate", np.asarray(self.rates)),
            per_layer("entropy left", np.asarray(self.entropy[-1] / self.entropy[0]), "{:.3g}"),
        ]
        outside = "" if all(self.inside) else "; in brackets: no peak within that time"
        return Summary((t + outside,), tuple(rows))


class _Found(NamedTuple):
    """Of every draw, (draws, ...): curves at times that show the peaks, or that are still too short."""

    times: TimeSeries
    curves: Curves
    reach: PerLayer
    tries: Array


def predict(
    network: Network,
    weights: Weights | None,
    x: Inputs,
    *,
    spectrum: Spectrum | None = None,
    key: Key | None = None,
    draws: int = 1,
    t: SaveTimes | None = None,
    size: Size | None = None,
) -> Prediction:
    """Each layer's time of peak flow and its curves, from a thinned network's flow (eq. 3-4, 31).

    Main arguments: a network of dense layers, its initial weights, or None, and the batch.

    - ``weights`` None: what is to be expected of weights drawn as ``network.init`` draws them. The
      result is the mean over ``draws`` of the thinned network, made from ``key``; ``spread`` is theirs,
      and less than that of as many initialisations.
    - ``spectrum``: that of x, with at least ``size.modes`` modes, where it is known already.
    - ``t``: times, increasing from 0, at which the curves are wanted, instead of those that were
      found to show every peak.
    - ``size``: how many samples, modes and neurons a layer are kept.

    **Assumptions.** Neurons of a layer are alike, so that a few stand for all; a layer knows the one
    below through the kernel D Dᵀ + 1 alone, of which the neurons kept give an estimate; samples spread
    evenly along the leading mode, with the second moments of the batch in all modes kept, stand for
    the batch; the modes left out do not move. With nothing left out it is the network's own flow.

    **It fails** where the initial knowledge is not small: with a root mean square of z above 0.3 errors
    of 10 % are common, above 2 there is no saying. Then no mode leads, flows have several humps of
    about the same height, and which is the largest depends on the very neurons left out. With
    ``weights`` None it cannot know the seed: layers of 10 neurons and fewer, whose mean amplitude is a
    matter of luck, peak up to a third earlier or later than is to be expected, and what lies above a
    narrow layer with it. For narrow networks the cost (``share``) is not small either: there
    is nothing to leave out.

    Works inside jit (network, draws and size static) and vmap. Raises ValueError for arguments that
    do not fit: their names, what they must be, what they were.

    >>> foreseen = ska.timescales.predict(network, None, x)  # no weights: what initialisations have in common
    >>> [f"{t:.1f}" for t in foreseen.peak]
    ['0.2', '1.9']
    """
    question = asked(network, weights, x, spectrum, key, draws, size)
    if t is not None:
        t = _times_asked(t, question.x.dtype)
    return prediction(question, thinned(question), t)


class Question(NamedTuple):
    """What the reduced model is asked, checked."""

    stack: Stack
    weights: Weights | None
    x: Inputs
    known: Spectrum
    key: Key | None
    draws: int
    size: Size


def asked(
    network: Network,
    weights: Weights | None,
    x: Inputs,
    spectrum: Spectrum | None,
    key: Key | None,
    draws: int,
    size: Size | None,
) -> Question:
    """The question; raises ValueError where an argument does not fit."""
    dense_layers(network)
    x = as_array("x", x)
    check_inputs(x)
    if weights is not None:
        given: Weights = jax.tree.map(lambda leaf: as_array("weights", leaf), weights)
        check_weights(network, given, x)
        weights = given
    size = Size() if size is None else size
    require(isinstance(size, Size), "size", "be a skajax.timescales.Size", f"it was {size!r}")
    key = None if key is None else as_key("key", key)
    require(is_whole(draws), "draws", "be a whole number, at least 1", f"it was {draws!r}")
    known = _known_spectrum(x, spectrum, size)
    return Question(stack_of(network, x.dtype), weights, x, known, key, int(draws), size)


def require_known(*arrays: object) -> None:
    """Refuse what is traced, where the answer depends on values."""
    must = "be known: this makes decisions by values, and works outside of jit, vmap and grad only"
    require(not is_traced(arrays), "x", must, "it, or the weights, were traced")


def _known_spectrum(x: Array, known: Spectrum | None, size: Size) -> Spectrum:
    """The spectrum given, if it is one of x; without, as much of it as is needed."""
    most = min(x.shape[0], x.shape[1] + 1)
    if known is None:
        return spectrum(x, min(size.modes, most))
    fits = known.modes.shape[0] == x.shape[0] and known.directions.shape[0] == x.shape[1] + 1
    require(
        fits,
        "spectrum",
        f"be that of x, {x.shape}",
        f"its modes are of {known.modes.shape[0]} samples and {known.directions.shape[0] - 1} inputs",
    )
    return known


def _times_asked(t: SaveTimes, dtype: Any) -> TimeSeries:
    """The times as an array, if curves can be had there."""
    times = jnp.asarray(as_array("t", t), dtype)
    fits = times.ndim == 1 and times.shape[0] >= 2
    if fits and not is_traced(times):
        values = np.asarray(times)
        fits = bool(values[0] == 0 and np.isfinite(values).all() and (np.diff(values) > 0).all())
    require(fits, "t", "be two or more finite times that increase from 0", f"it was {t!r}")
    return times


@eqx.filter_jit
def thinned(question: Question) -> Thin:
    """Thinned networks, stacked: one of given weights, or as many as are drawn."""
    stack, weights, x, known, key, draws, size = question
    if weights is not None:
        return jax.tree.map(lambda a: a[None], taken(stack, weights, x, known, size))
    keys = jax.random.split(jax.random.key(0) if key is None else key, draws)
    return jax.vmap(lambda k: drawn(stack, k, x, known, size))(keys)


def prediction(question: Question, thins: Thin, t: TimeSeries | None) -> Prediction:
    """What a few thinned networks, stacked, come to."""
    x, stack = question.x, question.stack
    part = share(thins, [x.shape[1], *stack.widths], x.shape[0])
    return _predicted(thins, t, jnp.asarray(part, x.dtype))


@eqx.filter_jit
def _predicted(thins: Thin, t: TimeSeries | None, share: Scalar) -> Prediction:
    """Of the thinned networks alone, so that networks of other widths and batches share its program."""
    found = _found(thins)
    peaks, inside = jax.vmap(partial(_largest, found.times))(found.curves.flow_norm)
    steepest, _ = jax.vmap(partial(_largest, found.times))(-found.curves.entropy_rate)
    times, curves = found.times, found.curves
    if t is not None:
        times, curves = t, jax.vmap(lambda thin: solve(thin, t))(thins)
    root_mean_square = lambda a: jnp.sqrt(jnp.mean(a**2, axis=0))
    return Prediction(
        peak=peaks.mean(axis=0),
        inside=inside.all(axis=0),
        spread=peaks.std(axis=0),
        steepest=steepest.mean(axis=0),
        rates=thins.rates[0],
        t=times,
        knowledge_norm=root_mean_square(curves.knowledge_norm),
        flow_norm=root_mean_square(curves.flow_norm),
        entropy=curves.entropy.mean(axis=0),
        entropy_rate=curves.entropy_rate.mean(axis=0),
        share=share,
    )


def share(thins: Thin, widths: list[int], samples: int) -> float:
    """Operations of the matrix products of an evaluation of the flow, all thinned networks' over one's."""
    whole = samples * sum(n * m for n, m in pairwise(widths))
    draws, kept = thins.x.shape[:2]
    thinned = draws * kept * sum(W.shape[1] * W.shape[2] for W, _ in thins.weights)
    return thinned / whole


def reach_of(thins: Thin) -> PerLayer:
    """For how long each layer is to be looked at, if it grows as at first until it saturates."""
    start = jax.vmap(lambda thin: observe(thin, thin.weights).knowledge_norm)(thins) / thins.norms
    entries = jnp.asarray([thins.x.shape[1] * W.shape[2] for W, _ in thins.weights], start.dtype)
    size = jnp.sqrt(jnp.mean(start**2, axis=0) / entries)
    # Knowledge of size 0 stays 0: any time will do.
    return REACH * jnp.log1p(SATURATED / jnp.where(size > 0, size, 1)) / thins.rates[0]


def _found(thins: Thin) -> _Found:
    """The curves, at times that show every layer's peak."""

    def attempt(reach: PerLayer, tries: Array) -> _Found:
        times = instants(reach, RECORDS)
        curves = jax.vmap(lambda thin: solve(thin, times))(thins)
        return _Found(times, curves, reach, tries)

    def rising(found: _Found) -> Bool[Array, " layers"]:
        last = jnp.argmax(found.curves.flow_norm, axis=1) >= RECORDS - 3
        return last.any(axis=0)

    def again(found: _Found) -> _Found:
        late = (found.tries > 0) & rising(found)
        reach = jnp.where(late, 2 * found.times[-1], found.reach)
        return attempt(reach, found.tries + 1)

    reach = reach_of(thins)
    none = jax.tree.map(jnp.zeros_like, jax.eval_shape(attempt, reach, jnp.asarray(0)))
    return jax.lax.while_loop(
        lambda found: (found.tries == 0) | (rising(found).any() & (found.tries <= DOUBLINGS)),
        again,
        none._replace(reach=reach),
    )


def instants(reach: PerLayer, records: int) -> TimeSeries:
    """So many times from 0 to the longest reach, of which each layer has an equal share within its own."""
    knots = jnp.sort(jnp.concatenate([jnp.zeros(1, reach.dtype), reach]))
    passed = jnp.minimum(knots[:, None] / reach[None, :], 1).mean(axis=1)
    return jnp.interp(jnp.linspace(0, 1, records, dtype=reach.dtype), passed, knots)


def _largest(t: TimeSeries, series: Any) -> tuple[PerLayer, Bool[Array, " layers"]]:
    """Where each column is largest: the vertex of the parabola through the three records there."""
    best = jnp.argmax(series, axis=0)
    inside = (best > 0) & (best < t.shape[0] - 1) & jnp.isfinite(series).all(axis=0)
    middle = jnp.clip(best, 1, t.shape[0] - 2)
    t0, t1, t2 = (t[middle + k] for k in (-1, 0, 1))
    y0, y1, y2 = (jnp.take_along_axis(series, (middle + k)[None], axis=0)[0] for k in (-1, 0, 1))
    left, right = (y1 - y0) / (t1 - t0), (y2 - y1) / (t2 - t1)
    curvature = (right - left) / (t2 - t0)
    bent = curvature < 0
    vertex = (t0 + t1) / 2 - left / (2 * jnp.where(bent, curvature, 1))
    return jnp.where(inside & bent, vertex, t[best]), inside
