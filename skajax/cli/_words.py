"""What the commands say: errors by the names that the user typed, and nothing into a closed pipe."""

import os
import re
import sys
from collections.abc import Mapping


def as_typed(error: Exception, typed: Mapping[str, str]) -> str:
    """An error's text, "Argument <name> must ...", with the name that the command line has for it."""
    return re.sub(
        r"^Argument (\w+) ",
        lambda found: f"Argument {typed.get(found[1], found[1])} ",
        str(error),
    )


def close_output() -> int:
    """Write no more where nobody reads, as under ``| head``; the exit status, which is no failure's."""
    # What is left in the buffer must have somewhere to go when the process ends.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return 0
