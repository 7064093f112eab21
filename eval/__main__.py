"""Command line of the suite: `python -m eval --help` lists the files of eval/commands."""

import sys

from obsdiff.errors import CheckpointError, LayerError, SpecError
from obsdiff.jobs.warm import run
from obsdiff.storage.files import DamagedFile


def main(argv: list[str]) -> int:
    from obsdiff.commands import dispatch  # not of a process that only hands its job to the server

    try:
        dispatch("eval.commands", "python -m eval", argv)
    except (SpecError, CheckpointError, LayerError, DamagedFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run("eval.__main__", main, sys.argv[1:]))
