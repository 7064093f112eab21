"""Counts what becomes of malformed inputs, reader by reader; `--reliability=FILE` writes the counts as a table.

python -m pytest tests -m malformed --reliability=docs/reliability.md
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from obsdiff.errors import CheckpointError, LayerError, SpecError

OURS = (SpecError, CheckpointError, LayerError)
"""the errors that the command line prints as one line"""
BEGIN, END = "<!-- malformed inputs: begin -->", "<!-- malformed inputs: end -->"
TALLIES: dict[str, Counter[str]] = {}
"""reader → counts of 'refused', 'read right', 'traceback' and 'silently wrong'"""


def count(reader: str, kind: str) -> None:
    """Count one malformed input of a test that tells by itself what became of it.

    Args:
        kind: 'refused' or 'read right'; any other outcome fails the test.
    """
    TALLIES.setdefault(reader, Counter())[kind] += 1


def attempt(reader: str, name: str, call: Callable[[], Any], right: Callable[[Any], bool] | None = None) -> None:
    """Give a reader one malformed input and count what it does; fail unless it refuses the input or reads it right.

    Args:
        reader: what reads the input, as the table calls it.
        name: the input, for the message of a failure.
        call: reads it.
        right: tells whether what `call` returned is right; None where the input must be refused.
    """
    try:
        found = call()
    except OURS as error:
        text = str(error)
        kind = "refused" if text and "\n" not in text.strip() else "silently wrong"
        problem = f"its error is empty or has several lines: {text!r}"
    except Exception as error:
        kind, problem = "traceback", f"{type(error).__name__}: {error}"
    else:
        kind = "read right" if right is not None and right(found) else "silently wrong"
        problem = f"it was accepted as {found!r}"
    count(reader, kind)
    assert kind in ("refused", "read right"), f"{reader}: {name}: {problem}"


def table() -> str:
    """The counts as a Markdown table."""
    heads = ("refused", "read right", "traceback", "silently wrong")
    titles = ("reader", "inputs", "clear error", "read right", "tracebacks", "silently wrong")
    lines = ["| " + " | ".join(titles) + " |", "|:--" + "|--:" * (len(titles) - 1) + "|"]
    total: Counter[str] = Counter()
    for reader, tally in sorted(TALLIES.items()):
        total += tally
        lines.append(f"| {reader} | {tally.total()} | " + " | ".join(str(tally[head]) for head in heads) + " |")
    lines.append(f"| **all** | {total.total()} | " + " | ".join(str(total[head]) for head in heads) + " |")
    return "\n".join(lines)


def write_table(page: Path) -> None:
    """Put the table between the marks of a page."""
    head, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{head}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}")
