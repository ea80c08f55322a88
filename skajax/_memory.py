"""How much memory there is, before it is asked for."""

import os

import jax


def available_bytes() -> int | None:
    """What the device that JAX computes on can still hold; None where nobody can tell."""
    device = jax.devices()[0]
    limits = device.memory_stats() if device.platform != "cpu" else None
    if limits and "bytes_limit" in limits:
        return limits["bytes_limit"] - limits.get("bytes_in_use", 0)
    return host_bytes() if device.platform == "cpu" else None


def host_bytes() -> int | None:
    """What the host can still hold without swapping; None where it does not say."""
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":", 1) for line in file)
        return 1024 * int(fields["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        pass  # not Linux
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


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
