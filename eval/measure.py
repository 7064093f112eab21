"""A cell's metrics.json: every metric of eval/image_metrics and eval/model_metrics, with unit and direction."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from eval.cells import axes_of, cell_hash, parse
from eval.features import Evaluator
from eval.image_metrics import Pictures
from eval.inception import Inception
from eval.model_metrics import Model
from eval.pictures import PictureFiles
from eval.shards import MANIFEST
from obsdiff import registry
from obsdiff.devices import stated_precision
from obsdiff.errors import SpecError
from obsdiff.identity import combined
from obsdiff.prompts import Prompt, prompts_hash

MORE = {"prompt": "samples", "set": "replicates"}
"""PER of a picture metric → what metrics.json has beside its value"""


def paths_of(folder: Path, prompts: list[Prompt]) -> list[Path]:
    """The pictures of a generated folder in prompt order; SpecError where one is missing."""
    paths = [folder / f"{p.id}.png" for p in prompts]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise SpecError(
            f"pictures: {missing[0]} and {len(missing) - 1} more are missing; remove {folder / MANIFEST} and rerun"
        )
    return paths


@stated_precision()
def load_pictures(
    images: Path,
    dense: Path,
    reference: Path,
    prompts: list[Prompt],
    evaluator: Evaluator,
    inception: Inception | None = None,
    judges: Mapping[str, str] | None = None,
) -> Pictures:
    """What picture metrics see; FID and KID are on Inception-v3's features where given, else on the evaluator's.

    Args:
        images, dense: folders of `<prompt id>.png`.
        reference: folder of real pictures, PNG or JPEG, of any size.
        judges: as Pictures has it.
    """
    own, base = (PictureFiles(paths_of(folder, prompts)) for folder in (images, dense))
    real, features = PictureFiles.of_folder(reference), evaluator.pictures(own)
    real_features = evaluator.pictures(real)
    if inception is None:
        scale = features.shape[1] ** 0.5  # unit features: a dimension then has variance 1 at most on average
        compared, real_compared = features * scale, real_features * scale
    else:
        compared, real_compared = inception.pictures(own), inception.pictures(real)
    judge = (inception or evaluator).about
    about = {
        "features": with_version(evaluator.about),
        "captions": {"count": len(prompts), "sha256": prompts_hash(prompts)},
        "fid_features": with_version(judge),
        "reference": {"folder": str(reference), "count": len(real), "sha256": real.sha256},
        "dense": {"sha256": base.sha256},
    }
    return Pictures(
        files=own,
        dense_files=base,
        texts=tuple(p.caption for p in prompts),
        features=features,
        dense_features=evaluator.pictures(base),
        captions=evaluator.captions([p.caption for p in prompts]),
        fid_features=compared,
        reference=real_compared,
        real_features=real_features,
        about=about,
        judges=judges or {},
        device=evaluator.device,
    )


def with_version(about: dict[str, str]) -> dict[str, str]:
    return about | {"library": f"{about['library']} {version(about['library'])}"}


def made_by(entry: ModuleType, pictures: Pictures) -> dict[str, Any]:
    """How a picture metric was made: library, pictures, and what it read."""
    record = {"pictures": len(pictures.files)} | {key: pictures.about[key] for key in entry.READS}
    if hasattr(entry, "made_by"):
        own: dict[str, Any] = entry.made_by(pictures)
        return record | own
    return record | {"library": f"{entry.LIBRARY} {version(entry.LIBRARY)}"}


@stated_precision()
def measure(
    cell_folder: Path, pictures: Pictures, model: Model, prompts: list[Prompt], provenance: dict
) -> dict[str, Any]:
    """All metrics of a cell as a JSON-able record; the folder's path names the cell.

    A metric that needs a judge of its own is there only if `pictures` names one.
    """
    metrics: dict[str, Any] = {}
    own = {"library": f"obsdiff {version('obsdiff')}"}
    network = "evaluator" if pictures.about["fid_features"] == pictures.about["features"] else "Inception-v3"
    for kind, seen in (("image_metrics", pictures), ("model_metrics", model)):
        for name in registry.names(f"eval.{kind}"):
            entry = registry.load(f"eval.{kind}", name)
            if getattr(entry, "NEEDS", None) not in (None, *pictures.judges):
                continue
            value, more = entry.compute(seen)
            record = {
                "value": value,
                "title": entry.TITLE,
                "unit": entry.UNIT.format(network=network),
                "higher_is_better": entry.HIGHER_IS_BETTER,
                "made_by": made_by(entry, pictures) if kind == "image_metrics" else own,
            }
            if kind == "image_metrics":
                record[MORE[entry.PER]] = more
                if hasattr(entry, "warning") and (text := entry.warning(pictures)):
                    record["warning"] = text
            elif more is not None:
                record["quartiles"] = more
            metrics[name] = record
    cell = parse(cell_folder)
    defined = {
        "cell": axes_of(cell),
        "spec": model.checkpoint["spec"],
        "base": combined(model.checkpoint["base"]),
    } | provenance
    return {
        "cell": axes_of(cell),
        "hash": cell_hash(defined),
        "provenance": defined | {"versions": model.checkpoint["versions"], "machine": model.profile["machine"]},
        "prompts": [p.id for p in prompts],
        "captions": [p.caption for p in prompts],
        "metrics": metrics,
        "layers": model.profile["layers"],
        "deviation": model.profile["deviation"],
    }


def timed(name: str) -> bool:
    """Whether a column is a wall-clock or memory reading."""
    return name in registry.names("eval.model_metrics") and bool(
        registry.constants("eval.model_metrics", name)["TIMED"]
    )


def write_json(path: Path, record: dict[str, Any]) -> None:
    side = path.with_suffix(".tmp")
    side.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    side.rename(path)
