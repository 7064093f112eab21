"""Cosine of a picture's and its caption's features, averaged (Hessel et al. 2021, unscaled as in the paper)."""

from eval.image_metrics import Pictures, Value

TITLE = "CLIP score"
UNIT = "cosine"
HIGHER_IS_BETTER = True
PER = "prompt"
LIBRARY = "open-clip-torch"
READS = ("features", "captions")


def compute(pictures: Pictures) -> Value:
    cosines = (pictures.features * pictures.captions).sum(dim=1)
    return float(cosines.mean()), cosines.tolist()
