"""Text that people brought, as it must be written for figures and Markdown to show it and nothing else."""

import re

from obsdiff.captions.prompts import NOT_TEXT

INSTEAD = "\N{REPLACEMENT CHARACTER}"
SPECIAL = re.compile(r"([\\`*|<>])")
"""what Markdown would read as markup within a line; an underscore within a word is none"""
LONGEST = 120


def plain(text: str) -> str:
    """Text that XML can hold: control characters replaced, tabs as spaces; line ends stay."""
    return NOT_TEXT.sub(INSTEAD, re.sub(r"\r\n?", "\n", text).replace("\t", " "))


def drawn(text: str) -> str:
    """Text for matplotlib, to which a pair of dollars would begin a formula."""
    return plain(text).replace("$", r"\$")


def line(text: str, longest: int = LONGEST) -> str:
    """Text in one line, cut where it is long."""
    found = " ".join(plain(text).split())
    return found if len(found) <= longest else f"{found[: longest - 1]}…"


def marked(text: str) -> str:
    """Text in one line of Markdown, whatever signs it holds."""
    return SPECIAL.sub(r"\\\1", " ".join(plain(text).split()))


def code(text: str) -> str:
    """Text as code in a line of Markdown: backticks, which would end it, become apostrophes."""
    return f"`{' '.join(plain(text).split()).replace('`', chr(39)).replace('|', INSTEAD)}`"
