"""The pages of docs/ run as they stand, each in a process's memory of its own."""

import pathlib
import re

import matplotlib.pyplot as plt
import pytest

DOCS = pathlib.Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 2
    own = [line for line in blocks[0].splitlines() if line and not line.startswith(("import", "@"))]
    assert len(own) <= 15
    names = {"__name__": f"docs_{page.stem}"}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    plt.close("all")
