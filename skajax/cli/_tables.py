"""The tables of a TOML file as pydantic models: what each key may be, and what it is made into."""

import importlib
import inspect
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from skajax.cli._words import known, must, passed_on, refused, told

Positive = Annotated[
    float, Field(strict=True, gt=0, allow_inf_nan=False), must("be a positive number")
]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False), must("be a number")]
End = Annotated[StrictInt | Number, must("be a number")]
Time = Annotated[
    float, Field(strict=True, ge=0, allow_inf_nan=False), must("be a number, at least 0")
]
Whole = Annotated[int, Field(strict=True, ge=1), must("be a whole number, at least 1")]
Seed = Annotated[int, Field(strict=True, ge=0), must("be a whole number, at least 0")]
Word = Annotated[str, Field(strict=True), must("be text")]
Truth = Annotated[bool, Field(strict=True), must("be true or false")]
Widths = Annotated[list[Whole], Field(min_length=1), must("be a list of whole numbers, at least 1")]
A_LAYER = "or a list of one a layer"
MOST = 1_000_000
"""Values of an axis, at most."""


def one_of(*names: str) -> Any:
    """One of these names, and no other."""
    return BeforeValidator(lambda value: known("one of", value, names) or value)


def found(module: str) -> Any:
    """What a library calls so."""

    def find(name: Any) -> Any:
        there = getattr(importlib.import_module(module), name, None) if name else None
        if not callable(there):
            raise refused(f"be a name in {module}")
        return there

    return BeforeValidator(lambda name: find(name if isinstance(name, str) else ""))


