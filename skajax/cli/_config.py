"""A sweep as a TOML file: tables of settings, and a grid of those that differ from lane to lane.

    [data]                          # the inputs x
    name = "mnist"                  # the images in the package; or file = "inputs.npz", array = "x"
    per_class = 100

    [network]
    widths = [256, 128, 64, 10]
    scale = 0.01                    # and bias, precision
    seed = 0                        # of the initial weights

    [method]
    name = "published"              # or euler, pipelined (dt); adaptive (solver, rtol, atol, dt0, max_steps);
    dt = 0.01                       # or descent (optimiser, learning_rate, [method.options])

    [run]
    t1 = 0.5                        # or steps; save_at, until, reduction, dtype

    [grid]                          # the axes: any number or name from above
    dt = [0.02, 0.01]
    seed = { start = 0, stop = 15, num = 16 }

An axis takes the place of the setting of its name; ``method`` is that of ``method.name``, and ``width`` and
``depth`` are those of the hidden layers.
"""

import dataclasses
import difflib
import inspect
import itertools
import math
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from skajax._checks import is_whole, require
from skajax._files import located


class _Kind(NamedTuple):
    """What a value may be."""

    fits: Callable[[Any], bool]
    must: str


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_list(value: object, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) >= 1 and all(map(fits, value))


def _one_of(*names: str) -> _Kind:
    return _Kind(lambda value: value in names, f"be one of {', '.join(map(repr, names))}")


_TEXT = _Kind(lambda value: isinstance(value, str), "be text")
_NUMBER = _Kind(_is_number, "be a number")
_POSITIVE = _Kind(lambda value: _is_number(value) and value > 0, "be a positive number")
_TIME = _Kind(lambda value: _is_number(value) and value >= 0, "be a number, at least 0")
_SEED = _Kind(lambda value: is_whole(value, 0), "be a whole number, at least 0")
_WHOLE = _Kind(lambda value: is_whole(value, 1), "be a whole number, at least 1")
_WIDTHS = _Kind(
    lambda value: _is_list(value, lambda width: is_whole(width, 1)),
    "be a list of whole numbers, at least 1",
)
_A_LAYER = _Kind(
    lambda value: _is_number(value) or _is_list(value, _is_number),
    "be a number, or a list of one a layer",
)
_SCALE = _Kind(
    lambda value: _TIME.fits(value) or _is_list(value, _TIME.fits),
    "be a number, at least 0, or a list of one a layer",
)
_TABLE = _Kind(lambda value: isinstance(value, dict), "be a table")
_SAVE_AT = _Kind(
    lambda value: value in ("steps", "end") or isinstance(value, list | dict),
    "be 'steps', 'end', a list of times, or a table of start, stop and num",
)
_UNTIL = _Kind(
    lambda value: isinstance(value, dict) or _is_list(value, lambda rule: isinstance(rule, dict)),
    "be a table, such as { rule = 'FlowConverged', fraction = 0.1 }, or a list of them",
)

_METHODS = {
    "published": ("dt",),
    "euler": ("dt",),
    "pipelined": ("dt",),
    "adaptive": ("solver", "rtol", "atol", "dt0", "max_steps"),
    "descent": ("optimiser", "learning_rate", "options"),
}
_SETTINGS: dict[str, dict[str, _Kind]] = {
    "data": {
        "name": _one_of("mnist"),
        "per_class": _Kind(
            lambda value: is_whole(value, 1) and value <= 100, "be a whole number, 1 to 100"
        ),
        "file": _TEXT,
        "array": _TEXT,
        "samples": _WHOLE,
    },
    "network": {
        "widths": _WIDTHS,
        "scale": _SCALE,
        "bias": _A_LAYER,
        "precision": _one_of("default", "high", "highest"),
        "seed": _SEED,
    },
    "method": {
        "name": _one_of(*_METHODS),
        "dt": _POSITIVE,
        "solver": _TEXT,
        "rtol": _POSITIVE,
        "atol": _POSITIVE,
        "dt0": _POSITIVE,
        "max_steps": _WHOLE,
        "optimiser": _TEXT,
        "learning_rate": _POSITIVE,
        "options": _TABLE,
    },
    "run": {
        "t1": _POSITIVE,
        "steps": _WHOLE,
        "save_at": _SAVE_AT,
        "until": _UNTIL,
        "reduction": _one_of("auto", "full", "off"),
        "dtype": _one_of("float32", "float64"),
    },
}
_X = ("per_class", "samples")
_NETWORK = ("widths", "width", "depth", "scale", "bias", "precision")
_ARGUMENTS = {
    "network": _NETWORK,
    "weights": (*_NETWORK, "seed", *_X),
    "x": _X,
    "method": ("method", *(key for key in _SETTINGS["method"] if key not in ("name", "options"))),
    "t1": ("t1",),
    "steps": ("steps",),
}
"""The axes that each argument of :func:`skajax.sweep` can depend on."""
_KINDS = {key: kind for table in _SETTINGS.values() for key, kind in table.items()} | {
    "method": _SETTINGS["method"]["name"],
    "width": _WHOLE,
    "depth": _WHOLE,
}
_AXES = tuple(dict.fromkeys(axis for axes in _ARGUMENTS.values() for axis in axes))


