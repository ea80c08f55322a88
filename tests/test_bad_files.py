"""Twelve kinds of bad files, TOML, data and skajax's own: one clear line, status 2, nothing written."""

import shutil

import h5netcdf
import jax
import numpy as np
import pytest
import xarray as xr

import skajax as ska
from skajax.__main__ import main

TOML = """
[data]
per_class = 1
[network]
widths = [4, 3]
[method]
name = "euler"
dt = 0.1
[run]
steps = 3
[grid]
seed = [0, 1]
"""
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A run, a sweep's folder and a checkpoint."""
    folder = tmp_path_factory.mktemp("good")
    x = jax.random.uniform(jax.random.key(0), (6, 5))
    network = ska.mlp([4, 3], scale=0.3)
    weights = network.init(jax.random.key(0), x)
    method = ska.Euler(0.1)
    ska.simulate(network, weights, x, method, steps=3, checkpoint=folder / "point.nc").save(
        folder / "run.nc"
    )
    ska.sweep(
        network, weights, x, lambda dt: ska.Euler(dt), steps=3,
        over=ska.grid(dt=[0.1, 0.2]), store=folder / "lanes",
    )  # fmt: skip
    return folder


# What a file holds: text or bytes of its name, a change of TOML, or of a good file.


def toml(before, after):
    assert before in TOML
    return ("sweep.toml", TOML.replace(before, after))


def arrays(**named):
    return ("data.npz", lambda path, good: np.savez(path, **named))


def changed(change):
    """A run's file, with something else in it."""

    def make(path, good):
        with xr.open_dataset(good / "run.nc", engine="h5netcdf") as run:
            change(run.load()).to_netcdf(path, engine="h5netcdf")

    return ("run.nc", make)


def manifest(change):
    """A sweep's folder, with something else in its sweep.json."""

    def make(path, good):
        shutil.copytree(good / "lanes", path)
        file = path / "sweep.json"
        file.write_bytes(change(file.read_bytes()))

    return ("lanes", make)


def half(name):
    def make(path, good):
        content = (good / name).read_bytes()
        path.write_bytes(content[: len(content) // 2])

    return (name, make)


def promised(path, good):
    """A header of more numbers than any disk has."""
    np.save(path, np.ones((2, 2)))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(2, 2), }" + b" " * 18, b"(1000000000, 1000000000), }"))


def without_end(path, good):
    """HDF5 that promises a petabyte, and holds none of it."""
    shutil.copy(good / "run.nc", path)
    with h5netcdf.File(path, "a") as file:
        file.dimensions["without_end"] = 2**47
        file.create_variable("more", ("without_end",), "f8", chunks=(1024,))


