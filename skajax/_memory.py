"""How much memory there is, before it is asked for."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import jax


def available_bytes() -> int | None:
    """What the device that JAX computes on can still hold; None where nobody can tell."""
    device = jax.devices()[0]
    limits = device.memory_stats() if device.platform != "cpu" else None
    if limits and "bytes_limit" in limits:
        return limits["bytes_limit"] - limits.get("bytes_in_use", 0)
    return host_bytes() if device.platform == "cpu" else None


def host_bytes(root: Path = Path("/")) -> int | None:
    """What the host can still hold without swapping, or the container; None where nobody can tell."""
    there = [size for size in (_free_bytes(root), *_container_bytes(root)) if size is not None]
    return min(there, default=None)


def _free_bytes(root: Path) -> int | None:
    """What the whole machine can still hold."""
    try:
        fields = dict(
            line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines()
        )
        return 1024 * int(fields["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError, IndexError):
        pass  # not Linux
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _container_bytes(root: Path) -> Iterator[int]:
    """What each control group that this process is in lets it have more, of version 1 and 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return  # not Linux
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            top = root / "sys/fs/cgroup/memory"
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        # In a container its own group may be the top, whatever the path says.
        for each in (group, *group.parents):
            try:
                limit, used = (int((top / each / name).read_text()) for name in names[:2])
                told = (top / each / "memory.stat").read_text().splitlines()
                # Files that were read once are given up before a process is ended.
                cached = int(dict(entry.split(maxsplit=1) for entry in told).get(names[2], 0))
            except (OSError, ValueError):
                continue  # no limit, or no such group here
            yield max(limit - used + cached, 0)


def make_room_for_programs() -> None:
    """Let go of all compiled programs when they take half of the memory maps that a process may have.

    Each takes hundreds; at Linux's limit, 65,530, compiling ends the process. For loops over many networks.
    """
    try:
        with open("/proc/self/maps", "rb") as maps, open("/proc/sys/vm/max_map_count") as limit:
            crowded = sum(1 for _ in maps) > int(limit.read()) / 2
    except (OSError, ValueError):
        return  # not Linux
    if crowded:
        jax.clear_caches()


def tree_bytes(tree: object) -> int:
    """What the arrays of a tree take."""
    return sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(tree))


def in_words(size: int | float) -> str:
    """Bytes for people: 1.5 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
