"""What a sweep's records say, in sentences and small tables: who leads, where it breaks, what pruning buys.

Every comparison is a paired difference with its 95 % interval (eval/analysis/estimates.py). Two configurations are told
apart where the interval excludes zero; there is no correction for the number of comparisons.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from eval.analysis import shown
from eval.analysis.configurations import Configuration
from eval.analysis.groups import Setting, about, point
from eval.analysis.timings import as_dense
from eval.report.columns import formatted
from eval.results import CellResult


class Table(NamedTuple):
    """Text fields; the first column names the row."""

    title: str
    head: list[str]
    rows: list[list[str]]


LISTED = 5
"""names in a sentence at most; of more it gives the number"""


def joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def listed(labels: Sequence[str]) -> str:
    return joined(labels) if len(labels) <= LISTED else f"{len(labels)} others"


class Lead(NamedTuple):
    """The best of some configurations, and how the others stand to it."""

    label: str
    value: float
    behind: list[str]
    """those whose difference excludes zero"""
    alike: list[str]
    """those whose difference does not"""
    unknown: list[str]
    """those whose difference has no interval"""


def lead(groups: Mapping[str, Configuration], name: str) -> Lead | None:
    """The configuration with the best value of a metric; None if none has one."""
    values = {label: p.value for label, group in groups.items() if (p := point(group, name))}
    metric = about([record for group in groups.values() for record in group], name)
    if not values or metric is None or metric.higher_is_better is None:
        return None
    best = (max if metric.higher_is_better else min)(values, key=lambda label: values[label])
    stand: dict[str, list[str]] = {"behind": [], "alike": [], "unknown": []}
    for label in values:
        if label != best:
            found = groups[best].minus(groups[label], name)
            # over the seeds that two share, the order may be another than over all
            if found is None:
                stand["unknown"].append(label)
                continue
            ahead = found.significant and (found.difference.value > 0) == metric.higher_is_better
            stand["behind" if ahead else "alike"].append(label)
    return Lead(best, values[best], **stand)


def lead_text(found: Lead) -> str:
    """`sparsegpt 20.66; not significantly different: obs_diff`"""
    text = f"{found.label} {formatted(found.value)}"
    if not (found.behind or found.alike or found.unknown):
        return f"{text}; the only one"
    if found.alike:
        text += f"; not significantly different: {', '.join(found.alike)}"
    if found.unknown:
        text += "; no interval" if not (found.alike or found.behind) else f"; no interval: {', '.join(found.unknown)}"
    return text if found.alike or found.unknown else f"{text}; ahead of all others"


def leaders(setting: Setting) -> Table | None:
    """The best of each sparsity by each metric that says which is better."""
    groups = [group for line in setting.lines.values() for group in line.values()]
    known = {n: m for n in shown.headlines() if (m := about([r for g in groups for r in g], n))}
    if not groups or not known:
        return None
    rows = []
    for sparsity in setting.sparsities:
        found = [lead(setting.at(sparsity), name) for name in known]
        rows.append([f"{sparsity:g}", *(lead_text(one) if one else "" for one in found)])
    return Table(f"Best at each sparsity: {setting.name}", ["sparsity", *(m.title for m in known.values())], rows)


def lead_sentence(setting: Setting) -> str:
    """Which methods lead at the highest sparsity, and which are not significantly different from it."""
    sparsity = setting.sparsities[-1]
    found = next(((n, one) for n in shown.headlines() if (one := lead(setting.at(sparsity), n))), None)
    if found is None:
        return ""
    name, best = found
    metric = about(setting.at(sparsity)[best.label], name)
    assert metric is not None
    value = f"{formatted(best.value)} {metric.unit}"
    text = f"At sparsity {sparsity:g}, {best.label} has the best {metric.title} ({value})"
    if not (best.behind or best.alike or best.unknown):
        return f"{text}; no other method was run there."
    if best.alike:
        text += f", which is not significantly different from that of {listed(best.alike)}"
    if best.behind:
        text += f"{' but' if best.alike else ', which'} is significantly better than that of {listed(best.behind)}"
    if best.unknown:
        text += f"; against {listed(best.unknown)} there is no interval"
    return f"{text}."


def first_break(setting: Setting, label: str, names: Sequence[str] = ()) -> tuple[bool, float | None]:
    """Whether a line could be held against the dense model at all, and its first sparsity significantly below it."""
    comparable = False
    for sparsity, group in setting.lines[label].items():
        for name in names or shown.broken_by():
            found = group.minus(setting.dense, name)
            comparable |= found is not None
            if found is not None and found.significant and found.difference.value < 0:
                return True, sparsity
    return comparable, None


def break_sentence(setting: Setting) -> str:
    """From which sparsity on a method is worse than dense, in CLIP score or R@1."""
    if not setting.dense:
        return "There is no dense cell to compare the pruned ones with."
    metrics = [m.title for name in shown.broken_by() if (m := about(setting.dense, name))]
    grouped: dict[str, list[str]] = {}
    for label, line in setting.lines.items():
        comparable, sparsity = first_break(setting, label)
        if not comparable:
            continue
        if sparsity is None:
            key = f"not up to {max(line):g}, the highest tried" if len(line) > 1 else f"not at {max(line):g}"
        else:
            key = f"from {sparsity:g} on" if len(line) > 1 else f"at {sparsity:g}"
        grouped.setdefault(key, []).append(label)
    if not grouped:
        return "No paired interval says whether a pruned model is below the dense one."
    everyone = len(setting.lines) > 2 and len(next(iter(grouped.values()))) == len(setting.lines)
    parts = [f"{'all of them' if everyone else ', '.join(labels)} {key}" for key, labels in grouped.items()]
    return f"Significantly below the dense model in {' or '.join(metrics)}: {'; '.join(parts)}."


def breaks(setting: Setting) -> Table | None:
    """Of each line and metric the first sparsity significantly below dense; None where there is one sparsity."""
    metrics = {name: m for name in shown.broken_by() if (m := about(setting.dense, name))}
    if len(setting.sparsities) < 2 or not metrics:
        return None
    rows = []
    for label, line in setting.lines.items():
        row = [label]
        for name in metrics:
            comparable, sparsity = first_break(setting, label, [name])
            none = f"not up to {max(line):g}" if comparable else "no interval"
            row.append(none if sparsity is None else f"{sparsity:g}")
        rows.append(row)
    return Table(
        f"First sparsity significantly below dense: {setting.name}",
        ["", *(m.title for m in metrics.values())],
        rows,
    )


def span(setting: Setting, name: str, form: str = "{}") -> str:
    """The range of a metric over all lines of the highest sparsity, `0.97 to 1.02`; empty where not measured."""
    found = [p.value for group in setting.at(setting.sparsities[-1]).values() if (p := point(group, name))]
    ends = list(dict.fromkeys(f"{end:.3g}" for end in (min(found), max(found)))) if found else []
    return form.format(" to ".join(ends)) if ends else ""


def bought_sentence(setting: Setting) -> str:
    """Time, parameters and disk at the highest sparsity, and what the pruning cost."""
    at = setting.at(setting.sparsities[-1]).values()
    parts = [
        span(setting, "speedup", "the denoiser runs {} times as fast as the dense one"),
        span(setting, "block_speedup", "its middle block {} times"),
        "the denoiser takes the dense one's time, as zeros are multiplied too"
        if any(as_dense(group, "speedup") for group in at)
        else "",
        kept(setting),
        span(setting, "checkpoint_mb", "the pruned layers' file is {} MB"),
    ]
    cost = [span(setting, "pruning_seconds", "{} s"), span(setting, "pruning_memory", "{} MiB at the peak")]
    text = [part for part in parts if part]
    if any(cost):
        text.append(f"pruning took {' and '.join(part for part in cost if part)}")
    return f"At sparsity {setting.sparsities[-1]:g} {joined(text)}." if text else ""


def kept(setting: Setting) -> str:
    """Nonzero parameters as a share of the dense model's; in millions where that was not measured."""
    name = "nonzero_parameters"
    dense = point(setting.dense, name)
    found = [p.value for group in setting.at(setting.sparsities[-1]).values() if (p := point(group, name))]
    if not found or dense is None or dense.value == 0:
        return span(setting, name, "{} M parameters are not zero")
    ends = dict.fromkeys(f"{100 * end / dense.value:.0f}" for end in (min(found), max(found)))
    return f"{' to '.join(ends)} % of its parameters are not zero"


def sentences(setting: Setting) -> list[str]:
    if not setting.lines:
        return ["Nothing was pruned: there are dense cells alone."]
    return [s for s in (lead_sentence(setting), break_sentence(setting), bought_sentence(setting)) if s]


def count_of(records: Sequence[CellResult]) -> str:
    """`256 images per cell`, or a range where cells differ."""
    found = sorted({len(record.prompts) for record in records})
    number_of = str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
    return f"{number_of} image{'' if found == [1] else 's'} per cell"
