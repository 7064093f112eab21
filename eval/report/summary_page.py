"""summary.md: the configurations' quality with intervals and marks, their paired differences, and their cost."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from eval.analysis import shown
from eval.analysis.analysis import Analysis
from eval.analysis.comparisons import Against, best_of, groups
from eval.analysis.configurations import Configuration
from eval.images.manifest import FAULTS
from eval.report.columns import WARNED, axes_columns, measured_names, table, title, with_interval
from eval.report.costs import cost
from eval.report.words import code, marked
from eval.results import CellResult
from obsdiff.captions.prompts import counts_text

IN_SHORT = "In short"
TIED, AS_DENSE, UNSOUND = "°", "=", "‡"
MINUS: tuple[Against, ...] = ("base", "plain")
"""what the table of paired differences takes away (comparisons.Against)"""
MARKS = (
    "Values are means over seeds with 95 % intervals over prompts and seeds (of layer errors over seeds alone), "
    "bootstrapped. **Bold** is the best of a model, pattern, sparsity and sampling; values with "
    f"{TIED} are not significantly different from it, and those with {AS_DENSE} not from the dense model "
    "(paired bootstrap over prompts and seeds, 95 % interval, not corrected for multiple comparisons)."
)

SIMILARITY = (
    "Images against the dense model's of the same prompts and seeds; layer errors on the dense model's inputs, those "
    "of heads and neurons of the layers that read them."
)

REFERENCES = (
    "The same images against the real ones as they are, as other protocols crop or resize them first, and against "
    "those of the prompts alone. Compare a published FID with the column of its own protocol."
)


def markdown(analysis: Analysis, answers: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
        answers: paragraphs that say in words what the tables show.
    """
    rows = by_pattern(list(analysis.configurations.values()))
    pruned = [row for row in rows if row.cell.amount > 0]
    tied = {(c.first, c.against, c.metric) for c in analysis.comparisons if not c.paired.significant}
    short = [f"## {IN_SHORT}", *answers] if answers else []
    parts = ["# Summary", *head(rows, analysis.records[0]), *short]
    parts += ["## Quality", quality(rows, rows, shown.names("quality"), tied), *warnings(analysis)]
    if pruned:
        parts += ["## Similarity to the dense model", SIMILARITY]
        parts += [quality(pruned, rows, shown.names("similarity"), tied)]
    if measured_names(rows, shown.names("references")):
        names = ("fid", *shown.names("references"))
        parts += ["## FID by reference", REFERENCES, quality(rows, rows, names, tied)]
    parts += [*differences(rows, analysis), "## Cost", cost(rows)]
    return "\n\n".join(parts) + "\n"


def head(configurations: Sequence[Configuration], first: CellResult) -> Iterator[str]:
    about = first.provenance
    own = about.get("fid_features")
    network = f", FID and KID on the features of {code(own['name'])}" if own else ""
    real = about["reference"]
    passed = f" (passed over {counts_text(real['passed_over'])})" if real.get("passed_over") else ""
    yield (
        f"Configurations: {len(configurations)}, of {len(first.prompts)} images per seed, "
        f"{real['count']} real images{passed}, evaluator "
        f"{code(about['evaluator']['name'])}{network}. Images of all come from the same prompts and noise."
    )
    yield MARKS


def warnings(analysis: Analysis) -> Iterator[str]:
    """What metrics of a model warn of, once each."""
    found = {
        f"{WARNED} {metric.title} of {marked(record.cell.model)}: {metric.warning}."
        for record in analysis.records
        for metric in record.metrics.values()
        if metric.warning
    }
    yield from sorted(found)
    every = analysis.configurations.values()
    unsound = [(configuration, counts) for configuration in every if (counts := faults(configuration))]
    if unsound:
        several = len({configuration.cell.model for configuration in every}) > 1
        labels = [f"{c.cell.model} {c.name}" if several else c.name for c, _ in unsound]
        counted = [faults_text(counts) for _, counts in unsound]
        each = "; ".join(f"{marked(label)} {text}" for label, text in zip(labels, counted, strict=True))
        yield (
            f"{UNSOUND} Not every image shows something: {each}. Black, of one colour, not finite before rounding or "
            "flagged by a safety checker, they count in every metric as they are."
        )


def faults(records: Sequence[CellResult]) -> dict[str, int]:
    """How many images of a configuration have each fault, over its seeds; empty where none has any."""
    found = Counter[str]()
    for record in records:
        found.update({kind: count for kind, count in record.images.items() if kind in FAULTS})
    return {kind: found[kind] for kind in FAULTS if found[kind]}


def faults_text(counts: Mapping[str, int]) -> str:
    """`3 black, 1 not finite`"""
    return ", ".join(f"{count} {kind.replace('non_', 'not ')}" for kind, count in counts.items())


def by_pattern(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Those of one pattern and sparsity together, where there are several patterns; else as they are."""
    patterns = list(dict.fromkeys(one.cell.pattern for one in configurations if one.cell.amount > 0))
    if len(patterns) < 2:
        return list(configurations)
    models = list(dict.fromkeys(one.cell.model for one in configurations))

    def place(one: Configuration) -> tuple[int, int, float]:
        cell = one.cell
        return models.index(cell.model), 1 + patterns.index(cell.pattern) if cell.amount > 0 else 0, cell.amount

    return sorted(configurations, key=place)


def quality(
    rows: Sequence[Configuration],
    every: Sequence[Configuration],
    names: Sequence[str],
    tied: Collection[tuple[Configuration, str, str]],
) -> str:
    """A row per configuration, its images, and metrics with their intervals and marks."""
    columns = {"images": [pictures(row) for row in rows]}
    for name in measured_names(rows, names):
        best = {best_of(group, name) for group in groups(every)}
        texts = []
        for row in rows:
            found = row.estimates.get(name)
            text = "" if found is None else with_interval(found, row in best)
            if (row, "best", name) in tied:
                text += f" {TIED}"
            if name in shown.names("quality") and (row, "dense", name) in tied:
                text += f" {AS_DENSE}"
            texts.append(text)
        columns[title(rows, name)] = texts
    return table(axes_columns(rows, every) | columns)


def differences(every: Sequence[Configuration], analysis: Analysis) -> Iterator[str]:
    """A heading and a table of each configuration minus its group's base and its plain one; empty without any."""
    known = {(c.first, c.against, c.metric): c for c in analysis.comparisons if c.against in MINUS}
    other = {(c.first, c.against): c.second for c in known.values()}
    pairs = [(one, against) for one in every for against in MINUS if (one, against) in other]
    if not pairs:
        return
    rows = [one for one, _ in pairs]
    columns = {"minus": [marked(analysis.labels[other[pair]]) for pair in pairs]}
    for name in measured_names(rows, shown.headlines()):
        texts = []
        for pair in pairs:
            one = known.get((*pair, name))
            mark = "" if one is None or one.paired.significant else f" {TIED}"
            texts.append("" if one is None else with_interval(one.paired.difference, signed=True) + mark)
        columns[title(rows, name)] = texts
    yield "## Paired differences"
    yield f"Each row minus another of its group; {TIED}: the interval contains 0. differences.csv has all of them."
    yield table(axes_columns(rows, every) | columns)


def pictures(records: Sequence[CellResult]) -> str:
    """`256`, or `3 × 256` of three seeds, with a mark where some show nothing."""
    count = len(records[0].prompts)
    mark = f" {UNSOUND}" if faults(records) else ""
    return (f"{len(records)} × {count}" if len(records) > 1 else str(count)) + mark
