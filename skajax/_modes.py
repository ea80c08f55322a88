"""JAX's modes: the precision that it holds, and the transfers that it allows."""

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import ParamSpec, TypeVar

import jax

try:
    from jax import enable_x64
except ImportError:  # jax < 0.8
    from jax.experimental import enable_x64  # pyright: ignore[reportAttributeAccessIssue]

__all__ = ["cached", "double_precision", "enable_x64", "working"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def double_precision() -> bool:
    """Whether JAX holds float64 now, by the setting of the process or of a ``with enable_x64(True)``."""
    return bool(jax.config.read("jax_enable_x64"))


@contextmanager
def working(double: bool | None = None) -> Generator[None, None, None]:
    """While a public function works: in the precision mode that a run was made in, or that of now.

    Numbers and arrays that a caller hands in are meant to go to the device:
    ``jax.transfer_guard("disallow")`` is for transfers that nobody asked for.
    """
    changes = double is not None and double != double_precision()
    with jax.transfer_guard("allow"), enable_x64(double) if changes else nullcontext():
        yield


def cached(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function, with what it returned remembered, for each precision mode by itself."""

    @functools.lru_cache
    def remembered(double: bool, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return function(*args, **kwargs)

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return remembered(double_precision(), *args, **kwargs)

    return call
