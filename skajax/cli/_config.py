"""A sweep as a TOML file, or a run as options: tables of settings, and a grid of those that differ.

    [data]                          # the inputs x
    name = "mnist"                  # a set of skajax.data; or file = "inputs.npz"
    per_class = 100                 # and scaling, flatten, and what else the set has

    [network]
    widths = [256, 128, 64, 10]     # or width, depth; or layers = [{ layer = "Conv", ... }, ...]
    scale = 0.01                    # and bias, precision
    seed = 0                        # of the initial weights

    [method]
    name = "published"              # or euler, pipelined (dt); adaptive (solver, rtol, atol, dt0, ...);
    dt = 0.01                       # or descent (optimiser, learning_rate, [method.options])

    [energy]                        # by default each layer's own entropy
    name = "CrossEntropy"           # [[energy]], with a factor each, are added up

    [run]
    t1 = 0.5                        # or steps; save_at, until, observe, reduction, dtype

    [grid]                          # the axes: any number or name from above
    dt = [0.02, 0.01]
    seed = { start = 0, stop = 15, num = 16 }

An axis takes the place of the setting of its name, and so does a command's option; ``method`` is that of
``method.name``, and ``width`` and ``depth`` are those of the hidden layers.
"""

import dataclasses
import functools
import inspect
import operator
import os
import tomllib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn, get_args

import numpy as np
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from skajax._checks import require
from skajax._files import located
from skajax._messages import nearest
from skajax.cli._data import FILES, read_data
from skajax.cli._problem import Problem
from skajax.cli._tables import METHODS, SETS, TARGETED, Network, Run, Settings, one_of, values
from skajax.cli._words import TABLE, known, short, told

LARGEST = 1_000_000
"""Bytes of a TOML file, at most."""
TAKEN, KEPT = (
    {name: m.model_fields for m in models for name in get_args(m.model_fields["name"].annotation)}
    for models in (METHODS, SETS)
)
"""What each method takes, and each set of data."""
NAMED = [name for name in KEPT if name not in ("tfds", "known_spectrum", "file")]
"""The sets that an option can name: the others need more than a name."""


OPTIONS = {field.name for field in dataclasses.fields(Problem)}
"""Of the data, what a command line can say, too."""


class Place(NamedTuple):
    """Where the setting is that an axis or an option takes the place of, and what it may be."""

    table: str
    key: str
    kind: Any


_ROOMS = {"network": (Network,), "run": (Run,), "method": METHODS, "data": SETS}
PLACES = {"method": Place("method", "name", Annotated[str, one_of(*TAKEN)])}
for _table, _models in _ROOMS.items():
    for _model in _models:
        for _key, _field in _model.model_fields.items():
            if _key != "name":
                _kind = Annotated[_field.annotation, _field]
                PLACES.setdefault(_key, Place(_table, _key, _kind))

_X = ("per_class", "samples")
_NETWORK = ("widths", "width", "depth", "scale", "bias", "precision")
_METHOD = tuple(n for n, place in PLACES.items() if place.table == "method" and n != "options")
_MADE: dict[str, tuple[tuple[str, ...], Callable[["Config", Settings], Any]]] = {
    "network": (_NETWORK, lambda config, at: at.network.make()),
    "weights": ((*_NETWORK, "seed", *_X), lambda config, at: config.weights(at)),
    "x": (_X, lambda config, at: config.inputs(at)),
    "method": (_METHOD, lambda config, at: at.method.make()),
    "t1": (("t1",), lambda config, at: at.run.t1),
    "steps": (("steps",), lambda config, at: at.run.steps),
}
"""Of each argument of :func:`skajax.sweep`, the axes that it can depend on, and how it is made."""
AXES = tuple(dict.fromkeys(axis for axes, _ in _MADE.values() for axis in axes))


