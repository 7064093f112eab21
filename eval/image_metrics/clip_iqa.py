"""CLIP-IQA (Wang et al. 2023) of an image alone, averaged: nearer to "Good photo." or to "Bad photo.", by torchmetrics.

Measured where the model file names the folder of a CLIP model (`evaluation.clip_iqa`), such as OpenAI's ViT-B/16.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.multimodal import clip_image_quality_assessment

from eval.image_metrics import Images, Traits, Value
from eval.networks.transformers_clip import Judge

TRAITS = Traits(
    title="CLIP-IQA",
    unit="share of good",
    higher_is_better=True,
    per="prompt",
    library="torchmetrics",
    reads=(),
    needs="clip_iqa",
    order=10,
)


def compute(images: Images) -> Value:
    network = judge(images).load()
    found = []
    for batch in images.files.batches():
        pixels = batch.to(images.device).float()
        # values of 0 to 255 with a range of 1: the processor, which it calls afterwards, divides by 255 itself
        scores = clip_image_quality_assessment(pixels, lambda: network, data_range=1.0)  # type: ignore[arg-type]
        assert isinstance(scores, Tensor)
        found.append(scores.reshape(-1).cpu())
    whole = torch.cat(found)
    return float(whole.mean()), whole.tolist()


def made_by(images: Images) -> dict[str, Any]:
    return judge(images).about


def judge(images: Images) -> Judge:
    return Judge("clip_iqa", images.judges["clip_iqa"], images.device)
