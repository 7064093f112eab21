"""Share of pictures whose own caption is the nearest of all the benchmark's captions."""

import torch

from eval.image_metrics import Pictures, Value

TITLE = "R@1"
UNIT = "%"
HIGHER_IS_BETTER = True
PER = "prompt"
LIBRARY = "open-clip-torch"
READS = ("features", "captions")


def compute(pictures: Pictures) -> Value:
    nearest = (pictures.features @ pictures.captions.T).argmax(dim=1)
    hits = (nearest == torch.arange(len(nearest))).float() * 100
    return float(hits.mean()), hits.tolist()
