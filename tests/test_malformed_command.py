"""Every option of every command with values that it cannot have: one line and exit status 2, never a traceback."""

import contextlib
import io
from dataclasses import fields

import pytest
from malformed import attempt

from eval.__main__ import main as suite
from obsdiff import PruneSpec, Sampling, Source, registry
from obsdiff.__main__ import main
from obsdiff.errors import SpecError

JUNK = ("", " ", "banana", "nan", "inf", "-inf", "1e999", "-1", "1.5.2", "0x10", "[]", "{}", "🦊", "../..", "$(true)")
FREE = {"model", "revision", "variant", "prompts", "seed", "exclude", "layer_sparsity", "without", "local_files_only"}
"""fields that take any text, several values, or no value"""
COMPLETE: list[tuple[str, list[str]]] = [("ui", []), ("progress", []), ("check", []), ("cost", [])]
"""commands that need no option"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("command") / "dense"
    registry.load("obsdiff.models", "sd3").tiny().save_pretrained(place)
    return place


def run(command, argv: list[str]) -> int:
    """Exit status; an error of the command is raised as SpecError with the text that it printed."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = command(argv)
        except SystemExit as error:
            status = int(error.code or 0)
            if status == 2:  # usage, in a box of several lines
                raise SpecError("usage") from None
    if status:
        text = said.getvalue().strip()
        assert text.startswith("error: "), text
        raise SpecError(text)
    return status


CASES = [(cls, f) for cls in (Source, Sampling, PruneSpec) for f in fields(cls) if f.name not in {*FREE, "sampling"}]


@pytest.mark.malformed
@pytest.mark.parametrize("field", [field for _, field in CASES], ids=[f"{cls.__name__}.{f.name}" for cls, f in CASES])
def test_malformed_options_of_a_run(folder, field):
    option = f"--{field.name.replace('_', '-')}"
    for value in JUNK:
        argv = ["plan", "--model", str(folder), "--height", "32", "--width", "32", option, value]
        attempt("options of obsdiff", f"{option} {value!r}", lambda argv=argv: run(main, argv))


@pytest.mark.malformed
def test_malformed_commands():
    """Missing, unknown and unfinished options, and a folder that cannot be made."""
    for command, package in ((main, "obsdiff.commands"), (suite, "eval.commands")):
        for name in (*registry.names(package), "nonsense", ""):
            for more in ([], ["--nonsense"], ["--nonsense", "1"], ["nowhere"], ["--model"], ["--out", "/dev/null/x"]):
                if (name, more) not in COMPLETE:
                    attempt("commands", f"{name} {more}", lambda c=command, a=[name, *more]: run(c, a))
