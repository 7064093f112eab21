"""Command line of the library: `obsdiff --help` lists the files of obsdiff/commands."""

import os
import sys

from obsdiff.errors import CheckpointError, LayerError, SpecError
from obsdiff.jobs.warm import run


def main(argv: list[str]) -> int:
    from obsdiff.commands import dispatch  # not of a process that only hands its job to the server

    try:
        dispatch("obsdiff.commands", "obsdiff", argv)
        sys.stdout.flush()
    except (SpecError, CheckpointError, LayerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `obsdiff inspect … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a full disk, a file that may not be read
        print(f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", file=sys.stderr)
        return 2
    return 0


def entry() -> None:
    """The console script `obsdiff`."""
    sys.exit(run("obsdiff.__main__", main, sys.argv[1:]))


if __name__ == "__main__":
    entry()
