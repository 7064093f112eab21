"""Metrics of a cell's model. A metric is one file; its stem is the column of the tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from obsdiff import registry

if TYPE_CHECKING:
    from obsdiff.checkpoints.manifest import Manifest

Value = tuple[float, tuple[float, float] | None]


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What the suite must know of a metric without importing it.

    Attributes:
        title, unit: for people.
        higher_is_better: its direction; None if neither is better as such.
        timed: whether it is a reading of a clock or of memory, which no two runs share to the digit.
        clocked: whether it comes from a cell's own timings, which not every cell has.
        table: of summary.md that has a column of it; summary.csv has all.
        order: of that column.
    """

    title: str
    unit: str
    higher_is_better: bool | None
    timed: bool = False
    clocked: bool = False
    table: Literal["", "similarity", "cost"] = ""
    order: int = 100


@dataclass(frozen=True)
class MeasuredLayer:
    """Relative squared output error of one layer, alone, on the dense model's inputs; and its sparsity."""

    name: str
    error: float
    sparsity: float


@dataclass(frozen=True)
class Deviation:
    """Relative squared errors against the dense model (eval/profile/deviation.py).

    Attributes:
        blocks: names in order of execution.
        by_block: of each block's output, a number per step.
        latents: of the latents after each step.
    """

    blocks: list[str]
    by_block: list[list[float]]
    latents: list[float]


@dataclass(frozen=True)
class Work:
    """Work of a denoiser call for one prompt, guidance included.

    Attributes:
        flops: dense, pruned, and ideal (of the pruned one without products with zeros).
        memory: peak bytes, the denoiser's weights included, dense and pruned.
    """

    flops: dict[str, int]
    memory: dict[str, int]


@dataclass(frozen=True)
class Profile:
    """What a pruned model is beside its images and its time: profile.json.

    Attributes:
        layers: errors in order of execution.
        prunable, denoiser: parameters of the prunable layers' weights and of the whole denoiser, `total` of the dense
            model and `nonzero` after pruning.
        bytes: of the denoiser's parameters, all in the pipeline's dtype: `dense`; `memory`, pruned, as dense kernels
            need them, zeros included; `disk`, the pruned layers' file and the parameters that are not in it.
        paper_flops: of the pruned denoiser as the paper counts (obsdiff/planning/counting.py); None of a pipeline
            without a file in obsdiff/models.
        machine: device, dtype, and whether float32 products may be TF32.
    """

    layers: list[MeasuredLayer]
    deviation: Deviation
    work: Work
    prunable: dict[str, int]
    denoiser: dict[str, int]
    bytes: dict[str, int]
    paper_flops: int | None
    machine: dict[str, Any]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Profile":
        """From the content of a profile.json."""
        layers = [MeasuredLayer(**layer) for layer in record["layers"]]
        own = {"layers": layers, "deviation": Deviation(**record["deviation"]), "work": Work(**record["work"])}
        return cls(**{**record, **own})


@dataclass(frozen=True)
class Model:
    """What model metrics see.

    Attributes:
        checkpoint: the pruned checkpoint's manifest.
        profile: what `python -m eval profile` wrote.
        latency: record of `python -m eval latency`; empty of a cell that is not timed.
    """

    checkpoint: "Manifest"
    profile: Profile
    latency: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_times(cls, latency: dict[str, Any]) -> "Model":
        """One that has timings alone, which is all that clocked metrics read."""
        nothing: Any = None
        return cls(nothing, nothing, latency)


class ModelMetric(Protocol):
    """A file of this folder."""

    def compute(self, model: Model) -> Value | None:
        """The value, and its quartiles if it was timed; None where the model has none."""


def traits(name: str) -> Traits:
    return registry.traits(__name__, name, Traits)
