"""The settings of the study of architectures: data, batch, widths and scales."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from skajax import data
from skajax._checks import require
from skajax._types import Float
from skajax.network import Network, mlp

__all__ = ["QUICK", "SETTINGS", "Setting"]


def _spread_evenly(x: np.ndarray, samples: int) -> np.ndarray:
    """Rows of a set that is ordered by class, so that every class has its share."""
    require(samples <= len(x), "samples", f"be at most {len(x)}", f"it was {samples}")
    return x[np.linspace(0, len(x) - 1, samples).round().astype(int)]


def _power_law(samples: int) -> np.ndarray:
    """Eigenvalues 40 / k, k = 1..9: growth rates from 14.4 down."""
    count = min(9, samples - 1)
    return data.known_spectrum(list(40 / np.arange(1, count + 1)), samples, 64)


def _one_mode(samples: int) -> np.ndarray:
    """One eigenvalue, 30, and the bias's 1."""
    return data.known_spectrum([30.0], samples, 64)


DATA: Mapping[str, Callable[[int], np.ndarray]] = MappingProxyType(
    {
        "mnist": lambda samples: _spread_evenly(data.mnist_subset()[0], samples),
        "digits": lambda samples: _spread_evenly(data.sklearn("digits")[0], samples),
        "wine": lambda samples: _spread_evenly(data.sklearn("wine")[0], samples),
        "breast_cancer": lambda samples: _spread_evenly(data.sklearn("breast_cancer")[0], samples),
        "power_law": _power_law,
        "one_mode": _one_mode,
    }
)
"""So many samples of each set, by its name; the last two have a known spectrum."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One network on one batch.

    >>> ska.study.Setting("mnist", 100, (32, 16, 10)).widths
    (32, 16, 10)
    """

    data: str
    samples: int
    widths: tuple[int, ...]
    scale: float = 0.01
    """Of the initial weights, W ~ N(0, scale²)."""
    input_scale: float = 1.0
    """A factor on the inputs."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse data that there are none of."""
        require(self.data in DATA, "data", f"be one of {list(DATA)}", f"it was {self.data!r}")

    @property
    def name(self) -> str:
        """One word, that tells settings apart."""
        widths = "-".join(map(str, self.widths))
        more = f"_inputs{self.input_scale:g}" if self.input_scale != 1 else ""
        more += f"_seed{self.seed}" if self.seed else ""
        return f"{self.data}{self.samples}_{widths}_scale{self.scale:g}{more}"

    def network(self) -> Network:
        """Its layers."""
        return mlp(self.widths, scale=self.scale)

    def inputs(self) -> Float[np.ndarray, "rows inputs"]:
        """Its batch, float32, in a shape that many settings share, and with it their programs.

        What changes no time of any layer is added: inputs that are always 0, up to 64 of all, and the
        same samples again, up to the number of rows that is usual for the data: the flow averages over them.
        """
        x = np.float32(self.input_scale) * DATA[self.data](self.samples)
        x = np.tile(x, (max(1, _ROWS.get(self.data, 150) // self.samples), 1))
        return np.pad(x, [(0, 0), (0, max(0, 64 - x.shape[1]))])


_ROWS = {"mnist": 300}
_PAPER = (256, 128, 64, 10)
_ONE, _TWO, _THREE, _FIVE = (64,), (128, 64), (128, 64, 32), (64,) * 5

SETTINGS = (
    # Depth 1 to 8.
    Setting("mnist", 300, (256,)),
    Setting("mnist", 300, (256, 128)),
    Setting("mnist", 300, (256, 128, 64)),
    Setting("mnist", 300, (256, 128, 64, 32, 10)),
    Setting("mnist", 300, (128,) * 6),
    Setting("mnist", 300, (128,) * 8),
    # Width 16 to 2048.
    Setting("mnist", 300, (16, 16)),
    Setting("mnist", 300, (64, 32)),
    Setting("mnist", 300, (512, 256)),
    Setting("mnist", 300, (1024, 256)),
    Setting("mnist", 300, (2048, 128)),
    # Batch 10 to 1000; the last is the paper's own.
    Setting("mnist", 10, _PAPER),
    Setting("mnist", 30, _PAPER),
    Setting("mnist", 100, _PAPER),
    Setting("mnist", 300, _PAPER),
    Setting("mnist", 1000, _PAPER),
    # Initial scale 1e-3 to 1.
    Setting("mnist", 300, _PAPER, 0.001),
    Setting("mnist", 300, _PAPER, 0.003),
    Setting("mnist", 300, _PAPER, 0.03),
    Setting("mnist", 300, _PAPER, 0.1),
    Setting("mnist", 300, _PAPER, 0.3),
    Setting("mnist", 300, _PAPER, 1.0),
    # Input scale.
    Setting("mnist", 300, _PAPER, 0.01, 0.1),
    Setting("mnist", 300, _PAPER, 0.01, 0.3),
    Setting("mnist", 300, _PAPER, 0.01, 3.0),
    # Other data, of several depths and scales.
    Setting("digits", 150, _ONE),
    Setting("digits", 150, _TWO),
    Setting("digits", 150, _THREE),
    Setting("digits", 150, _FIVE),
    Setting("digits", 150, _THREE, 0.001),
    Setting("digits", 150, _THREE, 0.1),
    Setting("digits", 50, _THREE),
    Setting("digits", 1000, _THREE),
    Setting("wine", 150, _ONE),
    Setting("wine", 150, _THREE),
    Setting("wine", 50, _THREE),
    Setting("wine", 150, _THREE, 0.001),
    Setting("wine", 150, _TWO, 0.1),
    Setting("breast_cancer", 150, _ONE),
    Setting("breast_cancer", 150, _THREE),
    Setting("breast_cancer", 50, _THREE),
    Setting("breast_cancer", 150, _FIVE),
    Setting("breast_cancer", 150, _THREE, 0.001),
    Setting("breast_cancer", 150, _TWO, 0.1),
    Setting("power_law", 150, _ONE),
    Setting("power_law", 150, _THREE),
    Setting("power_law", 150, _FIVE),
    Setting("power_law", 150, _THREE, 0.001),
    Setting("power_law", 150, _TWO, 0.1),
    Setting("one_mode", 150, _ONE),
    Setting("one_mode", 150, _THREE),
    Setting("one_mode", 150, _TWO, 0.001),
    Setting("one_mode", 150, _THREE, 0.1),
)
"""The study's."""

QUICK = (
    Setting("digits", 30, (16, 8)),
    Setting("wine", 30, (16, 8), 0.1),
    Setting("one_mode", 30, (16, 8), 2.0),
)
"""A few small ones, of one shape; the last starts saturated."""
