"""What the command line does, a file a command; ``skajax.__main__`` runs them.

To add a command, write a file with a function of its name and put it into ``COMMANDS``: its docstring is the
help, its arguments (keyword-only ones are options) are the command's, and what it returns is the exit status.
Nothing heavy may be imported at the top of that file: ``skajax --help`` is to be quick.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

from cyclopts import App, Parameter

from skajax._version import __version__
from skajax.cli._explore import explore
from skajax.cli._info import info
from skajax.cli._plot import plot
from skajax.cli._reproduce import reproduce
from skajax.cli._run import run
from skajax.cli._study import STUDIES
from skajax.cli._sweep import sweep

COMMANDS = (run, sweep, reproduce, plot, info, explore)
GO_ON = "the same command goes on from here"


class Asked(NamedTuple):
    """A command line, read: what to call, by which name, and how much to say."""

    name: str
    command: Callable[..., Any]
    bound: Any
    quiet: bool
    verbose: bool

    @property
    def stopped(self) -> str:
        """What there is to say where it is interrupted."""
        goes_on = self.name.startswith(("sweep", "study"))
        return GO_ON if goes_on else "no file is unfinished"


HELP = """Learning as a continuous-time process, dW/dt = -r ∇E.

For example:

    skajax run --out run.nc
    skajax plot run.nc --out flow.png
    skajax info run.nc
    skajax COMMAND --help
"""
app = App(
    "skajax",
    help=HELP,
    help_format="plaintext",
    version=f"skajax {__version__}",
    default_parameter=Parameter(negative=()),
    result_action="return_value",
)
for _command in COMMANDS:
    app.command(_command)
_studies = App(
    "study", help="One of the studies, into a folder; each has arguments of its own.\n\nFor example:\n\n"
    "    skajax study rules --out rules --quick\n    skajax study invariance --out steps --data digits\n",
)  # fmt: skip
for _command in STUDIES:
    _studies.command(_command)
app.command(_studies)


@app.meta.default
def _read(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    quiet: bool = False,
    verbose: bool = False,
) -> Asked:
    """Read a command line.

    Args:
        quiet: Do not tell how far it is.
        verbose: Tell versions, what is logged, and where an error came from.
    """
    command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    name = " ".join(app.parse_commands(tokens)[0])
    return Asked(name, command, bound, quiet, verbose)


def parse(arguments: Sequence[str]) -> "Asked | None":
    """What is asked for; None where it was help, which has been given. Raises CycloptsError."""
    options: Any = {"exit_on_error": False, "print_error": False}
    return app.meta(list(arguments), **options)
