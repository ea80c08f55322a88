"""Class separation (section 1.1): does accumulating knowledge tell classes apart, and until when?

SKA never sees a label. Whether the decisions D of a layer separate the classes better as knowledge
grows is therefore a question of measurement, against two yardsticks that cost no learning: the
inputs themselves, and the D of untrained layers at several scales of their weights.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skajax._checks import as_array, as_number, require, unmasked
from skajax._modes import enable_x64
from skajax._simulate import simulate
from skajax._types import Inputs, ScalarLike, Weights
from skajax._version import versions
from skajax.methods import Adaptive
from skajax.network import Network, check_inputs, check_weights
from skajax.study.work_precision import numbers

__all__ = ["cluster_agreement", "fisher_ratio", "probe_accuracy", "separation"]

METRICS = {
    "fisher": "Fisher ratio",
    "probe": "linear probe, accuracy",
    "ari": "clusters, adjusted Rand index",
    "nmi": "clusters, mutual information",
}
"""Of each measure of separation, its name in words. All are pure numbers, and grow with it."""

TIMES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0)
"""When a run's layers are looked at, where the caller names no times."""

SCALES = (1.0, 10.0, 30.0, 100.0, 300.0)
"""Factors on the initial weights, of the layers that are left untrained."""

RIDGES = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Of the linear probe, λ over the mean of XᵀX's diagonal: one of them is chosen."""


def fisher_ratio(features: ArrayLike, labels: ArrayLike) -> float:
    """tr S_B / tr S_W: the variance between the classes' means over that within the classes.

    Features (samples, _) and labels (samples,). The same for features moved, rotated or multiplied
    by a number; infinite where no class has any extent, and 0 where all classes have one mean.

    >>> print(f"{ska.study.fisher_ratio(x, y):.2f}")
    1.51
    """
    features, labels = _labelled(features, labels)
    centred = features - features.mean(axis=0)
    _, place = np.unique(labels, return_inverse=True)
    members = np.eye(place.max() + 1)[place]
    counts = members.sum(axis=0)
    means = members.T @ centred / counts[:, None]
    between = float(np.sum(counts[:, None] * means**2))
    within = float(np.sum((centred - means[place]) ** 2))
    # What centring leaves of features that are all alike is rounding.
    rounding = (len(features) * np.finfo(float).eps * np.abs(features).max()) ** 2 * features.size
    between, within = (value if value > rounding else 0.0 for value in (between, within))
    if between == 0:
        return 0.0
    return between / within if within > 0 else float("inf")


def probe_accuracy(
    features: ArrayLike,
    labels: ArrayLike,
    test: ArrayLike,
    ridges: Sequence[ScalarLike] = RIDGES,
) -> float:
    """Of the ``test`` samples, the share whose class a linear probe tells that learned from the rest.

    The probe is least squares on the classes' indicators, in closed form: with features and indicators
    centred, (XᵀX + λ) V = Xᵀ Y, the class being the largest entry of x V. λ is that one of ``ridges``,
    times the mean of XᵀX's diagonal, which leaves the least squared error when each of the samples it
    learns from is left out (in closed form too): the unit of the features does not matter, and their number
    little. ``test`` (samples,) is of bool.

    >>> test = np.arange(len(y)) % 2 == 0
    >>> accuracy = ska.study.probe_accuracy(x, y, test)
    """
    features, labels = _labelled(features, labels)
    test = np.asarray(test, bool)
    train = ~test
    require(
        test.shape == labels.shape and bool(test.any()) and bool(train.any()),
        "test",
        "mark some of the samples, and not all",
        f"it marked {int(test.sum())} of {len(labels)}",
    )
    factors = numbers("ridges", ridges, "a factor")
    classes = np.unique(labels)
    indicators = (labels[:, None] == classes).astype(float)
    middle, share = features[train].mean(axis=0), indicators[train].mean(axis=0)
    X, Y = features - middle, indicators[train] - share
    U, s, Vt = np.linalg.svd(X[train], full_matrices=False)
    scores, best = np.zeros((int(test.sum()), len(classes))), np.inf
    for penalty in np.array(factors) * np.sum(s**2) / X.shape[1]:
        if penalty == 0:
            break  # all samples are alike: nothing to learn from
        kept = s**2 / (s**2 + penalty)
        leverage = (U**2) @ kept + 1 / len(Y)
        left_out = (Y - U @ (kept[:, None] * (U.T @ Y))) / (1 - leverage)[:, None]
        error = np.sum(left_out**2)
        if error < best:
            best = error
            scores = X[test] @ (Vt.T @ ((s / (s**2 + penalty))[:, None] * (U.T @ Y)))
    told = classes[np.argmax(scores + share, axis=1)]
    return float(np.mean(told == labels[test]))


