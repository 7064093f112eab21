"""Metrics of a cell's images. A metric is one file; its stem is the column of the tables."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from eval.sweep.pairing import REFERENCES
from obsdiff import registry

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from eval.images.image_files import ImageFiles


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What the suite must know of a metric without importing it.

    Attributes:
        title, unit: for people; `{network}` in a unit stands for the network of fid_features.
        higher_is_better: its direction.
        per: whether a value is of each prompt or of the whole set.
        library: the distribution that computes it, whose version is recorded; empty if the entry has made_by().
        reads: what it depends on: keys of Images.about; without one of them it is not measured.
        needs: the key of a model file's `evaluation` without which it is not measured.
        share: whether it is a share of hits, 0 or 100 of each prompt.
        headline: its rank among the metrics that sentences, paired differences and figures are about; 0 of others.
        order: of its column among those of its table.
    """

    title: str
    unit: str
    higher_is_better: bool
    per: Literal["prompt", "set"]
    library: str = ""
    reads: tuple[str, ...]
    needs: str | None = None
    share: bool = False
    headline: int = 0
    order: int = 100

    @property
    def table(self) -> str:
        """`similarity` to the dense model's images, `references` for other sets of real images than quality's."""
        if "dense" in self.reads:
            return "similarity"
        return "references" if set(self.reads) & set(REFERENCES) else "quality"


@dataclass(frozen=True)
class Images:
    """What image metrics see; row i of every (n, …) tensor, and image i of the files, belongs to prompt i.

    Attributes:
        files, dense_files: the saved PNGs, and the dense model's from the same prompts and seeds.
        texts: the prompts' captions.
        features, dense_features: (n, d) float32, normalised evaluator features.
        captions: (n, d) float32, of the prompts.
        fid_features, reference: (n, e) and (m, e) float32, of these and of real images, as FID and KID take them: the
            evaluator's scaled by √d, or Inception-v3's.
        real_features: (m, d) float32, normalised evaluator features of the real images.
        references: by name, `reference` of the real images in another view (eval/images/views.py) or of the prompts
            alone (eval/sweep/pairing.py).
        about: how each of these was made, by name.
        judges: NEEDS of a metric → what the model file names there: an interpreter, a network.
        cache: folder of cached features, for judges that have some.
        device: torch device of networks that judge, and of metrics that compare pixels.
    """

    files: "ImageFiles"
    dense_files: "ImageFiles"
    texts: tuple[str, ...]
    features: "Tensor"
    dense_features: "Tensor"
    captions: "Tensor"
    fid_features: "Tensor"
    reference: "Tensor"
    real_features: "Tensor"
    cache: "Path"
    references: "Mapping[str, Tensor]" = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    judges: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"

    def pairs(self) -> "Iterator[tuple[Tensor, Tensor]]":
        """The images and the dense model's in batches, (b, 3, h, w) float32 of 0 to 255 each, on the device."""
        for pair in zip(self.files.batches(), self.dense_files.batches(), strict=True):
            own, dense = (images.to(self.device).float() for images in pair)
            yield own, dense


Value = tuple[float, list[float]]


class ImageMetric(Protocol):
    """A file of this folder. It may also have made_by(images), more for the record of how it was computed, and
    warning(images), what a reader must know of this value, or None."""

    def compute(self, images: Images) -> Value:
        """The value, and its numbers per prompt in prompt order or its bootstrap replicates (eval/bootstrap.py)."""


def traits(name: str) -> Traits:
    return registry.traits(__name__, name, Traits)
