"""How a table was made, as it says of itself."""

import shlex
import sys


def as_typed(module: str, *without: str) -> str:
    """The command that runs.

    Args:
        module: of benchmarks.
        without: options that are left out with their values, such as folders of one machine.
    """
    words = sys.argv[1:]
    for option in without:
        if option in words:
            del words[words.index(option) : words.index(option) + 2]
    return shlex.join(["python", "-m", f"benchmarks.{module}", *words])
