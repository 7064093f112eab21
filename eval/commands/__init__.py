"""The suite's commands: `python -m eval NAME` is the file of that name, whose run() takes the options.

A file is imported by its own command alone, and a job of the workflow depends on its command's file and on what that
imports.
"""

from typing import Annotated

from obsdiff.commands import Flat
from obsdiff.commands import Source_ as Source_
from obsdiff.sampling import Sampling

Sampling_ = Annotated[Sampling, Flat]
