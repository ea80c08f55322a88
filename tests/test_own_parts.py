"""What is written outside of the package goes through all of it: layers, an energy, observables, a method."""

import diffrax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import own_parts as own
import pytest

import skajax as ska

OWN = (own.SPARSITY, own.QUANTILES)
BALANCE = ("energy", "dissipation", "transport")
RULE = ska.stop.FlowConverged(0.5) | ska.stop.ErrorBudget(1e-3)
METHODS = {
    "euler": (ska.Euler(0.1), {"steps": 8, "observe": OWN, "until": RULE}),
    "published": (ska.Published(0.1), {"steps": 8, "observe": OWN}),
    "descent": (ska.Descent(optax.adam(0.05)), {"steps": 8, "observe": OWN}),
    "heun": (own.Heun(0.1), {"steps": 8, "observe": ("energy", *OWN)}),
    "adaptive": (
        ska.Adaptive(rtol=1e-6, atol=1e-8),
        {"t1": 0.8, "observe": (*BALANCE, *OWN), "dense": True},
    ),
}


@pytest.fixture
def problem(x64):
    return own.everything(jnp.float64)


def run(problem, name, weights=None, method=None, **changes):
    network, start, x = problem
    made, asked = METHODS[name]
    return ska.simulate(
        network, start if weights is None else weights, x, made if method is None else method,
        energy=None if name == "published" else own.CONTRAST, **asked | changes,
    )  # fmt: skip


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


def entropies(Z):
    return sum(jnp.sum(ska.entropy.entropy(z)) / z.shape[0] for z in Z)


def contrasts(Z):
    D = [jax.nn.sigmoid(z) for z in Z]
    return sum(jnp.sum(d * (1 - d)) / d.shape[0] for d in D)


def test_flows_are_autodiff(problem):
    """The local ones with inputs held fixed, the global one plain."""
    network, weights, x = problem

    @jax.jit
    def flows(w):
        energies = None, own.CONTRAST, ska.energies.Entropy(local=False)
        total = lambda w: entropies(network.forward(w, x)[0])
        by_hand = (
            *(local_by_autodiff(network, w, x, energy) for energy in (entropies, contrasts)),
            jax.grad(total)(w),
        )
        return [ska.flow(network, w, x, energy) for energy in energies], by_hand

    got, want = flows(weights)
    close(got, jax.tree.map(jnp.negative, want), 1e-12)


def test_tangents_are_central_differences(problem):
    network, weights, x = problem
    velocity = jax.jit(lambda w: ska.flow(network, w, x))(weights)
    h = 1e-4
    at = jax.jit(
        lambda s: network.forward(jax.tree.map(lambda w, v: w + s * v, weights, velocity), x)
    )
    # Central differences of fourth order.
    difference = jax.tree.map(
        lambda a, b, c, d: (8 * (b - c) - (a - d)) / (12 * h), at(2 * h), at(h), at(-h), at(-2 * h)
    )
    got = jax.jit(lambda w, v: ska.tangents(network, w, v, x))(weights, velocity)
    close(got, difference, 1e-8)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.thorough) if n == "descent" else n for n in METHODS],
)
def test_every_method(problem, name):
    """A jitted run is the same run; observables have their shapes."""
    alone = run(problem, name)
    assert bool(alone.outcome.stopped if name == "euler" else alone.outcome.completed)
    layers, times = len(problem[0].rows), len(alone.t)
    assert alone.sparsity.shape == (times, layers) and alone["quantiles"].shape == (
        times,
        layers,
        3,
    )
    data = alone.to_dataset()
    assert data.quantiles.dims == ("time", "layer", "quantile")
    assert data.sparsity.attrs["long_name"] == "share of decisions below one half"
    if name != "adaptive":
        inside = jax.jit(lambda w: run(problem, name, w).records.values)(problem[1])
        got = jax.tree.map(lambda a: a[:times], inside)  # after a stop it is NaN
        close(got, alone.records.values, 1e-10)
        return
    rate = alone.transport - alone.dissipation
    change = np.gradient(np.asarray(alone.energy), np.asarray(alone.t), axis=0, edge_order=2)
    np.testing.assert_allclose(rate[5:-5], change[5:-5], rtol=2e-3, atol=1e-4)
    assert len(ska.landmarks.peaks(alone, "sparsity")) == layers
    assert [z.shape for z in alone.at(0.4).Z] == [z.shape for z in alone.final.Z]


def moved(weights, step):
    return jax.tree.map(lambda w: w + step, weights)


