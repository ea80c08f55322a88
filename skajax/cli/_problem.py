"""The options of commands that run a network on data: they take the place of a TOML file's settings."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from skajax.cli._config import Config

Several = Parameter(consume_multiple=True)


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """Data and network.

    Args:
        data: mnist, digits, iris, wine, breast_cancer, graph, series, text; or a file: .npy,
            .npz, .csv, .tsv, .nc.
        per_class: Images of each class (mnist, at most 100).
        layout: How images are given: flat, image, rows or patches.
        array: Which array, of a file that has several; or which columns of a CSV.
        targets: Array or column with classes or values, for an energy that has them.
        samples: How many of a file's samples to take, from the first.
        scaling: range (to [0, 1]), standard (mean 0, deviation 1), or a number that divides.
        flatten: Lay each sample flat, as dense layers need it.
        widths: Neurons of each layer (default 256 128 64 10).
        scale: Deviation of the initial weights (default 0.01).
        bias: Initial biases (default 0).
        seed: Seed of the initial weights (default 0).
        dtype: float32 (default) or float64.
    """

    data: str | None = None
    per_class: int | None = None
    layout: str | None = None
    array: Annotated[list[str] | None, Several] = None
    targets: str | None = None
    samples: int | None = None
    scaling: float | str | None = None
    flatten: bool = False
    widths: Annotated[list[int] | None, Several] = None
    scale: float | None = None
    bias: float | None = None
    seed: int | None = None
    dtype: Literal["float32", "float64"] | None = None

    def given(self) -> dict[str, Any]:
        """The options that were given, by name."""
        found = {n: v for n, v in vars(self).items() if v is not None and v is not False}
        names = self.array or []
        return found | ({"array": names[0]} if len(names) == 1 else {})


def configured(config: str | None, problem: Problem | None, **options: Any) -> "Config":
    """A file's settings with the options in their place, or the options alone; without axes."""
    from skajax._checks import require
    from skajax.cli._config import read

    given = (problem or Problem()).given()
    found = read(config, given | {name: v for name, v in options.items() if v is not None})
    must, but = "have no table grid", "it has one; skajax sweep runs it"
    require(not found.axes, "config", must, but)
    return found
