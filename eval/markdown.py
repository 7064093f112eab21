"""summary.md: the configurations' quality with intervals and marks, their paired differences, and their cost."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import floor, log10

from tabulate import tabulate

from eval.cells import AXES, Cell, named
from eval.estimates import Estimate, Record, estimate
from eval.manifest import FAULTS
from eval.marks import REAL, TO_DENSE, Comparison, Configurations, best_of, groups
from eval.words import code, marked
from obsdiff.prompts import counts_text

DIFFERENCES = ("fid", "clip_score", "psnr_to_dense", "recall_at_1")
COST = (
    "nonzero_parameters",
    "checkpoint_mb",
    "speedup",
    "denoiser_ms",
    "pipeline_ms",
    "pruning_seconds",
    "pruning_memory",
)
IN_SHORT = "In short"
TIED, AS_DENSE, WARNED, UNSOUND = "°", "=", "†", "‡"
MARKS = (
    "Values are means over seeds with 95 % intervals over prompts and seeds (of layer errors over seeds alone), "
    "bootstrapped, paired by prompt and seed in every comparison, and not corrected for the number of comparisons. "
    f"**Bold** is the best of a model, pattern, sparsity and sampling; {TIED} cannot be told from it, {AS_DENSE} not "
    "from the dense model: the interval of the paired difference contains 0."
)

SIMILARITY = (
    "Pictures against the dense model's of the same prompts and seeds; layer errors on the dense model's inputs, those "
    "of heads and neurons of the layers that read them."
)


def markdown(configurations: Configurations, found: Sequence[Comparison], answers: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
        found: comparisons() of what it shows.
        answers: paragraphs that say in words what the tables show.
    """
    cells = by_pattern(list(configurations))
    pruned = [cell for cell in cells if float(cell.sparsity) > 0]
    tied = {(c.first, c.against, c.metric) for c in found if not c.difference.excludes_zero}
    notes = list(warnings(configurations))
    short = [f"## {IN_SHORT}", *answers] if answers else []
    parts = ["# Summary", *head(configurations), *short]
    parts += ["## Quality", quality(cells, configurations, REAL, tied), *notes]
    if pruned:
        parts += ["## Similarity to the dense model", SIMILARITY, quality(pruned, configurations, TO_DENSE, tied)]
    parts += [*differences(cells, configurations, found), "## Cost", cost(cells, configurations)]
    return "\n\n".join(parts) + "\n"


def head(configurations: Configurations) -> Iterator[str]:
    first = next(iter(configurations.values()))[0]
    about = first["provenance"]
    own = about.get("fid_features")
    network = f", FID and KID on the features of {code(own['name'])}" if own else ""
    real = about["reference"]
    passed = f" (passed over {counts_text(real['passed_over'])})" if real.get("passed_over") else ""
    yield (
        f"Configurations: {len(configurations)}, of {len(first['prompts'])} pictures a seed, "
        f"{real['count']} real pictures{passed}, evaluator "
        f"{code(about['evaluator']['name'])}{network}. Pictures of all come from the same prompts and noise."
    )
    yield MARKS


def warnings(configurations: Configurations) -> Iterator[str]:
    """What metrics of a model warn of, once each."""
    found = {
        f"{WARNED} {metric['title']} of {marked(record['cell']['model'])}: {metric['warning']}."
        for records in configurations.values()
        for record in records
        for metric in record["metrics"].values()
        if "warning" in metric
    }
    yield from sorted(found)
    unsound = [(cell, counts) for cell, records in configurations.items() if (counts := faults(records))]
    if unsound:
        each = "; ".join(f"{marked(name_of(cell, configurations))} {faults_text(counts)}" for cell, counts in unsound)
        yield (
            f"{UNSOUND} Not every picture shows something: {each}. Black, of one colour, not finite before rounding or "
            "flagged by a safety checker, they count in every metric as they are."
        )


def faults(records: Sequence[Record]) -> dict[str, int]:
    """How many pictures of a configuration have each fault, over its seeds; empty where none has any."""
    found = Counter[str]()
    for record in records:
        found.update({kind: count for kind, count in record.get("pictures", {}).items() if kind in FAULTS})
    return {kind: found[kind] for kind in FAULTS if found[kind]}


def faults_text(counts: Mapping[str, int]) -> str:
    """`3 black, 1 not finite`"""
    return ", ".join(f"{count} {kind.replace('non_', 'not ')}" for kind, count in counts.items())


def name_of(cell: Cell, configurations: Configurations) -> str:
    """What a person calls a configuration, after its model where there are several."""
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
    """A row a configuration, its pictures, and metrics with their intervals and marks."""
    columns = {"pictures": [pictures(configurations[cell]) for cell in cells]}
    for name in measured_names(cells, configurations, names):
        best = {best_of(group, configurations, name) for group in groups(configurations)}
        texts = []
        for cell in cells:
            found = estimate(configurations[cell], name)
            text = "" if found is None else with_interval(found, cell in best)
            if (cell, "best", name) in tied:
                text += f" {TIED}"
            if name in REAL and (cell, "dense", name) in tied:
                text += f" {AS_DENSE}"
            texts.append(text)
        columns[title(cells, configurations, name)] = texts
    return table(axes_columns(cells, configurations) | columns)


