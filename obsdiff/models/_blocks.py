"""Which block of a denoiser a layer is in, told from the modules alone."""

from torch import nn

BLOCK_LAYERS = 4
"""linear layers that a block without attention has at least; an expert of a mixture has three"""


def block_of(denoiser: nn.Module, name: str) -> str | None:
    """The block that a layer is in: the outermost item of a ModuleList that holds no list of blocks itself."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        parent, item = denoiser.get_submodule(".".join(parts[: end - 1])), ".".join(parts[:end])
        if isinstance(parent, nn.ModuleList) and is_block(denoiser.get_submodule(item)):
            return item
    return None


def is_block(module: nn.Module) -> bool:
    inner = [item for part in module.modules() if isinstance(part, nn.ModuleList) for item in part]
    return is_large(module) and not any(map(is_large, inner))


def is_large(module: nn.Module) -> bool:
    """Whether it has the layers of a block: several, or attention, whose projections may be fused into one."""
    count = linear_layers(module)
    attends = any(hasattr(part, "processor") or "Attention" in type(part).__name__ for part in module.modules())
    return count >= BLOCK_LAYERS or (count > 1 and attends)


def linear_layers(module: nn.Module) -> int:
    return sum(isinstance(part, nn.Linear) for part in module.modules())
