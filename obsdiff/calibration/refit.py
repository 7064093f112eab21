"""The denoiser's last linear layer, fitted to the dense model's outputs when everything before it is pruned.

With features x of the pruned model and outputs y of the dense layer for the same token of the same call, the layer
changes by the ridge regression's Δ = argmin Σ ‖y − (W + Δ) x‖² + λ ‖Δ‖². Where calls hold both sides of guidance of
scale s, tokens of the guided combination u + s (c − u) of features and outputs count as further ones, because they are
what the sampler uses.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from obsdiff import matrices, models
from obsdiff.calibration.trajectory import Trajectory

RIDGE = 1e-3
"""λ, in units of the mean diagonal of the features' products"""


@torch.no_grad()
def refit(
    trajectory: Trajectory,
    outputs: Mapping[int, Tensor],
    denoiser: nn.Module,
    last: str,
    device: torch.device,
    guidance: float,
) -> None:
    """Fit a layer in place, its bias included where it has one.

    Args:
        outputs: number of a call → the dense layer's output, (batch, tokens, rows).
        last: name of the layer, a torch.nn.Linear.
    """
    layer = models.linear(denoiser, last)
    features: list[Tensor] = []

    def note(module: nn.Module, args: Any) -> None:
        features[:] = [args[0]]

    rows, columns = matrices.shape(layer)
    width = columns + (layer.bias is not None)
    products = torch.zeros(width, width, dtype=torch.float64, device=device)
    residuals = torch.zeros(width, rows, dtype=torch.float64, device=device)
    handle = layer.register_forward_pre_hook(note)
    try:
        for number, call in enumerate(trajectory.calls()):
            trajectory.run(call, denoiser, device)
            prompts = trajectory.prompts[call.batch]
            for x, y in sides(features[0].float(), outputs[number].to(device).float(), prompts, guidance):
                error = y - nn.functional.linear(
                    x, layer.weight.float(), None if layer.bias is None else layer.bias.float()
                )
                tokens = x.reshape(-1, x.shape[-1])
                if layer.bias is not None:
                    tokens = torch.cat([tokens, torch.ones_like(tokens[:, :1])], dim=1)
                products += (tokens.T @ tokens).double()
                residuals += (tokens.T @ error.reshape(-1, error.shape[-1])).double()
    finally:
        handle.remove()
    products.diagonal().add_(RIDGE * products.diagonal().mean())
    change = torch.linalg.solve(products, residuals).T
    layer.weight.add_(change[:, :columns].to(layer.weight.dtype))
    if layer.bias is not None:
        layer.bias.add_(change[:, -1].to(layer.bias.dtype))


def sides(x: Tensor, y: Tensor, prompts: slice, guidance: float) -> list[tuple[Tensor, Tensor]]:
    """The features and outputs of a call, and their guided combination where it holds both sides."""
    if x.shape[0] != 2 * (prompts.stop - prompts.start):
        return [(x, y)]
    (xu, xc), (yu, yc) = x.chunk(2), y.chunk(2)
    return [(x, y), (xu + guidance * (xc - xu), yu + guidance * (yc - yu))]
