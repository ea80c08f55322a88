"""A run that goes on is the run that never stopped: extended in memory, or from a checkpoint."""

import signal
import subprocess
import sys
import time

import diffrax
import jax
import numpy as np
import optax
import pytest

import skajax as ska
from skajax import stop
from skajax.methods import _checkpoint

KEY = jax.random.key(7)
X = jax.random.uniform(KEY, (10, 8))
NETWORK = ska.mlp([6, 4], scale=0.3)
WEIGHTS = NETWORK.init(jax.random.key(1), X)
ADAPTIVE = ska.Adaptive(rtol=1e-5, atol=1e-7)
T = np.linspace(0, 3, 31)
STEPS = {"save_at": "steps"}
# The Tensor Net counts from the start of the run, wherever it was interrupted.
OBSERVE = ("entropy", "flow_norm", "tensor_net", "tensor_net_rate")


def run(method, weights=WEIGHTS, x=X, observe=OBSERVE, **options):
    return ska.simulate(NETWORK, weights, x, method, observe=observe, **options)


def rule(fraction=1e-6, limit=1e9):
    """One program for rules that remember a peak, a sign, and the errors so far."""
    return (stop.FlowConverged(fraction) & stop.StructureStart()) | stop.ErrorBudget(limit)


def assert_same(got, want):
    """Bit for bit, everything."""
    parts = lambda r: (r.t, r.observables, r.final, r.stats, r.outcome, r.path)
    jax.tree.map(np.testing.assert_array_equal, parts(got), parts(want))