def cluster_agreement(features: ArrayLike, labels: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """How far k-means, told only the number of classes, finds the classes: (ARI, NMI).

    The adjusted Rand index is 1 for the classes themselves and 0 on average for clusters drawn by
    chance; the normalised mutual information is 1 and 0 for independent ones. By scikit-learn, the
    best of four starts.

    >>> agreement, information = ska.study.cluster_agreement(x, y)
    """
    # Takes a second to import.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    points, labels = _labelled(features, labels)
    # Centred and of one size, because rounding next to a common offset is not k-means' concern.
    points = points - points.mean(axis=0)
    size = np.sqrt(np.mean(points**2))
    points = points / size if size > 0 else points
    starts: Any = 4  # scikit-learn's annotation knows only "auto"
    means = KMeans(len(np.unique(labels)), n_init=starts, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different samples than classes
        found = means.fit_predict(points)
    return (
        float(adjusted_rand_score(labels, found)),
        float(normalized_mutual_info_score(labels, found)),
    )


def separation(
    network: Network,
    weights: Weights,
    x: Inputs,
    y: ArrayLike,
    *,
    times: Sequence[ScalarLike] = TIMES,
    scales: Sequence[ScalarLike] = SCALES,
    method: Adaptive | None = None,
    test: float = 0.3,
    seed: int = 0,
) -> xr.Dataset:
    """How well each layer's D separates the classes ``y``, at ``times`` along the flow.

    Main arguments: a network, its weights and a batch, as for :func:`skajax.simulate`, and the samples'
    labels (samples,), which the flow does not see. ``method`` integrates (an Adaptive; the default is
    Adaptive()). ``test`` is the share of each class that the linear probe is tested on, drawn by
    ``seed``: the flow sees these samples too, but none of their labels.

    Returns a dataset over ``metric`` (fisher, probe, ari, nmi; see METRICS), with

    - ``trained`` (time, layer, metric): of D along the flow,
    - ``inputs`` (metric): of the inputs,
    - ``random`` (scale, layer, metric): of D in layers whose initial weights were multiplied by each of
      ``scales``, and not trained.

    Everything is computed in float64: a deep layer's D differ, at the start, by less than float32 holds.

    >>> found = ska.study.separation(network, weights, x, y)  # doctest: +SKIP
    """
    x = as_array("x", x)
    check_inputs(x, network)
    weights = jax.tree.map(lambda leaf: as_array("weights", leaf), weights)
    check_weights(network, weights, x)
    labels = np.asarray(unmasked("y", y))
    require(
        labels.shape == x.shape[:1],
        "y",
        f"hold one label for each of the {len(x)} samples",
        f"its shape was {labels.shape}",
    )
    given = [as_number(t) for t in np.atleast_1d(np.asarray(unmasked("times", times)))]
    moments = np.array(given if all(isinstance(t, float) for t in given) else [])
    require(
        moments.ndim == 1
        and moments.size >= 1
        and bool((moments >= 0).all())
        and bool(moments.max() > 0),
        "times",
        "hold times from 0 on, and one beyond",
        f"it was {times!r}",
    )
    factors = numbers("scales", scales, "a factor")
    require(
        method is None or isinstance(method, Adaptive),
        "method",
        "be an Adaptive, whose runs are functions of time",
        f"it was {method!r}",
    )
    tested = held_out(labels, test, seed)
    start, inputs = jax.tree.map(lambda a: np.asarray(a, np.float64), (weights, x))
    measure = lambda features: _measure(np.asarray(features), labels, tested, seed)
    with enable_x64(True):
        start, inputs = jax.tree.map(jnp.asarray, (start, inputs))
        run = simulate(
            network, start, inputs, method or Adaptive(), t1=float(moments.max()),
            save_at="end", dense=True, throw=True,
        )  # fmt: skip
        trained = [[measure(D) for D in run.at(t).D] for t in moments]
        forward = jax.jit(network.forward)
        random = []
        for factor in factors:
            _, decisions = forward(jax.tree.map(lambda w, f=factor: w * f, start), inputs)
            random.append([measure(D) for D in decisions])
    described = {"long_name": "class separation", "units": "1"}
    variables: dict[str, Any] = {
        "trained": (("time", "layer", "metric"), np.array(trained), described),
        "inputs": (("metric",), np.array(measure(inputs)), described),
        "random": (("scale", "layer", "metric"), np.array(random), described),
    }
    coords: dict[str, Any] = {
        "time": ("time", moments, {"long_name": "time", "units": "time"}),
        "layer": np.arange(1, len(network.layers) + 1),
        "scale": ("scale", list(factors), {"long_name": "factor on the initial weights"}),
        "metric": list(METRICS),
    }
    attrs = {"classes": len(np.unique(labels)), "test": test, "seed": seed, **versions()}
    return xr.Dataset(variables, coords, attrs)


def _measure(
    features: NDArray[Any], labels: NDArray[Any], test: NDArray[np.bool_], seed: int
) -> tuple[float, float, float, float]:
    """All of METRICS, in order."""
    return (
        fisher_ratio(features, labels),
        probe_accuracy(features, labels, test),
        *cluster_agreement(features, labels, seed),
    )


def held_out(labels: NDArray[Any], share: float, seed: int) -> NDArray[np.bool_]:
    """Of every class that share of the samples, and at least one; at least one is left."""
    require(
        isinstance(share, float) and 0 < share < 1,
        "test",
        "be a share of the samples, between 0 and 1",
        f"it was {share!r}",
    )
    rng, test = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for name in np.unique(labels):
        (members,) = np.nonzero(labels == name)
        require(
            len(members) >= 2,
            "y",
            "hold at least two samples of each class",
            f"there was one of class {name!r}",
        )
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        test[rng.permutation(members)[:count]] = True
    return test


def _labelled(features: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    features = np.asarray(unmasked("features", features), np.float64)
    labels = np.asarray(unmasked("labels", labels))
    require(
        features.ndim == 2 and bool(np.isfinite(features).all()),
        "features",
        "be finite numbers of shape (samples, _)",
        f"their shape was {features.shape}",
    )
    require(
        labels.shape == features.shape[:1] and len(np.unique(labels)) >= 2,
        "labels",
        f"hold one label for each of the {len(features)} samples, of at least two classes",
        f"their shape was {labels.shape}, of {len(np.unique(labels))} classes",
    )
    return features, labels
