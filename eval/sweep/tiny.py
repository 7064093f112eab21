"""`scale: tiny`: a sweep on randomly initialised models, which exercises every job of it and means nothing.

Cells, and so the rows of the tables, are those of the full sweep. What they stand for is made small: models are the
`tiny()` pipelines of their families on the CPU, images 32×32 of few steps where a cell asks for no other number,
captions, real images and evaluator the zoo's. Names of layers (`exclude`, `layer_sparsity`), which tiny models do
not have, are left out, so that all their layers are pruned alike.
"""

from collections.abc import Mapping
from typing import Any

from obsdiff.errors import SpecError
from obsdiff.models import AUTO

STEPS, CALIBRATION, EVALUATION = 3, 4, 8
"""denoising steps, and captions"""
LAYERS = ("exclude", "layer_sparsity")
"""fields of PruneSpec that name layers"""
Texts = dict[str, dict[str, dict[str, Any]]]
"""axis → text in a cell's path → what it stands for"""


def shrunk_model(name: str, model: Mapping[str, Any], results: str) -> dict[str, Any]:
    """A model file's content with the tiny pipeline of its family, which the workflow writes into `results`.

    Raises:
        SpecError: the family has none.
    """
    if model["family"] == AUTO:
        raise SpecError(
            f"scale: 'tiny' has no model in the place of {name!r}, whose class has no file in obsdiff/models; leave "
            "scale out, or give `models` others"
        )
    kept = {k: v for k, v in model["sampling"].items() if k in ("guidance_scale", "scheduler")}
    return {
        "family": model["family"],
        "source": {"model": f"{results}/models/{model['family']}"},
        "sampling": {"steps": STEPS, "height": 32, "width": 32, "batch_size": CALIBRATION} | kept,
        "calibration": {"prompts": "zoo/emoji-data/calibration.csv", "count": CALIBRATION},
        "evaluation": {
            "prompts": "zoo/emoji-data/benchmark.csv",
            "count": EVALUATION,
            "reference": "zoo/emoji-data/reference",
            "evaluator": "zoo/emoji-clip",
        },
    }


def shrunk(texts: Texts) -> Texts:
    """The meanings of the cells' texts without what a tiny model lacks."""
    dropped = {
        "options": LAYERS,
        "sampling": ("height", "width", "max_sequence_length"),
        "calibration": ("prompts", "choice", "count"),
    }
    found: Texts = {axis: {} for axis in texts}
    for axis, meanings in texts.items():
        for text, values in meanings.items():
            found[axis][text] = {k: v for k, v in values.items() if k not in dropped[axis]}
            if isinstance(inner := values.get("sampling"), dict):
                found[axis][text]["sampling"] = {k: v for k, v in inner.items() if k not in dropped["sampling"]}
    return found
