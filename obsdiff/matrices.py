"""Layers that multiply every token by a matrix: torch.nn.Linear, and 1×1 convolutions, whose tokens are pixels.

All else in the library sees them alike: weights of (rows, columns), inputs and outputs of (batch, …, columns or rows).
"""

from typing import TypeGuard

from torch import Tensor, nn

Layer = nn.Linear | nn.Conv2d


def is_layer(module: nn.Module) -> TypeGuard[Layer]:
    """Whether a module is one: a convolution only if it gives a pixel for a pixel, by the same, whole matrix."""
    if isinstance(module, nn.Conv2d):
        padded = module.padding not in ((0, 0), "valid", "same")
        return module.kernel_size == module.stride == (1, 1) and module.groups == 1 and not padded
    return isinstance(module, nn.Linear)


def shape(layer: Layer) -> tuple[int, int]:
    """Rows and columns of the matrix, as the layer says."""
    if isinstance(layer, nn.Conv2d):
        return layer.out_channels, layer.in_channels
    return layer.out_features, layer.in_features


def matrix(layer: Layer) -> Tensor:
    """(rows, columns), the weight itself or a view of it."""
    return layer.weight.flatten(1)


def put(layer: Layer, weight: Tensor, bias: Tensor | None) -> None:
    """Give a layer another matrix, of whatever shape, and a bias where it has one; in its dtype and on its device."""
    new = weight.to(layer.weight)
    rows, columns = new.shape
    if isinstance(layer, nn.Conv2d):
        layer.out_channels, layer.in_channels = rows, columns
        new = new[:, :, None, None]
    else:
        layer.out_features, layer.in_features = rows, columns
    layer.weight = nn.Parameter(new, requires_grad=layer.weight.requires_grad)
    if layer.bias is not None and bias is not None:
        layer.bias = nn.Parameter(bias.to(layer.bias), requires_grad=layer.bias.requires_grad)


def tokens(layer: Layer, x: Tensor) -> Tensor:
    """An input or output of a layer as (batch, …, columns or rows); a convolution has channels before pixels."""
    return x.movedim(-3, -1) if isinstance(layer, nn.Conv2d) else x
