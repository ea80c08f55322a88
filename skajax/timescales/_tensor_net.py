"""When each layer's Tensor Net will cross zero, before there is a run."""

import dataclasses
from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from skajax._checks import as_array, require, require_positive
from skajax._summary import Summarised, Summary, lanes, numbered, per_layer
from skajax._types import (
    Array,
    Float,
    Inputs,
    Int,
    Key,
    PerLayer,
    Scalar,
    ScalarLike,
    Sign,
    TimeSeries,
    Weights,
)
from skajax.entropy import decision, orientation
from skajax.layers import DenseWeights
from skajax.network import Network, check_inputs, check_weights
from skajax.timescales._net_law import NetLaw, net_amplitudes, net_law
from skajax.timescales._predict import Question, asked, instants, predict, reach_of, thinned
from skajax.timescales._reduced import Curves, Thin, forward, solve
from skajax.timescales._spectrum import Spectrum
from skajax.timescales._thin import Size, dense_layers, taken

MOST = 4
"""Crossings of the reduced model of which time and ‖Z‖ are kept; there is hardly ever a third."""
RECORDS = 129
"""Instants between which the reduced model's rate is looked at for a change of its sign."""
SAMPLES, MODES = 128, 32
"""More than times of peak flow need; and no neuron is left out, because the balance hangs on single ones."""


class NetCrossings(eqx.Module):
    """Zero crossings of each layer, in the order of time; NaN beyond the last."""

    count: Int[Array, "*draws layers"]
    t: Float[Array, "*draws layers most"]
    knowledge_norm: Float[Array, "*draws layers most"]
    """‖Z‖_F there."""

    @property
    def last(self) -> tuple[Float[Array, "*draws layers"], Float[Array, "*draws layers"]]:
        """Time and ‖Z‖ of the last one, NaN where there is none."""
        place = jnp.clip(self.count - 1, 0, self.t.shape[-1] - 1)[..., None]
        take = lambda a: jnp.take_along_axis(a, place, axis=-1)[..., 0]
        return take(self.t), take(self.knowledge_norm)


class TensorNet(Summarised, eqx.Module):
    """Predicted crossings of each layer; with the draws in front where weights are drawn."""

    share: Float[Array, "*draws layers"]
    """p: which share of the layer's knowledge z rises at first, along the mode that leads."""
    law: NetCrossings
    """As if all of a layer's knowledge had one amplitude (:func:`net_amplitudes`)."""
    reduced: NetCrossings
    """By the reduced model, where each sample and neuron has its own."""
    expected: tuple[NetLaw, ...] | None
    """Of each layer, what the law expects of the architecture alone; None where weights are given."""
    t: Float[Array, "*lanes times"]
    """Times of the curves, 0 the first."""
    rate: Float[Array, "*draws times layers"]
    """The Tensor Net's rate by the reduced model."""
    knowledge_norm: Float[Array, "*draws times layers"]
    """‖Z‖_F by the reduced model."""
    sign: Sign = eqx.field(static=True)

    @property
    def odds(self) -> Float[Array, "layers 3"]:
        """Shares of the draws that cross not at all, once, and twice or more, by the reduced model."""
        count = jnp.atleast_2d(self.reduced.count)
        parts = [count == 0, count == 1, count >= 2]
        return jnp.stack([part.mean(axis=0, dtype=self.t.dtype) for part in parts], axis=-1)

    def summary(self) -> Summary:
        """Of each layer the share, how often it crosses, and where the last time."""
        if self.t.ndim > 1:
            return Summary((f"TensorNet: {lanes(np.shape(self.t)[:-1])}",))
        told = f"Tensor Net's rate to t = {float(self.t[-1]):.4g}, {self.sign} sign"
        if self.expected is None:
            t, Z = (np.asarray(a) for a in self.reduced.last)
            rows = [
                numbered(len(self.share)),
                per_layer("share that rises", np.asarray(self.share), "{:.3f}"),
                per_layer("crossings", np.asarray(self.reduced.count), "{:d}"),
                per_layer("the last at t", t),
                per_layer("... at ‖Z‖", Z),
                per_layer("crossings by one amplitude", np.asarray(self.law.count), "{:d}"),
                per_layer("... the last at ‖Z‖", np.asarray(self.law.last[1])),
            ]
            return Summary((told,), tuple(rows))
        rows = [numbered(self.share.shape[-1])]
        for k, text in enumerate(("none", "one", "two or more")):
            rows.append(per_layer(f"crossings: {text}", np.asarray(self.odds[:, k]), "{:.2f}"))
        for k, text in enumerate(("none", "one", "two")):
            counts = [float(law.counts[k]) for law in self.expected]
            rows.append(per_layer(f"... by one amplitude: {text}", counts, "{:.2f}"))
        for name, values in zip(("t", "‖Z‖"), self.reduced.last, strict=True):
            bands = [_quartiles(column) for column in np.asarray(values).T]
            rows.append((f"the last at {name}, quartiles", *bands))
        return Summary((f"{told}, {len(self.share)} draws",), tuple(rows))


