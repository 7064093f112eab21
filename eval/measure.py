"""A cell's metrics.json: every metric of eval/image_metrics and eval/model_metrics, with unit and direction."""

import json
from pathlib import Path
from typing import Any

from eval.cells import axes_of, cell_hash, parse
from eval.features import Evaluator, read_pictures
from eval.generate import MANIFEST
from eval.image_metrics import Pictures
from eval.model_metrics import Model
from obsdiff import registry
from obsdiff.errors import SpecError
from obsdiff.prompts import Prompt


def paths_of(folder: Path, prompts: list[Prompt]) -> list[Path]:
    """The pictures of a generated folder in prompt order; SpecError where one is missing."""
    paths = [folder / f"{p.id}.png" for p in prompts]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise SpecError(
            f"pictures: {missing[0]} and {len(missing) - 1} more are missing; remove {folder / MANIFEST} and rerun"
        )
    return paths


def load_pictures(images: Path, dense: Path, reference: Path, prompts: list[Prompt], evaluator: Evaluator) -> Pictures:
    own, base, real = paths_of(images, prompts), paths_of(dense, prompts), sorted(reference.glob("*.png"))
    if not real:
        raise SpecError(f"reference: {str(reference)!r} holds no PNG pictures")
    return Pictures(
        pixels=read_pictures(own),
        features=evaluator.pictures(own),
        captions=evaluator.captions([p.caption for p in prompts]),
        dense_pixels=read_pictures(base),
        dense_features=evaluator.pictures(base),
        reference=evaluator.pictures(real),
    )


def measure(
    cell_folder: Path, pictures: Pictures, model: Model, prompts: list[Prompt], provenance: dict
) -> dict[str, Any]:
    """All metrics of a cell as a JSON-able record; the folder's path names the cell."""
    metrics: dict[str, Any] = {}
    for kind, seen in (("image_metrics", pictures), ("model_metrics", model)):
        for name in registry.names(f"eval.{kind}"):
            entry = registry.load(f"eval.{kind}", name)
            value, more = entry.compute(seen)
            record = {
                "value": value,
                "title": entry.TITLE,
                "unit": entry.UNIT,
                "higher_is_better": entry.HIGHER_IS_BETTER,
            }
            if more is not None:
                record["samples" if kind == "image_metrics" else "quartiles"] = more
            metrics[name] = record
    cell = parse(cell_folder)
    defined = {"cell": axes_of(cell), "spec": model.checkpoint["spec"], "base": model.checkpoint["base"]} | provenance
    return {
        "cell": axes_of(cell),
        "hash": cell_hash(defined),
        "provenance": defined | {"versions": model.checkpoint["versions"]},
        "prompts": [p.id for p in prompts],
        "captions": [p.caption for p in prompts],
        "metrics": metrics,
        "layers": model.profile["layers"],
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
