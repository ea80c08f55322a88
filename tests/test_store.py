"""The store: what is on disk is whole, known for what it is, and enough to go on from."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import skajax as ska
from skajax import _files
from skajax.sweeps import _lock
from skajax.sweeps._manifest import Described, describe
from skajax.sweeps._store import Store

ARGUMENTS = {"network": Described("a", "mlp([3])"), "method": Described("b", "Euler(dt=0.1)")}
AXES = {"dt": (0.1, 0.02), "name": ("one", "two", "three")}
LANES = 6


def lane(n):
    """A lane of n + 1 records and 1 or 2 layers, of which no number is any other's."""
    records, layers = n + 1, 1 + n % 2
    values = (1000 * n + 10 * np.arange(records)[:, None] + np.arange(layers)).astype(np.float32)
    return xr.Dataset(
        {
            "entropy": (("record", "layer"), values, {"units": "bit"}),
            "final": (("free",), np.arange(layers) * 0.5),
            "steps": np.int32(n),
            "outcome_code": np.int32(0),
            "outcome": f"completed: lane {n}" + "!" * n,
        },
        {
            "record": np.arange(records),
            "layer": np.arange(1, 1 + layers),
            "t": ("record", np.linspace(0, 1, records)),
        },
    )


def refused(n):
    return xr.Dataset({"outcome_code": np.int32(-2), "outcome": f"refused: lane {n}"})


def failed(n):
    return lane(n).assign(outcome_code=np.int32(1), outcome="diverged")


def joined(numbers, make=lane):
    """Lanes as one Dataset: what a sweep hands to the store."""
    parts = [make(n) for n in numbers]
    parts = [part.reset_coords(set(part.coords) & {"t"}) for part in parts]
    parts = [
        part.assign_coords(free=np.arange(part.sizes["free"])) if "free" in part.dims else part
        for part in parts
    ]
    data = xr.concat(parts, "lane", data_vars="all", coords="minimal", join="outer")
    data = data.assign_coords(lane=list(numbers)).drop_vars("free", errors="ignore")
    return data.set_coords("t") if "t" in data else data


def store(path, arguments=ARGUMENTS, axes=AXES, **options):
    return Store(path, arguments, axes, **options)


def chunks(path):
    return sorted((path / "chunks").iterdir())


@settings(max_examples=10)
@given(st.permutations(range(LANES)), st.sets(st.integers(1, LANES - 1)))
def test_whatever_the_chunks_the_lanes_are_the_same(tmp_path_factory, order, cuts):
    path = tmp_path_factory.mktemp("sweep")
    make = lambda n: refused(n) if n == 3 else lane(n)
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), LANES], strict=True):
        with store(path) as opened:
            assert opened.done() == set(order[:start])
            assert opened.missing() == sorted(order[start:])
            opened.write(joined(order[start:end], make))
    got, want = Store.open(path).read(), joined(range(LANES), make)
    xr.testing.assert_identical(got, want)
    assert {name: item.dtype for name, item in got.items()} == {
        name: item.dtype for name, item in want.items()
    }


def test_it_knows_what_it_holds(tmp_path):
    with store(tmp_path, attrs={"seed": 7}) as opened:
        opened.write(joined([4, 0]), seconds=1.5)
        opened.write(joined([2], failed), seconds=2.0)
        opened.write(joined([5], refused))
    found = Store.open(tmp_path)
    assert found.status() == (6, 4, 1, 1, 3.5, 3)
    assert found.failures() == {2: "diverged", 5: "refused: lane 5"}
    assert found.missing() == [1, 3]
    assert found.manifest.place(5) == {"dt": 0.02, "name": "three"}
    assert found.manifest.arguments == ARGUMENTS and found.manifest.attrs == {"seed": 7}
    assert {name: axis.tolist() for name, axis in found.manifest.axes.items()} == {
        name: list(axis) for name, axis in AXES.items()
    }
    with pytest.raises(ValueError, match="Argument store must be entered before"):
        found.write(joined([1]))


def test_an_empty_store_has_no_lanes(tmp_path):
    with store(tmp_path) as opened:
        assert opened.status() == (6, 0, 0, 0, 0.0, 0)
        assert opened.read().sizes == {"lane": 0}


def test_it_can_be_asked_before_anything_is_touched(tmp_path):
    assert store(tmp_path / "none").ahead() == set()
    assert not (tmp_path / "none").exists()
    with store(tmp_path) as opened:
        opened.write(joined([3]))
        assert store(tmp_path).ahead() == {3}  # while another writes
        with pytest.raises(ValueError, match="holds another: network"):
            store(tmp_path, {"method": ARGUMENTS["method"]}).ahead()