class Config:
    """What a file and a command's options ask for, checked; nothing is made of it yet."""

    def __init__(
        self,
        tables: Mapping[str, Any],
        file: str | os.PathLike[str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """A ValueError names what does not fit, and where it was given."""
        self.file, self.options = file, dict(options or {})
        self.folder = Path() if file is None else located(file).parent
        self.axes: dict[str, tuple[Any, ...]] = {}
        self._first: dict[str, Any] = {}
        self._seen: tuple[Any, Any] | None = None
        with self._telling():
            for name, table in tables.items():
                known("one of the tables", name, [*Settings.model_fields, "grid"], at=name)
                if not isinstance(table, dict) and name != "energy":
                    self._refuse(name, TABLE, table)
        self.tables = {name: table for name, table in tables.items() if name != "grid"}
        self._take()
        for axis, given in tables.get("grid", {}).items():
            with self._telling("grid", given):
                known("one of the axes", axis, AXES, at=axis)
            with self._telling(f"grid.{axis}", given):
                self.axes[axis] = tuple(values(PLACES[axis].kind, given))
        for axis in ("width", "depth"):
            if axis in self.axes and "widths" in self.axes:
                self._refuse(f"grid.{axis}", "be left out beside grid.widths", self.axes[axis])
        self._first = {axis: given[0] for axis, given in self.axes.items()}
        methods = self.axes.get("method", ())
        with self._telling():
            for place in [{"method": name} for name in methods] or [{}]:
                self.at(place)
        for key in [*self.tables.get("method", {}), *self.axes] if methods else []:
            if key in _METHOD[1:] and not any(key in TAKEN[name] for name in methods):
                self._refuse(f"method.{key}", f"be left out with {' and '.join(methods)}", "given")

    def at(self, place: Mapping[str, Any]) -> Settings:
        """The settings of a lane; of axes that are not named, those of the first."""
        tables = {**self.tables}
        for name, value in {**self._first, **place}.items():
            table, key, _ = PLACES[name]
            tables[table] = {**tables.get(table, {}), key: value}
        if "method" in self.axes:  # each takes its own numbers
            given = tables["method"]
            tables["method"] = {k: v for k, v in given.items() if k in TAKEN[given["name"]]}
        return Settings.model_validate(tables)

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of :func:`skajax.sweep`, or, without axes, :func:`skajax.simulate`."""
        at = self.at({})
        made: dict[str, Any] = {
            name: self._depending([axis for axis in self.axes if axis in axes], make)
            for name, (axes, make) in _MADE.items()
        }
        if at.energy:
            made["energy"] = functools.reduce(operator.add, at.energy)
        if at.run.save_at is not None:
            times = isinstance(at.run.save_at, list)
            made["save_at"] = np.asarray(at.run.save_at, at.run.dtype) if times else at.run.save_at
        if at.run.until:
            made["until"] = at.run.ends()
        if self.axes:
            made["over"] = dict(self.axes)
        if at.run.observe is not None:
            made["observe"] = at.run.observe
        return made | {"reduction": at.run.reduction}

    def inputs(self, at: Settings) -> Any:
        """Inputs; with their targets, where an energy is given."""
        x, y = self.data(at)
        if y is None:
            given = self.tables.get("energy", [])
            for table in given if isinstance(given, list) else [given]:
                must = f"name the targets that {table['name']} takes (.npz, .nc, .csv and .tsv have them)"
                require(table["name"] not in TARGETED, "y", must, "it was left out")
        if not at.energy or y is None:
            return x
        from skajax.inputs import Batch

        return Batch(x, y)

    def weights(self, at: Settings) -> Any:
        """Initial weights."""
        import jax

        if at.data.name == "text" and at.network.layers is None:
            must = "hold numbers of shape (samples, inputs), as dense layers read them"
            but = "'text' holds characters, for a layer Embed, which a TOML file's network.layers can have"
            self._refuse("data", must, "text", but)
        return at.network.make().init(jax.random.key(at.network.seed), self.data(at)[0])

    def data(self, at: Settings) -> tuple[Any, Any]:
        """Inputs and targets, which are read once for lanes that follow one another."""
        asked = (at.data, at.run.dtype)
        if self._seen is None or self._seen[0] != asked:
            with self._telling("data"):
                self._seen = asked, read_data(at.data, self.folder, at.run.dtype)
        return self._seen[1]

    def problem(self) -> tuple[Any, Any, Any, Any]:
        """Network, weights, inputs and targets, without axes."""
        at = self.at({})
        return at.network.make(), self.weights(at), *self.data(at)

    def drawn(self) -> Callable[[int], Any]:
        """The weights of any seed."""
        return lambda seed: self.weights(self.at({"seed": seed}))

    def told(self) -> dict[str, Any]:
        """What a run's file says of where it came from: the data, and the seed."""
        at = self.at({})
        return {"seed": at.network.seed, "data": at.data.model_dump(exclude_none=True)}

    def files(self) -> dict[str, Path]:
        """What is read, by what it is."""
        data = getattr(self.at({}).data, "file", None)
        found = {"CONFIG": self.file, "the data's file": data and self.folder / located(data)}
        return {what: located(file) for what, file in found.items() if file is not None}

    @property
    def dtype(self) -> str:
        """The precision of the whole run."""
        return self.at({}).run.dtype

    def _depending(self, on: list[str], make: Callable[["Config", Settings], Any]) -> Any:
        """What is the same in all lanes, or a function of those axes that it depends on."""
        if not on:
            return make(self, self.at({}))

        def function(**place: Any) -> Any:
            return make(self, self.at(place))

        kind = inspect.Parameter.KEYWORD_ONLY
        parameters = [inspect.Parameter(name, kind) for name in on]
        function.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
        return function

    def _take(self) -> None:
        """Put the options into the tables."""
        options = dict(self.options)
        if "data" in options:
            data = str(options.pop("data"))
            is_file = Path(data).suffix != "" or os.sep in data
            if not is_file and data not in KEPT:
                must = f"be a file ({', '.join(FILES)}) or one of {', '.join(map(repr, NAMED))}"
                self._refuse("data", must, data, f"it was {nearest(data, NAMED)}")
            self.tables["data"] = {"file": data} if is_file else {"name": data}
            self.folder = Path()
        if "energy" in options:
            self.tables["energy"] = {"name": options.pop("energy")}
        own = TAKEN.get(options.get("method", ""), {})
        if own:  # a file's numbers of another method
            before = self.tables.get("method", {})
            self.tables["method"] = {k: v for k, v in before.items() if k in own}
        data = self.tables.get("data", {})
        names = {"data": str(data.get("name", "file" if "file" in data else "mnist"))}
        names["method"] = str(options.get("method") or self.tables.get("method", {}).get("name"))
        for name, value in options.items():
            table, key, _ = PLACES[name]
            all_ = {"data": KEPT, "method": TAKEN}.get(table, {})
            if key != "name" and names.get(table) in all_ and key not in all_[names[table]]:
                of = [n for n in ("file", *NAMED, *TAKEN) if key in all_.get(n, ())]
                of = ", ".join("a file" if n == "file" else n for n in of)
                must = f"be left out with {names[table]} (it belongs to {of})"
                self._refuse(f"{table}.{key}", must, value)
            self.tables[table] = {**self.tables.get(table, {}), key: value}

    @contextmanager
    def _telling(self, within: str = "", value: Any = None) -> Generator[None, None, None]:
        """Say what does not fit as a ValueError."""
        try:
            yield
        except (ValidationError, PydanticCustomError) as error:
            name, must, but, given = told(error)
            name = ".".join(filter(None, (within, name)))
            self._refuse(name, must, value if within else given, but)

    def _refuse(self, name: str, must: str, value: Any, but: str = "") -> NoReturn:
        table, _, key = name.partition(".")
        option = "data" if name in ("data", "data.file") else table if key == "name" else key
        if option in self.axes and table != "grid":
            name = f"grid.{option}"
        alone = self.file is None
        but = but or f"it was {short(value)}"
        if option in self.options or (alone and (table != "data" or option in OPTIONS)):
            name = f"--{option.replace('_', '-')}"
        elif alone:
            but = f"{but}; a TOML file can have it"
        elif not but.startswith("in "):
            but = f"in {os.fspath(self.file or '')!r} {but}"
        raise ValueError(f"Argument {name} must {must}, but {but}{'' if but[-1] in '.?' else '.'}")


def read(path: str | os.PathLike[str] | None, options: Mapping[str, Any] | None = None) -> Config:
    """The configuration in a file, of which options take the place; a ValueError says what does not fit."""
    if path is None:
        return Config({}, None, options)
    name, where = repr(os.fspath(path)), located(path)
    require(where.is_file(), "config", "name a file", f"there was none at {name}")
    size = where.stat().st_size
    require(
        size <= LARGEST, "config", f"name a file of at most {LARGEST} bytes", f"{name} has {size}"
    )
    try:
        tables = tomllib.loads(where.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Argument config must name a TOML file, but {name}: {error}.") from error
    return Config(tables, path, options)


@contextmanager
def precision(dtype: str) -> Generator[None, None, None]:
    """Double precision, for as long as it is asked for."""
    import jax

    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", before or dtype == "float64")
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