CSV = "a,b,species\n1,2,x\n3,4,y\n"
SWEEP, RUN, INFO = ["sweep", "--out", "out"], ["run", "--out", "new.nc"], ["info"]
PLOT = ["plot", "--out", "new.png"]
DATA = [*RUN, "--widths", "3", "--data"]
CASES = {
    "truncated": [
        (SWEEP, ("sweep.toml", TOML[:-4]), "must name a TOML file"),
        (DATA, ("data.npz", lambda path, good: np.savez(path, x=np.ones((9, 9))) or
                path.write_bytes(path.read_bytes()[:99])), "--data must name a whole file"),
        (DATA, ("data.csv", "a,b\n1,2\n3"), "--data must hold finite numbers"),
        (INFO, half("run.nc"), "could not be read"),
        (PLOT, half("run.nc"), "FILE must name a NetCDF file"),
        (INFO, manifest(lambda content: content[:99]), "is damaged"),
        ([*RUN, "--checkpoint"], half("point.nc"), "--checkpoint must name a NetCDF file"),
    ],
    "foreign": [
        (SWEEP, ("sweep.toml", PNG), "must name a TOML file"),
        (DATA, ("data.npy", PNG), "--data must name a whole file"),
        (DATA, ("data.npy", "junk"), "it is of another kind, or holds objects of Python's"),
        (DATA, ("data.csv", "a;b\n1;2\n"), "--data must have ',' between its columns, but in"),
        (DATA, ("data.csv", "5.1,3.5,x\n4.9,3.0,y\n"), "--data must have a first line of names, or"),
        (DATA, ("data.png", PNG), "--data must name a file that ends in .npy"),
        (INFO, ("run.nc", PNG), "must name a NetCDF file"),
        (INFO, ("run.nc", lambda path, good: xr.Dataset({"x": 1}).to_netcdf(
            path, engine="h5netcdf")), "its format was None"),
        (INFO, ("claims.json", "[]"), "must"),
        (PLOT, ("run.nc", PNG), "must name a NetCDF file"),
        ([*RUN, "--checkpoint"], ("run.nc", lambda path, good: shutil.copy(good / "run.nc", path)),
         "--checkpoint must hold a 'skajax checkpoint"),
    ],
    "other version": [
        (INFO, changed(lambda run: run.assign_attrs(format="skajax trajectory 9")),
         "its format was 'skajax trajectory 9'"),
        (PLOT, changed(lambda run: run.assign_attrs(format="skajax trajectory 9")),
         "its format was 'skajax trajectory 9'"),
        (INFO, manifest(lambda content: content.replace(b"store 1", b"store 9")), "store 9"),
        (SWEEP, toml("[grid]", "[version]\nskajax = '9'\n[grid]"), "version must be one of the tables"),
    ],
    "wrong shapes": [
        (SWEEP, toml("[4, 3]", "[[4], [3]]"), "network.widths must be a list of whole numbers"),
        (SWEEP, toml("[4, 3]", "[4, 3]\nscale = [1, 2, 3]"), "scale must"),
        (DATA, arrays(x=np.ones(3)), "--data must hold numbers of shape (samples, inputs, ...)"),
        ([*RUN, "--widths", "3", "--targets", "y", "--data"], arrays(x=np.ones((3, 2)), y=np.ones(2)),
         "--targets must hold a target for each sample"),
        (DATA, arrays(x=np.ones((3, 2, 2, 2))), "must"),
        (PLOT, changed(lambda run: run.assign(flow_norm=run.flow_norm.isel(layer=0))),
         "FILE must hold flow_norm over (time, layer), the times of shape (4,), but its shape was (4,)"),
        (INFO, changed(lambda run: run.assign(flow_norm=run.flow_norm.isel(layer=0))),
         "PATH must hold flow_norm over (time, layer), the times of shape (4,), but its shape was (4,)"),
    ],
    "missing axes": [
        (SWEEP, toml("[grid]\nseed = [0, 1]", ""), "grid must name at least one axis"),
        (SWEEP, toml("seed = [0, 1]", "seed = []"), "grid.seed must be a list of values"),
        (INFO, changed(lambda run: run.drop_vars("time")), "must hold a whole run"),
        (PLOT, changed(lambda run: run.drop_vars("time")), "must hold a whole run"),
        (INFO, manifest(lambda content: content.replace(b'"axes"', b'"exes"')), "is damaged"),
    ],
    "NaN inside": [
        (SWEEP, toml("dt = 0.1", "dt = nan"), "method.dt must be a positive number"),
        (SWEEP, toml("[0, 1]", "[0, nan]"), "grid.seed must have values that are each a whole"),
        (DATA, arrays(x=np.array([[1, np.nan], [0, 1]])), "1 were not, the first at [0, 1]"),
        (DATA, ("data.csv", "a,b\n1,2\n3,\n"), "the column 'b' has none in row 2"),
        (PLOT, changed(lambda run: run.assign(flow_norm=run.flow_norm * np.nan)),
         "at least one finite record"),
        (INFO, changed(lambda run: run.assign(flow_norm=run.flow_norm * np.nan)),
         "at least one finite record, but the first of 4, at t = 0, has flow_norm [nan nan]."),
    ],
    "misspelt keys": [
        (SWEEP, toml("steps", "stpes"), "run.stpes must be one of what run takes"),
        (SWEEP, toml("[method]", "[metod]"), "did you mean 'method'?"),
        (SWEEP, toml('"euler"', '"eular"'), "did you mean 'euler'?"),
        ([*DATA[:-1], "--array", "imges", "--data"], arrays(images=np.ones((2, 2)), y=np.ones(2)),
         "did you mean 'images'?"),
        ([*DATA[:-1], "--targets", "spezies", "--data"], ("data.csv", CSV), "did you mean 'species'?"),
        ([*PLOT, "--figure", "histry"], ("run.nc", ""), 'Did you mean "history"?'),
        ([*PLOT, "--observable", "flow_nrm"], changed(lambda run: run), "it was 'flow_nrm'"),
    ],
    "wrong types": [
        (SWEEP, toml("steps = 3", "steps = 'three'"), "run.steps must be a whole number"),
        (RUN, toml("steps = 3", "steps = 'three'"), "run.steps must be a whole number"),
        (PLOT, changed(lambda run: run.assign_attrs(network="none")), "FILE must hold a whole run"),
        (SWEEP, ("sweep.toml", "network = 3"),
         "network must be a table"),
        (DATA, arrays(x=np.array([["a", "b"]])), "they were <U1"),
        (DATA, arrays(x=np.array([[None, {}]], object)), "nothing could be read"),
        (DATA, ("data.csv", CSV), "the column 'species' has words (is it the targets? --targets species)"),
        (INFO, changed(lambda run: run.assign_attrs(network="none")), "must"),
        (INFO, manifest(lambda content: b"[1, 2]"), "is damaged"),
    ],
    "unreadable": [
        (SWEEP, ("sweep.toml", None), "CONFIG must name a file"),
        (DATA, ("data.npz", None), "--data must name a whole file"),
        (DATA, ("data.csv", None), "--data must name a whole file"),
        (PLOT, ("run.nc", None), "FILE must be a sweep's folder"),
        (INFO, ("run.nc", None), "PATH must be a file or a folder that skajax has written"),
    ],
    "empty": [
        (SWEEP, ("sweep.toml", ""), "method.name must be given"),
        (DATA, ("data.npy", ""), "--data must name a whole file"),
        (DATA, ("data.csv", ""), "--data must name a whole file"),
        (DATA, ("data.csv", "a,b\n"), "--data must"),
        (DATA, arrays(x=np.ones((0, 3))), "--data must hold numbers"),
        (INFO, ("run.nc", ""), "must name a NetCDF file"),
        (PLOT, ("run.nc", ""), "must name a NetCDF file"),
        (INFO, ("lanes", None), "must be a file or a folder that skajax has written"),
    ],
    "huge": [
        (SWEEP, toml("[grid]", "#" * 1_000_001 + "\n[grid]"), "at most 1000000 bytes"),
        (SWEEP, toml("[0, 1]", "{ start = 0, stop = 9, num = 1000000000000 }"),
         "grid.seed.num must be a whole number, 1 to 1000000"),
        (SWEEP, ("sweep.toml", "a = " + "[" * 5000), "must name a TOML file"),
        (DATA, ("data.npy", promised), "--data must name a whole file"),
        (INFO, ("run.nc", without_end), "but 'run.nc' could not be read: Unable to allocate"),
        (PLOT, ("run.nc", without_end), "but 'run.nc' could not be read: Unable to allocate"),
    ],
    "not UTF-8": [
        (SWEEP, ("sweep.toml", TOML.replace("[data]", "# für\n[data]").encode("latin-1")), "utf-8"),
        (DATA, ("data.csv", "größe,b\n1,2\n".encode("latin-1")), "utf-8"),
        (INFO, manifest(lambda content: content.replace(b"dt", b"\xfc\xff")), "is damaged"),
        (PLOT, manifest(lambda content: content.replace(b"dt", b"\xfc\xff")), "is damaged"),
    ],
}  # fmt: skip


def tree(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("kind", "number"), [(kind, n) for kind, cases in CASES.items() for n in range(len(cases))]
)
def test_a_bad_file_is_one_line_and_nothing_is_written(
    kind, number, good, tmp_path, monkeypatch, capsys, untyped
):
    (command, *options), (name, content), words = CASES[kind][number]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    if content is None:
        path.mkdir()
    elif callable(content):
        content(path, good)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = tree(tmp_path)
    option = options[-1:] if options[-1:] in (["--data"], ["--checkpoint"]) else []
    rest = options[: len(options) - len(option)]
    assert main([command, "--quiet", *rest, *option, name]) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith(f"skajax {command}: ") and len(line) < 700, line
    assert words in line, line
    assert "Traceback" not in line and not said.out
    assert tree(tmp_path) == before