def test_labels_keep_their_types(tmp_path):
    axes = {"a": (np.float32(0.1), 2), "b": (True, False), "c": (ska.Euler(0.1), None)}
    with store(tmp_path, axes=axes):
        found = Store.open(tmp_path).manifest.axes
    assert [axis.dtype.kind for axis in found.values()] == ["f", "b", "U"]
    with store(tmp_path, axes=axes) as again:  # and are equal to themselves
        assert again.missing() == list(range(8))


def test_versions_that_differ_between_chunks_are_all_told(tmp_path):
    with store(tmp_path) as opened:
        opened.write(joined([0]).assign_attrs(format="f", jax_version="1", device="cpu"))
        opened.write(joined([1]).assign_attrs(format="f", jax_version="2", device="cpu"))
        assert opened.read().attrs == {"format": "f", "jax_version": "1, 2", "device": "cpu"}


BAD_LANES = {
    "none": ([], "different ones"),
    "twice": ([1, 1], "different ones"),
    "outside": ([6], "of 0 to 5"),
    "negative": ([-1], "of 0 to 5"),
    "again": ([1, 0], r"holds \[0\] already"),
}


@pytest.mark.parametrize("case", BAD_LANES)
def test_lanes_that_are_none_are_refused(tmp_path, case):
    numbers, word = BAD_LANES[case]
    data = joined([abs(n) for n in numbers] or [0]).isel(lane=range(len(numbers)))
    with store(tmp_path) as opened:
        opened.write(joined([0]))
        with pytest.raises(ValueError, match=f"Argument lanes must be .*{word}"):
            opened.write(data.assign_coords(lane=numbers))
        assert opened.done() == {0}


