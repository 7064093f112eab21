"""A CLIP model of transformers, from a folder: scores that published judges give by it. Nothing is fetched."""

from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from eval.images.image_files import ImageFiles
from eval.images.opening import open_image
from eval.network_weights import clip_files
from obsdiff.errors import SpecError
from obsdiff.storage.cache import known_hash
from obsdiff.storage.files import hash_of

BATCH = 64
TOKENS = 77
"""of a caption at most, as the judges were trained"""


class Clip(nn.Module):
    """The model, answering with tensors where transformers 5 answers with records."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        found: Tensor = self.model.get_image_features(pixel_values=pixel_values).pooler_output
        return found

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        answer = self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask)
        found: Tensor = answer.pooler_output
        return found


class Judge:
    """The model that a key of `evaluation` names, loaded when it is first asked.

    Args:
        key: of the model file, for errors.
        name: a folder, as for clip_files().
        device: torch device.

    Raises:
        SpecError: a file is missing, or cannot be loaded.
    """

    def __init__(self, key: str, name: str, device: str = "cpu") -> None:
        self.key, self.folder, self.device = key, Path(name).expanduser(), device
        self.files = clip_files(key, name)

    @property
    def about(self) -> dict[str, Any]:
        digest = hash_of("".join(f"{path.name} {known_hash(path)}\n" for path in self.files).encode())
        return {"library": f"transformers {version('transformers')}", "network": str(self.folder), "sha256": digest}

    def load(self) -> tuple[Clip, Any]:
        """The model on the device, and its processor.

        Raises:
            SpecError: transformers refuses the files.
        """
        try:
            model, processor = loaded(self.folder, tuple(map(known_hash, self.files)))
        except Exception as error:  # of transformers, tokenizers, safetensors, torch, as the files lead them to
            why = " ".join(str(error).split())
            raise SpecError(
                f"evaluation.{self.key}: {self.folder} cannot be loaded ({why:.300}); put the published files there"
            ) from None
        return model.to(self.device), processor

    @torch.no_grad()
    def cosines(self, files: ImageFiles, captions: Sequence[str]) -> tuple[Tensor, float]:
        """Cosines of images' and their captions' features, (n,) float32, and the model's factor of them."""
        model, processor = self.load()
        longest = min(TOKENS, model.model.config.text_config.max_position_embeddings)
        limits = {"padding": True, "truncation": True, "max_length": longest}
        found = []
        for start in range(0, len(files), BATCH):
            rows = slice(start, start + BATCH)
            pixels = processor(images=[open_image(path) for path in files.paths[rows]], return_tensors="pt")
            tokens = processor(text=list(captions[rows]), return_tensors="pt", **limits)
            image = model.get_image_features(pixels["pixel_values"].to(self.device))
            text = model.get_text_features(*(tokens[key].to(self.device) for key in ("input_ids", "attention_mask")))
            found.append((normalize(image.float(), dim=-1) * normalize(text.float(), dim=-1)).sum(dim=-1).cpu())
        return torch.cat(found), float(model.model.logit_scale.exp())


@lru_cache(maxsize=1)
def loaded(folder: Path, hashes: tuple[str, ...]) -> tuple[Clip, Any]:
    """A folder's model and processor; `hashes` are of its files."""
    from transformers import CLIPModel, CLIPProcessor

    model = Clip(CLIPModel.from_pretrained(folder, local_files_only=True))
    return model.eval(), CLIPProcessor.from_pretrained(folder, local_files_only=True)
