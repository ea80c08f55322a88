"""How much memory there is: of the machine, or of the container that it is shared out in."""

import pytest

from skajax._memory import host_bytes

MB = 1024**2


def machine(root, files):
    """A machine of 1 GB, with these files."""
    files = {"proc/meminfo": f"MemTotal: 2000000 kB\nMemAvailable: {1024 * 1024} kB\n", **files}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v2(folder, limit, used, cached=0):
    return {
        f"sys/fs/cgroup/{folder}memory.max": f"{limit}\n",
        f"sys/fs/cgroup/{folder}memory.current": f"{used}\n",
        f"sys/fs/cgroup/{folder}memory.stat": f"anon 5\ninactive_file {cached}\n",
    }


def v1(folder, limit, used, cached=0):
    return {
        f"sys/fs/cgroup/memory/{folder}memory.limit_in_bytes": f"{limit}\n",
        f"sys/fs/cgroup/memory/{folder}memory.usage_in_bytes": f"{used}\n",
        f"sys/fs/cgroup/memory/{folder}memory.stat": f"cache 5\ntotal_inactive_file {cached}\n",
    }


IN_V2, IN_V1 = "0::/pods/one\n", "9:cpu:/\n4:memory:/pods/one\n0::/\n"
MACHINES = {
    "no container": ({}, 1024),
    "a container": ({"proc/self/cgroup": "0::/\n", **v2("", 300 * MB, 100 * MB)}, 200),
    "files are given up": (
        {"proc/self/cgroup": "0::/\n", **v2("", 300 * MB, 100 * MB, 50 * MB)},
        250,
    ),
    "no limit": ({"proc/self/cgroup": IN_V2, **v2("pods/one/", "max", 100 * MB)}, 1024),
    "the limit is above": (
        {
            "proc/self/cgroup": IN_V2,
            **v2("pods/one/", "max", 10 * MB),
            **v2("pods/", 400 * MB, 100 * MB),
        },
        300,
    ),
    "the machine has less": ({"proc/self/cgroup": IN_V2, **v2("pods/one/", 9000 * MB, 0)}, 1024),
    "all is used": ({"proc/self/cgroup": "0::/\n", **v2("", 100 * MB, 101 * MB)}, 0),
    "version 1": ({"proc/self/cgroup": IN_V1, **v1("pods/one/", 300 * MB, 200 * MB)}, 100),
    "version 1, seen from within": (
        {"proc/self/cgroup": IN_V1, **v1("", 300 * MB, 200 * MB, 10 * MB)},
        110,
    ),
    "version 1, no limit": (
        {"proc/self/cgroup": IN_V1, **v1("pods/one/", 9223372036854771712, 200 * MB)},
        1024,
    ),
    "what nobody understands": ({"proc/self/cgroup": "?\n", **v2("", 300 * MB, "?")}, 1024),
}


@pytest.mark.parametrize("case", MACHINES)
def test_what_there_is(case, tmp_path):
    files, want = MACHINES[case]
    assert host_bytes(machine(tmp_path, files)) == want * MB


def test_this_machine_can_tell():
    there = host_bytes()
    assert there is not None and there > 0
