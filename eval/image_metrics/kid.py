"""Kernel distance of the images' features to the real images' (Bińkowski et al. 2018), torchmetrics' kernel."""

from torchmetrics.image.kid import poly_kernel

from eval.image_metrics import Images, Traits, Value
from eval.networks.distances import squared_mmd

TRAITS = Traits(
    title="KID",
    unit="×1000",
    higher_is_better=False,
    per="set",
    library="torchmetrics",
    reads=("fid_features", "reference"),
    order=2,
)


def compute(images: Images) -> Value:
    """1000 × the unbiased estimate over all images, kernel (x·y/d + 1)³; what means over random subsets estimate."""
    value, replicates = squared_mmd(
        images.fid_features, images.reference, poly_kernel, unbiased=True, device=images.device
    )
    return 1000 * value, [1000 * r for r in replicates]
