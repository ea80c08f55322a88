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

OBSERVE = ("entropy", "entropy_rate", "energy", "dissipation", "transport", "flow_norm", "knowledge_norm",
           "tensor_net", "tensor_net_rate", "tensor_net_equation", "tensor_net_rate_equation")  # fmt: skip
FEW = ("entropy", "flow_norm", "transport", "tensor_net")
METHODS = {
    "euler": (lambda: ska.Euler(0.1), {"steps": 5}),
    "published": (lambda: ska.Published(0.1), {"steps": 5}),
    "descent": (lambda: ska.Descent(optax.adam(0.05)), {"steps": 5}),
    "adaptive": (lambda: ska.Adaptive(rtol=1e-6, atol=1e-8), {"t1": 0.5}),
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


def check_local_flow(network, weights, x, tolerance=1e-12):
    """The flow is autodiff with inputs held fixed (sigmoid decisions)."""
    close(
        jax.jit(lambda w: ska.flow(network, w, x))(weights),
        local_flow(network, weights, x),
        tolerance,
    )


def check_wall(network, weights, x):
    """No gradient reaches a lower layer: other weights above leave its flow the same, to the bit."""
    flow = jax.jit(lambda w: ska.flow(network, w, x))
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


def check_tangents(network, weights, x, tolerance=1e-8):
    """Ż and Ḋ along the flow are central differences, of fourth order."""
    velocity = ska.flow(network, weights, x)
    h = 1e-4
    at = jax.jit(
        lambda s: network.forward(jax.tree.map(lambda w, v: w + s * v, weights, velocity), x)
    )
    differences = jax.tree.map(
        lambda a, b, c, d: (8 * (b - c) - (a - d)) / (12 * h), at(2 * h), at(h), at(-h), at(-2 * h)
    )
    close(ska.tangents(network, weights, velocity, x), differences, tolerance)


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
    """Runs under every method: by itself and inside jit, in float32, vmapped, differentiated, in a sweep.

    A file gives a run back, and it goes on. ``x`` has float64 or integers.
    """
    drawn = network.init(jax.random.key(0), x)

    def runs(weights, x, names=tuple(METHODS)):
        chosen = {name: METHODS[name] for name in names}
        return {
            name: ska.simulate(network, weights, x, method(), observe=FEW, **asked)
            for name, (method, asked) in chosen.items()
        }

    alone, inside = runs(drawn, x), jax.jit(runs)(drawn, x)
    assert all(bool(run.outcome.completed) for run in alone.values())
    for name, run in alone.items():
        close(inside[name].entropy, run.entropy, 1e-6 if name == "adaptive" else 1e-10)
    if jnp.issubdtype(x.dtype, jnp.floating):
        single = jax.tree.map(lambda a: a.astype(jnp.float32), (drawn, x))
        for name, run in runs(*single, ["euler", "adaptive"]).items():
            assert bool(run.outcome.completed) and run.entropy.dtype == jnp.float32
            close(run.entropy[-1], alone[name].entropy[-1], 1e-4)

    lane = lambda w: ska.simulate(network, w, x, ska.Euler(0.1), steps=4, observe=FEW)
    total = lambda w: (lambda run: (run.entropy[-1].sum(), run.entropy))(lane(w))
    ensemble = jax.vmap(lambda key: network.init(key, x))(jax.random.split(jax.random.key(1), 2))
    (_, entropies), gradient = jax.vmap(jax.value_and_grad(total, has_aux=True))(ensemble)
    one = lane(jax.tree.map(lambda w: w[1], ensemble))
    np.testing.assert_allclose(entropies[1], one.entropy, rtol=1e-11)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(gradient))

    data = ska.sweep(
        network, lambda seed: network.init(jax.random.key(seed), x), x, ska.Euler(0.1), steps=4,
        over=ska.grid(seed=[0, 1]), observe=FEW, store=tmp_path / "lanes",
    )  # fmt: skip
    run = lane(network.init(jax.random.key(1), x))
    np.testing.assert_allclose(data.entropy[1], run.entropy, rtol=1e-11)

    run.save(tmp_path / "run.nc")
    back = ska.load(tmp_path / "run.nc", network=network)
    close(back.records.values, run.records.values, 0)
    assert jax.tree.structure(back.final.weights) == jax.tree.structure(run.final.weights)
    close(back.final.weights, run.final.weights, 0)
    longer = ska.extend(run, steps=6)
    whole = ska.simulate(
        network, network.init(jax.random.key(1), x), x, ska.Euler(0.1), steps=6, observe=FEW
    )
    close(longer.records.values, whole.records.values, 0)
