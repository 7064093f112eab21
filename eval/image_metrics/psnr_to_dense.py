"""Peak signal-to-noise ratio against the dense model's picture of the same prompt and seed, by torchmetrics."""

from torchmetrics.functional.image import peak_signal_noise_ratio

from eval.image_metrics import Pictures, Value

TITLE = "PSNR to dense"
UNIT = "dB"
HIGHER_IS_BETTER = True
CEILING = 60.0


def compute(pictures: Pictures) -> Value:
    """Averaged over pictures; one that equals the dense picture, whose ratio is infinite, counts 60 dB."""
    psnr = peak_signal_noise_ratio(
        pictures.pixels.float(), pictures.dense_pixels.float(), data_range=255.0, reduction="none", dim=(1, 2, 3)
    ).clamp(max=CEILING)
    return float(psnr.mean()), psnr.tolist()
