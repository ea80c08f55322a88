"""Eight devices: run by test_devices.py in a process of its own, whose devices are eight of one CPU."""

import re
import tempfile
from contextlib import contextmanager

import jax
import numpy as np
import pytest
import xarray as xr
from jax.sharding import Mesh

import skajax as ska
from skajax.sweeps import _block

jax.config.update("jax_enable_x64", True)

X = jax.random.uniform(jax.random.key(0), (12, 8))
NETWORK = ska.mlp([6, 4], scale=0.3)
EULER = ska.Euler(0.1)
FEW = ("entropy", "flow_norm")
COLLECTIVE = re.compile(r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter")


def start(seed):
    return NETWORK.init(jax.random.key(seed), X)


def sweep(method, over, **options):
    return ska.sweep(NETWORK, start, X, method, t1=0.5, over=over, observe=FEW, **options)


def assert_alike(data, want, rtol=1e-12):
    assert data.sizes == want.sizes
    np.testing.assert_array_equal(data.outcome, want.outcome)
    np.testing.assert_allclose(data.t, want.t, rtol=rtol)
    for name in FEW:
        scale = np.abs(want[name]).max().item()
        np.testing.assert_allclose(
            data[name], want[name], rtol=rtol, atol=rtol * scale, err_msg=name
        )


def collectives(program, *arguments):
    """Which collectives there are in a program, as it is compiled for these arguments."""
    text = program.lower(*arguments).compile().compiled.as_text()
    return COLLECTIVE.findall(text)


@contextmanager
def listening(name):
    """The arguments of every call of a program of blocks."""
    program, calls = getattr(_block, name), []

    def heard(*arguments):
        calls.append(arguments)
        return program(*arguments)

    setattr(_block, name, heard)
    yield program, calls
    setattr(_block, name, program)


def divided_lanes(method, program):
    """Lanes over eight devices, alone and with the samples of each over two; no lane asks another."""
    lanes = Mesh(np.asarray(jax.devices()), ("lanes",))
    both = Mesh(np.asarray(jax.devices()).reshape(4, 2), ("lanes", "samples"))
    over = ska.grid(dt=[0.1, 0.05], seed=range(5))
    run = lambda **options: sweep(method, over, **options)
    alone = run(at_once=1)
    with listening(program) as (compiled, calls):
        assert_alike(run(devices=lanes), alone)
        assert calls
        for arguments in calls:
            assert collectives(compiled, *arguments) == []
        calls.clear()
        assert_alike(run(devices=both, at_once=1), alone)
        # The samples' sums are collectives, which shows that they would be seen of lanes as well.
        assert all(collectives(compiled, *arguments) for arguments in calls[:1])
        assert bool(calls) == (program == "advance")


def divided_samples():
    """One run at a time, its samples over four devices."""
    samples = Mesh(np.asarray(jax.devices()[:4]), ("samples",))
    run = lambda **options: sweep(EULER, ska.grid(seed=range(2)), **options)
    assert_alike(run(devices=samples), run())


def one_to_a_device():
    """One lane a device, the last block not full, into a store and out of it."""
    euler = lambda **options: sweep(EULER, ska.grid(seed=range(11)), **options)
    with tempfile.TemporaryDirectory() as folder:
        kept = euler(devices="all", at_once=1, store=folder)
        assert_alike(kept, euler(at_once=1))
        xr.testing.assert_identical(ska.load_sweep(folder), kept)


def what_does_not_fit():
    """Devices that are none, a mesh of one axis too many, samples that cannot be divided."""
    cube = Mesh(np.asarray(jax.devices()).reshape(2, 2, 2), ("lanes", "a", "b"))
    uneven = Mesh(np.asarray(jax.devices()), ("samples",))
    for devices, argument, word in (
        ("some", "devices", "'all'"), (cube, "devices", "one for the samples"), (uneven, "x", "12"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"Argument {argument} must .*{word}"):
            sweep(EULER, ska.grid(seed=range(2)), devices=devices)


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    divided_lanes(lambda dt: ska.Published(dt), "advance")
    divided_lanes(lambda dt: ska.Adaptive(rtol=dt * 1e-3), "integrate")
    divided_samples()
    one_to_a_device()
    what_does_not_fit()
    print("eight devices agree with one")