def tensor_net(
    network: Network,
    weights: Weights | None,
    x: Inputs,
    *,
    t1: ScalarLike | None = None,
    sign: Sign = "published",
    spectrum: Spectrum | None = None,
    key: Key | None = None,
    draws: int = 64,
    size: Size | None = None,
) -> TensorNet:
    """When each layer's Tensor Net rate Σ (D ± ∇_z H) ż will cross zero, and at which ‖Z‖ (eq. 26-28).

    Main arguments: a network of dense layers, its initial weights, or None, and the batch.

    Two answers. ``law``: if all of a layer's knowledge had one amplitude a, the rate would vanish where
    f(-a) / f(a) = p / (1 - p) (:func:`net_amplitudes`), at ‖Z‖ = a √(B n); the time is when the reduced
    model's ‖Z‖ comes by. ``reduced``: the reduced model of :func:`predict`, which has the spread of
    amplitudes over samples and neurons, and the motion of the layers below; its rate changes sign.

    The share p is that of the pairs of a sample and a neuron that rise in the mode which leads while
    knowledge is small: a first layer's z grows as u_b (v·w_j) e^{λt}, u and v the leading mode of
    :func:`spectrum` over samples and inputs; a hidden layer's as its mean over the samples.

    - ``weights`` None: ``draws`` initialisations by ``network.init``, from ``key``, each as if it were
      given; and ``expected``, the law over all initialisations (:func:`net_law`), where p is binomial.
    - ``t1``: crossings after it are not counted; by default soon after the last layer's flow has peaked.
    - ``sign``: "published" or "equation".
    - ``spectrum``: that of x, where it is known already. ``size``: how much of the network is kept, by
      default 128 samples, 32 modes and all neurons.

    **Where it fails.** The law, wherever amplitudes differ: while knowledge is small the sign is that of
    Σ a_j, of the sum of the amplitudes and not of their number, so that with p < 1/2 a few large ones can
    make the rate begin positive, and cross twice; first layers of images cross at a smaller ‖Z‖ than
    the law's, because samples differ; above a layer that moves first, p drifts. The reduced model, as
    :func:`predict`, where the start is saturated (root mean square of z above 0.3); and where two crossings
    are about to merge, which in wide layers, with |p - 1/2| below 1/√n, what was left out of the batch
    decides. Biases shift the chance q with which a neuron rises: both models have that, and ``expected``.
    With inputs of both signs a neuron rises for some samples and falls for others: p is near 1/2, and
    means little.

    Works inside jit (network, draws, size and sign static) and vmap. Raises ValueError for arguments that
    do not fit: their names, what they must be, what they were.

    >>> x, _ = ska.data.mnist_subset(per_class=5)
    >>> network = ska.mlp([64, 32])
    >>> found = ska.timescales.tensor_net(network, network.init(jax.random.key(3), x), x)
    >>> print(found.share, found.reduced.count)
    [0.515625 0.5     ] [2 0]
    """
    (found,) = answers(network, weights, x, (sign,), t1, spectrum, key, draws, size)
    return found


