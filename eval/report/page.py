"""results/report.html: one page of a sweep that needs nothing beside it, read top to bottom."""

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any
from urllib.parse import quote as quote_address

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from eval.analysis.analysis import Analysis
from eval.figures import ordered, traits
from eval.report.findings import Table, breaks, count_of, leaders, sentences
from eval.report.gallery import gallery
from eval.report.summary_page import IN_SHORT
from eval.report.words import plain
from eval.results import CellResult
from eval.sweep.cells import AXES, PLAIN, axes_of
from obsdiff import methods
from obsdiff.storage.files import write_text

TEMPLATE = "report.html.jinja"
CONFIGS = Path("config")
ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
"""a sign that Markdown takes for itself, as eval/report/words.py writes it"""
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?(?![\w:/])")
HEADLINES = 3
"""sentences on top, one of each setting"""
ASSETS = Path(__file__).parent / "assets"
HIDDEN = 0xF0000
"""first of the private code points that stand for such signs while markup is looked for"""


def write_report(
    analysis: Analysis,
    paths: Sequence[Path],
    tables: Path,
    sweep: str,
    out: Path,
    others: Sequence[Path] = (),
    scale: str = "full",
    runs: str = "",
) -> None:
    """Write the page.

    Args:
        paths: the metrics.json files of the analysis's records, in their cells' folders; when they were written is when
            they were measured.
        tables: folder of summary.md and figures/.
        others: summary.md files of other sweeps, shown as ablations under their folders' names.
        scale: 'tiny' puts a warning on top.
        runs: address of MLflow's page of the experiment's runs, to which a cell's filter is added; '' where no server
            is known.
    """
    records = analysis.records
    folders = {record.cell.path: path.parent for record, path in zip(records, paths, strict=True)}
    answers = [
        (setting.name, sentences(setting), [t for t in (leaders(setting), breaks(setting)) if t])
        for setting in analysis.settings
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(["jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sorted_by"] = sorted_by
    page = environment.get_template(TEMPLATE).render(
        sweep=sweep,
        scale=scale,
        headlines=[texts[0] for _, texts, _ in answers[:HEADLINES] if texts],
        gallery=gallery(analysis, folders),
        script=lambda name: Markup((ASSETS / name).read_text(encoding="utf-8")),
        runs=runs,
        run=what_was_run(records, paths),
        answers=answers,
        summary=[part for part in sections((tables / "summary.md").read_text()) if part[0] != IN_SHORT],  # `answers`
        figures=inlined(tables / "figures"),
        ablations=[(path.parent.name, sections(path.read_text())) for path in others],
        provenance=provenance(records),
        cells=Table("Cells and their hashes", ["cell", "hash"], [[r.cell.path, linked(r.hash, runs)] for r in records]),
        command=command(sweep, scale),
    )
    write_text(out, plain(page))


def linked(cell_hash: str, runs: str) -> str:
    """A cell's hash, as a link to its run in MLflow where a server is known."""
    if not runs:
        return cell_hash
    address = f"{runs}?searchFilter={quote_address(f'tags.`obsdiff.cell` = {cell_hash!r}')}"
    return Markup('<a href="{}">{}</a>').format(address, cell_hash)


def sorted_by(field: str) -> str:
    """The number that a field begins with, by which it is sorted; '' where it is sorted by its text."""
    text = str(field.striptags() if isinstance(field, Markup) else field).strip()
    number = NUMBER.match(text.replace("−", "-"))
    return number[0] if number else ""


def what_was_run(records: Sequence[CellResult], paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Names and values: how many cells, of which axes, when."""
    rows = [("cells", f"{len(records)}, {count_of(records)}")]
    cells = [record.cell for record in records]
    for axis in AXES:
        values = list(dict.fromkeys(axes_of(cell)[axis] for cell in cells))
        if axis == "sparsity":
            values = sorted(value for value in values if value > 0)
        if axis in ("weighting", "packages"):
            used = [cell for cell in cells if methods.traits(cell.method).uses(axis)]
            values = list(dict.fromkeys(getattr(cell, axis) for cell in used))
        if axis == "pattern":
            values = list(dict.fromkeys(cell.pattern for cell in cells if cell.amount > 0))
        if values and values != [PLAIN]:
            rows.append((axis, ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)))
    models = {r.cell.model: r.reach for r in records if r.reach}
    rows += [(f"prunable in {model}", text) for model, text in models.items()]
    days = sorted(datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%d") for path in paths)
    return [*rows, ("measured", days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}")]


def inlined(folder: Path) -> list[dict[str, str]]:
    """The figures as data URIs: SVG, and PNG of those that are made of images."""
    found = []
    for name in ordered():
        svg, png = folder / f"{name}.svg", folder / f"{name}.png"
        if not svg.is_file():
            continue
        drawn = "<image" not in svg.read_text()
        kind, content = ("svg+xml", svg.read_bytes()) if drawn else ("png", png.read_bytes())
        about = traits(name)
        found.append(
            {
                "name": name,
                "title": about.title,
                "caption": about.caption,
                "source": f"data:image/{kind};base64,{b64encode(content).decode()}",
            }
        )
    return found


def provenance(records: Sequence[CellResult]) -> list[tuple[str, list[str]]]:
    """What the numbers are of: versions, machines and hashes, each once."""
    rows: dict[str, list[str]] = {}

    def add(name: str, text: str) -> None:
        if text and text not in rows.setdefault(name, []):
            rows[name].append(text)

    for record in records:
        about = record.provenance
        add("versions", ", ".join(f"{k} {v}" for k, v in about.get("versions", {}).items()))
        add("machine", ", ".join(machine_words(about.get("machine", {}))))
        add("dense weights", f"{record.cell.model}: SHA-256 {about.get('base', 'unknown')}")
        add("calibration captions", hashed(about["spec"].get("prompts")) if record.cell.amount > 0 else "")
        for name, key in (("benchmark captions", "prompts"), ("real images", "reference")):
            add(name, hashed(about.get(key)))
        for name, key in (("evaluator", "evaluator"), ("network of FID and KID", "fid_features")):
            add(name, hashed(about.get(key)))
    return [(name, values) for name, values in rows.items() if values]


def machine_words(machine: dict[str, Any]) -> list[str]:
    """`NVIDIA A100`, `float32`, `TF32 off`."""
    return [f"TF32 {'on' if value else 'off'}" if key == "tf32" else str(value) for key, value in machine.items()]


def hashed(record: Any) -> str:
    """`zoo/emoji-clip, SHA-256 1596…` of a record with a name, folder, count or sha256; a text is a hash itself."""
    if not record:
        return ""
    if isinstance(record, str):
        return f"SHA-256 {record}"
    parts = [str(record[key]) for key in ("name", "folder") if record.get(key)]
    parts += [f"{record['count']} of them"] if "count" in record else []
    return ", ".join([*parts, f"SHA-256 {record['sha256']}"] if record.get("sha256") else parts)


def command(sweep: str, scale: str) -> str | None:
    """The shell line that runs the sweep; None where no file of config/ has its name."""
    for path in sorted(CONFIGS.rglob("*.yaml")):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError):  # notes, or an unfinished edit
            continue
        if isinstance(content, dict) and content.get("name") == sweep:
            parts = ["snakemake --cores all"]
            if path != CONFIGS / "config.yaml":
                parts.append(f"--configfile {quote(str(path))}")
            return " ".join([*parts, "--config scale=tiny"] if scale == "tiny" else parts)
    return None


def sections(markdown: str) -> list[tuple[str, list[Markup | dict[str, Any]]]]:
    """Headings of a summary.md with what stands under each: paragraphs, and pipe tables as {head, rows}."""
    found: list[tuple[str, list[Markup | dict[str, Any]]]] = []
    for block in re.split(r"\n\s*\n", markdown.strip()):
        lines = block.strip().splitlines()
        if lines and lines[0].startswith("#"):
            found.append((lines.pop(0).lstrip("# "), []))
        if not lines:
            continue
        if not found:
            found.append(("", []))
        found[-1][1].append(table(lines) if lines[0].startswith("|") else inline(" ".join(lines)))
    return found


def table(lines: Iterable[str]) -> dict[str, Any]:
    head, _, *rows = (re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in lines)
    titles = [re.sub(r" ([↑↓])$", "\u00a0\\1", c.strip()) for c in head]  # an arrow stays with its word
    return {"head": [inline(c) for c in titles], "rows": [[inline(c.strip()) for c in row] for row in rows]}


def inline(text: str) -> Markup:
    """Escaped, with `code` and **bold**; a sign behind a backslash is itself."""
    hidden = ESCAPED.sub(lambda found: chr(HIDDEN + ord(found[1])), text)
    safe = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(hidden)))
    safe = re.sub(r"`(.+?)`", r"<code>\1</code>", safe)
    return Markup(re.sub(f"[{chr(HIDDEN)}-{chr(HIDDEN + 127)}]", lambda c: str(escape(chr(ord(c[0]) - HIDDEN))), safe))
