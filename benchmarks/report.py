"""Two files of results beside each other: every number that both have, and their ratio.

    python benchmarks/report.py results/step_cpu.json /elsewhere/step_cpu.json

The documentation's tables are made of the same files by ``python docs/make.py``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from results import lines

ABOUT = ("device", "cores", "jax_version", "skajax_version", "day")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args()
    before, after = (json.loads(path.read_text()) for path in (options.before, options.after))
    for title in [title for title in before if title in after]:
        tables = before[title], after[title]
        print(f"\n{title}")
        for name, table in zip(("before", "after"), tables, strict=True):
            print(f"  {name}: " + ", ".join(f"{key} {table.get(key)}" for key in ABOUT))
        found = compared(*(table["rows"] for table in tables))
        print("\n" + (lines(found) if found else "no number in common"))
    for name, own, other in (("before", before, after), ("after", after, before)):
        for title in [title for title in own if title not in other]:
            print(f"\n{title}: only {name}")


def compared(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each number that both tables have, by its row's words and its column."""
    known = numbers(after)
    return [
        {"row": row, "column": column, "before": old, "after": known[row, column],
         "after / before": known[row, column] / old if old else None}
        for (row, column), old in numbers(before).items()
        if (row, column) in known
    ]  # fmt: skip


def numbers(rows: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """Measured numbers by (row, column); a row is called by its words and whole numbers."""
    is_name = lambda cell: isinstance(cell, str | int)
    return {
        (", ".join(str(cell) for cell in row.values() if is_name(cell)), column): cell
        for row in rows
        for column, cell in row.items()
        if isinstance(cell, float)
    }


if __name__ == "__main__":
    main()
