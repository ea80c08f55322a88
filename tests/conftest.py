"""Strict promotion, double precision where asked for, and one seed for every random test."""

import gc
import importlib
import os
from contextlib import contextmanager

import equinox
import hypothesis
import jax
import jaxtyping
import pytest

# Nearly all of the suite's time is the compiler's, on programs that run for microseconds: unoptimised
# and without XLA's slower way of emitting fusions they take a sixth of it.
# JAX_DISABLE_MOST_OPTIMIZATIONS=0 in the environment compiles them as users do. Commands and other processes
# that tests start find both in their environment.
if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    jax.config.update("jax_disable_most_optimizations", True)
    # Later versions end at a flag that they do not know, and have no other way to emit them.
    if jax.__version_info__ < (0, 11):
        faster = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {faster}".strip()

# Tracing makes many objects that live long: looked through for garbage less often, it is a tenth faster.
gc.set_threshold(50_000, 20, 20)

# What skajax imports, before it does: from within modules whose types are checked, Python does not find
# what it has compiled of other packages, and compiles them anew.
for package in ("diffrax", "h5netcdf", "markdown_it", "matplotlib.pyplot", "networkx", "scipy.signal",
                "scipy.stats", "xarray"):  # fmt: skip
    importlib.import_module(package)

# A float64 that becomes float32, or a missing axis that broadcasts, is an error everywhere.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiling takes longer than any deadline. The fixtures below hold for every example of a test.
hypothesis.settings.register_profile(
    "skajax",
    deadline=None,
    derandomize=True,
    max_examples=25,
    database=None,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
hypothesis.settings.load_profile("skajax")


def pytest_addoption(parser):
    parser.addoption("--thorough", action="store_true", help="run the further cases as well")


def pytest_collection_modifyitems(config, items):
    """Leave out the cases marked ``thorough``, each of which another case stands for, unless asked for."""
    if not config.getoption("--thorough"):
        further = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=further)
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Each compiled program holds memory maps, of which a process has some 65,000: free a file's."""
    yield
    jax.clear_caches()
    equinox.clear_caches()


@pytest.fixture
def x64():
    """Double precision during one test."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def untyped():
    """The checks of jaxtyping and beartype off: bad input then meets skajax's own."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def compilations():
    """A context that lists by their names the programs which XLA compiles in it."""

    @contextmanager
    def listening():
        found = []

        def listen(event, duration, *, fun_name="", **_):
            if event == "/jax/core/compile/backend_compile_duration":
                found.append(fun_name)

        jax.monitoring.register_event_duration_secs_listener(listen)
        try:
            yield found
        finally:
            jax.monitoring.unregister_event_duration_listener(listen)

    return listening


@pytest.fixture(scope="module")
def template():
    """A real run of two layers in double precision, to be given other records."""
    import reference as ref

    import skajax as ska

    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        network, weights, x = ref.SMALL.arrays()
        return ska.simulate(network, weights, x, ska.Euler(0.1), steps=3)
    finally:
        jax.config.update("jax_enable_x64", before)
