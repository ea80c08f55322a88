"""The figures of the documentation, each of real runs: ``python docs/figures.py [NAME ...]``.

They are written into ``docs/images``. A figure is a function without arguments whose docstring is its
caption; the gallery shows its code.
"""

import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import skajax as ska

IMAGES = pathlib.Path(__file__).parent / "images"


@functools.cache
def images():
    """1000 images of MNIST, and their labels."""
    return ska.data.mnist_subset(per_class=100)


def start(widths, *, seed=0, scale=0.01):
    """A network, and its initial weights for the images."""
    network = ska.mlp(widths, scale=scale)
    return network, network.init(jax.random.key(seed), images()[0])


def concept_flow():
    """Entropy falls, and the flow of each layer has a peak."""
    network, weights = start([64, 32, 10])
    run = ska.simulate(network, weights, images()[0], ska.Adaptive(), t1=1.0)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    ska.plot.history(run, "entropy", ax=axes[0])
    ska.plot.history(run, "flow_norm", ax=axes[1])
    return figure


def concept_layers():
    """Knowledge of two layers over time: every neuron of a few samples."""
    network, weights = start([64, 32])
    x = images()[0]
    run = ska.simulate(network, weights, x, ska.Adaptive(), t1=1.0, dense=True)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
    times = np.linspace(0, 1, 60)
    Z = [run.at(float(t)).Z for t in times]
    for layer, ax in enumerate(axes):
        curves = np.stack([np.asarray(z[layer][::250]).ravel() for z in Z])
        ax.plot(times, curves, color="0.3", linewidth=0.5)
        ax.axhspan(-1.5434, 1.5434, color="0.93", zorder=0)
        ax.set(title=f"layer {layer + 1}", xlabel="time $t$")
    axes[0].set_ylabel("knowledge $z$")
    return figure


def concept_energies():
    """The same network under three energies: what becomes of its entropy."""
    x, y = images()
    network, weights = start([32, 10], scale=0.1)
    energies = {
        "entropy, local (SKA)": ska.energies.Entropy(),
        "entropy, global": ska.energies.Entropy(local=False),
        "cross-entropy": ska.energies.CrossEntropy(),
    }
    runs = {
        name: ska.simulate(network, weights, ska.Batch(x, y), ska.Adaptive(), t1=3.0, energy=energy)
        for name, energy in energies.items()
    }
    axes = ska.plot.comparison(runs, "entropy")
    return axes[0].figure


def concept_inputs():
    """Mini-batches that take turns: the shorter their period, the nearer to all samples together."""
    x, _ = images()
    network, weights = start([32, 10])
    runs = {}
    for period in (0.2, 0.1, 0.05):
        turns = ska.MiniBatches(x, size=100, period=period, key=jax.random.key(1))
        runs[f"period {period}"] = ska.simulate(
            network, weights, turns, ska.Adaptive(), t1=1.0, observe=("flow_norm",)
        )
    whole = ska.simulate(network, weights, x, ska.Adaptive(), t1=1.0)
    scale = np.sqrt(10)  # norms sum over samples: 100 of them here, 1000 there
    figure, ax = plt.subplots(figsize=(6.6, 3.9), layout="constrained")
    for shade, (name, run) in zip((0.7, 0.5, 0.3), runs.items(), strict=True):
        ax.plot(run.t, scale * run.flow_norm[:, 0], color=str(shade), linewidth=1, label=name)
    ax.plot(whole.t, whole.flow_norm[:, 0], color="#0072B2", label="all samples")
    ax.set(xlabel="time $t$", ylabel=r"knowledge flow of layer 1, $\Vert\Phi\Vert_F$ (1/time)")
    ax.legend()
    return figure


def concept_observables():
    """Four of the observables of one run."""
    network, weights = start([64, 32, 10])
    run = ska.simulate(network, weights, images()[0], ska.Adaptive(), t1=1.0)
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.2), layout="constrained")
    names = ("entropy_rate", "alignment", "tensor_net_rate", "knowledge_norm")
    for name, ax in zip(names, axes.flat, strict=True):
        ska.plot.history(run, name, ax=ax)
    return figure


