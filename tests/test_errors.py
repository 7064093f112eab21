"""Errors that a user can mend have one form: `key: what is wrong; what to do`, one sentence without a full stop."""

import ast
import re
from collections.abc import Iterator

import pytest

from obsdiff import registry

KINDS = {"SpecError", "CheckpointError", "LayerError"}
HOLE = "{}"
"""a part of a message that is filled in"""
KEYED = re.compile(r"[\w.{}][^:;]*: \S|([\w.{}]+\.)?\{\}")
"""a key, file or layer and its sentence; or a message that is passed on, perhaps below another key"""
OF_THE_COMMAND = (
    "another snakemake is running in this folder; wait for it, or stop it before --unlock",
    "{} things are missing; their lines say what to do",
)
"""about no key"""
CONTINUED = "is not of a cell"
"""where the caller puts key and file before it"""
UNTOLD = re.compile(r"\b(invalid|illegal|bad|wrong|must|please|oops|failed to)\b|!", re.IGNORECASE)
"""words that blame, or say nothing"""


def text_of(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=parts):
            return "".join(map(text_of, parts))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left) + text_of(right)
    return HOLE


def messages() -> Iterator[tuple[str, str]]:
    """Where an error is raised, and its message."""
    for package in ("obsdiff", "eval"):
        for path in sorted((registry.ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Raise(exc=ast.Call(func=ast.Name(id=name), args=[first, *_])) if name in KINDS:
                        yield f"{path.relative_to(registry.ROOT)}:{node.lineno}", text_of(first)


MESSAGES = dict(messages())


def test_all_raises_are_looked_at():
    raised = sum(
        len(re.findall(rf"raise ({'|'.join(KINDS)})\(", path.read_text()))
        for package in ("obsdiff", "eval")
        for path in (registry.ROOT / package).rglob("*.py")
    )
    assert len(MESSAGES) == raised > 200


@pytest.mark.parametrize("place", MESSAGES)
def test_message_is_a_key_and_a_sentence(place):
    text = MESSAGES[place]
    assert KEYED.match(text) or text in OF_THE_COMMAND or text.startswith(CONTINUED), text
    assert not UNTOLD.search(text) and "  " not in text and "\n" not in text, text
    assert not text.endswith((".", ":", ";", " ")), text
