"""`python -m eval publish`."""

from pathlib import Path

from eval.report.publish import publish as put


def run(tables: Path, page: Path, figures: tuple[str, ...] = ()) -> None:
    """Put a summarised sweep's tables and figures into a page of docs/results, below its hand-written part.

    Args:
        tables: folder of summary.md and figures/.
        page: a Markdown file that is there.
        figures: names of those to show.
    """
    put(tables, page, figures)
