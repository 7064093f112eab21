"""A cell's metrics.json: every metric of eval/image_metrics and eval/model_metrics, with unit and direction."""

import math
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from eval import model_metrics
from eval.image_metrics import Images
from eval.image_metrics import Traits as ImageTraits
from eval.model_metrics import Model
from eval.results import CellResult, Metric
from eval.sweep.cells import axes_of, cell_hash, parse
from eval.sweep.clocked import timed_as
from obsdiff import onednn, registry
from obsdiff.captions.prompts import Prompt
from obsdiff.devices import stated_precision
from obsdiff.errors import SpecError
from obsdiff.pipelines.identity import combined
from obsdiff.targets import describe_reach

MORE = {"prompt": "samples", "set": "replicates"}
"""`per` of an image metric → what metrics.json has beside its value"""
TIMINGS = ("threads", "machine", "zeros")
"""what metrics.json says of a cell's timings beside the metrics made of them"""


def measurable(traits: ImageTraits, pictures: Images) -> bool:
    """Whether there is what an image metric reads, and the judge that it needs."""
    return set(traits.reads) <= set(pictures.about) and traits.needs in (None, *pictures.judges)


def made_by(entry: ModuleType, pictures: Images) -> dict[str, Any]:
    """How an image metric was made: library, images, and what it read."""
    record = {"pictures": len(pictures.files)} | {key: pictures.about[key] for key in entry.TRAITS.reads}
    if hasattr(entry, "made_by"):
        own: dict[str, Any] = entry.made_by(pictures)
        return record | own
    return record | {"library": f"{entry.TRAITS.library} {version(entry.TRAITS.library)}"}


@stated_precision(onednn.SMALL)
def measure(
    cell_folder: Path,
    pictures: Images,
    model: Model,
    prompts: list[Prompt],
    provenance: dict,
    faults: Mapping[str, int] | None = None,
) -> CellResult:
    """All metrics of a cell; the folder's path names it.

    An image metric is there only if what it reads and its judge are in `pictures`, and one of a clock only if the cell
    is timed itself (eval/sweep/clocked.py); `latency.of` says whether it is.

    Args:
        faults: as from ImagesManifest.faults(); by default nothing is known of them.

    Raises:
        SpecError: a metric is NaN or infinite.
    """
    metrics: dict[str, Metric] = {}
    real = pictures.about["reference"]
    own = {"library": f"obsdiff {version('obsdiff')}"}
    network = "evaluator" if pictures.about["fid_features"] == pictures.about["features"] else "Inception-v3"
    for kind, seen in (("image_metrics", pictures), ("model_metrics", model)):
        for name in registry.names(f"eval.{kind}"):
            entry = registry.load(f"eval.{kind}", name)
            traits = entry.TRAITS
            if kind == "image_metrics" and not measurable(traits, pictures):
                continue
            if kind == "model_metrics" and traits.clocked and not model.latency:
                continue
            found = entry.compute(seen)
            if found is None:
                continue
            value, more = found
            refuse_not_finite(name, value, more, cell_folder)
            record: dict[str, Any] = {
                "value": value,
                "title": traits.title,
                "unit": traits.unit.format(network=network),
                "higher_is_better": traits.higher_is_better,
                "made_by": made_by(entry, pictures) if kind == "image_metrics" else own,
            }
            if kind == "image_metrics":
                record[MORE[traits.per]] = more
                if hasattr(entry, "warning") and (text := entry.warning(pictures)):
                    record["warning"] = text
            elif more is not None:
                record["quartiles"] = more
            metrics[name] = Metric(**record)
    cell = parse(cell_folder)
    if bool(model.latency) != (timed_as(cell) == "cell"):
        raise SpecError(
            f"latency: {cell.path} is {'' if model.latency else 'not '}given timings, see eval/sweep/clocked.py"
        )
    defined = {
        "cell": axes_of(cell),
        "spec": model.checkpoint.spec,
        "base": combined(model.checkpoint.base),
    } | provenance
    # what does not define the cell: another hidden file in the reference's folder makes no other cell
    seen_on = {"versions": model.checkpoint.versions, "machine": model.profile.machine, "reference": real}
    return CellResult(
        cell=cell,
        hash=cell_hash(defined),
        provenance=defined | seen_on,
        images=dict(faults or {}),
        prompts=[p.id for p in prompts],
        captions=[p.caption for p in prompts],
        metrics=metrics,
        reach=describe_reach(model.checkpoint.reach, model.checkpoint.left_dense),
        layers=model.profile.layers,
        deviation=model.profile.deviation,
        latency={"of": timed_as(cell)} | {key: model.latency[key] for key in TIMINGS if key in model.latency},
    )


def timed(name: str) -> bool:
    """Whether a column is a wall-clock or memory reading."""
    return name in registry.names("eval.model_metrics") and model_metrics.traits(name).timed


def refuse_not_finite(name: str, value: float, more: Iterable[float] | None, cell: Path) -> None:
    """Raise SpecError where a metric, a sample or a replicate of it is NaN or infinite."""
    bad = [number for number in (value, *(more or ())) if not math.isfinite(number)]
    if bad:
        raise SpecError(
            f"metrics.{name}: {bad[0]} in {cell} ({len(bad)} numbers are not finite); look at its images and at the "
            "weights of the network that scores them"
        )