CHANGED = {
    "values": (
        {"arguments": {**ARGUMENTS, "network": Described("x", "mlp([3])")}},
        r"network is mlp\(\[3\]\), now with other values\.",
    ),
    "text": (
        {"arguments": {**ARGUMENTS, "method": Described("x", "Euler(dt=0.2)")}},
        r"method was Euler\(dt=0.1\), and is Euler\(dt=0.2\)\.",
    ),
    "more": (
        {"arguments": {**ARGUMENTS, "until": Described("x", "a rule")}},
        "until was not given",
    ),
    "less": ({"arguments": {"network": ARGUMENTS["network"]}}, "method .* is not given"),
    "axis": (
        {"axes": {**AXES, "dt": (0.1, 0.05)}},
        r"axis dt was \[0.1, 0.02\], and is \[0.1, 0.05\]\.",
    ),
    "longer": ({"axes": {**AXES, "dt": (0.1, 0.02, 0.01)}}, "axis dt was"),
    "new axis": ({"axes": {**AXES, "seed": (0,)}}, r"axis seed was not there, and is \[0\]"),
    "order": ({"axes": dict(reversed(AXES.items()))}, "the axes were"),
    "two": (
        {"arguments": {name: Described("x", "y") for name in ARGUMENTS}},
        "network was .*; method was",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_another_sweep_is_told_what_differs(tmp_path, case):
    change, words = CHANGED[case]
    with store(tmp_path) as opened:
        opened.write(joined([0]))
    before = {path: path.read_bytes() for path in [tmp_path / "sweep.json", *chunks(tmp_path)]}
    must = "Argument store must be the folder of this very sweep, but .* holds another: .*"
    with pytest.raises(ValueError, match=must + words), store(tmp_path, **change):
        pass
    assert {path: path.read_bytes() for path in before} == before
    with store(tmp_path, attrs={"note": "decides nothing"}) as opened:
        assert opened.done() == {0}


def test_of_another_sweep_the_versions_are_told_too(tmp_path):
    with store(tmp_path, attrs={"jax_version": "1", "numpy_version": "2"}):
        pass
    other = {"network": Described("x", "mlp([3])")}
    attrs = {"jax_version": "3", "numpy_version": "2"}
    with pytest.raises(ValueError, match=r"values; .*jax_version was 1, and is 3\. Name"):
        store(tmp_path, other, attrs=attrs).__enter__()
    with store(tmp_path, attrs=attrs) as opened:  # by themselves they decide nothing
        assert opened.missing() == list(range(LANES))


def damage(content, how):
    if how == "cut":
        return content[: len(content) // 2]
    if how == "empty":
        return b""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("how", ["cut", "empty", "one bit"])
def test_a_damaged_chunk_is_named_and_costs_its_lanes_alone(tmp_path, how):
    with store(tmp_path) as opened:
        opened.write(joined([0, 1]))
        opened.write(joined([2, 3]))
    reader = Store.open(tmp_path)
    reader.done()
    victim = chunks(tmp_path)[0]
    victim.write_bytes(damage(victim.read_bytes(), how))
    named = f"{re.escape(str(victim))}'? is damaged, .* Remove it: its lanes alone will run again"
    for act in (
        store(tmp_path).__enter__,
        Store.open(tmp_path).done,
        Store.open(tmp_path).status,
        reader.read,  # which knew the chunk when it was whole
    ):
        with pytest.raises(ValueError, match=f"Argument store must hold whole chunks.*{named}"):
            act()
    assert len(chunks(tmp_path)) == 2
    victim.unlink()
    with store(tmp_path) as opened:
        assert opened.done() == {2, 3}
        opened.write(joined([0, 1]))
        xr.testing.assert_identical(opened.read(), joined(range(4)))


def test_a_chunk_of_another_sweep_is_none_of_this(tmp_path):
    with store(tmp_path / "one") as opened:
        opened.write(joined([0]))
    with store(tmp_path / "two", {"x": Described("c", "other")}):
        pass
    shutil.copy(chunks(tmp_path / "one")[0], tmp_path / "two" / "chunks")
    with pytest.raises(ValueError, match="is damaged, or of another sweep"):
        Store.open(tmp_path / "two").done()


def test_a_damaged_manifest_can_be_written_anew(tmp_path):
    with store(tmp_path) as opened:
        opened.write(joined([0]))
    manifest = tmp_path / "sweep.json"
    for content in (manifest.read_bytes()[:50], b"[]"):
        manifest.write_bytes(content)
        with pytest.raises(ValueError, match=r"sweep\.json' is damaged.* its chunks are kept"):
            Store.open(tmp_path)
    manifest.unlink()
    with store(tmp_path) as opened:
        assert opened.done() == {0}
    manifest.write_text(json.dumps({"format": "skajax sweep store 0"}))
    with pytest.raises(ValueError, match=r"its format was 'skajax sweep store 0'"):
        Store.open(tmp_path)
    with pytest.raises(
        ValueError, match=r"Argument store must be a sweep's folder, but there was no"
    ):
        Store.open(tmp_path / "none")


def test_one_writer_at_a_time(tmp_path):
    with store(tmp_path) as first:
        with pytest.raises(
            ValueError, match=r"no other sweep is writing to, but process 0 of 1 is"
        ):
            store(tmp_path).__enter__()
        first.write(joined([0]))
        assert Store.open(tmp_path).done() == {0}  # readers are let in
    with store(tmp_path) as second:
        assert second.done() == {0}


def test_processes_of_one_sweep_share_a_store(tmp_path):
    with (
        store(tmp_path, process=0, processes=2) as one,
        store(tmp_path, process=1, processes=2) as two,
    ):
        one.write(joined([0, 2]))
        two.write(joined([1, 5]))
        one.write(joined([4]))
        assert one.done() == two.done() == {0, 1, 2, 4, 5}
        for other in ({}, {"process": 2, "processes": 3}, {"process": 1, "processes": 2}):
            with pytest.raises(ValueError, match=r"process . of 2 is"):
                store(tmp_path, **other).__enter__()
    with store(tmp_path, process=2, processes=3) as three, store(tmp_path, process=0, processes=3):
        three.write(joined([3]))
    xr.testing.assert_identical(Store.open(tmp_path).read(), joined(range(6)))


def test_a_lane_that_was_run_twice_counts_once(tmp_path):
    with (
        store(tmp_path, process=0, processes=2) as one,
        store(tmp_path, process=1, processes=2) as two,
    ):
        one._look(), two._look()
        two_at_once = joined([1, 2])
        one.write(joined([0, 1]))
        two.done = lambda: set()
        two.write(two_at_once)
    with pytest.warns(UserWarning, match="has lanes twice"):
        xr.testing.assert_identical(Store.open(tmp_path).read(), joined(range(3)))
    assert Store.open(tmp_path).status().done == 3


def test_leftovers_of_a_killed_writer_are_cleared_up(tmp_path):
    with store(tmp_path) as opened:
        opened.write(joined([0]))
    (name,) = [path.name for path in chunks(tmp_path)]
    mine = tmp_path / "chunks" / f".{name.replace('000000', '000001')}.77.part"
    of_more = tmp_path / "chunks" / ".000001-1of2-ab.nc.77.part"
    running = tmp_path / "chunks" / ".000001-0of3-ab.nc.77.part"
    manifest = tmp_path / ".sweep.json.77.part"
    (tmp_path / ".locks" / "1of2").touch()
    for path in (mine, of_more, running, manifest):
        path.write_bytes(b"half")
    assert Store.open(tmp_path).done() == {0}
    with store(tmp_path) as opened:
        assert opened.done() == {0}
    assert chunks(tmp_path) == [running, tmp_path / "chunks" / name]
    assert not manifest.exists()


def test_a_full_disk_leaves_what_there_was(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with store(tmp_path) as opened:
        opened.write(joined([0, 1]))
        with monkeypatch.context() as patch:
            patch.setattr(_files.os, "fsync", full)
            with pytest.raises(
                OSError, match=r"3 lanes could not be written.*No space.*All 2 lanes"
            ) as e:
                opened.write(joined([2, 3, 4]))
        assert e.value.errno == errno.ENOSPC
        assert len(chunks(tmp_path)) == 1
        opened.write(joined([2, 3, 4]))
        xr.testing.assert_identical(opened.read(), joined(range(5)))


FULL = """
import resource, signal, sys
import numpy as np, xarray as xr
from skajax.sweeps._store import Described, Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
def lanes(first, size):
    scalars = {"outcome_code": ("lane", np.zeros(2, int)), "outcome": ("lane", np.array(["", ""]))}
    return xr.Dataset({"a": (("lane", "n"), np.ones((2, size))), **scalars}, {"lane": [first, first + 1]})
with Store(sys.argv[1], {}, {"n": range(8)}) as store:
    store.write(lanes(0, 5))
    try:
        store.write(lanes(2, 100_000))
    except OSError as error:
        print(error)
    store.write(lanes(4, 5))
"""


def test_a_file_that_the_system_refuses_harms_no_other(tmp_path):
    """HDF5 itself would end the process here."""
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 lanes could not be written" in done.stdout and "File too large" in done.stdout
    assert Store.open(tmp_path).done() == {0, 1, 4, 5}
    assert len(chunks(tmp_path)) == 2


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    where = ["file", "file/below"]
    if os.path.isdir("/proc/self"):
        where.append("/proc/self/sweep")
    for path in where:
        with pytest.raises(
            ValueError, match=r"must be a folder that can be written to, but .* could"
        ):
            store(tmp_path / path).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def read_only(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    with store(tmp_path / "sweep") as opened:
        opened.write(joined([0]))
    for owner, name in ((_lock.os, "open"), (type(tmp_path), "write_bytes")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, read_only)
            with pytest.raises(ValueError, match=r"can be written to, .* Permission denied"):
                store(tmp_path / "sweep").__enter__()
    assert Store.open(tmp_path / "sweep").done() == {0}
    with store(tmp_path / "sweep"):  # nobody holds its lock
        pass


WRITER = """
import sys
import numpy as np, xarray as xr
from skajax.sweeps._store import Described, Store
with Store(sys.argv[1], {"x": Described("a", "b")}, {"n": range(10_000)}) as store:
    print("ready", flush=True)
    missing = store.missing()
    for n in range(0, len(missing), 2):
        lanes = missing[n : n + 2]
        store.write(xr.Dataset(
            {"a": (("lane", "record"), np.outer(lanes, np.arange(50.0))),
             "outcome_code": ("lane", np.zeros(len(lanes), int)),
             "outcome": ("lane", [f"lane {lane}" for lane in lanes])},
            {"lane": lanes, "record": np.arange(50)},
        ))
        print(*lanes, flush=True)
"""


def kill(path, wait):
    """Start a writer, kill it after some time, and hear which lanes it had written."""
    command = [sys.executable, "-c", WRITER, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        told = child.stdout.read()
    assert child.returncode == -signal.SIGKILL
    # The last line may have been cut.
    return [int(lane) for line in told.split("\n")[:-1] for lane in line.split()]


def test_killed_at_any_moment_it_holds_whole_chunks(tmp_path):
    told = []
    for wait in np.random.default_rng(0).uniform(0.0, 0.7, 2):
        told += kill(tmp_path, wait)
        assert len(set(told)) == len(told)  # nothing twice
        found = Store.open(tmp_path)
        assert set(told) <= found.done()  # nothing lost
        data = found.read()
        lanes = data["lane"].values
        assert set(lanes.tolist()) == found.done()
        np.testing.assert_array_equal(data["a"], np.outer(lanes, np.arange(50.0)))
        assert data["outcome"].values.tolist() == [f"lane {lane}" for lane in lanes]
        told = sorted(found.done())
    with Store(tmp_path, {"x": Described("a", "b")}, {"n": range(10_000)}) as opened:
        assert opened.done() == set(told)
    assert not [path for path in chunks(tmp_path) if path.name.startswith(".")]


def test_arguments_are_described_by_what_they_are_in_each_lane():
    x = jax.numpy.ones((3, 2))
    same = describe([x] * 4)
    assert same.text == "f32[3,2]" and same == describe([x + 0] * 4)
    several = describe([ska.Euler(0.1), ska.Euler(0.2), ska.Euler(0.1)])
    assert several.text == "Euler(dt=0.1), the first of 2 that differ"
    assert several.digest != describe([ska.Euler(0.1), ska.Euler(0.1), ska.Euler(0.2)]).digest
    assert len(describe(["long" * 1000]).text) == 200
