"""Derivatives of observables, at every time: against differences of independent programs.

Along a random direction of the initial weights, of the inputs and of the layers' initial scales. What
is differenced is NumPy's and SciPy's, not skajax's own run: a derivative that is right for a wrong
program fails here, and so does one that stops at a controller, an interpolant or a norm's corner.
"""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference as ref
from published_numpy import published

import skajax as ska
from skajax.observables import NAMES

PROBLEM = ref.SMALL
NETWORK = PROBLEM.network
DT, STEPS, MOMENTUM = 0.1, 6, 0.9
TIMES = (0.0, 0.25, 0.4, 0.8)

ADJOINTS = {
    "RecursiveCheckpointAdjoint": diffrax.RecursiveCheckpointAdjoint(),
    "DirectAdjoint": diffrax.DirectAdjoint(),
    "BacksolveAdjoint": diffrax.BacksolveAdjoint(),
    "ForwardMode": diffrax.ForwardMode(),
}


def adaptive(adjoint, **options):
    return ska.Adaptive(rtol=1e-9, atol=1e-11, max_steps=256, adjoint=ADJOINTS[adjoint], **options)


METHODS = {
    "Euler": (ska.Euler(DT), {"steps": STEPS}),
    "Published": (ska.Published(DT), {"steps": STEPS + 1}),
    "Descent": (ska.Descent(optax.sgd(DT, momentum=MOMENTUM)), {"steps": STEPS}),
} | {name: (adaptive(name), {"t1": TIMES[-1], "save_at": TIMES}) for name in ADJOINTS}

REVERSE = [
    "Euler",
    pytest.param("Published", marks=pytest.mark.thorough),
    pytest.param("Descent", marks=pytest.mark.thorough),
    "RecursiveCheckpointAdjoint",
    pytest.param("DirectAdjoint", marks=pytest.mark.thorough),
    "BacksolveAdjoint",
]
FORWARD = ["Euler", "Published", "Descent", "DirectAdjoint", "ForwardMode"]


FEW = ("entropy", "flow_norm", "alignment", "tensor_net", "output_mean")


def observed_of(name):
    """In reverse through an adaptive run a few observables: forwards, and of other methods, there are all."""
    return FEW if name in ADJOINTS else NAMES


def program(name, weights, x, scales, observe=NAMES):
    """Observables at every time, of weights whose W has been scaled layer by layer."""
    method, span = METHODS[name]
    scaled = tuple(w._replace(W=s * w.W) for w, s in zip(weights, scales, strict=True))
    run = ska.simulate(NETWORK, scaled, x, method, observe=observe, **span)
    return {label: getattr(run, label) for label in observe}


def observing(name):
    return functools.partial(program, name, observe=observed_of(name))


# The same by other means.


def numpy_program(name, weights, x, scales):
    start = [(s * W, b) for (W, b), s in zip(weights, scales, strict=True)]
    if name == "Published":
        rows, _ = published(start, x, DT, STEPS + 1)
    elif name in ADJOINTS:
        rows = [observed(w, ref.flow(w, x), x, start) for w in ref.solve(start, x, TIMES)]
    else:
        rows, w, velocity = [], start, None
        for _ in range(STEPS + 1):
            rates = ref.flow(w, x)
            velocity = rates if velocity is None else moved(rates, velocity, MOMENTUM)
            velocity = velocity if name == "Descent" else rates
            rows.append(observed(w, velocity, x, start))
            w = moved(w, velocity, DT)
    return {label: np.array([row[label] for row in rows]) for label in NAMES}


def observed(weights, velocity, x, start):
    return ref.observables(weights, velocity, x, start)


def moved(weights, along, step):
    return [(W + step * dW, b + step * db) for (W, b), (dW, db) in zip(weights, along, strict=True)]


SCALES = np.array([0.8, 1.3])


def directions():
    """A random direction each of the weights, the inputs and the scales, and zero along the others."""
    weights, x = PROBLEM.numpy()
    rng = np.random.default_rng(11)
    still = ([(0 * W, 0 * b) for W, b in weights], 0 * x, 0 * SCALES)
    dw = [(rng.normal(size=W.shape), rng.normal(size=b.shape)) for W, b in weights]
    return {
        "weights": (dw, *still[1:]),
        "inputs": (still[0], rng.normal(size=x.shape), still[2]),
        "scales": (*still[:2], rng.normal(size=SCALES.shape)),
    }


@functools.cache
def differences(name):
    """The derivatives, by fourth-order central differences: error step⁴ f⁽⁵⁾ / 30."""
    step = 1e-3 if name in ADJOINTS else 5e-4
    weights, x = PROBLEM.numpy()

    def shifted(direction, n):
        dw, dx, ds = direction
        s = n * step
        return numpy_program(name, moved(weights, dw, s), x + s * dx, SCALES + s * ds)

    found = {}
    for along, direction in directions().items():
        far, near, close, distant = (shifted(direction, n) for n in (-2, -1, 1, 2))
        found[along] = {
            label: (8 * (close[label] - near[label]) - (distant[label] - far[label])) / 12 / step
            for label in NAMES
        }
    return found


def reference_of(name):
    """All of Diffrax's adjoints differentiate the same run."""
    return differences("ForwardMode" if name in ADJOINTS else name)


def arguments():
    weights, x = PROBLEM.numpy()
    return ref.to_skajax(weights), jnp.asarray(x), jnp.asarray(SCALES)


def as_tangents(direction):
    dw, dx, ds = direction
    return ref.to_skajax(dw), jnp.asarray(dx), jnp.asarray(ds)


