"""What is written outside of the package goes through all of it: layers, an energy, observables, a method."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import own_parts as own
import pytest

import skajax as ska

METHODS = {
    "euler": (lambda: ska.Euler(0.1), {"steps": 8}),
    "published": (lambda: ska.Published(0.1), {"steps": 8}),
    "descent": (lambda: ska.Descent(optax.adam(0.05)), {"steps": 8}),
    "heun": (lambda: own.Heun(0.1), {"steps": 8}),
    "adaptive": (lambda: ska.Adaptive(rtol=1e-6, atol=1e-8), {"t1": 0.8}),
}
OBSERVE = ("entropy", "flow_norm", "knowledge_norm", "entropy_rate", "dissipation", "transport",
           "energy", "tensor_net", own.SPARSITY, own.QUANTILES)  # fmt: skip

each_problem = pytest.mark.parametrize("problem", own.PROBLEMS)
each_method = pytest.mark.parametrize("name", METHODS)


def close(got, want, tolerance):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance)


def local_by_autodiff(network, weights, x, energy):
    """The gradient with ``stop_gradient`` between layers, by hand."""
    hold = jax.lax.stop_gradient

    def total(weights):
        below, rows = x, []
        for layer, w in zip(network.layers, weights, strict=True):
            if not hasattr(layer, "knowledge"):
                below = layer.apply(w, below)
                continue
            given = layer.inputs(hold(w), below) if hasattr(layer, "inputs") else below
            rows.append(layer.knowledge(w, hold(given)))
            below = hold(jax.nn.sigmoid(rows[-1]))
        return energy(rows)

    return jax.grad(total)(weights)


@each_problem
def test_the_local_flow_is_autodiff_with_inputs_held_fixed(problem, x64):
    network, weights, x = own.PROBLEMS[problem](jnp.float64)

    def entropies(Z):
        return sum(jnp.sum(ska.entropy.entropy(z)) / z.shape[0] for z in Z)

    def contrasts(Z):
        D = [jax.nn.sigmoid(z) for z in Z]
        return sum(jnp.sum(d * (1 - d)) / d.shape[0] for d in D)

    for energy, by_hand in ((None, entropies), (own.CONTRAST, contrasts)):
        got = jax.jit(lambda w, e=energy: ska.flow(network, w, x, e))(weights)
        want = local_by_autodiff(network, weights, x, by_hand)
        close(got, jax.tree.map(jnp.negative, want), 1e-12)


@each_problem
def test_the_global_flow_is_plain_autodiff(problem, x64):
    network, weights, x = own.PROBLEMS[problem](jnp.float64)

    def total(w):
        Z, _ = network.forward(w, x)
        return sum(jnp.sum(ska.entropy.entropy(z)) / z.shape[0] for z in Z)

    got = jax.jit(lambda w: ska.flow(network, w, x, ska.energies.Entropy(local=False)))(weights)
    close(got, jax.tree.map(jnp.negative, jax.grad(total)(weights)), 1e-12)


@each_problem
def test_tangents_are_central_differences(problem, x64):
    network, weights, x = own.PROBLEMS[problem](jnp.float64)
    velocity = ska.flow(network, weights, x)
    Zdot, Ddot = ska.tangents(network, weights, velocity, x)
    h = 1e-4
    at = lambda s: network.forward(jax.tree.map(lambda w, v: w + s * v, weights, velocity), x)
    # Central differences of fourth order.
    difference = jax.tree.map(
        lambda a, b, c, d: (8 * (b - c) - (a - d)) / (12 * h), at(2 * h), at(h), at(-h), at(-2 * h)
    )
    close((Zdot, Ddot), difference, 1e-8)


@each_problem
@each_method
def test_every_method(problem, name, x64):
    """A jitted run is the same run; observables have their shapes, and the energy its balance."""
    network, weights, x = own.PROBLEMS[problem](jnp.float64)
    method, asked = METHODS[name]
    energy = None if name == "published" else own.CONTRAST
    run = ska.simulate(network, weights, x, method(), energy=energy, observe=OBSERVE, **asked)
    assert bool(run.outcome.completed)
    layers, times = len(network.rows), len(run.t)
    assert run.sparsity.shape == (times, layers) and run["quantiles"].shape == (times, layers, 3)
    data = run.to_dataset()
    assert data.quantiles.dims == ("time", "layer", "quantile")
    assert data.sparsity.attrs["long_name"] == "share of decisions below one half"

    inside = jax.jit(
        lambda w: ska.simulate(network, w, x, method(), energy=energy, observe=OBSERVE, **asked)
    )(weights)
    close(inside.records.values, run.records.values, 1e-6 if name == "adaptive" else 1e-10)
    if name == "adaptive":
        rate = run.transport - run.dissipation
        change = np.gradient(np.asarray(run.energy), np.asarray(run.t), axis=0, edge_order=2)
        np.testing.assert_allclose(rate[5:-5], change[5:-5], rtol=2e-3, atol=1e-4)


def test_vmap_and_grad(x64):
    network, weights, x = own.images(jnp.float64)
    ensemble = jax.tree.map(lambda w: jnp.stack([w, 1.1 * w]), weights)
    lane = lambda w: ska.simulate(network, w, x, own.Heun(0.1), steps=4)
    runs = jax.vmap(lane)(ensemble)
    one = lane(jax.tree.map(lambda w: w[1], ensemble))
    np.testing.assert_allclose(runs.entropy[1], one.entropy, rtol=1e-12)
    for method, asked in (METHODS["heun"], METHODS["adaptive"]):
        last = lambda w, m=method, a=asked: (
            ska.simulate(network, w, x, m(), observe=("entropy",), **a).entropy[-1].sum()
        )
        gradient = jax.jit(jax.grad(last))(weights)
        direction = jax.tree.map(jnp.ones_like, weights)
        slope = sum(jnp.sum(g) for g in jax.tree.leaves(gradient))
        ends = [
            last(jax.tree.map(lambda w, d, s=s: w + s * 1e-5 * d, weights, direction))
            for s in (1, -1)
        ]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-5)


@each_problem
def test_files_extensions_landmarks_rules_and_plots(problem, tmp_path, x64):
    network, weights, x = own.PROBLEMS[problem](jnp.float64)
    rule = ska.stop.FlowConverged(0.5)
    run = ska.simulate(
        network, weights, x, ska.Adaptive(), t1=2.0, observe=OBSERVE, dense=True, until=rule
    )
    assert len(ska.landmarks.peaks(run, "knowledge_norm")) == len(network.rows)
    assert len(ska.landmarks.peaks(run, "sparsity")) == len(network.rows)
    state = run.at(float(run.final.t) / 2)
    assert [z.shape for z in state.Z] == [z.shape for z in run.final.Z]

    run.save(tmp_path / "run.nc")
    back = ska.load(tmp_path / "run.nc", network=network)
    close(back.records.values, run.records.values, 0)
    assert jax.tree.structure(back.final.weights) == jax.tree.structure(run.final.weights)
    records = ska.load(tmp_path / "run.nc")  # without the layers' classes
    np.testing.assert_array_equal(records["quantiles"], run["quantiles"])

    short = ska.simulate(network, weights, x, own.Heun(0.1), steps=3, observe=OBSERVE)
    longer = ska.extend(short, steps=6)
    whole = ska.simulate(network, weights, x, own.Heun(0.1), steps=6, observe=OBSERVE)
    close(longer.records.values, whole.records.values, 0)

    import matplotlib.pyplot as plt

    axes = ska.plot.history(run, "sparsity")
    assert axes.get_ylabel().startswith("share of decisions")
    plt.close("all")


def test_a_sweep_with_a_store(tmp_path):
    network, _, x = own.images()
    lanes = {
        "network": network,
        "weights": lambda seed: network.init(jax.random.key(seed), x),
        "x": x,
        "method": own.Heun(0.1),
        "steps": 4,
        "observe": OBSERVE,
        "energy": own.CONTRAST,
        "over": ska.grid(seed=range(3)),
    }
    data = ska.sweep(**lanes, store=tmp_path / "lanes")
    again = ska.sweep(**lanes, store=tmp_path / "lanes")
    assert data.identical(again)
    one = ska.simulate(
        network, network.init(jax.random.key(1), x), x, own.Heun(0.1), steps=4, observe=OBSERVE,
        energy=own.CONTRAST,
    )  # fmt: skip
    np.testing.assert_allclose(data.sparsity[1], one.sparsity, rtol=1e-5)
    np.testing.assert_allclose(data["quantiles"][1], one["quantiles"], rtol=1e-4, atol=1e-6)


def test_heun_has_order_two(x64):
    network, weights, x = own.images(jnp.float64)
    exact = ska.simulate(
        network, weights, x, ska.Adaptive(diffrax.Dopri8(), rtol=1e-11, atol=1e-13), t1=0.8,
        save_at="end",
    )  # fmt: skip
    errors = []
    for steps in (32, 64, 128):
        run = ska.simulate(network, weights, x, own.Heun(0.8 / steps), steps=steps)
        pairs = zip(*map(jax.tree.leaves, (run.final.weights, exact.final.weights)), strict=True)
        errors.append(np.sqrt(sum(float(jnp.sum((a - b) ** 2)) for a, b in pairs)))
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, 2, atol=0.1)
