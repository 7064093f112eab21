"""Tables and figures of a summarised sweep put into a page of docs/results, below its hand-written part."""

import re
from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile

from obsdiff.typed import require

MARK = re.compile(r"^<!-- from here on: .*-->\n", re.MULTILINE)
IMAGES = "images"
"""beside the folder of the page"""


def publish(tables: Path, page: Path, figures: Sequence[str]) -> None:
    """Replace all that follows the page's mark, or add mark and tables at its end.

    Args:
        tables: folder of summary.md and figures/.
        page: a Markdown file that is there.
        figures: names of those to copy to the images beside the page's folder and to show first.

    Raises:
        SpecError: the page, the tables or a figure is not there.
    """
    names = {name: tables / "figures" / f"{name}.png" for name in figures}
    for key, path in (("page", page), ("tables", tables / "summary.md"), *(("figures", p) for p in names.values())):
        require(path.is_file(), key, str(path), "a file; run the sweep, or write the page's head first")
    shown = []
    for name, path in names.items():
        image = page.parent.parent / IMAGES / f"{page.stem}-{name}.png"
        image.parent.mkdir(exist_ok=True)
        copyfile(path, image)
        shown.append(f"![{page.stem}: {name}](../{IMAGES}/{image.name})\n\n")
    own = MARK.split(page.read_text(), maxsplit=1)[0].rstrip()
    options = f"--tables {tables} --page {page}" + (f" --figures {' '.join(figures)}" if figures else "")
    mark = f"<!-- from here on: python -m eval publish {options} -->"
    body = (tables / "summary.md").read_text().removeprefix("# Summary").lstrip()
    page.write_text(f"{own}\n\n{mark}\n\n{''.join(shown)}{narrow(body)}")


def narrow(markdown: str) -> str:
    """Tables without what aligns them: spaces, and rules as wide as their columns."""
    lines = [
        re.sub(r" *\| *", " | ", re.sub(r":?-{3,}:?", ":---", line)).strip() if line.startswith("|") else line
        for line in markdown.split("\n")
    ]
    return "\n".join(lines)
