"""Picture and caption features of an open_clip model, cached by content.

An evaluator is named by a folder that holds an open_clip model (`zoo/emoji-clip`), or as `architecture:weights`
(`ViT-B-16-quickgelu:openai`, `ViT-B-16-quickgelu:/path/to/weights`). Weights named by a tag must be in the hub's cache.
"""

import fcntl
import json
import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from eval.pictures import PictureFiles
from eval.weights import evaluator_weights
from obsdiff.errors import SpecError
from obsdiff.files import file_hash


def cached(folder: Path, content: list[Any], compute: Callable[[], Tensor]) -> Tensor:
    """`compute()`, or what it gave before for the same content; of several processes one computes."""
    key = sha256(json.dumps(content).encode()).hexdigest()[:32]
    path = folder / f"{key}.safetensors"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.is_file():
                side = path.with_suffix(f".{os.getpid()}.tmp")
                save_file({"features": compute().contiguous()}, side)
                side.rename(path)
    return load_file(path)["features"]


class Evaluator:
    """An open_clip model, loaded when a feature is not in the cache.

    Args:
        name: folder, or `architecture:weights`.
        cache: folder of cached features, made if missing.
        device: torch device.

    Raises:
        SpecError: no such model, or its weights are not on this machine.
    """

    def __init__(self, name: str, cache: Path, device: str = "cpu") -> None:
        self.name, self.cache, self.device = name, cache, device
        self._loaded: tuple[Any, Any, Any] | None = None
        if Path(name).is_dir():
            if not (Path(name) / "open_clip_config.json").is_file():
                raise SpecError(f"evaluator: {name!r} has no open_clip_config.json")
            files = sorted(p for p in Path(name).iterdir() if p.suffix in (".json", ".safetensors"))
            self.hash = sha256(b"".join(sha256(p.read_bytes()).digest() for p in files)).hexdigest()
        elif ":" in name:
            architecture, _, weights = name.partition(":")
            self.hash = sha256(
                f"{architecture} {file_hash(evaluator_weights(architecture, weights))}".encode()
            ).hexdigest()
        else:
            raise SpecError(f"evaluator: {name!r} is neither an open_clip folder nor architecture:weights")

    @property
    def about(self) -> dict[str, str]:
        return {"network": self.name, "library": "open-clip-torch", "sha256": self.hash, "resize": self.resize()}

    def resize(self) -> str:
        """`224 bicubic shortest`: what open_clip does before the network."""
        import open_clip

        if Path(self.name).is_dir():
            config = json.loads((Path(self.name) / "open_clip_config.json").read_text())
            model, preprocess = config["model_cfg"], config.get("preprocess_cfg", {})
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

            folder = Path(self.name).is_dir()
            architecture, _, weights = (f"local-dir:{self.name}", "", "") if folder else self.name.partition(":")
            pretrained = os.path.expanduser(weights) or None
            model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=pretrained)
            self._loaded = model.eval().to(self.device), preprocess, open_clip.get_tokenizer(architecture)
        return self._loaded

    @torch.no_grad()
    def pictures(self, paths: PictureFiles | Sequence[Path], batch: int = 128) -> Tensor:
        """Normalised features of picture files: (n, d) float32."""
        files = PictureFiles.of(paths)

        def compute() -> Tensor:
            model, preprocess, _ = self.load()
            out = []
            for start in range(0, len(files), batch):
                loaded = [preprocess(Image.open(path).convert("RGB")) for path in files.paths[start : start + batch]]
                out.append(model.encode_image(torch.stack(loaded).to(self.device), normalize=True).float().cpu())
            return torch.cat(out)

        return cached(self.cache, [self.hash, files.digests], compute)

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

        return cached(self.cache, [self.hash, ["text", *texts]], compute)