def answers(
    network: Network,
    weights: Weights | None,
    x: Inputs,
    signs: tuple[Sign, ...],
    t1: ScalarLike | None,
    spectrum: Spectrum | None = None,
    key: Key | None = None,
    draws: int = 64,
    size: Size | None = None,
) -> tuple[TensorNet, ...]:
    """The prediction in several signs, by the same curves."""
    widths = tuple(layer.width for layer in dense_layers(network))
    for sign in signs:
        orientation(sign)  # refused before anything is solved
    size = Size(SAMPLES, MODES, max(widths)) if size is None else size
    question = asked(network, weights, x, spectrum, key, draws, size)
    if t1 is None:
        end = predict(network, weights, x, spectrum=question.known, key=key).t[-1]
    else:
        end = require_positive("t1", t1, "a time")
    thins = _drawn(network, question) if weights is None else thinned(question)
    times = _times(thins, jnp.asarray(end, question.x.dtype))
    curves = _curves(thins, times)
    entries = jnp.asarray([len(x) * width for width in widths], times.dtype)
    found = []
    for sign in signs:
        read = partial(_read, times, entries, sign)
        if weights is not None:
            found.append(read(*jax.tree.map(lambda a: a[0], (thins, curves))))
            continue
        laws = zip(widths, _chances(question), strict=True)
        expected = tuple(net_law(n, chance=q, side=s, sign=sign) for n, (q, s) in laws)
        drawn = jax.vmap(read)(thins, curves)
        found.append(dataclasses.replace(drawn, t=times, expected=expected))
    return tuple(found)


@eqx.filter_jit
def _drawn(network: Network, question: Question) -> Thin:
    """Thinned networks, stacked, of weights as the network draws them."""
    stack, _, x, known, key, draws, size = question
    keys = jax.random.split(jax.random.key(0) if key is None else key, draws)
    return jax.lax.map(lambda key: taken(stack, network.init(key, x), x, known, size), keys)


@eqx.filter_jit
def _times(thins: Thin, end: Scalar) -> TimeSeries:
    """Times to the end: of them each layer has a share while it grows, and the whole a share."""
    return instants(jnp.append(jnp.minimum(reach_of(thins), end), end), RECORDS)


@eqx.filter_jit
def _curves(thins: Thin, times: TimeSeries) -> Curves:
    """Of each thinned network: the one large program, of both signs and of all networks of these sizes."""
    return jax.lax.map(lambda thin: solve(thin, times), thins)


@eqx.filter_jit
def _read(
    times: TimeSeries, entries: PerLayer, sign: Sign, thin: Thin, curves: Curves
) -> TensorNet:
    """What the curves of one thinned network say."""
    share, Z = _rising(thin), curves.knowledge_norm
    sizes = net_amplitudes(share, sign) * jnp.sqrt(entries)[:, None]
    rate = curves.decided_rate + orientation(sign) * curves.entropy_rate
    law, reduced = _passing(times, Z, sizes), _crossing(times, rate, Z)
    return TensorNet(share, law, reduced, None, times, rate, Z, sign)


def _rising(thin: Thin) -> PerLayer:
    """Which share of each layer's pairs of a sample and a neuron rises in the mode that leads."""
    first, *hidden = forward(thin, thin.weights)
    along = thin.x[:, 0, None] * thin.weights[0][0][None, 0]
    means = [along, *(layer.z.mean(axis=0) for layer in hidden)]
    return jnp.stack([jnp.mean(mean > 0, dtype=first.z.dtype) for mean in means])


def _chances(question: Question) -> list[tuple[Array, Array]]:
    """Of each layer, the chance that a neuron's amplitude in the leading mode is positive, and its side."""
    stack, x, known = question.stack, question.x, question.known
    row, mode = known.directions[-1, 0], known.modes[:, 0]
    inputs = jnp.asarray(stack.widths[:-1], x.dtype)
    size = stack.scales * jnp.concatenate([jnp.sqrt(1 - row**2)[None], jnp.sqrt(inputs) / 2])
    mean = stack.biases * jnp.ones_like(size).at[0].set(row)
    tiny = float(jnp.finfo(x.dtype).tiny)
    chances = jax.scipy.stats.norm.cdf(mean / jnp.maximum(size, tiny))
    sides = jnp.ones_like(size).at[0].set(jnp.mean(mode > 0, dtype=x.dtype))
    return list(zip(chances, sides, strict=True))


