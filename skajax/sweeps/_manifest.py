"""Which sweep a store belongs to: its axes and arguments, in digests to compare and in words to read."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from skajax._checks import require
from skajax._files import plain_attrs, write_whole
from skajax._fingerprint import fingerprint, without_addresses
from skajax.sweeps._grid import labels, named, placed

_FORMAT = "skajax sweep store 1"
_LONGEST = 200
_MORE = ", the first of "


class Described(NamedTuple):
    """What an argument of a sweep is: its :func:`fingerprint` over all lanes, and words for people."""

    digest: str
    text: str
    each: tuple[str | None, ...] | None = None
    """Its different values'; None of those whose making raised an error."""

    def alike(self, other: "Described") -> bool:
        """Whether words tell no difference, and digests none that would be one over other axes too.

        The digest of an argument is over all lanes: with other axes it is another.
        """
        same = self.text.partition(_MORE)[0] == other.text.partition(_MORE)[0]
        single = all(each.each is not None and len(each.each) == 1 for each in (self, other))
        return same and not single

    def agrees(self, other: "Described") -> bool:
        """Whether it is the same, as far as both are known."""
        if self.digest == other.digest:
            return True
        if self.each is None or other.each is None or len(self.each) != len(other.each):
            return False
        pairs = zip(self.each, other.each, strict=True)
        return all(a == b or a is None or b is None for a, b in pairs)


def describe(values: Sequence[Any]) -> Described:
    """An argument by what it is in each lane; values that are one object are looked at once."""
    digests = {id(value): "" for value in values}
    for value in values:
        digests[id(value)] = digests[id(value)] or fingerprint(value)
    different = len(set(digests.values()))
    text = without_addresses(eqx.tree_pformat(values[0], width=10_000))
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    more = f"{_MORE}{different} that differ" if different > 1 else ""
    return Described(fingerprint([digests[id(value)] for value in values]), text + more)


class Manifest:
    """The axes, with their labels, and the arguments of a sweep; ``attrs`` tell more, and decide nothing."""

    def __init__(
        self,
        axes: Mapping[str, Iterable[Any]],
        arguments: Mapping[str, Described],
        attrs: Mapping[str, Any],
    ) -> None:
        """Labels are numbers or text; of anything else, its text."""
        self.axes = {name: labels(list(axis)) for name, axis in axes.items()}
        self.arguments, self.attrs = dict(arguments), plain_attrs(attrs)
        self.lanes = math.prod(len(axis) for axis in self.axes.values())
        digests = sorted((name, each.digest) for name, each in self.arguments.items())
        axes_too = [(name, _shown(axis)) for name, axis in self.axes.items()]
        self.digest = hashlib.sha256(json.dumps([axes_too, digests]).encode()).hexdigest()

    def write(self, file: Path) -> None:
        """As JSON, for people too."""
        content = {
            "format": _FORMAT,
            "axes": {
                name: {"dtype": axis.dtype.str, "labels": axis.tolist()}
                for name, axis in self.axes.items()
            },
            "arguments": {name: each._asdict() for name, each in self.arguments.items()},
            "attrs": self.attrs,
        }
        write_whole(json.dumps(content, indent=1).encode(), file)

    @classmethod
    def read(cls, file: Path) -> "Manifest":
        """What was written."""
        require(file.is_file(), "store", "be a sweep's folder", f"there was no {str(file)!r}")
        try:
            content = json.loads(file.read_bytes())
            form = content["format"]
            require(form == _FORMAT, "store", f"be a {_FORMAT!r}", f"its format was {form!r}")
            axes = {n: np.asarray(a["labels"], a["dtype"]) for n, a in content["axes"].items()}
            arguments = {}
            for name, told in content["arguments"].items():
                each = told.pop("each", None)
                arguments[name] = Described(**told, each=None if each is None else tuple(each))
            return cls(axes, arguments, content["attrs"])
        except (
            json.JSONDecodeError,
            UnicodeDecodeError,
            KeyError,
            TypeError,
            AttributeError,
        ) as error:
            raise ValueError(
                f"Argument store must be a sweep's folder, but {str(file)!r} is damaged"
                f" ({type(error).__name__}: {error}). Remove that file and start the same sweep again: its"
                " chunks are kept."
            ) from error

    def changes(self, now: "Manifest") -> list[str]:
        """What is another in a sweep of now, in words; nothing, if it is the same."""
        found = []
        for name in {**self.axes, **now.axes}:
            before, after = (
                _shown(each.axes[name]) if name in each.axes else "not there"
                for each in (self, now)
            )
            if before != after:
                found.append(f"axis {name} was {before}, and is {after}")
        if not found and list(self.axes) != list(now.axes):
            found.append(f"the axes were {list(self.axes)}, and are {list(now.axes)}")
        none, moved = Described("", "not given"), bool(found)
        for name in {**self.arguments, **now.arguments}:
            before, after = self.arguments.get(name, none), now.arguments.get(name, none)
            if before.agrees(after) or (moved and before.alike(after)):
                continue
            if before.text == after.text:
                found.append(f"{name} is {after.text}, now with other values")
            else:
                found.append(f"{name} was {before.text}, and is {after.text}")
        if found:  # which may well be the reason: one seed gives weights of other bits
            names = [name for name in self.attrs if self.attrs[name] != now.attrs.get(name)]
            found += [f"{n} was {self.attrs[n]}, and is {now.attrs.get(n)}" for n in names]
        return found

    def named(self, lane: int) -> str:
        """A lane's number and its labels, in words."""
        return named(self.axes, lane)

    def place(self, lane: int) -> dict[str, Any]:
        """Where a lane is on the axes, the last of which is the fastest."""
        return placed(self.axes, lane)


def _shown(axis: np.ndarray) -> str:
    return json.dumps(axis.tolist())
