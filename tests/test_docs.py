"""What the documentation points at is there."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from eval.report.publish import MARK

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(p for f in ("docs", "benchmarks", "zoo", "data") for p in (ROOT / f).rglob("*.md"))]
)
RESULTS = sorted(page for page in (ROOT / "docs/results").glob("*.md") if MARK.search(page.read_text()))
CONFIGS = {p: yaml.safe_load(p.read_text()) for p in (ROOT / "config").rglob("*.yaml")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", RESULTS, ids=lambda page: page.stem)
def test_results_say_which_sweep_they_are_of(page):
    """The command that put the tables there names this page, and the folder of the sweep that the reader is to run."""
    text = page.read_text()
    words = shlex.split(MARK.search(text)[0].removeprefix("<!-- from here on: ").removesuffix("-->\n"))
    options = dict(zip(words[4::2], words[5::2], strict=False))
    assert options["--page"] == str(page.relative_to(ROOT))
    told = re.search(r"--configfile (\S+\.yaml)", text)
    given = re.search(r"--config [^`]*\bname=(\S+?)`", text)
    name = given[1] if given else CONFIGS[ROOT / (told[1] if told else "config/config.yaml")]["name"]
    assert options["--tables"] == ("results" if name == "default" else f"results/sweeps/{name}")
