"""Images as other protocols have them: cropped or resized first. No torch here.

A network of FID resizes what it gets, and how it does that to images of another shape than the generated ones differs:
torch-fidelity's Inception-v3 squeezes them into a square, many an evaluator cuts off what sticks out. Published figures
differ in what was done before (Parmar et al. 2022, "On Aliased Resizing").
"""

from dataclasses import dataclass
from typing import Literal, get_args

from PIL import Image, ImageOps

Kind = Literal["cropped", "resized"]
VIEWS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class View:
    """What is done to an image once it is opened.

    Attributes:
        kind: `cropped` cuts the middle out in the shape of `size`, `resized` changes the shape; both resize then.
        size: (width, height) in pixels.
    """

    kind: Kind
    size: tuple[int, int]

    @property
    def text(self) -> str:
        """`cropped to 512×512, bicubic`, antialiased as Pillow does it."""
        return f"{self.kind} to {self.size[0]}×{self.size[1]}, bicubic"

    def of(self, image: Image.Image) -> Image.Image:
        """An RGB image of that size."""
        if image.size == self.size:
            return image
        if self.kind == "cropped":
            return ImageOps.fit(image, self.size, Image.Resampling.BICUBIC)
        return image.resize(self.size, Image.Resampling.BICUBIC)
