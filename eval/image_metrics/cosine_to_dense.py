"""Cosine of the picture's features to those of the dense model's picture of the same prompt and seed."""

from eval.image_metrics import Pictures, Value

TITLE = "CLIP cosine to dense"
UNIT = "cosine"
HIGHER_IS_BETTER = True
PER = "prompt"
LIBRARY = "open-clip-torch"
READS = ("features", "dense")


def compute(pictures: Pictures) -> Value:
    cosines = (pictures.features * pictures.dense_features).sum(dim=1)
    return float(cosines.mean()), cosines.tolist()
