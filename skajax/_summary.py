"""What people see of a result: a few lines of text, and in a notebook a small table."""

import abc
import html
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import equinox as eqx

from skajax._checks import is_traced


class Summary(NamedTuple):
    """Sentences, and perhaps a table with one column a layer."""

    sentences: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...] = ()
    """Each begins with what its numbers are; the first row has the layers."""

    def text(self) -> str:
        """For a terminal."""
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in self.rows
        ]
        return "\n".join([*self.sentences, *lines])

    def html(self) -> str:
        """For a notebook."""
        told = "".join(f"<div>{html.escape(sentence)}</div>" for sentence in self.sentences)
        if not self.rows:
            return told
        head, *rows = (map(html.escape, row) for row in self.rows)
        cells = lambda tag, row: "".join(f"<{tag}>{cell}</{tag}>" for cell in row)
        body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
        return (
            f"{told}<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"
        )


class Summarised:
    """A pytree of results that prints as a summary; inside jit and vmap as the pytree that it is."""

    @abc.abstractmethod
    def summary(self) -> Summary:
        """What to say, of known values."""

    def __str__(self) -> str:
        return eqx.tree_pformat(self) if is_traced(self) else self.summary().text()

    def _repr_html_(self) -> str:
        if is_traced(self):
            return f"<pre>{html.escape(str(self))}</pre>"
        return self.summary().html()


def per_layer(name: str, values: Iterable[Any], form: str = "{:.4g}") -> tuple[str, ...]:
    """A row of numbers, one a layer."""
    return name, *(form.format(value) for value in values)


def numbered(layers: int) -> tuple[str, ...]:
    """The row of the layers' numbers."""
    return "layer", *map(str, range(1, layers + 1))


def counted(count: Any, what: str) -> str:
    """``3 steps``, ``1 step``, or of several lanes ``3 to 5 steps``."""
    low, high = int(count.min()), int(count.max())
    number = str(low) if low == high else f"{low} to {high}"
    return f"{number} {what}" + ("" if number == "1" else "s")


def lanes(shape: Sequence[int]) -> str:
    """How many runs a batch has."""
    return f"{' x '.join(map(str, shape))} lanes"
