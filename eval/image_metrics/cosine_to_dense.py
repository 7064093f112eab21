"""Cosine of the image's features to those of the dense model's image of the same prompt and seed."""

from eval.image_metrics import Images, Traits, Value

TRAITS = Traits(
    title="CLIP cosine to dense",
    unit="cosine",
    higher_is_better=True,
    per="prompt",
    library="open-clip-torch",
    reads=("features", "dense"),
    order=1,
)


def compute(images: Images) -> Value:
    cosines = (images.features * images.dense_features).sum(dim=1)
    return float(cosines.mean()), cosines.tolist()
