"""Inception-v3 features for FID and KID, cached by content: pool3, 2048 wide, with the weights of the original FID.

The network, its weights and its resize (bilinear to 299×299 as TensorFlow 1 did it, no antialiasing) are
torch-fidelity's, as torchmetrics has them with `antialias=False`.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from eval.images.image_files import ImageFiles
from eval.network_weights import INCEPTION_SHA256, INCEPTION_URL, inception_weights
from eval.networks.caching import cached, code_of
from obsdiff.errors import SpecError
from obsdiff.storage.cache import known_hash

SIZE = 299


class Inception:
    """The feature network, loaded when a feature is not in the cache.

    Args:
        name: as for inception_weights(); with `inception:download` the weights are fetched if they are not there.
        cache: folder of cached features, made if missing.
        device: torch device.

    Raises:
        SpecError: no weights where they should be.
    """

    def __init__(self, name: str, cache: Path, device: str = "cpu") -> None:
        self.name, self.cache, self.device = name, cache, device
        self.path = inception_weights(name)
        if not self.path.is_file():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(INCEPTION_URL, str(self.path), hash_prefix=INCEPTION_SHA256)
            except (OSError, RuntimeError) as error:
                raise SpecError(f"evaluation.fid_features: {INCEPTION_URL} cannot be fetched ({error})") from None
        self.weights = known_hash(self.path)
        self.hash = sha256(f"inception-v3 pool3 {self.weights}".encode()).hexdigest()
        self.made_from = [self.hash, code_of(__name__, "torch-fidelity")]
        self._loaded: nn.Module | None = None

    @property
    def about(self) -> dict[str, str]:
        resize = f"{SIZE} bilinear, as TensorFlow 1"
        return {"network": "Inception-v3 pool3", "library": "torch-fidelity", "sha256": self.weights, "resize": resize}

    def load(self) -> nn.Module:
        """Resized float images (n, 3, 299, 299), 0 to 255 → (n, 2048)."""
        if self._loaded is None:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

            try:
                torch.load(self.path, weights_only=True, map_location="cpu")  # torch-fidelity would run any pickle
                net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(self.path))
            except (RuntimeError, UnpicklingError, EOFError, AttributeError, KeyError, TypeError) as error:
                raise SpecError(
                    f"evaluation.fid_features: {self.path} holds no Inception-v3 weights of torch-fidelity; put "
                    f"{INCEPTION_URL} there"
                ) from error
            layers = [layer for name, layer in net.named_children() if name != "fc"]
            self._loaded = nn.Sequential(*layers, nn.Flatten()).to(self.device)
        return self._loaded

    @torch.no_grad()
    def images(self, paths: ImageFiles | Sequence[Path], batch: int = 64) -> Tensor:
        """Features of image files of any size: (n, 2048) float32."""
        files = ImageFiles.of(paths)

        def compute() -> Tensor:
            net, out = self.load(), []
            for start in range(0, len(files), batch):
                resized = [self.resized(files.read(path)) for path in files.paths[start : start + batch]]
                features: Tensor = net((torch.cat(resized) - 128) / 128)
                out.append(features.cpu())
            return torch.cat(out)

        return cached(self.cache, [*self.made_from, files.content], len(files), compute)

    def resized(self, image: Tensor) -> Tensor:
        """uint8 (3, h, w) → (1, 3, 299, 299) float32."""
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as resize

        made: Tensor = resize(image[None].to(self.device).float(), size=(SIZE, SIZE), align_corners=False)
        return made
