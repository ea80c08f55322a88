"""Fills in the documentation's tables: ``python docs/make.py`` writes them, ``--check`` says which are old.

A page has ``<!-- table: NAME -->`` and ``<!-- end of table -->`` where a table belongs; what is between them
is made here: of observables by the code, of measurements by ``benchmarks/results``, of the gallery by
``docs/figures.py``. So no number is written by hand.
"""

import ast
import itertools
import json
import pathlib
import re
import sys
from collections.abc import Callable

DOCS = pathlib.Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
MARK = re.compile(r"<!-- (?:table: ([\w ]+)|end of table) -->\n")
PLACE = re.compile(r"<!-- table: ([\w ]+) -->\n.*?<!-- end of table -->\n", re.DOTALL)


def observables() -> str:
    """The paper's, with formula, unit and equation."""
    from skajax.observables import PAPER

    rows = [
        {
            "name": f"`{each.name}`",
            "what it is": each.formula,
            "unit": each.unit,
            "axes": ", ".join(("time", *each.dims)),
        }
        for each in PAPER
    ]
    return markdown(rows)


def measured(benchmark: str) -> Callable[[], str]:
    """Every table of a benchmark, on every kind of device that has been measured."""

    def tables() -> str:
        parts = []
        for path in sorted(RESULTS.glob(f"{benchmark}_*.json")):
            for title, table in json.loads(path.read_text()).items():
                about = ", ".join(
                    f"{name} {words(value)}" for name, value in table["settings"].items()
                )
                where = f"{table['device']}, {table['cores']} cores, jax {table['jax_version']}"
                parts.append(
                    f"**{title[0].upper()}{title[1:]}** ({where}, {table['day']}"
                    + (f"; {about}" if about else "")
                    + ")\n\n"
                    + markdown(table["rows"])
                )
        return "\n".join(parts) if parts else "*Not measured yet.*\n"

    return tables


def gallery() -> str:
    """Each figure with its caption and its code."""
    source = (DOCS / "figures.py").read_text()
    tree = ast.parse(source)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    (names,) = [
        [name.id for name in node.value.elts]
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "FIGURES"
    ]
    shared = [functions[name] for name in ("images", "start")]
    parts = [
        "All of them begin with this:\n\n" + code("\n\n\n".join(segment(source, f) for f in shared))
    ]
    for name in names:
        caption = ast.get_docstring(functions[name])
        parts.append(
            f"## {caption.rstrip('.')}\n\n![{caption}](images/{name}.png)\n\n"
            + '??? note "Code"\n\n'
            + indented(code(segment(source, functions[name])))
        )
    return "\n".join(parts)


def segment(source: str, node: ast.FunctionDef) -> str:
    """A function's source, with its decorators."""
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])


def code(text: str) -> str:
    """A block of Python that is shown, and not executed by the tests of pages."""
    return f"```py\n{text}\n```\n"


def indented(text: str) -> str:
    """Within an admonition."""
    return "".join(f"    {line}\n" if line else "\n" for line in text.splitlines())


def markdown(rows: list[dict]) -> str:
    """A table; the columns are those of the first row."""
    heads = list(rows[0])
    rules = ["---:" if numeric(rows, head) else "---" for head in heads]
    lines = [
        f"| {' | '.join(heads)} |",
        f"|{'|'.join(rules)}|",
        *(f"| {' | '.join(words(row.get(head)) for head in heads)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def numeric(rows: list[dict], head: str) -> bool:
    """Whether a column has numbers."""
    return any(isinstance(row.get(head), int | float) for row in rows)


def words(cell: object) -> str:
    """Numbers to three digits; nothing as a dash."""
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
    if isinstance(cell, list):
        return "-".join(map(str, cell))
    return f"{cell:,}" if isinstance(cell, int) else str(cell).replace("|", r"\|")


TABLES: dict[str, Callable[[], str]] = {
    "observables": observables,
    "gallery": gallery,
    **{
        name: measured(name)
        for name in (
            "first",
            "step",
            "solvers",
            "sweeps",
            "prediction",
            "layers",
            "scale",
            "accelerator",
        )
    },
}


def filled(text: str) -> str:
    """A page with its tables made anew; refused where one has no end, and would take what follows with it."""
    marks = MARK.findall(text)  # the tables' names, and "" for their ends
    for name, after in itertools.pairwise([*marks, None]):
        if name and after != "":
            raise SystemExit(f"the table {name!r} has no <!-- end of table --> of its own below it")
    return PLACE.sub(
        lambda found: (
            f"<!-- table: {found[1]} -->\n\n{TABLES[found[1]]()}\n<!-- end of table -->\n"
        ),
        text,
    )


def main(check: bool) -> int:
    """Write the pages, or say which are old."""
    old = []
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text()
        made = filled(text)
        if made != text:
            old.append(page.name)
            if not check:
                page.write_text(made)
    print(f"{'old' if check else 'written'}: {', '.join(old) or 'none'}")
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
