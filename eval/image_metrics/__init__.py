"""Metrics of a cell's pictures. An entry is one number, its file's stem the column of the tables.

TITLE, UNIT          for people
HIGHER_IS_BETTER     direction
compute(pictures)    Pictures → (value, samples or None); samples are one number a prompt, in prompt order
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Pictures:
    """What picture metrics see; row i of every (n, …) tensor belongs to prompt i.

    Attributes:
        pixels: uint8 (n, 3, h, w), read back from the saved PNGs.
        features: (n, d) float32, normalised evaluator features.
        captions: (n, d) float32, of the prompts.
        dense_pixels, dense_features: of the dense model's pictures from the same prompts and seeds.
        reference: (m, d) float32, of the real pictures.
    """

    pixels: Tensor
    features: Tensor
    captions: Tensor
    dense_pixels: Tensor
    dense_features: Tensor
    reference: Tensor


Value = tuple[float, list[float] | None]
