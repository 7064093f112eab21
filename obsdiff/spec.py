"""The validated description of one pruning run. Every input error is raised here, before any weights load."""

from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

from obsdiff import registry
from obsdiff.errors import SpecError

DTYPES = ("float32", "bfloat16", "float16")
OFFLOAD = ("none", "model", "sequential")


def require(ok: bool, key: str, value: object, allowed: str) -> None:
    if not ok:
        raise SpecError(f"{key}: {value!r} is not {allowed}")


def is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Source:
    """Where a pipeline's weights are and how they are loaded."""

    model: str
    """hub id or local diffusers folder"""
    revision: str | None = None
    """hub branch, tag or commit"""
    variant: str | None = None
    """weight file variant, such as fp16"""
    dtype: str = "float32"
    """float32, bfloat16 or float16"""
    device: str = "cpu"
    """torch device"""
    offload: str = "none"
    """none, model or sequential (diffusers' CPU offload)"""
    local_files_only: bool = True
    """never download; --no-local-files-only to fetch from the hub"""

    def __post_init__(self) -> None:
        require(self.dtype in DTYPES, "dtype", self.dtype, f"one of {', '.join(DTYPES)}")
        require(self.offload in OFFLOAD, "offload", self.offload, f"one of {', '.join(OFFLOAD)}")
        require(bool(self.model), "model", self.model, "a hub id or a diffusers folder")


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled, in calibration and in use."""

    steps: int = 28
    """denoising steps"""
    guidance_scale: float = 7.0
    """classifier-free guidance; 1 turns it off"""
    height: int | None = None
    """pixels; the pipeline's own where left out"""
    width: int | None = None
    """pixels"""
    max_sequence_length: int | None = None
    """tokens of the T5 text (SD3, Flux); the pipeline's own where left out"""
    batch_size: int = 8
    """prompts sampled together"""

    def __post_init__(self) -> None:
        require(is_int(self.steps) and self.steps >= 1, "steps", self.steps, "an integer >= 1")
        ok = is_number(self.guidance_scale) and self.guidance_scale >= 0
        require(ok, "guidance_scale", self.guidance_scale, "a number >= 0")
        require(is_int(self.batch_size) and self.batch_size >= 1, "batch_size", self.batch_size, "an integer >= 1")
        for key in ("height", "width"):
            value = getattr(self, key)
            require(value is None or (is_int(value) and value > 0), key, value, "an integer > 0")
        length = self.max_sequence_length
        require(length is None or (is_int(length) and 0 <= length <= 512), "max_sequence_length", length, "in [0, 512]")

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of a diffusers pipeline's call; what is left out stays the pipeline's own."""
        asked = asdict(self)
        del asked["batch_size"]
        asked["num_inference_steps"] = asked.pop("steps")
        return {k: v for k, v in asked.items() if v is not None}


@dataclass(frozen=True)
class PruneSpec:
    """One pruning run: method, pattern and amount, and the calibration behind it."""

    method: str = "obs_diff"
    """a file of obsdiff/methods"""
    pattern: str = "unstructured"
    """a file of obsdiff/patterns"""
    sparsity: float = 0.5
    """fraction of the prunable weights removed, in [0, 1)"""
    weighting: str = "log_decrease"
    """a file of obsdiff/weightings: how much each denoising step counts"""
    alpha_min: float = 0.8
    """smallest timestep weight (official code's default)"""
    alpha_max: float = 1.2
    """largest timestep weight"""
    packages: int = 4
    """module packages, each calibrated on the model as pruned so far"""
    damping: float = 0.01
    """added to the Hessian's diagonal, in units of its mean"""
    block_size: int = 128
    """columns solved and compared together by the OBS methods"""
    seed: int = 0
    """of the calibration noise and of random masks"""
    prompts: tuple[str, ...] = ()
    """calibration prompts"""
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        for key, package in (("method", "methods"), ("pattern", "patterns"), ("weighting", "weightings")):
            try:
                registry.check(f"obsdiff.{package}", getattr(self, key), key)
            except registry.UnknownEntry as error:
                raise SpecError(str(error)) from None
        s = self.sparsity
        require(is_number(s) and 0 <= s < 1, "sparsity", s, "in [0, 1)")
        require(s == 0 or self.facts["PRUNES"], "sparsity", s, f"0, the only one that method {self.method!r} takes")
        ok = is_number(self.alpha_min) and is_number(self.alpha_max) and 0 < self.alpha_min <= self.alpha_max
        require(ok, "alpha_min, alpha_max", (self.alpha_min, self.alpha_max), "0 < alpha_min <= alpha_max")
        require(is_int(self.packages) and self.packages >= 1, "packages", self.packages, "an integer >= 1")
        require(is_int(self.block_size) and self.block_size >= 1, "block_size", self.block_size, "an integer >= 1")
        require(is_number(self.damping) and self.damping > 0, "damping", self.damping, "a number > 0")
        require(is_int(self.seed) and self.seed >= 0, "seed", self.seed, "an integer >= 0")

    @property
    def facts(self) -> dict[str, Any]:
        """The method's constants (STATISTIC, WEIGHTED, COMPENSATES, GROUP, PRUNES), read without importing it."""
        return registry.constants("obsdiff.methods", self.method)

    def canonical(self) -> dict[str, Any]:
        """All that defines the result, with the prompts as their hash and what the method ignores at its neutral."""
        record = asdict(self)
        facts = self.facts
        if not facts["WEIGHTED"]:
            record |= {"weighting": "uniform", "alpha_min": 1.0, "alpha_max": 1.0}
        if facts["STATISTIC"] is None:
            record |= {"packages": 1, "prompts": (), "sampling": {}}
        record["prompts"] = sha256("\n".join(record["prompts"]).encode()).hexdigest()
        return record
