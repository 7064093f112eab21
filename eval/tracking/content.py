"""What a cell's run says of it: params, metrics, curves, data sets and a description, from its metrics.json."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mlflow.entities import Dataset, DatasetInput, InputTag
from PIL import Image

from eval.analysis import shown
from eval.analysis.estimates import estimate
from eval.analysis.timings import AS_DENSE, stands_with_dense, zeros_of
from eval.figures import image, strip
from eval.report.columns import formatted
from eval.results import AGAIN, CellResult
from eval.sweep.cells import axes_of
from eval.tracking.store import Point
from obsdiff import methods, weightings
from obsdiff.checkpoints.manifest import MANIFEST, Manifest, read_manifest
from obsdiff.errors import SpecError

LONGEST_PARAM, LONGEST_DIGEST = 6000, 36
"""MLflow's limits, in characters"""
GRID_IMAGES = 36
"""in pictures.png"""
COMPARED, LONGEST_KEY = 6, 60
"""images of a run in MLflow's image grid, and characters of their keys"""


class Said(NamedTuple):
    """What a cell's run will say, made before any of it is logged."""

    params: dict[str, str]
    points: list[Point]
    tags: dict[str, str]
    data: list[DatasetInput]
    pictures: Image.Image
    images: dict[str, Image.Image]
    """of the first captions, by a key that is the same in all runs of these captions"""


def said(folder: Path, record: CellResult, sources: Mapping[str, str]) -> Said:
    """Of a cell's folder, with metrics.json, images/ and checkpoint/, and the content of metrics.json.

    Raises:
        SpecError: a file is missing or damaged, or a value is not of a cell.
    """
    manifest = read_manifest(folder / "checkpoint")
    with of_a_cell(folder / "metrics.json"):
        points = [*scalars(record), *curves(record, manifest)]
        pictures = Image.fromarray(strip(folder, record.prompts[:GRID_IMAGES], columns=12))
        first = zip(record.prompts[:COMPARED], record.captions, strict=False)
        images = {
            key_of(number, caption): Image.fromarray(image(folder, prompt))
            for number, (prompt, caption) in enumerate(first, 1)
        }
        return Said(params(record), points, tags(record), data(record, sources), pictures, images)


def key_of(number: int, caption: str) -> str:
    """`01 a red apple`: of the signs that MLflow takes for a key, as many words as are legible in its image grid."""
    words = re.sub(r"[^A-Za-z0-9_ -]+", " ", caption).split()
    return " ".join([f"{number:02d}", *words])[:LONGEST_KEY].rstrip()


def times(folder: Path) -> tuple[int, int]:
    """When work on a cell began and ended, in milliseconds since 1970.

    It began so many seconds before the checkpoint's manifest was written as the pruning run took; it ended when
    metrics.json was written.

    Raises:
        CheckpointError: the manifest is missing or damaged.
    """
    seconds = read_manifest(folder / "checkpoint").seconds.get("total", 0.0)
    pruned = (folder / "checkpoint" / MANIFEST).stat().st_mtime - seconds
    ended = (folder / "metrics.json").stat().st_mtime
    return int(1000 * min(pruned, ended)), int(1000 * ended)


@contextmanager
def of_a_cell(path: Path) -> Iterator[None]:
    """What a damaged record leads to, as one line that names its file."""
    try:
        yield
    except Exception as error:
        what = f"is not of a cell ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        raise SpecError(f"metrics: {path} {what}; {AGAIN}") from error


def text(value: Any) -> str:
    """A param's value as config files have it: `true`, `0.01`, `[1, 0.5]`."""
    return (value if isinstance(value, str) else json.dumps(value))[:LONGEST_PARAM]


def params(record: CellResult) -> dict[str, str]:
    """The axes, the spec's other fields, `sampling.<field>` of the calibration, and what judged the images."""
    spec = {k: v for k, v in record.spec.items() if k not in ("prompts", "sampling")}
    sampling = {f"sampling.{k}": v for k, v in record.spec["sampling"].items()}
    judges = {k: (record.provenance.get(k) or {}).get("name") for k in ("evaluator", "fid_features")}
    own = axes_of(record.cell) | {"sparsity": record.cell.sparsity, "pictures": len(record.prompts)}
    found = spec | sampling | own | {k: v for k, v in judges.items() if v}
    return {k: text(v) for k, v in found.items()}


def scalars(record: CellResult) -> Iterator[Point]:
    """Every metric, its 95 % interval over prompts as `_low` and `_high`, a timing's quartiles as `_q1` and `_q3`."""
    for name, metric in record.metrics.items():
        yield name, float(metric.value), 0
        made = estimate([record], name)
        ends = made.interval if made else None
        for suffixes, values in ((("low", "high"), ends), (("q1", "q3"), metric.quartiles)):
            for suffix, value in zip(suffixes, values or (), strict=False):
                yield f"{name}_{suffix}", float(value), 0


