"""What a pruning run did: the spec, the dense pipeline's identity, every layer, and the cost."""

import resource
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

from obsdiff.canonical import canonical
from obsdiff.devices import TF32, synchronize
from obsdiff.sites import Site
from obsdiff.spec import PruneSpec


@dataclass
class LayerReport:
    """What happened to one linear layer."""

    name: str
    shape: tuple[int, int]
    """rows and columns of the dense weight"""
    removed: int
    """weights removed"""
    weight_error: float
    """‖ΔW‖² / ‖W‖², removed rows and columns counted as zeros"""
    calibration_error: float | None = None
    """tr(ΔW H ΔWᵀ) / tr(W H Wᵀ); None where no Hessian was accumulated"""
    damping: float | None = None
    """of the factorisation, in units of mean(diag H)"""
    bias_moved: bool = False
    """whether the removed inputs' mean went into the bias"""

    @property
    def sparsity(self) -> float:
        return self.removed / (self.shape[0] * self.shape[1])


@dataclass
class SiteReport:
    """Heads or neurons of one attention or feed-forward that stay."""

    layer: str
    """the consumer of its first stream"""
    kind: str
    groups: int
    kept: list[int]
    structure: Site | None = None
    """where it was found by a call, and no file of obsdiff/models knows it"""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "SiteReport":
        """From asdict() of one, or from JSON of that."""
        structure = record.get("structure")
        return cls(**{**record, "structure": None if structure is None else Site.of(structure)})


@dataclass
class Report:
    """One pruning run."""

    spec: PruneSpec
    base: dict[str, str]
    """identity of the dense pipeline (obsdiff/pipelines/identity.py): component → SHA-256, or 'absent'"""
    reach: float = 0.0
    """weights of the layers that the family can prune, over all parameters of the denoiser"""
    left_dense: dict[str, int] = field(default_factory=dict)
    """linear layers that the family never prunes, their names with `*` for block numbers → how many there are"""
    layers: list[LayerReport] = field(default_factory=list)
    sites: list[SiteReport] = field(default_factory=list)
    refitted: list[str] = field(default_factory=list)
    """layers that were fitted to the dense model's outputs at the end; none of their weights are removed"""
    packages: list[list[str]] = field(default_factory=list)
    """layers calibrated together, package by package"""
    seconds: dict[str, float] = field(default_factory=dict)
    """encode, sample, sensitivities, allocate, calibrate, solve, refit, total; wall-clock, runs before an interruption
    included. shared: of a calibration that was made beforehand for several runs; not in total"""
    peak_memory_bytes: int = 0
    """largest resident set of the process, or peak allocated on the GPU"""
    statistics_bytes: int = 0
    """largest sum of one package's statistics"""
    tf32: bool = TF32
    """whether float32 products could be TensorFloat-32"""

    @property
    def sparsity(self) -> float:
        """Removed weights over all weights of the layers that were pruned."""
        total = sum(rows * columns for rows, columns in (layer.shape for layer in self.layers))
        return sum(layer.removed for layer in self.layers) / total if total else 0.0

    def as_dict(self) -> dict[str, Any]:
        record = asdict(self)
        record["spec"] = canonical(self.spec)
        return record | {"sparsity": self.sparsity}


class Clock:
    """Adds a block's wall-clock seconds, the device's work included, to a dict under a name."""

    def __init__(self, seconds: dict[str, float], device: "torch.device") -> None:
        self.seconds = seconds
        self.device = device

    def __call__(self, name: str) -> "Clock":
        self.name = name
        return self

    def __enter__(self) -> None:
        self.begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        synchronize(self.device)
        self.seconds[self.name] = self.seconds.get(self.name, 0.0) + time.perf_counter() - self.begun


def peak_memory(device: "torch.device") -> int:
    """Bytes: peak allocated on a GPU, else the process's largest resident set."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
