"""What benchmarks measured: printed as tables, and kept in a file for each benchmark and kind of device.

``results/step_cpu.json`` holds the tables of ``step.py`` on CPUs, by their titles, each with the device,
the versions and the day of its measurement. A table that is measured again replaces the one before.
"""

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from skajax._version import versions

FOLDER = Path(os.environ.get("SKAJAX_RESULTS", Path(__file__).parent / "results"))

Cell = str | int | float | None
Row = Mapping[str, Cell]


def report(benchmark: str, title: str, rows: Sequence[Row], **settings: Any) -> None:
    """Print a table, a row for each mapping of columns to cells, and keep it."""
    print(f"\n{title}; {', '.join(f'{name} {value}' for name, value in settings.items())}\n")
    print(lines(rows))
    path = FOLDER / f"{benchmark}_{jax.default_backend()}.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[title] = {
        "settings": settings,
        "rows": [dict(row) for row in rows],
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "day": datetime.date.today().isoformat(),
        **versions(),
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n")


def lines(rows: Sequence[Row]) -> str:
    """The rows under their heads, in columns."""
    heads = list(rows[0])
    cells = [heads, *([shown(row.get(head)) for head in heads] for row in rows)]
    widths = [max(len(line[n]) for line in cells) for n in range(len(heads))]
    align = lambda line: "  ".join(
        cell.ljust(width) if n == 0 else cell.rjust(width)
        for n, (cell, width) in enumerate(zip(line, widths, strict=True))
    )
    return "\n".join(map(align, cells))


def shown(cell: Cell) -> str:
    """Numbers to three digits; nothing as a dash."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else cell
