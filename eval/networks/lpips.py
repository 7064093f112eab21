"""LPIPS on a file of torchvision's ImageNet weights, with torchmetrics' linear heads; nothing is fetched."""

import re
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.image.lpips import _LPIPS

from eval.images.image_files import ImageFiles
from eval.network_weights import LPIPS_URLS, lpips_weights
from obsdiff.errors import SpecError
from obsdiff.storage.cache import known_hash


class Lpips:
    """The network that `evaluation.lpips` names, loaded when it is first asked.

    Args:
        name: as for lpips_weights().
        device: torch device.

    Raises:
        SpecError: no weights where they should be, or others.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        self.network, self.device = name.partition(":")[0], device
        self.path = lpips_weights(name)

    @property
    def about(self) -> dict[str, Any]:
        return {
            "library": f"torchmetrics {version('torchmetrics')}",
            "network": f"LPIPS {self.network}",
            "weights": self.path.name,
            "sha256": known_hash(self.path),
        }

    @torch.no_grad()
    def distances(self, first: ImageFiles, second: ImageFiles) -> Tensor:
        """LPIPS of pairs of files of one size, (n,) float32."""
        net, out = load(self.network, self.path).to(self.device), []
        for a, b in zip(first.batches(), second.batches(), strict=True):
            scaled = (images.to(self.device).float() / 255 for images in (a, b))
            out.append(net(*scaled, normalize=True).flatten().cpu())
        return torch.cat(out)


@lru_cache(maxsize=1)
def load(network: str, path: Path) -> torch.nn.Module:
    """torchmetrics' public class would fetch the network; its inner one takes ours, its keys with the slice before."""
    net = _LPIPS(net=network, pnet_rand=True)  # type: ignore[arg-type]
    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
        wanted = {key: re.sub(r"^slices?\.?\d+", "features", key) for key in net.net.state_dict()}
        net.net.load_state_dict({key: found[source] for key, source in wanted.items()})
    except (RuntimeError, UnpicklingError, EOFError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise SpecError(
            f"evaluation.lpips: {path} holds no weights of torchvision's {network}; put {LPIPS_URLS[network]} there"
        ) from error
    return net
