"""How much device memory a pruning run takes, estimated from configurations alone, and what to change to fit.

Three moments count: the prompts encoded, the denoiser sampling while statistics are summed up, a layer solved. With
model offload the text encoders leave after the first and the denoiser comes then; without it everything is there at
the start. Weights and statistics are exact; activations and the solver's workspace are rules of thumb.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from obsdiff import components, models, targets
from obsdiff.errors import SpecError
from obsdiff.loading import configuration
from obsdiff.sources import INDEX
from obsdiff.spec import PruneSpec, Source
from obsdiff.targets import Target

COPIES = 8
"""tensors as large as the widest layer's input and output that are alive at once"""
MATRICES = 6
"""float64 matrices as large as the Hessian while it is factored and swept"""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device at the three moments."""

    encoding: int
    calibration: int
    solving: int

    @property
    def peak(self) -> int:
        return max(self.encoding, self.calibration, self.solving)


def component_bytes(source: Source) -> dict[str, int]:
    """Bytes of every component whose configuration is at hand, in the source's dtype."""
    size = torch.finfo(getattr(torch, source.dtype)).bits // 8
    found = {}
    for name, (library, kind) in components.components(configuration(source, INDEX)).items():
        if library not in ("diffusers", "transformers") or name in source.without:
            continue
        cls: Any = components.class_of(name, library, kind)
        if not issubclass(cls, nn.Module):
            continue
        config = configuration(source, f"{name}/config.json")
        components.check_kind(Path(source.model, name), cls, config)
        with components.explained(name, Path(source.model)), torch.device("meta"):
            made = cls.from_config(config) if components.is_diffusers(cls) else cls(cls.config_class(**config))
        found[name] = size * sum(p.numel() for p in made.parameters())
    return found


def estimate(
    source: Source,
    spec: PruneSpec,
    weights: Mapping[str, int],
    denoiser: nn.Module,
    cuts: Sequence[Sequence[Target]],
    widest: int,
) -> Memory:
    """The memory of a run.

    Args:
        weights: of component_bytes().
        cuts: the packages.
        widest: numbers in the largest input and output of a layer, of one prompt.
    """
    own = weights[next(name for name in ("transformer", "unet") if name in weights)]
    encoders = sum(size for name, size in weights.items() if "encoder" in name)
    statistics = max((targets.package_bytes(denoiser, package, spec.statistic) for package in cuts), default=0)
    kept = 0 if spec.offload_statistics else statistics
    activations = COPIES * widest * spec.sampling.batch_size * (torch.finfo(getattr(torch, source.dtype)).bits // 8)
    columns = [models.linear(denoiser, g[0]).in_features for cut in cuts for t in cut for g in t.unit]
    workspace = MATRICES * 8 * max(columns, default=0) ** 2 if spec.facts["COMPENSATES"] else 0
    loaded = sum(weights.values()) if source.offload == "none" else encoders
    return Memory(loaded, own + kept + activations, own + kept + workspace)


def ways(source: Source, spec: PruneSpec) -> list[tuple[str, Source, PruneSpec]]:
    """What may be changed to need less, the mildest first: words, source, spec."""
    away = replace(source, offload="model") if source.offload == "none" else source
    offload = "" if away is source else "--offload model"
    budget, main = replace(spec, packages="2GiB"), replace(spec, packages="2GiB", offload_statistics=True)
    return [
        ("as it is", source, spec),
        *([(f"with {offload}", away, spec)] if offload else []),
        (f"with {offload} --packages 2GiB".replace("  ", " "), away, budget),
        (f"with {offload} --packages 2GiB --offload-statistics".replace("  ", " "), away, main),
    ]


def fitting(
    budget: int,
    source: Source,
    spec: PruneSpec,
    weights: Mapping[str, int],
    denoiser: nn.Module,
    chosen: Sequence[Target],
    widest: int,
) -> str:
    """The mildest way to run within `budget` bytes, in words; 'not at all' where there is none."""
    for words, where, changed in ways(source, spec):
        try:
            cuts = targets.cut(denoiser, chosen, changed)
        except SpecError:
            continue
        if estimate(where, changed, weights, denoiser, cuts, widest).peak <= budget:
            return words
    return "not at all"
