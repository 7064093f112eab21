"""HPSv2 (Wu et al. 2023) of an image and its caption, averaged: a cosine, by a CLIP model trained on people's choices.

Measured where the model file names the network (`evaluation.hps: ViT-H-14:/path/to/HPS_v2.1_compressed.pt`).
"""

from importlib.metadata import version
from typing import Any

from eval.image_metrics import Images, Traits, Value
from eval.networks.features import Evaluator

TRAITS = Traits(
    title="HPSv2",
    unit="cosine",
    higher_is_better=True,
    per="prompt",
    library="open-clip-torch",
    reads=("captions",),
    needs="hps",
    order=9,
)


def compute(images: Images) -> Value:
    network = judge(images)
    cosines = (network.images(images.files) * network.captions(images.texts)).sum(dim=1)
    return float(cosines.mean()), cosines.tolist()


def made_by(images: Images) -> dict[str, Any]:
    return judge(images).about | {"library": f"{TRAITS.library} {version(TRAITS.library)}"}


def judge(images: Images) -> Evaluator:
    return Evaluator(images.judges["hps"], images.cache, images.device)