def differences(cells: Sequence[Cell], configurations: Configurations, found: Sequence[Comparison]) -> Iterator[str]:
    """A heading and a table of each configuration less its group's base; nothing where no group has two."""
    known = {(c.first, c.metric): c for c in found if c.against == "base"}
    shown = [cell for cell in cells if any(first == cell for first, _ in known)]
    if not shown:
        return
    base = {c.first: named(c.second, "seed", "pattern", "sparsity", "sampling") for c in known.values()}
    columns = {"minus": [marked(base[cell]) for cell in shown]}
    for name in measured_names(shown, configurations, DIFFERENCES):
        texts = []
        for cell in shown:
            one = known.get((cell, name))
            mark = "" if one is None or one.difference.excludes_zero else f" {TIED}"
            texts.append("" if one is None else with_interval(one.difference, signed=True) + mark)
        columns[title(cells, configurations, name)] = texts
    yield "## Paired differences"
    yield f"Each row minus another of its group; {TIED}: the interval contains 0. differences.csv has all of them."
    yield table(axes_columns(shown, configurations) | columns)


def cost(cells: Sequence[Cell], configurations: Configurations) -> str:
    """Means over seeds."""
    columns = {}
    for name in measured_names(cells, configurations, COST):
        found = [estimate(configurations[cell], name) for cell in cells]
        # the dense model's checkpoint is a header of some bytes
        texts = ["" if one is None else formatted(one.value if abs(one.value) > 1e-3 else 0) for one in found]
        columns[title(cells, configurations, name)] = texts
    note = (
        "Zeros (unstructured, N:M) are not skipped by dense kernels: a speed-up of theirs other than 1 is the "
        "machine's noise, as the dense row's own is."
    )
    return f"{note}\n\n{table(axes_columns(cells, configurations) | columns)}"


def table(columns: dict[str, list[str]]) -> str:
    return tabulate(columns, headers="keys", tablefmt="pipe", disable_numparse=True)


def axes_columns(cells: Sequence[Cell], configurations: Configurations) -> dict[str, list[str]]:
    """The axes that tell all configurations apart, of some of them."""
    return {axis: [marked(getattr(cell, axis)) for cell in cells] for axis in axes_shown(list(configurations))}


def axes_shown(cells: Sequence[Cell]) -> list[str]:
    """Method, sparsity, every axis in which two that are else alike differ, and the pattern if there are two."""

    def differ(axis: str) -> bool:
        rest: dict[tuple[str, ...], set[str]] = {}
        for cell in cells:
            others = tuple(getattr(cell, other) for other in AXES if other != axis)
            rest.setdefault(others, set()).add(getattr(cell, axis))
        return max(map(len, rest.values())) > 1

    several = len({cell.pattern for cell in cells if float(cell.sparsity) > 0}) > 1
    shown = {"method", "sparsity", *(axis for axis in AXES if differ(axis)), *(["pattern"] if several else [])}
    return [axis for axis in AXES if axis in shown]


def measured_names(cells: Sequence[Cell], configurations: Configurations, names: Sequence[str]) -> list[str]:
    return [n for n in names if any(n in r["metrics"] for cell in cells for r in configurations[cell])]


def title(cells: Sequence[Cell], configurations: Configurations, name: str) -> str:
    """`FID (evaluator features) ↓`, with a mark where a value of it has a warning."""
    found = [r["metrics"][name] for cell in cells for r in configurations[cell] if name in r["metrics"]]
    arrow = {True: " ↑", False: " ↓", None: ""}[found[0]["higher_is_better"]]
    units = " or ".join(dict.fromkeys(metric["unit"] for metric in found))
    warned = f" {WARNED}" if any("warning" in metric for metric in found) else ""
    return f"{found[0]['title']} ({units}){arrow}{warned}"


def pictures(records: Sequence[Record]) -> str:
    """`256`, or `3 × 256` of three seeds, with a mark where some show nothing."""
    count = len(records[0]["prompts"])
    mark = f" {UNSOUND}" if faults(records) else ""
    return (f"{len(records)} × {count}" if len(records) > 1 else str(count)) + mark


def formatted(value: float) -> str:
    """Four significant digits at most: 0.03125, 1.5, 1234."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def with_interval(found: Estimate, bold: bool = False, signed: bool = False) -> str:
    """`5.01 [4.62, 5.40]`: as many digits as leave two of the interval's half; the value alone where it has none."""
    sign = "+" if signed else ""
    low, high = found.interval or (found.value, found.value)
    if low == high:
        text, rest = f"{found.value:{sign}.4g}" if signed else formatted(found.value), ""
    else:
        form = f"{sign}z.{max(0, 1 - floor(log10((high - low) / 2)))}f"
        text, rest = f"{found.value:{form}}", f" [{low:{form}}, {high:{form}}]"
    return (f"**{text}**" if bold else text) + rest
