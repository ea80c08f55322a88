"""What every layer must show: checks that a test of a layer calls on a network that has it.

All take float64 arrays, with JAX in double precision. They use a layer's own ``knowledge``, ``inputs`` and
``decide``, and derive the rest by autodiff and by integration.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import skajax as ska
from skajax.entropy import entropy

OBSERVE = ("entropy", "entropy_rate", "energy", "dissipation", "transport",
           "tensor_net", "tensor_net_rate", "tensor_net_equation", "tensor_net_rate_equation")  # fmt: skip
METHODS = {
    "euler": (lambda: ska.Euler(0.1), {"steps": 4}),
    "published": (lambda: ska.Published(0.1), {"steps": 4}),
    "descent": (lambda: ska.Descent(optax.adam(0.05)), {"steps": 4}),
}


def close(got, want, tolerance):
    """Leaf by leaf, relative and absolute."""
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance)


def local_flow(network, weights, x):
    """Minus the gradient of the summed mean entropies with ``stop_gradient`` on each layer's inputs."""
    hold = jax.lax.stop_gradient

    def total(weights):
        below, energy, held = x, 0.0, ()
        for layer, w in zip(network.layers, weights, strict=True):
            if hasattr(layer, "route"):
                held, below = layer.route(held, below, lambda join, a, b: join(a, b))
                continue
            if not hasattr(layer, "knowledge"):
                below = layer.apply(hold(w), below)
                continue
            given = layer.inputs(hold(w), below) if hasattr(layer, "inputs") else below
            z = layer.knowledge(w, hold(given))
            energy = energy + jnp.sum(entropy(z)) / z.shape[0]
            below = hold(layer.decide(z) if hasattr(layer, "decide") else jax.nn.sigmoid(z))
        return energy

    return jax.tree.map(jnp.negative, jax.grad(total)(weights))


def check_flow(network, weights, x, tolerance=1e-12):
    """What the flow is, that it stops at walls, and where it leads (sigmoid decisions)."""
    flow = jax.jit(lambda w: ska.flow(network, w, x))
    velocity = flow(weights)
    check_local_flow(network, weights, x, velocity, tolerance)
    check_wall(network, weights, flow)
    check_tangents(network, weights, x, velocity)


def check_local_flow(network, weights, x, velocity, tolerance=1e-12):
    """The flow is autodiff with inputs held fixed (sigmoid decisions)."""
    close(velocity, jax.jit(lambda w: local_flow(network, w, x))(weights), tolerance)


def check_wall(network, weights, flow):
    """No gradient reaches a lower layer: other weights above leave its flow the same, to the bit."""
    rows = network.rows
    assert len(rows) >= 2, "give it a network of at least two layers"
    before = flow(weights)
    moved = tuple(
        jax.tree.map(lambda a: a + 0.37, w) if place >= rows[-1] else w
        for place, w in enumerate(weights)
    )
    after = flow(moved)
    for place in rows[:-1]:
        for a, b in zip(jax.tree.leaves(before[place]), jax.tree.leaves(after[place]), strict=True):
            np.testing.assert_array_equal(a, b)


def check_tangents(network, weights, x, velocity, tolerance=1e-8):
    """Ż and Ḋ along a motion of the weights are central differences, of fourth order."""
    h = 1e-4
    at = jax.jit(
        lambda s: network.forward(jax.tree.map(lambda w, v: w + s * v, weights, velocity), x)
    )
    ends = (jax.tree.map(np.asarray, at(s * h)) for s in (2, 1, -1, -2))
    differences = jax.tree.map(lambda a, b, c, d: (8 * (b - c) - (a - d)) / (12 * h), *ends)
    found = jax.jit(lambda w, v: ska.tangents(network, w, v, x))(weights, velocity)
    close(found, differences, tolerance)


