"""Image and caption features of an open_clip model, cached by content.

An evaluator is named by a folder that holds an open_clip model (`zoo/emoji-clip`), or as `architecture:weights`
(`ViT-B-16-quickgelu:openai`, `ViT-B-16-quickgelu:/path/to/weights`). Weights named by a tag must be in the hub's cache.
"""

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from eval.images.image_files import ImageFiles
from eval.network_weights import evaluator_weights
from eval.networks.caching import cached, code_of
from obsdiff.errors import SpecError
from obsdiff.storage.cache import known_hash
from obsdiff.storage.files import DamagedFile, read_json

CONFIG = "open_clip_config.json"
KEYS = ("model_cfg.embed_dim", "model_cfg.vision_cfg.image_size", "model_cfg.text_cfg")
"""what a folder's configuration cannot do without"""
WEIGHTS = (".safetensors", ".bin", ".pth")
"""suffixes of weights that open_clip looks for in a folder"""
PARTS = (".json", ".model", ".txt", *WEIGHTS)
"""suffixes of the files in a folder that can change a feature"""


class Evaluator:
    """An open_clip model, loaded when a feature is not in the cache.

    Args:
        name: folder, or `architecture:weights`.
        cache: folder of cached features, made if missing.
        device: torch device.

    Raises:
        SpecError: no such model, its folder is incomplete, or its weights are not on this machine.
    """

    def __init__(self, name: str, cache: Path, device: str = "cpu") -> None:
        self.name, self.cache, self.device = name, cache, device
        self._loaded: tuple[Any, Any, Any] | None = None
        self.config: dict[str, Any] | None = None
        if Path(name).is_dir():
            self.config = read_config(Path(name))
            files = sorted(p for p in Path(name).iterdir() if p.suffix in PARTS and not p.name.startswith("."))
            self.hash = sha256(b"".join(bytes.fromhex(known_hash(p)) for p in files)).hexdigest()
        elif ":" in name:
            architecture, _, weights = name.partition(":")
            self.hash = sha256(
                f"{architecture} {known_hash(evaluator_weights(architecture, weights))}".encode()
            ).hexdigest()
        else:
            raise SpecError(f"evaluator: {name!r} is neither an open_clip folder nor architecture:weights")
        self.made_from = [self.hash, code_of(__name__, "open-clip-torch", "transformers", "tokenizers")]

    @property
    def about(self) -> dict[str, str]:
        return {"network": self.name, "library": "open-clip-torch", "sha256": self.hash, "resize": self.resize()}

    def resize(self) -> str:
        """`224 bicubic shortest`: what open_clip does before the network."""
        import open_clip

        if self.config is not None:
            model, preprocess = self.config["model_cfg"], self.config.get("preprocess_cfg", {})
        else:
            architecture, _, weights = self.name.partition(":")
            model, preprocess = open_clip.get_model_config(architecture), {}
            if open_clip.pretrained.is_pretrained_cfg(architecture, weights):
                preprocess = open_clip.pretrained.get_pretrained_cfg(architecture, weights)
        how = preprocess.get("interpolation", "bicubic"), preprocess.get("resize_mode", "shortest")
        return " ".join([str(model["vision_cfg"]["image_size"]), *how])

    def load(self) -> tuple[Any, Any, Any]:
        """(model, preprocess, tokenizer)."""
        if self._loaded is None:
            import open_clip

            folder = self.config is not None
            architecture, _, weights = (f"local-dir:{self.name}", "", "") if folder else self.name.partition(":")
            pretrained = os.path.expanduser(weights) or None
            try:
                model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=pretrained)
                tokenizer = open_clip.get_tokenizer(architecture)
            except Exception as error:  # of open_clip, torch, safetensors, transformers, as the files lead them to
                place = f"{self.name}: its weights, {CONFIG} or tokenizer" if folder else weights
                refuse(f"{place} cannot be loaded ({' '.join(str(error).split()):.300}); put the published files there")
            self._loaded = model.eval().to(self.device), preprocess, tokenizer
        return self._loaded

    @torch.no_grad()
    def images(self, paths: ImageFiles | Sequence[Path], batch: int = 128) -> Tensor:
        """Normalised features of image files: (n, d) float32."""
        files = ImageFiles.of(paths)

        def compute() -> Tensor:
            model, preprocess, _ = self.load()
            out = []
            for start in range(0, len(files), batch):
                loaded = [preprocess(files.open(path)) for path in files.paths[start : start + batch]]
                out.append(model.encode_image(torch.stack(loaded).to(self.device), normalize=True).float().cpu())
            return torch.cat(out)

        return cached(self.cache, [*self.made_from, files.content], len(files), compute)

    @torch.no_grad()
    def captions(self, texts: Sequence[str], batch: int = 256) -> Tensor:
        """Normalised features of captions: (n, d) float32."""

        def compute() -> Tensor:
            model, _, tokenizer = self.load()
            out = []
            for start in range(0, len(texts), batch):
                tokens = tokenizer(list(texts[start : start + batch])).to(self.device)
                out.append(model.encode_text(tokens, normalize=True).float().cpu())
            return torch.cat(out)

        return cached(self.cache, [*self.made_from, ["text", *texts]], len(texts), compute)


def refuse(why: str) -> NoReturn:
    raise SpecError(f"evaluator: {why}")


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of an open_clip folder, which holds weights and, where the configuration says so, a tokenizer.

    Raises:
        SpecError: a file is missing or damaged, or the configuration lacks a key.
    """
    path = folder / CONFIG
    try:
        record = read_json(path)
    except FileNotFoundError:
        refuse(f"{str(folder)!r} has no {CONFIG}")
    except (OSError, DamagedFile) as error:
        refuse(f"{error}; put the published file there")
    for key in KEYS:
        place = record
        for part in key.split("."):
            if not isinstance(place, dict) or part not in place:
                refuse(f"{path} has no key {key}; put the published file there")
            place = place[part]
    if not isinstance(record.get("preprocess_cfg", {}), dict):
        refuse(f"{path}: preprocess_cfg is not a mapping; put the published file there")
    if not any(p.suffix in WEIGHTS and p.stat().st_size for p in folder.iterdir()):
        refuse(f"{str(folder)!r} has no weights (open_clip_model.safetensors)")
    named = record["model_cfg"]["text_cfg"]
    if not isinstance(named, dict):
        refuse(f"{path}: model_cfg.text_cfg is not a mapping; put the published file there")
    if named.get("hf_tokenizer_name") and not any(p.name.startswith(TOKENIZER) for p in folder.iterdir()):
        refuse(f"{str(folder)!r} has no tokenizer (tokenizer.json), which {CONFIG} asks for")
    found: dict[str, Any] = record
    return found


TOKENIZER = ("tokenizer.", "vocab.", "sentencepiece", "spiece")
"""how the names of a tokenizer's own files begin; tokenizer_config.json alone is none"""