def inner(a, b):
    return sum(
        float(np.vdot(u, v)) for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@functools.cache
def coefficients(name):
    """For each observable one random combination of its values, over times and layers."""
    shapes = jax.eval_shape(observing(name), *arguments())
    rng = np.random.default_rng(5)
    return {label: rng.normal(size=shapes[label].shape) for label in observed_of(name)}


@functools.cache
def compiled(name):
    """Of each lane the run's observables, and the gradient of each one's combination.

    By jit of vmap, where that is quick. The gradients are stacked in the observables' order, behind
    the lanes.
    """
    rows, names = {}, observed_of(name)
    for row, (label, values) in enumerate(coefficients(name).items()):
        rows[label] = np.zeros((len(names), *values.shape))
        rows[label][row] = values

    def gradients(arguments):
        values, pullback = jax.vjp(observing(name), *arguments)
        return values, jax.vmap(pullback)(jax.tree.map(jnp.asarray, rows))

    if name in ADJOINTS:  # whose vmap takes long to compile
        alone = jax.jit(gradients)
        return lambda lanes: stack([alone(lane(lanes, n)) for n in range(len(lanes[1]))])
    return jax.jit(jax.vmap(gradients))


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def lane(tree, *index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


AT_REST = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)]
"""Scales of weights and biases: all zero, or those of one layer."""


@functools.cache
def results(name):
    """Of the problem, and of it with layers at rest."""
    weights, x, scales = arguments()
    cases = [(weights, x, scales)]
    for zeros in AT_REST:
        still = tuple(w._replace(b=s * w.b) for w, s in zip(weights, zeros, strict=True))
        cases.append((still, x, jnp.asarray(zeros)))
    return compiled(name)(stack(cases))


def everything(name, *arguments):
    """The sum of all the combinations."""
    values = observing(name)(*arguments)
    return sum((jnp.asarray(c) * values[label]).sum() for label, c in coefficients(name).items())


def gradient(name):
    return jax.grad(functools.partial(everything, name), argnums=(0, 1, 2))


@pytest.mark.parametrize("name", REVERSE)
def test_reverse_mode(name, x64):
    values, found = lane(results(name), 0)
    weights, x = PROBLEM.numpy()
    if name not in ADJOINTS:  # and it is the same run
        for label, want in numpy_program(name, weights, x, SCALES).items():
            np.testing.assert_allclose(values[label], want, rtol=1e-10, atol=1e-10, err_msg=label)
    for along, direction in directions().items():
        for row, (label, c) in enumerate(coefficients(name).items()):
            terms = c * reference_of(name)[along][label]
            got = inner(lane(found, row), as_tangents(direction))
            allowed = 1e-6 * np.abs(terms).sum() + 1e-10
            assert abs(got - terms.sum()) <= allowed, (label, along, got, terms.sum())


@pytest.mark.parametrize("name", FORWARD)
def test_forward_mode(name, x64):
    @jax.jit
    def derivative(tangents):
        return jax.jvp(functools.partial(program, name), arguments(), tangents)[1]

    for along, direction in directions().items():
        got = derivative(as_tangents(direction))
        for label, want in reference_of(name)[along].items():
            # Every layer and every time by itself.
            scale = np.abs(want).max()
            np.testing.assert_allclose(
                got[label], want, rtol=1e-6, atol=1e-7 * scale, err_msg=f"{label} along {along}"
            )


def assert_trees_close(got, want, rtol):
    for (path, a), b in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
        scale = np.abs(np.asarray(b)).max()
        where = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale, err_msg=where)


def test_second_derivatives(x64):
    # Forward over reverse, whole; the gradient that is differenced has been checked above.
    start = arguments()
    tangents = jax.tree.map(lambda *leaves: sum(leaves), *map(as_tangents, directions().values()))
    product = jax.jit(lambda *t: jax.jvp(gradient("Euler"), start, t)[1])
    got = product(*tangents)

    step = 5e-4
    moved = [
        jax.tree.map(lambda a, t, s=n * step: a + s * t, start, tangents) for n in (-2, -1, 1, 2)
    ]
    _, rows = compiled("Euler")(stack(moved))
    want = jax.tree.map(lambda g: (8 * (g[2] - g[1]) - (g[3] - g[0])).sum(axis=0) / 12 / step, rows)
    assert_trees_close(got, want, 1e-7)
    # The second derivative is a symmetric matrix.
    other = jax.tree.map(lambda leaf: jnp.cos(leaf + 1), start)
    assert inner(got, other) == pytest.approx(inner(product(*other), tangents), rel=1e-11)


def test_gradients_without_jit_and_vmap(x64):
    _, rows = lane(results("Euler"), 0)
    want = jax.tree.map(lambda g: g.sum(axis=0), rows)
    assert_trees_close(gradient("Euler")(*arguments()), want, 1e-11)


@pytest.mark.parametrize("name", REVERSE)
def test_gradients_are_finite_where_a_flow_is_zero(name, x64):
    # All norms have corners there.
    for path, leaf in jax.tree.leaves_with_path(results(name)):
        assert np.isfinite(np.asarray(leaf)).all(), jax.tree_util.keystr(path)
    # Where nothing moves the entropy is at its maximum: its gradient is zero.
    _, rows = lane(results(name), 1)
    for leaf in jax.tree.leaves(lane(rows, observed_of(name).index("entropy"))):
        np.testing.assert_allclose(leaf, 0, atol=1e-12)
