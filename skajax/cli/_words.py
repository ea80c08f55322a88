"""What the commands say: one line for a mistake, by the names that the user typed."""

import inspect
import re
import reprlib
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from pydantic import ValidationError, WrapValidator
from pydantic_core import ErrorDetails, PydanticCustomError

from skajax._messages import nearest

TABLE = "be a table, such as { name = 'euler', dt = 0.01 }"


def refused(must: str, but: str = "", *, at: str = "") -> PydanticCustomError:
    """What pydantic is to raise of a value that does not fit: what it, or its entry ``at``, must."""
    return PydanticCustomError("refused", "{must}", {"must": must, "but": but, "at": at})


def must(words: str) -> WrapValidator:
    """Of a type: what its values must, in place of pydantic's own words."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise refused(words) from None

    return WrapValidator(check)


def known(what: str, given: Any, names: Iterable[str], *, at: str = "") -> None:
    """Refuse a name that is none of these, with the nearest one."""
    names = list(names)
    if given not in names:
        raise refused(
            f"be {what} {', '.join(map(repr, names))}", f"it was {nearest(given, names)}", at=at
        )


def passed_on(error: ValidationError | ValueError | TypeError) -> PydanticCustomError:
    """An error of what a value is made into, as the value's own."""
    if isinstance(error, PydanticCustomError):
        return error
    if isinstance(error, ValidationError):
        name, words, but, value = told(error)
        return refused(words, but or f"it was {short(value)}", at=name)
    found = re.match(r"Argument (\w+) must (.*), but (.*?)\.?$", " ".join(str(error).split()))
    if found is None:
        return refused("have entries that fit", " ".join(str(error).split()).rstrip("."))
    return refused(found[2], found[3], at=found[1])


def told(error: ValidationError | PydanticCustomError) -> tuple[str, str, str, Any]:
    """The first thing that is wrong: the entry's name, what it must, what it was in words, and its value."""
    if isinstance(error, PydanticCustomError):
        context: Any = error.context
        return context["at"], context["must"], context["but"], None
    first: ErrorDetails = error.errors(include_url=False)[0]
    place, kind, context = list(first["loc"]), first["type"], first.get("ctx", {})
    if len(place) > 1 and place[0] in ("data", "method"):
        del place[1]  # which of the tables that can stand there
    if kind == "refused":
        words, but = context["must"], context["but"]
        place += [context["at"]] if context["at"] else []
    elif kind.startswith("union_tag"):
        place.append("name")
        words, but = "be given", "it was left out"
        if "tag" in context:
            names = re.findall(r"'([^']*)'", context["expected_tags"])
            words = f"be one of {', '.join(map(repr, names))}"
            but = f"it was {nearest(context['tag'], names)}"
    elif kind == "missing":
        words, but = "be given", "it was left out"
    else:
        is_table = kind in ("model_type", "model_attributes_type", "dict_type")
        words, but = (TABLE if is_table else f"fit ({first['msg'].lower()})"), ""
    name = ""
    for above, part in pairwise(["", *place]):
        if not isinstance(part, int):
            name += f".{part}"
        elif above == "layers":  # the one list whose entries are told apart by their places
            name += f"[{part}]"
    return name.removeprefix("."), words, but, first["input"]


def short(value: Any) -> str:
    """A value as it was given; of a long one, the beginning."""
    shown = reprlib.Repr()
    shown.maxstring = shown.maxother = 120
    return shown.repr(value)


def as_typed(error: BaseException, command: Callable[..., Any]) -> str:
    """An error in one line, "Argument <name> must ...", with the name that the command line has for it."""
    text = " ".join(str(error).split()) or type(error).__name__
    alone = inspect.Parameter.POSITIONAL_ONLY
    names = {
        name: name.upper() if each.kind == alone else f"--{name.replace('_', '-')}"
        for name, each in inspect.signature(command).parameters.items()
    }
    first = next(iter(names.values()))
    file = first if first in ("PATH", "FILE") else "--out"
    by_options = command.__name__ != "sweep"
    data = {"x": "--data", "y": "--targets"} if by_options else {"x": "data", "y": "data.targets"}
    names = {"path": file, "store": file, "runs": first, "run": first} | data | names
    flat = "--flatten" if by_options else "flatten = true in the table data"
    text = text.replace("x.reshape(len(x), -1)", flat)
    if "select" in names:
        text = re.sub(r"data\.sel\((\w+)=\.\.\.\)", r"--select \1=...", text)
    return re.sub(r"^Argument (\w+) ", lambda m: f"Argument {names.get(m[1], m[1])} ", text)