def _crossing(t: TimeSeries, rate: Array, Z: Array) -> NetCrossings:
    """Where the rate, (times, layers), changes its sign: linear between two records."""
    before, after = rate[:-1], rate[1:]
    there = jnp.sign(before) * jnp.sign(after) < 0
    part = before / jnp.where(there, before - after, 1)
    return _listed(
        t[:-1, None] + part * jnp.diff(t)[:, None], Z[:-1] + part * jnp.diff(Z, axis=0), there
    )


def _passing(t: TimeSeries, Z: Array, sizes: Float[Array, "layers two"]) -> NetCrossings:
    """Where ‖Z‖, (times, layers), first comes to these sizes."""
    most = jax.lax.cummax(Z)
    when = jax.vmap(jnp.interp, (0, 1, None))(sizes, most, t)
    there = (sizes > Z[0][:, None]) & (sizes <= most[-1][:, None])
    return _listed(when.T, sizes.T, there.T)


def _listed(t: Array, Z: Array, there: Array) -> NetCrossings:
    """Crossings among candidates, (candidates, layers), the earliest first."""
    order = jnp.argsort(jnp.where(there, t, jnp.inf), axis=0)[:MOST]
    found = jnp.take_along_axis(there, order, axis=0)
    take = lambda a: jnp.where(found, jnp.take_along_axis(a, order, axis=0), jnp.nan).T
    return NetCrossings(there.sum(axis=0), take(t), take(Z))


def signed(
    network: Network,
    weights: Weights,
    x: Inputs,
    shares: float | Sequence[float] | Float[np.ndarray, " layers"],
) -> Weights:
    """The weights with the signs of neurons so chosen that a share p of each layer rises.

    W and b of a neuron change their signs together, which symmetric distributions do not notice. Which
    neurons rise alternates along the order of their amplitudes, so that p is the balance of number and of
    size: with p below 1/2, such as 0.4, a layer's Tensor Net rate crosses zero; above 0.557, such as
    0.75, it does not (:func:`net_amplitudes`).

    ``shares``: p, one or one a layer, from 0 to 1; the nearest m/n is taken. A neuron rises if its mean
    knowledge at t = 0 is positive; layer by layer, because each reads the changed one below.

    Works inside jit, vmap and grad. Raises ValueError for arguments that do not fit.

    >>> x, _ = ska.data.mnist_subset(per_class=5)
    >>> network = ska.mlp([64, 32])
    >>> weights = ska.timescales.signed(network, network.init(jax.random.key(3), x), x, 0.75)
    >>> print(ska.timescales.tensor_net(network, weights, x).reduced.count)
    [0 0]
    """
    layers = dense_layers(network)
    x = as_array("x", x)
    check_inputs(x)
    weights = jax.tree.map(lambda leaf: as_array("weights", leaf), weights)
    check_weights(network, weights, x)
    wanted = np.asarray(shares, float)
    fits = wanted.shape in ((), (len(layers),)) and bool(((wanted >= 0) & (wanted <= 1)).all())
    must = f"be one share from 0 to 1, or one for each of the {len(layers)} layers"
    require(fits, "shares", must, f"it was {shares!r}")
    below, chosen = x, []
    for layer, entry, p in zip(layers, weights, np.broadcast_to(wanted, len(layers)), strict=True):
        mean = layer.knowledge(entry, below).mean(axis=0)
        rising = np.diff(np.floor(p * np.arange(layer.width + 1) + 0.5)) > 0
        rises = jnp.zeros_like(mean, bool).at[jnp.argsort(jnp.abs(mean))].set(rising)
        sign = jnp.where((mean > 0) == rises, 1, -1).astype(mean.dtype)
        entry = DenseWeights(entry.W * sign[None, :], entry.b * sign)
        chosen.append(entry)
        below = decision(layer.knowledge(entry, below))
    return tuple(chosen)


def _quartiles(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    return "-".join(f"{q:.3g}" for q in np.quantile(known, [0.25, 0.75])) if known.size else "–"