# A method, what asks for a part of the run, what for the rest, and what for the whole.
ENDS = {
    "Euler": (ska.Euler(0.01), {"t1": 1.5}, {"t1": 3.0}, {"t1": 3.0}),
    "Euler, by steps": (ska.Euler(0.01), {"steps": 1}, {"steps": 300}, {"steps": 300}),
    "Published": (ska.Published(0.01), {"t1": 1.3}, {"t1": 3.0}, {"t1": 3.0}),
    "scheduled Adam": (
        ska.Descent(optax.adam(optax.cosine_decay_schedule(0.1, 150))),
        {"steps": 140},
        {"steps": 160},
        {"steps": 160},
    ),
    "Adaptive": (
        ADAPTIVE,
        {"t1": T[10], "save_at": T[:11]},
        {"t1": T[-1], "save_at": T[11:]},
        {"t1": T[-1], "save_at": T},
    ),
    "Adaptive, onwards": (
        ADAPTIVE,
        {"t1": 1.0, "save_at": [0.0, 0.5, 1.0]},
        {"t1": 2.0},
        {"t1": 2.0, "save_at": [0.0, 0.5, 1.0, 1.5, 2.0]},
    ),
    "Adaptive, steps": (
        ADAPTIVE,
        {"t1": 1.0, "save_at": "steps"},
        {"t1": 3.0},
        {"t1": 3.0, "save_at": "steps"},
    ),
    "Adaptive, dense": (
        ADAPTIVE,
        {"t1": 1.0, "save_at": "end", "dense": True},
        {"t1": 3.0},
        {"t1": 3.0, "save_at": "end", "dense": True},
    ),
    "Dopri8": (
        ska.Adaptive(diffrax.Dopri8(), controller=diffrax.PIDController(1e-4, 1e-6)),
        {"t1": 0.7, "save_at": "steps"},
        {"t1": 3.0},
        {"t1": 3.0, "save_at": "steps"},
    ),
    "constant Heun": (
        ska.Adaptive(diffrax.Heun(), controller=diffrax.ConstantStepSize(), dt0=0.07),
        {"t1": 1.0, "save_at": "steps"},
        {"t1": 3.0},
        {"t1": 3.0, "save_at": "steps"},
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_an_extended_run_is_the_run_that_never_stopped(case):
    method, part, rest, whole = ENDS[case]
    short = run(method, **part)
    before = jax.tree.map(np.array, (short.t, short.entropy, short.final))
    assert_same(ska.extend(short, **rest), run(method, **whole))
    after = (short.t, short.entropy, short.final)
    jax.tree.map(np.testing.assert_array_equal, after, before)


@pytest.mark.parametrize("method", [ska.Euler(0.01), ska.Published(0.01), ADAPTIVE])
def test_extensions_of_every_observable_add_up(method):
    options = {"observe": None} | (STEPS if method is ADAPTIVE else {})
    extended = ska.extend(ska.extend(run(method, t1=0.5, **options), 1.1), 3.0)
    assert_same(extended, run(method, t1=3.0, **options))


@pytest.mark.parametrize("method", [ska.Euler(0.1), ADAPTIVE], ids=["Euler", "Adaptive"])
def test_however_long_a_run_is_going_on_compiles_nothing(method, compilations):
    adaptive = isinstance(method, ska.Adaptive)
    until = lambda k: {"t1": T[k]} | ({"save_at": T[k - 3 : k + 1]} if adaptive else {})
    part = ska.extend(
        run(method, **until(3) | {"save_at": T[:4]} if adaptive else until(3)), **until(7)
    )
    part = ska.extend(part, **until(11))
    with compilations() as found:
        longer = ska.extend(ska.extend(part, **until(15)), **until(19))
    assert found == [] and len(longer.t) > len(part.t)


@pytest.mark.parametrize("method", [ska.Euler(0.01), ska.Published(0.01), ADAPTIVE])
def test_a_run_that_a_rule_has_ended_goes_on(method):
    saves = STEPS if method is ADAPTIVE else {}
    ended = run(method, t1=3.0, until=rule(fraction=0.99), **saves)
    assert ended.outcome.stopped
    assert_same(ska.extend(ended, 3.0), run(method, t1=3.0, **saves))


SPANS = {"Euler": (ska.Euler(0.02), {}, 3e-3), "Adaptive": (ADAPTIVE, STEPS, 2e-6)}
MEMORIES = {
    "peak": lambda _: rule(fraction=0.5),
    "crossing": lambda _: rule(fraction=0.99),  # which the flow is below before
    "budget": lambda limit: rule(limit=limit),
}


@pytest.mark.parametrize("name", SPANS)
@pytest.mark.parametrize("memory", MEMORIES)
def test_a_rule_remembers_what_came_before_the_extension(name, memory):
    method, saves, limit = SPANS[name]
    until = MEMORIES[memory](limit)
    whole = run(method, t1=12.0, until=until, **saves)
    assert whole.outcome.stopped
    part = 0.02 * int(0.9 * float(whole.final.t) / 0.02)
    first = run(method, t1=part, until=until, **saves)
    assert first.outcome.completed
    assert_same(ska.extend(first, 12.0, until=until), whole)


def test_another_rule_looks_at_the_records_first():
    euler, until = ska.Euler(0.02), rule(fraction=0.5)
    full = run(euler, t1=12.0)
    whole = run(euler, t1=12.0, until=until)
    t_peak = max(peak.t for peak in ska.landmarks.peaks(full))
    part = 0.02 * int((t_peak + float(whole.final.t)) / 2 / 0.02)
    extended = ska.extend(run(euler, t1=part), 12.0, until=until)
    np.testing.assert_array_equal(extended.final.t, whole.final.t)  # it knows the peak
    for ended in (run(euler, t1=10.0), run(ADAPTIVE, t1=10.0, **STEPS)):
        with pytest.raises(ValueError, match=r"Argument until must .* not hold yet .* does, at"):
            ska.extend(ended, 12.0, until=until)
    # A rule may begin to hold in the step that is made again: no earlier than the end, though.
    late = ska.extend(run(ADAPTIVE, t1=part, **STEPS), 12.0, until=until)
    assert late.outcome.stopped and float(late.final.t) >= part


def test_going_on_after_a_stop_records_as_before():
    ended = run(ADAPTIVE, t1=12.0, until=stop.ResidenceTime(1.5))  # 101 records, 0.12 apart
    end = float(ended.final.t)
    extended = ska.extend(ended, end + 0.5)
    new = np.asarray(extended.t)[len(ended.t) :]
    np.testing.assert_allclose(new, end + np.array([0.12, 0.24, 0.36, 0.48, 0.5]), rtol=1e-5)
    np.testing.assert_array_equal(extended.t[: len(ended.t)], ended.t)
    longer = ska.extend(run(ADAPTIVE, t1=0.3), 0.7)
    assert float(longer.t[-1]) == float(longer.final.t) == np.float32(0.7)
    sparse = ska.extend(run(ADAPTIVE, t1=0.5, save_at=[0.1, 0.2]), 0.8)
    np.testing.assert_allclose(sparse.t, [0.1, 0.2, 0.6, 0.7, 0.8], rtol=1e-6)


def test_a_reduced_run_goes_on_reduced():
    reduced = {"x": X[:5], "reduction": "full"}
    short = run(ska.Euler(0.01), t1=0.1, **reduced)
    assert int(short.stats.rank) == 5
    extended = ska.extend(short, 0.3)
    assert int(extended.stats.rank) == 5 and extended.final.weights[0].W.shape == (8, 6)
    assert_same(extended, run(ska.Euler(0.01), t1=0.3, **reduced))


def _loaded(tmp_path):
    run(ska.Euler(0.1), t1=0.5).save(tmp_path / "run.nc")
    return ska.load(tmp_path / "run.nc")


BAD = {
    "from a file": (
        lambda p: ska.extend(_loaded(p), 1.0),
        "run",
        "read from a file .from run.final.weights a new run goes on",
    ),
    "sliced": (
        lambda p: ska.extend(jax.tree.map(lambda a: a, run(ska.Euler(0.1), t1=0.5)), 1.0),
        "run",
        "as simulate returned it",
    ),
    "failed": (
        lambda p: ska.extend(run(ska.Adaptive(max_steps=2), t1=9.0), 10.0),
        "run",
        "max_steps",
    ),
    "backwards": (lambda p: ska.extend(run(ska.Euler(0.1), t1=0.5), 0.3), "t1", "beyond"),
    "to where it is": (lambda p: ska.extend(run(ADAPTIVE, t1=0.5), 0.5), "t1", "beyond"),
    "no end": (lambda p: ska.extend(run(ADAPTIVE, t1=0.5)), "t1", "given"),
    "old times": (
        lambda p: ska.extend(run(ADAPTIVE, t1=0.5), 1.0, save_at=[0.2, 1.0]),
        "save_at",
        "increase|beyond",
    ),
    "times for a run that recorded steps": (
        lambda p: ska.extend(run(ADAPTIVE, t1=0.5, save_at="steps"), 1.0, save_at=[0.7]),
        "save_at",
        "'steps'",
    ),
    "times for Euler": (
        lambda p: ska.extend(run(ska.Euler(0.1), t1=0.5), 1.0, save_at=[0.7]),
        "save_at",
        "every step",
    ),
    "no times": (
        lambda p: ska.extend(run(ADAPTIVE, t1=0.5), 1.0, save_at=[]),
        "save_at",
        "at least",
    ),
    "steps for a run of times": (
        lambda p: ska.extend(run(ADAPTIVE, t1=0.5), 1.0, save_at="steps"),
        "save_at",
        "times",
    ),
    "a number": (lambda p: ska.extend(3.0, 1.0), "run", "Trajectory"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_go_on_says_why(untyped, tmp_path, case):
    go_on, argument, word = BAD[case]
    with pytest.raises(ValueError, match=f"Argument {argument} must .*({word})"):
        go_on(tmp_path)


class Killed(Exception):
    """What a kill would be."""


CHECKPOINTED = {
    "Euler": (ska.Euler(0.001), {"t1": 0.4}),
    "Published": (ska.Published(0.001), {"t1": 0.4}),
    "noisy": (ska.Descent(optax.chain(optax.add_noise(0.1, 0.5, 3), optax.adam(0.01))), {"steps": 400}),
    "Adaptive, times": (
        ska.Adaptive(rtol=1e-6, atol=1e-10),
        {"t1": 40.0, "save_at": np.linspace(0, 40, 100)},
    ),
    "Adaptive, steps, dense": (
        ska.Adaptive(rtol=1e-6, atol=1e-10),
        {"t1": 40.0, "save_at": "steps", "dense": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.thorough) if case == "Published" else case
        for case in CHECKPOINTED
    ],
)
def test_a_checkpointed_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, case):
    method, span = CHECKPOINTED[case]
    path, write = tmp_path / "long.nc", _checkpoint.Checkpoint.write
    writes = []

    def write_and_die(self, *args, **kwargs):
        write(self, *args, **kwargs)
        writes.append(path.exists())
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(_checkpoint, "INTERVAL", 0.0)
        patch.setattr(_checkpoint.Checkpoint, "write", write_and_die)
        for _ in range(2):
            with pytest.raises(Killed):
                run(method, checkpoint=path, **span)
    assert writes == [True] * 2
    straight = run(method, **span)
    for _ in range(2):  # from where it was, and from the end
        assert_same(run(method, checkpoint=path, **span), straight)
    assert [file.name for file in tmp_path.iterdir()] == ["long.nc"]


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run, and its checkpoint's bytes."""
    path = tmp_path_factory.mktemp("half") / "long.nc"
    return run(ska.Euler(0.01), t1=1.0, checkpoint=path), path.read_bytes()


def test_a_checkpoint_serves_a_later_end(tmp_path, half):
    path = tmp_path / "long.nc"
    path.write_bytes(half[1])
    longer = run(ska.Euler(0.01), t1=3.0, checkpoint=path)
    assert_same(longer, run(ska.Euler(0.01), t1=3.0))
    with pytest.raises(ValueError, match=r"checkpoint must be of at most 200 steps, but .* 300"):
        run(ska.Euler(0.01), t1=2.0, checkpoint=path)


@pytest.mark.parametrize(
    "save_at",
    [
        "steps",
        pytest.param("end", marks=pytest.mark.thorough),
        pytest.param([0.5, 0.9], marks=pytest.mark.thorough),
    ],
)
def test_an_adaptive_checkpoint_serves_a_later_end_too(tmp_path, save_at):
    path = tmp_path / "long.nc"
    run(ADAPTIVE, t1=2.0, save_at=save_at, checkpoint=path)
    longer = run(ADAPTIVE, t1=6.0, save_at=save_at, checkpoint=path)
    assert_same(longer, run(ADAPTIVE, t1=6.0, save_at=save_at))
    patient = ska.Adaptive(rtol=1e-5, atol=1e-7, max_steps=9999)
    assert_same(run(patient, t1=6.0, save_at=save_at, checkpoint=path), longer)
    with pytest.raises(ValueError, match="Argument checkpoint must be from before t1 = 1"):
        run(ADAPTIVE, t1=1.0, save_at=save_at, checkpoint=path)


def test_a_run_is_worth_more_than_its_checkpoint(tmp_path, monkeypatch, half):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(_checkpoint, "write_netcdf", full)
    with pytest.warns(UserWarning, match="long.nc' not written: No space left"):
        ended = run(ska.Euler(0.01), t1=1.0, checkpoint=tmp_path / "long.nc")
    assert_same(ended, half[0])


FOREIGN = {
    "other weights": {"weights": jax.tree.map(lambda w: 2 * w, WEIGHTS)},
    "other inputs": {"x": 2 * X},
    "other step": {"method": ska.Euler(0.02)},
    "other method": {"method": ska.Published(0.01)},
    "with a rule": {"until": rule()},
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_checkpoint_is_refused_and_left_alone(tmp_path, half, case):
    path = tmp_path / "long.nc"
    path.write_bytes(half[1])
    options = {"method": ska.Euler(0.01), "t1": 2.0, "checkpoint": path} | FOREIGN[case]
    with pytest.raises(ValueError, match="Argument checkpoint must be that of this very run"):
        run(**options)
    assert path.read_bytes() == half[1]


def test_damaged_and_other_files_are_refused_and_left_alone(tmp_path, half):
    bad = tmp_path / "bad.nc"
    ended, whole = half
    ended.save(tmp_path / "run.nc")
    for content, word in (
        (whole[: len(whole) // 2], "could not be read"),
        (b"", "could not be read"),
        (b"not a file of ours", "could not be read"),
        ((tmp_path / "run.nc").read_bytes(), "format was"),
    ):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=f"Argument checkpoint must .*{word}"):
            run(ska.Euler(0.01), t1=2.0, checkpoint=bad)
        assert bad.read_bytes() == content
    number = np.asarray(ended.final.weights[0].W).tobytes()
    assert number in whole
    damaged = whole.replace(number, number[:-1] + bytes([number[-1] ^ 1]))
    bad.write_bytes(damaged)
    with pytest.raises(ValueError, match="Argument checkpoint must hold what was written"):
        run(ska.Euler(0.01), t1=2.0, checkpoint=bad)
    assert bad.read_bytes() == damaged
    for path in (tmp_path, tmp_path / "none" / "long.nc"):
        with pytest.raises(ValueError, match="Argument checkpoint must be a file in a folder"):
            run(ska.Euler(0.01), t1=2.0, checkpoint=path)


CHILD = """
import sys
import jax
import skajax as ska
from skajax.methods import _checkpoint
_checkpoint.INTERVAL = 0.0
x = jax.random.uniform(jax.random.key(7), (10, 8))
network = ska.mlp([6, 4], scale=0.3)
weights = network.init(jax.random.key(1), x)
observe = ("entropy", "flow_norm", "tensor_net", "tensor_net_rate")
ska.simulate(network, weights, x, ska.Euler(1e-4), t1=2.0, observe=observe, checkpoint=sys.argv[1])
"""


def test_killed_at_any_moment_it_resumes_to_the_same_bits(tmp_path):
    path = tmp_path / "long.nc"
    with subprocess.Popen([sys.executable, "-c", CHILD, path]) as child:
        while not path.exists() and child.poll() is None:
            time.sleep(0.01)
        time.sleep(np.random.default_rng(0).uniform(0, 0.3))
        child.kill()
    assert child.returncode == -signal.SIGKILL
    method = ska.Euler(1e-4)
    assert_same(run(method, t1=2.0, checkpoint=path), run(method, t1=2.0))