def check_closed_forms(network, weights, x, t1=1.0, tolerance=1e-8, energy=None):
    """Entropy and both signs of the Tensor Net are the integrals of their rates along an adaptive run.

    So is the energy of transport - dissipation. Gauss's rule of 10 nodes in each of 8 pieces.
    """
    nodes, shares = np.polynomial.legendre.leggauss(10)
    edges = np.linspace(0, t1, 9)
    times = (edges[:-1, None] + (nodes + 1) / 2 * np.diff(edges)[:, None]).ravel()
    shares = (shares / 2 * np.diff(edges)[:, None]).ravel()
    run = ska.simulate(
        network, weights, x, ska.Adaptive(rtol=1e-11, atol=1e-13), t1=t1,
        save_at=np.concatenate([[0.0], times, [t1]]), observe=OBSERVE, energy=energy,
    )  # fmt: skip
    assert bool(run.outcome.completed)
    change = lambda name: np.asarray(run[name][-1] - run[name][0])
    integral = lambda rate: shares @ np.asarray(rate)[1:-1]
    scale = np.maximum(np.abs(run.entropy[0]), 1.0)
    for name, rate in (
        ("entropy", run.entropy_rate),
        ("tensor_net", run.tensor_net_rate),
        ("tensor_net_equation", run.tensor_net_rate_equation),
        ("energy", run.transport - run.dissipation),
    ):
        assert np.abs(change(name)).max() > 1e-4, f"{name} did not move: the check would be empty"
        np.testing.assert_allclose(change(name) / scale, integral(rate) / scale, atol=tolerance)


def check_methods(network, x, tmp_path):
    """Runs of fixed steps, alone, inside jit and in a sweep; a file gives one back, and it goes on.

    Its flow in float32, vmapped and differentiated. ``x`` has float64 or integers.
    """
    start = lambda seed: network.init(jax.random.key(seed), x)
    drawn = [start(seed) for seed in (0, 1)]
    asked = {"steps": 4, "observe": ("entropy", "flow_norm")}
    lane = lambda w, **more: ska.simulate(network, w, x, ska.Euler(0.1), **asked | more)
    runs = [lane(w) for w in drawn]
    assert all(bool(run.outcome.completed) for run in runs)

    def others(weights):
        chosen = [METHODS[name] for name in ("published", "descent")]
        return [
            ska.simulate(network, weights, x, method(), observe=("entropy",), **span)
            for method, span in chosen
        ]

    for run in jax.jit(others)(drawn[0]):
        assert bool(run.outcome.completed) and bool(jnp.isfinite(run.entropy).all())

    flow = jax.jit(lambda w, x: ska.flow(network, w, x))
    if jnp.issubdtype(x.dtype, jnp.floating):
        single = flow(*jax.tree.map(lambda a: a.astype(jnp.float32), (drawn[0], x)))
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(single))
        close(single, flow(drawn[0], x), 1e-4)

    # Derivatives of the flow, of two lanes at once: along the first's weights, central differences.
    speed = lambda w: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(flow(w, x)))
    ensemble = jax.tree.map(lambda a, b: jnp.stack([a, b]), *drawn)
    slopes = jax.tree.map(lambda g: g[0], jax.jit(jax.vmap(jax.grad(speed)))(ensemble))
    along = zip(jax.tree.leaves(slopes), jax.tree.leaves(drawn[0]), strict=True)
    found = sum(jnp.vdot(g, w) for g, w in along)
    ahead, behind = (speed(jax.tree.map(lambda w, s=s: s * w, drawn[0])) for s in (1.0001, 0.9999))
    np.testing.assert_allclose(found, (ahead - behind) / 2e-4, rtol=1e-6)

    data = ska.sweep(
        network, start, x, ska.Euler(0.1), over=ska.grid(seed=[0, 1]), store=tmp_path / "lanes",
        **asked,
    )  # fmt: skip
    for n, run in enumerate(runs):
        np.testing.assert_allclose(data.entropy[n], run.entropy, rtol=1e-11)

    run = runs[1]
    run.save(tmp_path / "run.nc")
    back = ska.load(tmp_path / "run.nc", network=network)
    close(back.records.values, run.records.values, 0)
    assert jax.tree.structure(back.final.weights) == jax.tree.structure(run.final.weights)
    close(back.final.weights, run.final.weights, 0)
    whole = lane(drawn[1], steps=6)
    close(ska.extend(run, steps=6).records.values, whole.records.values, 0)