def test_vmap_and_grad(x64):
    problem = own.sequences(jnp.float64)
    last = lambda w: run(problem, "heun", w, observe=("energy",)).energy[-1].sum()
    lanes = jax.tree.map(lambda *w: jnp.stack(w), *(moved(problem[1], s) for s in (0, 1e-5, -1e-5)))
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(last)))(lanes)
    np.testing.assert_allclose(values[0], last(problem[1]), rtol=1e-12)
    slope = sum(jnp.sum(g[0]) for g in jax.tree.leaves(gradients))
    np.testing.assert_allclose(slope, (values[1] - values[2]) / 2e-5, rtol=1e-5)


def test_jit_and_derivative_of_an_adaptive_run(x64):
    problem = own.images(jnp.float64)
    method = ska.Adaptive(rtol=1e-6, atol=1e-8, adjoint=diffrax.ForwardMode())
    changes = {"observe": ("energy",), "save_at": "end", "dense": False}
    last = lambda w: run(problem, "adaptive", w, method, **changes).energy[-1].sum()
    ones = jax.tree.map(jnp.ones_like, problem[1])
    function = jax.jit(lambda w: jax.jvp(last, (w,), (ones,)))
    value, slope = function(problem[1])
    np.testing.assert_allclose(
        value, run(problem, "adaptive", **changes).energy[-1].sum(), rtol=1e-6
    )
    up, down = (function(moved(problem[1], s))[0] for s in (1e-5, -1e-5))
    np.testing.assert_allclose(slope, (up - down) / 2e-5, rtol=1e-5)


def test_heun_has_order_two(problem):
    exact = run(problem, "adaptive", method=ska.Adaptive(rtol=1e-11, atol=1e-13)).final.weights
    errors = []
    for steps in (32, 64, 128):
        end = run(problem, "heun", method=own.Heun(0.8 / steps), steps=steps).final.weights
        pairs = zip(*map(jax.tree.leaves, (end, exact)), strict=True)
        errors.append(np.sqrt(sum(float(jnp.sum((a - b) ** 2)) for a, b in pairs)))
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, 2, atol=0.1)


def test_files_extensions_landmarks_and_plots(problem, tmp_path):
    whole = run(problem, "heun")
    longer = ska.extend(run(problem, "heun", steps=3), steps=8)
    close(longer.records.values, whole.records.values, 0)

    whole.save(tmp_path / "run.nc")
    back = ska.load(tmp_path / "run.nc", network=problem[0])
    close(back.records.values, whole.records.values, 0)
    assert jax.tree.structure(back.final.weights) == jax.tree.structure(whole.final.weights)
    records = ska.load(tmp_path / "run.nc")  # without the layers' classes
    np.testing.assert_array_equal(records["quantiles"], whole["quantiles"])

    assert len(ska.landmarks.peaks(whole, "sparsity")) == len(problem[0].rows)
    axes = ska.plot.history(whole, "sparsity")
    assert axes.get_ylabel().startswith("share of decisions")
    plt.close("all")


def test_a_sweep_with_a_store_in_single_precision(tmp_path):
    network, _, x = own.sequences()
    common = {
        "network": network,
        "x": x,
        "method": own.Heun(0.1),
        "steps": 4,
        "observe": (own.SPARSITY, own.QUANTILES),
        "energy": own.CONTRAST,
    }
    init = lambda seed: network.init(jax.random.key(seed), x)
    swept = lambda: ska.sweep(
        **common, weights=init, over=ska.grid(seed=range(2)), store=tmp_path / "lanes"
    )
    data = swept()
    assert data.identical(swept())
    one = ska.simulate(**common, weights=init(1))
    assert one.sparsity.dtype == jnp.float32
    np.testing.assert_allclose(data.sparsity[1], one.sparsity, rtol=1e-5)
    np.testing.assert_allclose(data["quantiles"][1], one["quantiles"], rtol=1e-4, atol=1e-6)


def test_as_users_compile_it(problem):
    """With the compiler's optimisations, which other tests do without."""
    network, weights, x = problem
    lane = lambda w: (
        ska.simulate(
            network, w, x, own.Heun(0.1), steps=8, energy=own.CONTRAST, observe=(own.SPARSITY,)
        ).final.weights
    )
    lowered = jax.jit(lane).lower(weights)
    plain = lowered.compile()(weights)
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        optimised = jax.jit(lane).lower(weights).compile()(weights)
    finally:
        jax.config.update("jax_disable_most_optimizations", True)
    close(optimised, plain, 1e-12)
