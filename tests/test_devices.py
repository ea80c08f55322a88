"""Many devices, and many processes: the same results, and nobody asks another."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def environment(devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    path = os.pathsep.join([str(HERE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    more = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return os.environ | more | {"PYTHONPATH": path}


def test_eight_devices_agree_with_one():
    ended = subprocess.run(
        [sys.executable, HERE / "eight_devices.py"], env=environment(8), capture_output=True,
        text=True, timeout=900, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("eight devices agree with one\n")
