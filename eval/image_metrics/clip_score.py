"""Cosine of an image's and its caption's features, averaged (Hessel et al. 2021, unscaled as in the paper)."""

from eval.image_metrics import Images, Traits, Value

TRAITS = Traits(
    title="CLIP score",
    unit="cosine",
    higher_is_better=True,
    per="prompt",
    library="open-clip-torch",
    reads=("features", "captions"),
    headline=1,
    order=4,
)


def compute(images: Images) -> Value:
    cosines = (images.features * images.captions).sum(dim=1)
    return float(cosines.mean()), cosines.tolist()
