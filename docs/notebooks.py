"""Notebooks as pages of the site, with the outputs that they were kept with: ``python docs/notebooks.py``.

Writes ``docs/notebooks``, which is not kept: the site is built after it.
"""

import pathlib
import re
import shutil

import nbformat
from latex2mathml.converter import convert
from nbconvert import MarkdownExporter

DOCS = pathlib.Path(__file__).parent
NOTEBOOKS = DOCS.parent / "notebooks"
PAGES = DOCS / "notebooks"

FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)


def main() -> None:
    """Every notebook's text, code, output and figures."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        write(path)


def write(path: pathlib.Path) -> None:
    """One page, its figures beside it; code is shown, and not executed by the tests of pages."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = FORMULA.sub(formula, cell.source)
    figures = {"output_files_dir": path.stem, "unique_key": "figure"}
    text, extra = MarkdownExporter().from_notebook_node(notebook, resources=figures)
    text = re.sub(r"^```python$", "```py", text, flags=re.MULTILINE)
    text = text.replace("](../docs/", "](../")  # a notebook's links to other pages
    for name, content in extra["outputs"].items():
        target = PAGES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    PAGES.mkdir(exist_ok=True)
    (PAGES / f"{path.stem}.md").write_text(text)


def formula(found: re.Match[str]) -> str:
    """LaTeX, on lines of its own or within one, as MathML, which browsers show by themselves."""
    display = found[1] is not None
    return convert(found[1] or found[2], display="block" if display else "inline")


if __name__ == "__main__":
    main()