def concept_methods():
    """Both discrete rules are of order 1: their distance from the continuous limit halves with the step."""
    x, _ = images()
    network, weights = start([32, 10])
    exact = ska.simulate(
        network, weights, x, ska.Adaptive(rtol=1e-6, atol=1e-8), t1=0.5, save_at="end"
    )
    flat = lambda w: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(w)])
    end = flat(exact.final.weights)
    steps = np.asarray([25, 50, 100, 200])
    figure, ax = plt.subplots(figsize=(6.6, 3.9), layout="constrained")
    for name, method, more in (("Euler", ska.Euler, 0), ("Published", ska.Published, 1)):
        errors = []
        for K in steps:
            run = ska.simulate(network, weights, x, method(0.5 / K), steps=int(K) + more)
            errors.append(np.linalg.norm(flat(run.final.weights) - end) / np.linalg.norm(end))
        ax.loglog(0.5 / steps, errors, "o-" if more else "s--", label=name)
    ax.loglog(0.5 / steps, errors[-1] * steps[-1] / steps, ":", color="0.6", label="order 1")
    ax.set(xlabel=r"step $\Delta t$", ylabel="relative distance of the weights at t = 0.5")
    ax.legend()
    return figure


def concept_time():
    """When each layer learns: peaks of the flow, and minima of the entropy's rate, against knowledge."""
    network, weights = start([64, 32, 10])
    run = ska.simulate(network, weights, images()[0], ska.Adaptive(), t1=1.0, dense=True)
    return ska.plot.flow_against_knowledge(run)[0].figure


def concept_sweeps():
    """Sixteen seeds in one sweep: bands over the seeds, each layer's flow."""
    x, _ = images()
    network = ska.mlp([64, 32, 10])
    data = ska.sweep(
        network, lambda seed: network.init(jax.random.key(seed), x), x,
        ska.Adaptive(), t1=1.0, over=ska.grid(seed=range(16)), observe=("flow_norm",),
    )  # fmt: skip
    return ska.plot.ensemble(data, "flow_norm").figure


def heatmap():
    """The Tensor Net's rate of every layer over time, in colour."""
    network, weights = start([64, 32, 10])
    run = ska.simulate(network, weights, images()[0], ska.Adaptive(), t1=1.0)
    return ska.plot.heatmap(run, "tensor_net_rate").figure


def maps():
    """A convolution's knowledge flow for one image: at the start, at its peak, and later."""
    x, _ = ska.data.mnist(per_class=6)
    network = ska.Network((ska.layers.Conv(4, (5, 5), strides=2, scale=0.2),))
    weights = network.init(jax.random.key(0), x)
    run = ska.simulate(network, weights, x, ska.Adaptive(), t1=0.2, dense=True)
    return ska.plot.maps(run, what="flow", channels=(0, 1), samples=12)[0].figure


def step_sizes():
    """An adaptive controller's steps, above the flow that they follow."""
    network, weights = start([64, 32, 10])
    run = ska.simulate(
        network, weights, images()[0], ska.Adaptive(), t1=2.0, save_at="steps", dense=True
    )
    return ska.plot.step_sizes(run)[0].figure


def moving_inputs():
    """Inputs that turn from one half of the images to the other: the first layer follows."""
    x = jnp.asarray(images()[0])
    network, weights = start([32, 10])
    half = ska.Moving(lambda t: x[:500] * jnp.cos(t) ** 2 + x[500:] * jnp.sin(t) ** 2)
    run = ska.simulate(network, weights, half, ska.Adaptive(), t1=3.0)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    ska.plot.history(run, "transport", ax=axes[0])
    ska.plot.history(run, "flow_norm", ax=axes[1])
    return figure


FIGURES = (concept_flow, concept_layers, concept_energies, concept_inputs, concept_observables,
           concept_methods, concept_time, concept_sweeps, heatmap, maps, step_sizes,
           moving_inputs)  # fmt: skip


def main(names: list[str]) -> None:
    """Make those named, or all."""
    plt.switch_backend("agg")
    plt.rcParams.update(ska.plot.STYLE)
    for make in FIGURES:
        if not names or make.__name__ in names:
            figure = make()
            figure.savefig(IMAGES / f"{make.__name__}.png", dpi=110)
            plt.close(figure)
            print(make.__name__, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
