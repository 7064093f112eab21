"""Metrics of a cell's pictures. An entry is one number, its file's stem the column of the tables.

TITLE, UNIT          for people; `{network}` in a unit stands for the network of fid_features
HIGHER_IS_BETTER     direction
PER                  "prompt" or "set": what a value is a number of
LIBRARY              the distribution that computes it, whose version is recorded
READS                what of Pictures it depends on: keys of Pictures.about
NEEDS                optional: the key of a model file's `evaluation` without which it is not measured
compute(pictures)    Pictures → (value, numbers): where PER is "prompt" its samples, one a prompt in prompt order; where
                     it is "set" its replicates, REPLICATES values on pictures weighted by resampling.counts()
made_by(pictures)    optional: more for the record of how it was made
warning(pictures)    optional: what a reader must know of this value, or None
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from eval.images.picture_files import PictureFiles


@dataclass(frozen=True)
class Pictures:
    """What picture metrics see; row i of every (n, …) tensor, and picture i of the files, belongs to prompt i.

    Attributes:
        files, dense_files: the saved PNGs, and the dense model's from the same prompts and seeds.
        texts: the prompts' captions.
        features, dense_features: (n, d) float32, normalised evaluator features.
        captions: (n, d) float32, of the prompts.
        fid_features, reference: (n, e) and (m, e) float32, of these and of real pictures, as FID and KID take them: the
            evaluator's scaled by √d, or Inception-v3's.
        real_features: (m, d) float32, normalised evaluator features of the real pictures.
        about: how each of these was made, by name.
        judges: NEEDS of a metric → what the model file names there: an interpreter, a network.
        device: torch device of networks that judge, and of metrics that compare pixels.
    """

    files: PictureFiles
    dense_files: PictureFiles
    texts: tuple[str, ...]
    features: Tensor
    dense_features: Tensor
    captions: Tensor
    fid_features: Tensor
    reference: Tensor
    real_features: Tensor
    about: Mapping[str, Any] = field(default_factory=dict)
    judges: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The pictures and the dense model's in batches, (b, 3, h, w) float32 of 0 to 255 each, on the device."""
        for pair in zip(self.files.batches(), self.dense_files.batches(), strict=True):
            own, dense = (pictures.to(self.device).float() for pictures in pair)
            yield own, dense


Value = tuple[float, list[float]]
