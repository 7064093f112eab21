"""PickScore (Kirstain et al. 2023) of an image and its caption, averaged: by a CLIP model trained on people's choices.

Measured where the model file names its folder (`evaluation.pick_score`).
"""

from typing import Any

from eval.image_metrics import Images, Traits, Value
from eval.networks.transformers_clip import Judge

TRAITS = Traits(
    title="PickScore",
    unit="score",
    higher_is_better=True,
    per="prompt",
    library="transformers",
    reads=("captions",),
    needs="pick_score",
    order=8,
)


def compute(images: Images) -> Value:
    cosines, scale = judge(images).cosines(images.files, images.texts)
    scores = scale * cosines
    return float(scores.mean()), scores.tolist()


def made_by(images: Images) -> dict[str, Any]:
    return judge(images).about


def judge(images: Images) -> Judge:
    return Judge("pick_score", images.judges["pick_score"], images.device)
