"""The documentation's pages run as they stand, and say what the code and the measurements say."""

import doctest
import enum
import importlib
import importlib.util
import inspect
import pathlib
import pkgutil
import re

import matplotlib.pyplot as plt
import pytest

import skajax

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in DOCS.rglob("*.md") if "```python" in page.read_text()),
]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: None)
    names = {"__name__": f"docs_{page.stem}"}
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), names)
    plt.close("all")


EXAMPLES = [
    example
    for path in sorted((ROOT / "skajax").rglob("*.py"))
    if ">>> " in path.read_text()
    for example in doctest.DocTestFinder(exclude_empty=True).find(
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    )
    if example.examples
]


@pytest.fixture(scope="module")
def beginning():
    """What skajax's own docstring says that all examples begin with."""
    names = {}
    exec(
        "".join(each.source for each in doctest.DocTestParser().get_examples(skajax.__doc__)), names
    )
    return names


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_of_a_docstring_runs(example, beginning, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example.globs |= beginning
    said = []
    found = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    skipped = all(doctest.SKIP in each.options for each in example.examples)
    assert (found.attempted or skipped) and not found.failed, "".join(said)
    plt.close("all")


def public():
    """Every public function and class, by its name."""
    rooms = ["skajax", *(f"skajax.{m.name}" for m in pkgutil.iter_modules(skajax.__path__))]
    for room in map(importlib.import_module, [name for name in rooms if "._" not in name]):
        for name in getattr(room, "__all__", ()):
            value = getattr(room, name)
            if inspect.isroutine(value) or inspect.isclass(value) or hasattr(value, "__wrapped__"):
                yield f"{room.__name__}.{name}", value


# Made by skajax, and read field by field; tuples, errors and enumerations beside them.
RESULTS = {
    "skajax.costs.Count",
    "skajax.explore.Seen",
    "skajax.study.Evidence",
    "skajax.study.Finding",
    "skajax.study.Synchronisation",
    "skajax.sweeps.Group",
    "skajax.timescales.Design",
    "skajax.timescales.Growth",
    "skajax.timescales.NetCrossings",
    "skajax.timescales.NetLaw",
    "skajax.timescales.Prediction",
    "skajax.timescales.TensorNet",
    "skajax.trajectory.Aside",
}


def told(kind):
    """Whether a class says what it is by its fields or members, or is an error."""
    return hasattr(kind, "_fields") or issubclass(kind, Exception | enum.Enum)


def test_every_public_name_has_an_example():
    without = {name: value for name, value in public() if ">>> " not in (value.__doc__ or "")}
    results = {name for name, value in without.items() if inspect.isclass(value) and told(value)}
    assert not set(without) - results - RESULTS


@pytest.mark.parametrize(
    "page", sorted((DOCS / "howto").glob("own_*.md")), ids=lambda page: page.stem
)
def test_a_part_of_ones_own_takes_fifteen_lines(page):
    code, *_ = blocks(page)
    own = [line for line in code.splitlines() if line and not line.startswith(("import", "@"))]
    assert len(own) <= 15


@pytest.fixture(scope="module")
def make():
    """The program that fills in the tables."""
    spec = importlib.util.spec_from_file_location("docs_make", DOCS / "make.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_tables_are_what_the_code_and_the_measurements_say(make):
    old = [
        page.name
        for page in DOCS.rglob("*.md")
        if make.filled(page.read_text()) != page.read_text()
    ]
    assert not old, f"python docs/make.py was not run: {old}"


def test_a_table_without_an_end_takes_nothing_with_it(make):
    begin, end = "<!-- table: observables -->\n", "<!-- end of table -->\n"
    made = make.filled(f"before\n{begin}old\n{end}after\n")
    assert made.startswith(f"before\n{begin}\n| name |") and made.endswith(f"{end}after\n")
    assert "old" not in made and make.filled(made) == made
    for text in (begin, f"{begin}mine\n{begin}old\n{end}", f"{begin}old\n{end}mine\n{begin}"):
        with pytest.raises(
            SystemExit, match=r"^the table 'observables' has no <!-- end of table -->"
        ):
            make.filled(text)


def test_every_public_name_is_on_a_page_of_the_api():
    shown = {
        name
        for page in (DOCS / "api").glob("*.md")
        for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)
    }
    rooms = {
        f"skajax.{each.name}"
        for each in pkgutil.iter_modules(skajax.__path__)
        if each.name[0] != "_"
    }
    whole = {name for name in rooms if name in shown}
    missing = []
    for name in skajax.__all__:
        value = getattr(skajax, name)
        home = getattr(value, "__module__", "")
        inside = any(home == room or home.startswith(f"{room}.") for room in whole)
        if f"skajax.{name}" not in shown | rooms and not inside and name != "__version__":
            missing.append(name)
    without = sorted(rooms - whole - {"skajax.cli", "skajax.network", "skajax.trajectory"})
    assert not missing and not without