def curves(record: CellResult, manifest: Manifest) -> Iterator[Point]:
    """Metrics over layers and blocks (the step is the place in order of execution) and over denoising steps.

    layers/error, layers/sparsity          of the profile
    layers/weight_error, …/calibration_error, …/damping   of the pruning run, where it has them
    steps/alpha                            what calibration weighted each step with
    steps/deviation, steps/block_deviation, blocks/deviation   from the dense model: of the latents, and of the blocks'
                                           outputs, averaged over blocks and over steps; where the record has it
    """
    for depth, layer in enumerate(record.layers):
        yield "layers/error", float(layer.error), depth
        yield "layers/sparsity", float(layer.sparsity), depth
    for depth, pruned in enumerate(manifest.layers):
        for key in ("weight_error", "calibration_error", "damping"):
            if (value := getattr(pruned, key)) is not None:
                yield f"layers/{key}", float(value), depth
    for step, alpha in enumerate(alphas(record.spec)):
        yield "steps/alpha", alpha, step
    if found := record.deviation:
        by_block = np.asarray(found.by_block, dtype=float)
        series = {
            "steps/deviation": found.latents,
            "steps/block_deviation": by_block.mean(axis=0),
            "blocks/deviation": by_block.mean(axis=1),
        }
        for name, values in series.items():
            for step, value in enumerate(values):
                yield name, float(value), step


def alphas(spec: Mapping[str, Any]) -> list[float]:
    """The weighting's α by step of calibration; empty for a method that knows none.

    A step is a turn of the sampling loop: 2T − 1 of them for Heun, T + 1 for PNDM, else T, a pipeline's own scheduler
    included.
    """
    sampling = spec["sampling"]
    if not sampling or not methods.traits(spec["method"]).weighted:
        return []
    steps = sampling["steps"]
    turns = {"heun": 2 * steps - 1, "pndm": steps + 1}.get(sampling.get("scheduler") or "", steps)
    found = weightings.alphas(spec["weighting"], turns, spec["alpha_min"], spec["alpha_max"], spec["alphas"])
    return [float(alpha) for alpha in found]


def tags(record: CellResult) -> dict[str, str]:
    """What a rerun may change, and so is no param: where the cell was measured; and a description."""
    provenance = record.provenance
    found = {f"obsdiff.{k}": text(v) for k, v in provenance.get("machine", {}).items()}
    found |= {f"obsdiff.version.{k}": text(v) for k, v in provenance.get("versions", {}).items()}
    if stands_with_dense(record):
        found |= {"obsdiff.latency": AS_DENSE}
    return found | {"mlflow.note.content": description(record)}


def description(record: CellResult) -> str:
    """The headline metrics with their intervals, as Markdown."""
    lines = [
        f"{len(record.prompts)} images of `{record.cell.model}`, the first of them in `pictures.png`.",
        "",
    ]
    lines += ["| | | 95 % interval |", "|:--|--:|:--|"]
    for name in (n for n in shown.measured() if n in record.metrics):
        about, made = record.metrics[name], estimate([record], name)
        ends = f"{formatted(made.interval[0])} to {formatted(made.interval[1])}" if made and made.interval else ""
        lines.append(f"| {about.title} ({about.unit}) | {formatted(about.value)} | {ends} |")
    if stands_with_dense(record):
        lines.append(f"| times and speed-ups | {AS_DENSE} | dense kernels multiply zeros too |")
    elif zeros := zeros_of([record]):
        ends = " to ".join(map(formatted, zeros["batch"]["speedup_quartiles"]))
        what = f"speed-up with {100 * zeros['share']:.0f} % of the weights zero, full batch (×)"
        lines.append(f"| {what} | {formatted(zeros['batch']['speedup'])} | {ends}, quartiles |")
    return "\n".join(lines)


def data(record: CellResult, sources: Mapping[str, str]) -> list[DatasetInput]:
    """The calibration prompts (of a method that calibrates), the benchmark's prompts and the real images.

    Args:
        sources: `<model>/evaluation` and `<model>/calibration-<the cell's>` → the prompts' file as the model file gives
            it; by default that key.

    Returns:
        With our SHA-256 as digest, as many digits as MLflow takes; the profile has all, and the count.
    """
    cell, provenance = record.cell, record.provenance
    found = []
    if provenance["spec"]["sampling"]:
        key = f"{cell.model}/calibration-{cell.calibration}"
        found.append(dataset("calibration", sources.get(key, key), {"sha256": provenance["spec"]["prompts"]}))
    if "prompts" in provenance:
        key = f"{cell.model}/evaluation"
        found.append(dataset("evaluation", sources.get(key, key), provenance["prompts"]))
    real = provenance["reference"]
    if "sha256" in real:
        found.append(dataset("reference", real["folder"], real))
    return found


def dataset(context: str, source: str, about: Mapping[str, Any]) -> DatasetInput:
    served = source.startswith(("http://", "https://"))
    profile = {"num_rows": about["count"]} if "count" in about else {}
    entity = Dataset(
        name="/".join(source.rstrip("/").split("/")[-2:]),
        digest=about["sha256"][:LONGEST_DIGEST],
        source_type="http" if served else "local",
        source=json.dumps({"url" if served else "uri": source}),
        profile=json.dumps(profile | {"sha256": about["sha256"]}),
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", context)])
