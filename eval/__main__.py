"""Command line of the suite: `python -m eval --help` lists the files of eval/commands."""

import sys

from obsdiff.commands import dispatch
from obsdiff.errors import CheckpointError, LayerError, SpecError
from obsdiff.jobs.warm import run
from obsdiff.storage.files import DamagedFile


def main(argv: list[str]) -> int:
    try:
        dispatch("eval.commands", "python -m eval", argv)
    except (SpecError, CheckpointError, LayerError, DamagedFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run("eval.__main__", main, sys.argv[1:]))
