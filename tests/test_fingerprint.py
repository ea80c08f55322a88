"""Fingerprints: equal for what is equal, in every process; different for what is not."""

import functools
import subprocess
import sys

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import skajax as ska
from skajax._fingerprint import fingerprint

MAKE = {
    "array": lambda n: jnp.arange(3.0) * n,
    "its last bit": lambda n: np.nextafter(np.ones(3), n),
    "dtype": lambda n: np.zeros(2, ["f4", "f8", "i4"][n]),
    "shape": lambda n: np.zeros((n, 6 // n if n else 2)),
    "number": lambda n: 0.1 * n,
    "number or text": lambda n: [1, "1", 1.0][n],
    "nesting": lambda n: [((1, 2), 3), (1, (2, 3)), (1, 2, 3)][n],
    "container": lambda n: [(1, 2), [1, 2], {1: 2}][n],
    "text": lambda n: [("ab", "c"), ("a", "bc"), ("abc",)][n],
    "key": lambda n: jax.random.key(n),
    "weights": lambda n: ska.mlp([3]).init(jax.random.key(n), jnp.ones((2, 2))),
    "network": lambda n: ska.mlp([3], scale=0.1 + n),
    "precision": lambda n: ska.mlp([3], precision=["highest", "high", "default"][n]),
    "step": lambda n: ska.Euler(0.1 + n),
    "method": lambda n: [ska.Euler, ska.Published, ska.Adaptive][n](*[(0.1,), (0.1,), ()][n]),
    "solver": lambda n: ska.Adaptive([diffrax.Tsit5, diffrax.Dopri5, diffrax.Dopri8][n]()),
    "tolerance": lambda n: ska.Adaptive(rtol=10.0 ** (-3 - n)),
    "optimiser": lambda n: ska.Descent([optax.sgd, optax.adam, optax.lion][n](0.1)),
    "learning rate": lambda n: ska.Descent(optax.sgd(0.1 + n)),
    "schedule": lambda n: ska.Descent(optax.sgd(optax.exponential_decay(0.1, 10, 0.5 + n / 10))),
    "rule": lambda n: ska.stop.FlowConverged(0.1 + n / 10) | ska.stop.ResidenceTime(1.0),
    "function": lambda n: [lambda a: a + 1, lambda a: a + 2, lambda a: a * 1][n],
    "what it has closed over": lambda n: lambda a: a + n,
    "its default": lambda n: lambda a, b=n: a + b,
    "partial": lambda n: functools.partial(pow, n),
    "jitted": lambda n: jax.jit(lambda a: a + n),
    "set": lambda n: {f"{n}", "a", "b", "c"},
}


@pytest.mark.parametrize("case", MAKE)
def test_equal_things_have_one_and_different_ones_have_not(case):
    make = MAKE[case]
    assert [fingerprint(make(n)) for n in range(3)] == [fingerprint(make(n)) for n in range(3)]
    assert len({fingerprint(make(n)) for n in range(3)}) == 3


def test_what_holds_itself_has_one():
    def count(n):
        return n and count(n - 1)

    loop = [1]
    loop.append(loop)
    assert fingerprint(count) == fingerprint(count)
    assert fingerprint(loop) != fingerprint([1])


CHILD = """
import jax, optax, skajax as ska
from skajax._fingerprint import fingerprint
rule = ska.stop.FlowConverged(0.1)
things = [ska.Adaptive(), ska.Descent(optax.adam(optax.exponential_decay(0.1, 10, 0.5))), ska.mlp([4, 2]),
          rule, {"b", "a", "c"}, lambda x: x in {"b", "a", "c"}, jax.random.key(3)]
print(fingerprint(things))
"""


def test_every_process_finds_the_same():
    run = lambda seed: (
        subprocess.run(
            [sys.executable, "-c", CHILD],
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
    )
    assert run("1") == run("2")
