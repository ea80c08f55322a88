"""Many devices, and many processes: the same results, and nobody asks another."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

import skajax as ska

HERE = Path(__file__).parent


def environment(devices):
    flags = os.environ.get("XLA_FLAGS", "")
    flags = f"{flags} --xla_force_host_platform_device_count={devices}"
    path = os.pathsep.join([str(HERE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    more = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return os.environ | more | {"PYTHONPATH": path}


def test_eight_devices_agree_with_one():
    ended = subprocess.run(
        [sys.executable, HERE / "eight_devices.py"], env=environment(8), capture_output=True,
        text=True, timeout=900, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("eight devices agree with one\n")


def test_two_processes_share_a_sweep(tmp_path, x64):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, HERE / "two_processes.py", coordinator, str(n), tmp_path / "store"],
            env=environment(4), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for n in range(2)
    ]  # fmt: skip
    for process in processes:
        told, error = process.communicate(timeout=900)
        assert process.returncode == 0, error
        assert "lanes there" in told

    data = ska.load_sweep(tmp_path / "store")
    x = jax.random.uniform(jax.random.key(0), (12, 8))
    network = ska.mlp([6, 4], scale=0.3)
    alone = ska.sweep(
        network, lambda seed: network.init(jax.random.key(seed), x), x,
        lambda dt: ska.Published(dt), t1=0.5, over=ska.grid(dt=[0.1, 0.05], seed=range(9)),
        observe=("entropy", "flow_norm"),
    )  # fmt: skip
    np.testing.assert_array_equal(data.outcome, alone.outcome)
    np.testing.assert_allclose(data.t, alone.t, rtol=1e-12)
    for name in ("entropy", "flow_norm"):
        scale = np.abs(alone[name]).max().item()
        np.testing.assert_allclose(data[name], alone[name], rtol=1e-12, atol=1e-12 * scale)
