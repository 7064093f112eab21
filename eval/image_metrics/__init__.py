"""Metrics of a cell's pictures. An entry is one number, its file's stem the column of the tables.

TITLE, UNIT          for people; `{network}` in a unit stands for the network of fid_features
HIGHER_IS_BETTER     direction
LIBRARY              the distribution that computes it, whose version is recorded
READS                what of Pictures it depends on: keys of Pictures.about
OWN_ENVIRONMENT      True for a metric that another interpreter computes (envs/), measured where there is one
compute(pictures)    Pictures → (value, samples or None); samples are one number a prompt, in prompt order
made_by(pictures)    optional: more for the record of how it was made
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from eval.pictures import PictureFiles


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
        about: how each of these was made, by name.
        interpreters: metric → the Python of its own environment.
        device: torch device of metrics that run a network.
    """

    files: PictureFiles
    dense_files: PictureFiles
    texts: tuple[str, ...]
    features: Tensor
    dense_features: Tensor
    captions: Tensor
    fid_features: Tensor
    reference: Tensor
    about: Mapping[str, Any] = field(default_factory=dict)
    interpreters: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"


Value = tuple[float, list[float] | None]
