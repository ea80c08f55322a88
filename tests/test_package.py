"""The package as a whole: what importing it costs and touches, and what it offers."""

import importlib
import pathlib
import pkgutil
import subprocess
import sys
import textwrap
from importlib.metadata import version

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

import skajax as ska
from skajax._memory import make_room_for_programs


def in_a_fresh_process(program):
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_skajax_and_its_images_imports_nothing_heavy_and_changes_nothing():
    heavy = [
        "xarray",
        "matplotlib",
        "pandas",
        "tensorflow_datasets",
        "tensorflow",
        "array_record",
        "mlxtend",
        "h5py",
        "IPython",
    ]
    printed = in_a_fresh_process(
        f"""
        import sys
        import diffrax, jax, optax
        known, settings = set(sys.modules), dict(jax.config.values)
        import skajax as ska
        assert dict(jax.config.values) == settings
        # No array was made, so no device was chosen: its number can still be set.
        jax.config.update("jax_num_cpu_devices", 3)
        assert jax.device_count() == 3
        ska.data.mnist_subset(1)
        print(*sorted(set({heavy!r}) & (set(sys.modules) - known)))
        # The lazy modules are imported when asked for.
        assert "skajax.plot" not in sys.modules
        print(ska.plot.__name__, ska.data.__name__, ska.study.__name__)
        """
    )
    assert printed == ["skajax.plot", "skajax.data", "skajax.study"]


def test_the_core_computes_and_saves_without_what_extras_bring(tmp_path):
    printed = in_a_fresh_process(
        f"""
        import sys
        for name in ("matplotlib", "sklearn", "networkx", "statsmodels", "panel", "tensorflow_datasets"):
            sys.modules[name] = None
        import jax
        import skajax as ska
        x, _ = ska.data.mnist_subset(per_class=1)
        network = ska.mlp([4, 3])
        run = ska.simulate(network, network.init(jax.random.key(0), x), x, ska.Euler(0.1), steps=2)
        run.save({str(tmp_path / "run.nc")!r})
        assert (ska.load({str(tmp_path / "run.nc")!r}).entropy == run.entropy).all()
        parts = {{
            "plot": lambda: ska.plot, "study": lambda: ska.study, "explore": ska.explore.widget,
            "series": ska.data.series, "tfds": lambda: ska.data.tfds("mnist"),
            "study,": lambda: ska.data.sklearn("iris"), "study;": lambda: ska.data.graph("karate"),
        }}
        for extra, part in parts.items():
            try:
                part()
            except ImportError as error:
                print(f"skajax[{{extra.rstrip(',;')}}]" in str(error))
        """
    )
    assert printed == ["True"] * 7


def test_everything_named_is_there():
    assert ska.__version__ == version("skajax")
    for name in ska.__all__:
        if name not in ("data", "explore", "plot", "study"):  # imported when asked for
            assert getattr(ska, name) is not None
    assert set(ska.__all__) <= set(dir(ska))  # which a notebook completes names from
    with pytest.raises(AttributeError, match=r"skajax.*nothing"):
        ska.nothing  # noqa: B018


def test_the_citation_is_of_this_version():
    citation = pathlib.Path(__file__).parent.parent / "CITATION.cff"
    assert f"version: {ska.__version__}" in citation.read_text().splitlines()


def public_modules():
    """All modules of the package whose names, and whose packages' names, are not private."""
    names = (info.name for info in pkgutil.walk_packages(ska.__path__, "skajax."))
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


@pytest.mark.parametrize("name", public_modules())
def test_every_module_says_what_is_public(name):
    if name == "skajax.data.make_mnist_subset":
        return  # a program, and no module to import from
    module = importlib.import_module(name)
    module = sys.modules[name]
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public), f"{name} has no {public}"
    if name != "skajax.cli":  # its commands are started by skajax.__main__
        assert module.__all__ and len(set(module.__all__)) == len(module.__all__)


def test_shapes_are_checked_while_tests_run(request):
    # By jaxtyping and beartype, which pyproject.toml asks pytest for; "untyped" switches them off.
    network = ska.mlp([2])
    x = jnp.ones((3, 4))
    weights = network.init(jax.random.key(0), x)
    with pytest.raises(jaxtyping.TypeCheckError, match=r"samples \*axes"):
        ska.state(network, weights, [1.0])
    request.getfixturevalue("untyped")
    with pytest.raises(ValueError, match="Argument x must be a non-empty batch"):
        ska.simulate(network, weights, x[0], ska.Euler(0.1), steps=1)


def test_programs_are_let_go_of_before_they_fill_a_process(monkeypatch, tmp_path):
    traced = []
    program = jax.jit(lambda x: traced.append(x) or x + 1)
    program(1.0)
    maps = tmp_path / "maps"
    maps.write_text("a map\n" * 10)
    limit = tmp_path / "limit"
    files = {"/proc/self/maps": maps, "/proc/sys/vm/max_map_count": limit}
    monkeypatch.setattr(
        "builtins.open", lambda name, mode="r", real=open: real(files.get(name, name), mode)
    )
    limit.write_text("20")
    make_room_for_programs()
    program(1.0)
    assert len(traced) == 1
    limit.write_text("18")
    make_room_for_programs()
    program(1.0)
    assert len(traced) == 2
