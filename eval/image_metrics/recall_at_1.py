"""Share of images whose own caption is the nearest of all the benchmark's captions."""

import torch

from eval.image_metrics import Images, Traits, Value

TRAITS = Traits(
    title="R@1",
    unit="%",
    higher_is_better=True,
    per="prompt",
    library="open-clip-torch",
    reads=("features", "captions"),
    share=True,
    headline=4,
    order=6,
)


def compute(images: Images) -> Value:
    nearest = (images.features @ images.captions.T).argmax(dim=1)
    hits = (nearest == torch.arange(len(nearest))).float() * 100
    return float(hits.mean()), hits.tolist()
