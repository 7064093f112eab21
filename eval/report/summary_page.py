"""summary.md: the configurations' quality with intervals and marks, their paired differences, and their cost."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from eval.analysis import shown
from eval.analysis.analysis import Analysis
from eval.analysis.comparisons import Against, Comparison, best_of, groups
from eval.analysis.configurations import Configurations
from eval.analysis.groups import constant
from eval.images.manifest import FAULTS
from eval.report.columns import WARNED, axes_columns, measured_names, table, title, with_interval
from eval.report.costs import cost
from eval.report.words import code, marked
from eval.results import CellResult
from eval.sweep.cells import Cell, named
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
    configurations, found = analysis.configurations, analysis.comparisons
    cells = by_pattern(list(configurations))
    pruned = [cell for cell in cells if float(cell.sparsity) > 0]
    tied = {(c.first, c.against, c.metric) for c in found if not c.paired.significant}
    notes = list(warnings(configurations))
    short = [f"## {IN_SHORT}", *answers] if answers else []
    parts = ["# Summary", *head(configurations), *short]
    parts += ["## Quality", quality(cells, configurations, shown.names("quality"), tied), *notes]
    if pruned:
        table_of = quality(pruned, configurations, shown.names("similarity"), tied)
        parts += ["## Similarity to the dense model", SIMILARITY, table_of]
    if measured_names(cells, configurations, shown.names("references")):
        names = ("fid", *shown.names("references"))
        parts += ["## FID by reference", REFERENCES, quality(cells, configurations, names, tied)]
    parts += [*differences(cells, configurations, found), "## Cost", cost(cells, configurations)]
    return "\n\n".join(parts) + "\n"


def head(configurations: Configurations) -> Iterator[str]:
    first = next(iter(configurations.values()))[0]
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


def warnings(configurations: Configurations) -> Iterator[str]:
    """What metrics of a model warn of, once each."""
    found = {
        f"{WARNED} {metric.title} of {marked(record.cell.model)}: {metric.warning}."
        for records in configurations.values()
        for record in records
        for metric in record.metrics.values()
        if metric.warning
    }
    yield from sorted(found)
    unsound = [(cell, counts) for cell, records in configurations.items() if (counts := faults(records))]
    if unsound:
        each = "; ".join(f"{marked(name_of(cell, configurations))} {faults_text(counts)}" for cell, counts in unsound)
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


def name_of(cell: Cell, configurations: Configurations) -> str:
    """The label of a configuration, after its model where there are several."""
    several = len({other.model for other in configurations}) > 1
    return f"{cell.model} {named(cell, 'seed')}" if several else named(cell, "seed")


def by_pattern(cells: Sequence[Cell]) -> list[Cell]:
    """Cells of one pattern and sparsity together, where there are several patterns; else as they are."""
    patterns = list(dict.fromkeys(cell.pattern for cell in cells if float(cell.sparsity) > 0))
    if len(patterns) < 2:
        return list(cells)
    models = list(dict.fromkeys(cell.model for cell in cells))

    def place(cell: Cell) -> tuple[int, int, float]:
        pruned = float(cell.sparsity) > 0
        return models.index(cell.model), 1 + patterns.index(cell.pattern) if pruned else 0, float(cell.sparsity)

    return sorted(cells, key=place)


def quality(
    cells: Sequence[Cell], configurations: Configurations, names: Sequence[str], tied: Collection[tuple[Cell, str, str]]
) -> str:
    """A row per configuration, its images, and metrics with their intervals and marks."""
    columns = {"images": [pictures(configurations[cell]) for cell in cells]}
    for name in measured_names(cells, configurations, names):
        best = {best_of(group, configurations, name) for group in groups(configurations)}
        texts = []
        for cell in cells:
            found = configurations[cell].estimate(name)
            text = "" if found is None else with_interval(found, cell in best)
            if (cell, "best", name) in tied:
                text += f" {TIED}"
            if name in shown.names("quality") and (cell, "dense", name) in tied:
                text += f" {AS_DENSE}"
            texts.append(text)
        columns[title(cells, configurations, name)] = texts
    return table(axes_columns(cells, configurations) | columns)


def differences(cells: Sequence[Cell], configurations: Configurations, found: Sequence[Comparison]) -> Iterator[str]:
    """A heading and a table of each configuration minus its group's base and its plain one; empty without any."""
    known = {(c.first, c.against, c.metric): c for c in found if c.against in MINUS}
    other = {(c.first, c.against): c.second for c in known.values()}
    pairs = [(cell, against) for cell in cells for against in MINUS if (cell, against) in other]
    if not pairs:
        return
    rows = [cell for cell, _ in pairs]
    apart = ("seed", "pattern", "sparsity", "sampling", *(a for a in constant(configurations) if a != "weighting"))
    columns = {"minus": [marked(named(other[pair], *apart)) for pair in pairs]}
    for name in measured_names(rows, configurations, shown.headlines()):
        texts = []
        for pair in pairs:
            one = known.get((*pair, name))
            mark = "" if one is None or one.paired.significant else f" {TIED}"
            texts.append("" if one is None else with_interval(one.paired.difference, signed=True) + mark)
        columns[title(cells, configurations, name)] = texts
    yield "## Paired differences"
    yield f"Each row minus another of its group; {TIED}: the interval contains 0. differences.csv has all of them."
    yield table(axes_columns(rows, configurations) | columns)


def pictures(records: Sequence[CellResult]) -> str:
    """`256`, or `3 × 256` of three seeds, with a mark where some show nothing."""
    count = len(records[0].prompts)
    mark = f" {UNSOUND}" if faults(records) else ""
    return (f"{len(records)} × {count}" if len(records) > 1 else str(count)) + mark
