"""Peak signal-to-noise ratio against the dense model's image of the same prompt and seed, by torchmetrics."""

import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from eval.image_metrics import Images, Traits, Value

TRAITS = Traits(
    title="PSNR to dense",
    unit="dB",
    higher_is_better=True,
    per="prompt",
    library="torchmetrics",
    reads=("dense",),
    headline=2,
    order=2,
)
CEILING = 60.0


def compute(images: Images) -> Value:
    """Averaged over images; one that equals the dense image, whose ratio is infinite, counts 60 dB."""
    parts = []
    for own, dense in images.pairs():
        parts.append(peak_signal_noise_ratio(own, dense, 255.0, reduction="none", dim=(1, 2, 3)).cpu())
    psnr = torch.cat(parts).clamp(max=CEILING)
    return float(psnr.mean()), psnr.tolist()