def made(key: str, module: str, *names: str, also: str = "", then: Any = None) -> Any:
    """An object of one of these classes: ``key`` of a table has its name, and the rest are its arguments.

    Tables with ``key`` among these are such objects too. Any of them may have a number ``also``: then the
    object is ``then(object, number)``.
    """

    def within(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(within(each) for each in value)
        return make(value) if isinstance(value, dict) and key in value else value

    def make(table: Any) -> Any:
        if not isinstance(table, dict):
            raise refused(f"be a table, such as {{ {key} = {names[0]!r} }}")
        rest = {each: within(value) for each, value in table.items() if each != key}
        known("one of", table.get(key), names, at=key)
        kind = getattr(importlib.import_module(module), table[key])
        taken = inspect.signature(kind)
        for each in rest:
            keys = [*taken.parameters, also] if also else taken.parameters
            known(f"one of what {table[key]} takes,", each, keys, at=each)
        number = rest.pop(also, 1)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise refused("be a number", f"it was {number!r}", at=also)
        starred = [n for n, each in taken.parameters.items() if each.kind is each.VAR_POSITIONAL]
        listed = [each for name in starred for each in _listed(rest.pop(name, []))]
        if isinstance(rest.get("edges"), str):  # of a graph that skajax has
            rest["edges"] = importlib.import_module("skajax.data").graph(rest["edges"])[2]
        try:
            taken.bind(*listed, **rest)
        except TypeError as error:
            raise refused(f"have what {table[key]} takes", str(error)) from error
        try:
            whole = kind(*listed, **rest)
            return whole if number == 1 else then(whole, number)
        except (TypeError, ValueError) as error:
            raise passed_on(error) from error

    return BeforeValidator(make)


def _paced(layer: Any, rate: Any) -> Any:
    from skajax.layers import Layer, Paced

    if not isinstance(layer, Layer):
        raise refused("be given to layers alone", f"{layer!r} is a stage", at="rate")
    return Paced(layer, rate)


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


class Table(BaseModel):
    """A table: no key but its own, each a value that fits."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    called: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _know(cls, given: Any) -> Any:
        keys = dict.fromkeys(cls.model_fields)
        named = "name" in keys and isinstance(given, dict) and str(given.get("name"))
        what = cls.called or named or cls.__name__.lower()
        for key in given if isinstance(given, dict) else ():
            known(f"one of what {what} takes,", key, keys, at=key)
        return given

    def given(self, *without: str) -> dict[str, Any]:
        """What was said, and is no default."""
        names = self.model_fields_set - {"name", *without}
        return {name: getattr(self, name) for name in type(self).model_fields if name in names}


class Range(Table):
    """Evenly spaced values, or in proportion."""

    called = "a range"
    start: End
    stop: End
    num: Annotated[int, Field(strict=True, ge=1, le=MOST), must(f"be a whole number, 1 to {MOST}")]
    spacing: Annotated[str, one_of("linear", "log")] = "linear"

    @model_validator(mode="after")
    def _has_logarithms(self) -> "Range":
        if self.spacing == "log" and not (self.start > 0 and self.stop > 0):
            raise refused("be 'linear', or, between positive numbers, 'log'", at="spacing")
        return self

    def values(self) -> list[Any]:
        """Whole numbers, where they all are and both ends were given as such."""
        space = np.linspace if self.spacing == "linear" else np.geomspace
        spaced = space(self.start, self.stop, self.num)
        whole = isinstance(self.start, int) and isinstance(self.stop, int)
        return [int(each) if whole and each % 1 == 0 else each for each in spaced.tolist()]


LIST = "be a list of values, or a table of start, stop and num"


def values(kind: Any, given: Any, otherwise: str = LIST) -> list[Any]:
    """The values of a list, or of a table of start, stop and num, each of which is of this kind."""
    if isinstance(given, dict):
        try:
            given = Range.model_validate(given).values()
        except ValidationError as error:
            raise passed_on(error) from None
    if not isinstance(given, list) or not given:
        raise refused(otherwise)
    one = TypeAdapter(kind)
    for value in given:
        try:
            one.validate_python(value)
        except ValidationError as error:
            _, words, _, _ = told(error)
            raise refused(f"have values that are each {words[3:]}", f"one was {value!r}") from None
    return given


class Data(Table):
    """What all inputs have: they are scaled, and laid flat, if that is asked for."""

    scaling: Annotated[
        Positive | Literal["range", "standard"] | None,
        must("be 'range', 'standard', or a positive number that divides"),
    ] = None
    flatten: Truth = False


Layout = Annotated[str, one_of("flat", "image", "rows", "patches")]


class Mnist(Data):
    """The images in the package."""

    name: Literal["mnist"]
    per_class: Annotated[
        int, Field(strict=True, ge=1, le=100), must("be a whole number, 1 to 100")
    ] = 100
    layout: Layout = "flat"
    size: Whole = 7


class Sklearn(Data):
    """The small sets that scikit-learn ships."""

    name: Literal["breast_cancer", "digits", "iris", "wine"]
    layout: Layout = "flat"
    size: Whole = 4


class Tfds(Data):
    """An image set of TensorFlow Datasets."""

    name: Literal["tfds"]
    set: Word
    split: Word = "train"
    per_class: Whole | None = None
    data_dir: Word | None = None


class Graph(Data):
    """The nodes of a graph."""

    name: Literal["graph"]
    graph: Annotated[str, one_of("karate", "southern_women")] = "karate"


class Windows(Data):
    """Windows of a time series or a text."""

    name: Literal["series", "text"]
    times: Whole = 32
    every: Whole = 1


class Spectrum(Data):
    """Random inputs of known eigenvalues."""

    name: Literal["known_spectrum"]
    values: Annotated[tuple[Positive, ...], must("be a list of positive numbers")]
    samples: Whole
    inputs: Whole
    seed: Seed = 0


class File(Data):
    """A file of the user's."""

    name: Literal["file"] = "file"
    file: Word
    array: Annotated[Word | tuple[Word, ...] | None, must("be a name, or a list of columns")] = None
    targets: Word | None = None
    samples: Whole | None = None


class Network(Table):
    """Dense layers of some widths, or any layers; and the seed of their weights."""

    widths: Widths = [256, 128, 64, 10]
    width: Whole | None = None
    depth: Whole | None = None
    scale: Annotated[Time | list[Time] | None, must(f"be a number, at least 0, {A_LAYER}")] = None
    bias: Annotated[Number | list[Number] | None, must(f"be a number, {A_LAYER}")] = None
    precision: Annotated[str, one_of("default", "high", "highest")] = "highest"
    layers: (
        list[
            Annotated[
                Any,
                made(
                    "layer", "skajax.layers", "Conv", "Dense", "Embed", "Flatten", "GraphConv", "Merge",
                    "Normalise", "Pool", "Recurrent", "Residual", "SelfAttention",
                    also="rate", then=_paced,
                ),
            ]
        ]
        | None
    ) = None  # fmt: skip
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_way(self) -> "Network":
        both = self.given("seed", "layers") if self.layers is not None else {}
        for key in both:
            raise refused("be left out beside network.layers", "it was given", at=key)
        return self

    def make(self) -> Any:
        """The network."""
        from skajax.network import Network, mlp

        if self.layers is not None:
            return Network(tuple(self.layers))
        hidden = self.widths[:-1]
        if self.depth is not None:
            hidden = (hidden[:1] or self.widths[:1]) * self.depth
        if self.width is not None:
            hidden = [self.width] * max(1, len(hidden))
        rest = self.given("widths", "width", "depth", "layers", "seed")
        return mlp([*hidden, self.widths[-1]], **rest)


class Fixed(Table):
    """A step dt."""

    name: Literal["published", "euler", "pipelined"]
    dt: Positive

    def make(self) -> Any:
        """The method."""
        from skajax import methods

        return getattr(methods, self.name.capitalize())(self.dt)


class Adaptive(Table):
    """A solver of Diffrax's, with tolerances."""

    name: Literal["adaptive"]
    solver: Annotated[Any, found("diffrax")] = None
    rtol: Positive | None = None
    atol: Positive | None = None
    dt0: Positive | None = None
    max_steps: Whole | None = None

    def make(self) -> Any:
        """The method."""
        from skajax import methods

        given = self.given()
        return methods.Adaptive(**given | {n: given[n]() for n in ("solver",) if n in given})


class Descent(Table):
    """An optimiser of Optax's."""

    name: Literal["descent"]
    optimiser: Annotated[Any, found("optax")]
    learning_rate: Positive
    options: Annotated[dict[str, Any], must("be a table")] = {}

    def make(self) -> Any:
        """The method."""
        import optax

        from skajax.methods import Descent

        # Its learning rate is then known as it is, whatever the optimiser makes of it.
        injected = optax.inject_hyperparams(self.optimiser, static_args=list(self.options))
        return Descent(injected(self.learning_rate, **self.options))

    @model_validator(mode="after")
    def _options_fit(self) -> "Descent":
        try:
            self.make()
        except (TypeError, ValueError) as error:
            must = f"be options of optax.{self.optimiser.__name__}"
            raise refused(must, f"it was {self.options!r}: {error}", at="options") from error
        return self


PARTS = ("Entropy", "CrossEntropy", "SquaredError", "Goodness", "WeightDecay")
TARGETED = ("CrossEntropy", "SquaredError", "Goodness")
"""Those that need targets."""
Part = Annotated[
    Any, made("name", "skajax.energies", *PARTS, also="factor", then=lambda part, f: f * part)
]
RULES = (
    "StructureStart", "FlowConverged", "EntropyConverged", "ResidenceTime", "ErrorBudget",
    "AnyOf", "AllOf",
)  # fmt: skip
Rule = Annotated[Any, made("rule", "skajax.stop", *RULES)]


def _save_at(given: Any) -> Any:
    if given in ("steps", "end"):
        return given
    times = values(
        Time, given, "be 'steps', 'end', a list of times, or a table of start, stop and num"
    )
    if sorted(set(times)) != times:
        raise refused("increase")
    return times


class Run(Table):
    """How long, and what is recorded."""

    t1: Positive | None = None
    steps: Whole | None = None
    save_at: Annotated[Any, BeforeValidator(_save_at)] = None
    until: Annotated[list[Rule], BeforeValidator(_listed)] = []
    observe: Annotated[list[Word] | None, must("be a list of names")] = None
    reduction: Annotated[str, one_of("auto", "full", "off")] = "auto"
    dtype: Annotated[str, one_of("float32", "float64")] = "float32"

    def ends(self) -> Any:
        """The stop rule."""
        from skajax.stop import AnyOf

        return AnyOf(*self.until) if len(self.until) > 1 else next(iter(self.until), None)


Set = Mnist | Sklearn | Tfds | Graph | Windows | Spectrum | File
SETS = (Mnist, Sklearn, Tfds, Graph, Windows, Spectrum, File)
METHODS = (Fixed, Adaptive, Descent)


class Settings(Table):
    """All tables of a file but the grid."""

    called = "a file"
    data: Annotated[Set, Discriminator("name")]
    network: Network = Network()
    method: Annotated[Fixed | Adaptive | Descent, Discriminator("name")]
    energy: Annotated[list[Part], BeforeValidator(_listed)] = []
    run: Run = Run()

    @model_validator(mode="before")
    @classmethod
    def _name(cls, given: Any) -> Any:
        data = given.get("data", {})
        name = "file" if "file" in data else "mnist"
        return {"method": {}, **given, "data": {"name": name, **data}}