@dataclasses.dataclass(frozen=True)
class Config:
    """What a file asks for, checked; nothing is made of it yet."""

    file: Path
    settings: Mapping[str, Mapping[str, Any]]
    axes: Mapping[str, tuple[Any, ...]]

    @property
    def dtype(self) -> str:
        """The precision of the whole run."""
        return self.settings["run"].get("dtype", "float32")

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of :func:`skajax.sweep`."""
        run = self.settings["run"]
        made: dict[str, Any] = {
            name: self._depending(_ARGUMENTS[name], getattr(self, f"_{name}"))
            for name in ("network", "weights", "x", "method", "t1", "steps")
        }
        if "save_at" in run:
            made["save_at"] = self._save_at(run["save_at"])
        if "until" in run:
            made["until"] = self._until(run["until"])
        return made | {"over": dict(self.axes), "reduction": run.get("reduction", "auto")}

    def _depending(self, on: Iterable[str], make: Callable[[dict[str, Any]], Any]) -> Any:
        """What is the same in all lanes, or a function of those axes that it depends on."""
        base = {key: value for table in self.settings.values() for key, value in table.items()}
        base["method"] = self.settings["method"].get("name")
        names = [axis for axis in self.axes if axis in on]
        if not names:
            return make(base)

        def function(**place: Any) -> Any:
            return make(base | place)

        kind = inspect.Parameter.KEYWORD_ONLY
        parameters = [inspect.Parameter(name, kind) for name in names]
        function.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
        return function

    def _x(self, given: dict[str, Any]) -> np.ndarray:
        if "file" not in given:
            from skajax.data import mnist_subset

            x, _ = mnist_subset(given.get("per_class", 100))
        else:
            x = self._array(given["file"], given.get("array", "x"))[: given.get("samples")]
        return x.astype(self.dtype)

    def _array(self, name: str, key: str) -> np.ndarray:
        path = self.file.parent / located(name)
        try:
            with open(path, "rb") as file:
                found = np.load(file, allow_pickle=False)
                x = found if isinstance(found, np.ndarray) else found[key]
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise ValueError(
                f"Argument data.file must name a file of NumPy's, .npy or .npz with an array"
                f" {key!r}, but {os.fspath(path)!r} could not be read: {error}."
            ) from error
        is_batch = x.ndim == 2 and x.dtype.kind in "fiu"
        require(
            is_batch,
            "data.file",
            "hold numbers of shape (samples, inputs)",
            f"in {os.fspath(path)!r} they were {x.dtype}, {x.shape}",
        )
        return x

    def _network(self, given: dict[str, Any]) -> Any:
        from skajax.network import mlp

        widths = given.get("widths", [256, 128, 64, 10])
        hidden = widths[:-1]
        if "depth" in given:
            hidden = (hidden[:1] or widths[:1]) * given["depth"]
        if "width" in given:
            hidden = [given["width"]] * max(1, len(hidden))
        options = {key: _floats(given[key]) for key in ("scale", "bias") if key in given}
        options |= {key: given[key] for key in ("precision",) if key in given}
        return mlp([*hidden, widths[-1]], **options)

    def _weights(self, given: dict[str, Any]) -> Any:
        import jax

        return self._network(given).init(jax.random.key(given.get("seed", 0)), self._x(given))

    def _method(self, given: dict[str, Any]) -> Any:
        from skajax import methods

        name = given["method"]
        options = {key: given[key] for key in _METHODS[name] if key in given}
        if name == "adaptive":
            if "solver" in options:
                import diffrax

                options["solver"] = self._found("method.solver", diffrax, options["solver"])()
            return methods.Adaptive(**options)
        if name == "descent":
            import optax

            make = self._found("method.optimiser", optax, options["optimiser"])
            rest = options.get("options", {})
            try:
                # Its learning rate is then known as it is, whatever the optimiser makes of it.
                injected = optax.inject_hyperparams(make, static_args=list(rest))
                optimiser = injected(options["learning_rate"], **rest)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"Argument method.options must be options of optax.{options['optimiser']}, but in"
                    f" {self._name} they were {rest}: {error}."
                ) from error
            return methods.Descent(optimiser)
        fixed = {
            "published": methods.Published,
            "euler": methods.Euler,
            "pipelined": methods.Pipelined,
        }
        return fixed[name](options["dt"])

    def _t1(self, given: dict[str, Any]) -> float | None:
        return given.get("t1")

    def _steps(self, given: dict[str, Any]) -> int | None:
        return given.get("steps")

    def _save_at(self, value: Any) -> Any:
        if isinstance(value, str):
            return value
        return np.asarray(_save_times(value, self._name), self.dtype)

    def _until(self, value: Any) -> Any:
        from skajax import stop

        rules = _rules(value, self._name)
        return rules[0] if len(rules) == 1 else stop.AnyOf(*rules)

    @property
    def _name(self) -> str:
        return repr(os.fspath(self.file))

    def _was(self, value: object) -> str:
        return f"in {self._name} it was {value!r}"

    def _found(self, argument: str, module: Any, name: str) -> Any:
        found = getattr(module, name, None)
        require(callable(found), argument, f"be a name in {module.__name__}", self._was(name))
        return found


def read(path: str | os.PathLike[str]) -> Config:
    """The configuration in a file; a ValueError names the key that does not fit, and the file."""
    name, path = repr(os.fspath(path)), located(path)
    require(path.is_file(), "config", "name a file", f"there was none at {name}")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"Argument config must name a TOML file, but {name}: {error}.") from error
    _refuse_unknown("", tables, [*_SETTINGS, "grid"], name)
    for table, values in tables.items():
        require(isinstance(values, dict), table, "be a table", f"in {name} it was {values!r}")
    settings = {table: tables.get(table, {}) for table in _SETTINGS}
    for table, kinds in _SETTINGS.items():
        _refuse_unknown(table, settings[table], kinds, name)
        for key, value in settings[table].items():
            kind = kinds[key]
            require(kind.fits(value), f"{table}.{key}", kind.must, f"in {name} it was {value!r}")
    grid = tables.get("grid", {})
    require(
        len(grid) >= 1, "grid", "name at least one axis", f"in {name} it was empty or not there"
    )
    _refuse_unknown("grid", grid, _AXES, name)
    axes = {
        axis: tuple(_values(values, f"grid.{axis}", _KINDS[axis], name))
        for axis, values in grid.items()
    }
    _check_method(settings, axes, name)
    _check_together(settings, axes, name)
    run = settings["run"]
    if isinstance(run.get("save_at"), list | dict):
        _save_times(run["save_at"], name)
    if "until" in run:
        _rules(run["until"], name)
    return Config(path, settings, axes)


def _values(given: Any, argument: str, kind: _Kind, file: str) -> list[Any]:
    """A list as it is; a table of start, stop and num, spaced evenly or in proportion."""
    if isinstance(given, dict):
        _refuse_unknown(argument, given, ("start", "stop", "num", "spacing"), file)
        start, stop, num = (given.get(key) for key in ("start", "stop", "num"))
        spacing = given.get("spacing", "linear")
        require(
            _is_number(start) and _is_number(stop) and is_whole(num, 1),
            argument,
            "have numbers start and stop, and how many values, num",
            f"in {file} it was {given!r}",
        )
        assert start is not None and stop is not None and num is not None
        require(
            spacing == "linear" or (spacing == "log" and start > 0 and stop > 0),
            f"{argument}.spacing",
            "be 'linear', or, between positive numbers, 'log'",
            f"in {file} it was {given!r}",
        )
        spaced = (np.linspace if spacing == "linear" else np.geomspace)(start, stop, num)
        whole = isinstance(start, int) and isinstance(stop, int) and bool((spaced % 1 == 0).all())
        given = (spaced.astype(int) if whole else spaced).tolist()
    require(
        isinstance(given, list) and len(given) >= 1,
        argument,
        "be a list of values, or a table of start, stop and num",
        f"in {file} it was {given!r}",
    )
    for value in given:
        require(
            kind.fits(value),
            argument,
            f"have values that are each {kind.must[3:]}",
            f"one was {value!r} in {file}",
        )
    return given


def _save_times(given: Any, file: str) -> list[Any]:
    """Times to save at, which increase."""
    times = _values(given, "run.save_at", _TIME, file)
    rising = all(a < b for a, b in itertools.pairwise(times))
    require(rising, "run.save_at", "increase", f"in {file} it was {times}")
    return times


def _rules(given: Any, file: str) -> list[Any]:
    """The stop rules of tables, made."""
    from skajax import stop

    known = [name for name in stop.__all__ if _is_rule(getattr(stop, name))]
    rules = []
    for each in given if isinstance(given, list) else [given]:
        rest = dict(each)
        name = rest.pop("rule", None)
        must = f"have a rule, of {known}"
        require(name in known, "run.until", must, f"in {file} it was {name!r}")
        make = getattr(stop, name)
        fields = [field.name for field in dataclasses.fields(make)]
        _refuse_unknown("run.until", rest, fields, file)
        try:
            rules.append(make(**rest))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Argument run.until must have numbers that fit {name}, but in {file} they were"
                f" {rest}: {error}"
            ) from error
    return rules


def _floats(value: Any) -> Any:
    return [float(each) for each in value] if isinstance(value, list) else float(value)


def _check_method(
    settings: Mapping[str, Mapping[str, Any]], axes: Mapping[str, tuple[Any, ...]], file: str
) -> None:
    """Every method has what it needs, and every number a method that takes it."""
    own = settings["method"]
    names = axes.get("method", (own.get("name"),))
    must = f"be given, of {list(_METHODS)}"
    require(None not in names, "method.name", must, f"{file} has none, and no axis method")
    for name in names:
        for key in {"adaptive": (), "descent": ("optimiser", "learning_rate")}.get(name, ("dt",)):
            there = key in own or key in axes
            require(there, f"method.{key}", f"be given for {name}", f"{file} has none")
    taken = {key for name in names for key in _METHODS[name]}
    for key in [*own, *axes]:
        if key in _SETTINGS["method"] and key != "name":
            must = f"be left out with {' and '.join(names)}"
            require(key in taken, f"method.{key}", must, f"{file} has it")


def _check_together(
    settings: Mapping[str, Mapping[str, Any]], axes: Mapping[str, tuple[Any, ...]], file: str
) -> None:
    """Settings that exclude one another, or need one another."""
    data = settings["data"]
    of_file = [key for key in ("array", "samples") if key in data or key in axes]
    of_images = [key for key in ("name", "per_class") if key in data or key in axes]
    wrong, which = (of_images, "with") if "file" in data else (of_file, "without")
    for key in wrong:
        require(False, f"data.{key}", f"be left out {which} data.file", f"{file} has it")
    twice = [axis for axis in ("width", "depth") if axis in axes and "widths" in axes]
    for axis in twice:
        require(False, f"grid.{axis}", "be left out beside grid.widths", f"{file} has both")


def _refuse_unknown(table: str, given: Iterable[str], known: Iterable[str], file: str) -> None:
    known = list(known)
    for key in given:
        near = difflib.get_close_matches(key, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        full = f"{table}.{key}" if table else key
        where = f"a key that {table or 'a sweep'} has, of {known}"
        require(key in known, full, f"be {where}", f"{file} has it{hint}")


def _is_rule(value: Any) -> bool:
    from skajax.stop import AllOf, AnyOf, Rule

    is_one = inspect.isclass(value) and issubclass(value, Rule)
    return is_one and value not in (Rule, AnyOf, AllOf)
