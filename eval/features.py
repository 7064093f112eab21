"""Picture and caption features of an open_clip model, cached by content.

An evaluator is named by a folder that holds an open_clip model (`zoo/emoji-clip`), or as `architecture:weights`
(`ViT-B-16-quickgelu:openai`, `ViT-B-16-quickgelu:/path/to/weights`).
"""

import json
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from obsdiff.errors import SpecError


def read_pictures(paths: Sequence[Path]) -> Tensor:
    """PNG files of one size → uint8 (n, 3, h, w)."""
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


class Evaluator:
    """An open_clip model, loaded when a feature is not in the cache.

    Args:
        name: folder, or `architecture:weights`.
        cache: folder of cached features, made if missing.
    """

    def __init__(self, name: str, cache: Path) -> None:
        self.name, self.cache = name, cache
        self._loaded: tuple[Any, Any, Any] | None = None
        if Path(name).is_dir():
            if not (Path(name) / "open_clip_config.json").is_file():
                raise SpecError(f"evaluator: {name!r} has no open_clip_config.json")
            files = sorted(p for p in Path(name).iterdir() if p.suffix in (".json", ".safetensors"))
            self.hash = sha256(b"".join(sha256(p.read_bytes()).digest() for p in files)).hexdigest()
        elif ":" in name:
            self.hash = sha256(name.encode()).hexdigest()
        else:
            raise SpecError(f"evaluator: {name!r} is neither an open_clip folder nor architecture:weights")

    def load(self) -> tuple[Any, Any, Any]:
        """(model, preprocess, tokenizer)."""
        if self._loaded is None:
            import open_clip

            folder = Path(self.name).is_dir()
            architecture, _, weights = (f"local-dir:{self.name}", "", "") if folder else self.name.partition(":")
            model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=weights or None)
            self._loaded = model.eval(), preprocess, open_clip.get_tokenizer(architecture)
        return self._loaded

    @torch.no_grad()
    def pictures(self, paths: Sequence[Path], batch: int = 128) -> Tensor:
        """Normalised features of PNG files: (n, d) float32."""

        def compute() -> Tensor:
            model, preprocess, _ = self.load()
            out = []
            for start in range(0, len(paths), batch):
                loaded = [preprocess(Image.open(path).convert("RGB")) for path in paths[start : start + batch]]
                out.append(model.encode_image(torch.stack(loaded), normalize=True).float())
            return torch.cat(out)

        return self.cached([sha256(path.read_bytes()).hexdigest() for path in paths], compute)

    @torch.no_grad()
    def captions(self, texts: Sequence[str]) -> Tensor:
        """Normalised features of captions: (n, d) float32."""

        def compute() -> Tensor:
            model, _, tokenizer = self.load()
            features: Tensor = model.encode_text(tokenizer(list(texts)), normalize=True)
            return features.float()

        return self.cached(["text", *texts], compute)

    def cached(self, content: list[str], compute: Any) -> Tensor:
        key = sha256(json.dumps([self.hash, content]).encode()).hexdigest()[:32]
        path = self.cache / f"{key}.safetensors"
        if not path.is_file():
            self.cache.mkdir(parents=True, exist_ok=True)
            side = path.with_suffix(f".{os.getpid()}.tmp")
            save_file({"features": compute().contiguous()}, side)
            side.rename(path)
        return load_file(path)["features"]
