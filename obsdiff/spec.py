"""The validated description of one pruning run. Every input error is raised here, before any weights load."""

import re
from dataclasses import dataclass, field
from typing import Any, TypeVar

from obsdiff import allocations, methods, patterns, registry, weightings
from obsdiff.errors import SpecError
from obsdiff.sampling import Sampling
from obsdiff.typed import check_types, require

INDIVISIBLE = ("refuse", "exclude")
GROUPS = ("block", "row", "layer")
PACKAGES = r"[1-9]\d*|unit|sequential|(?=.*[1-9])(\d+(\.\d+)?)GiB"
MEMORY = r"\d+(\.\d+)?GiB"
SOLVERS = ("sweep", "admm", "best")
SENSITIVITIES = ("none", "tokens", "rows", "both")
DEFAULTS: dict[str, Any] = {
    "allocation": "uniform",
    "bias": False,
    "packages": 4,
    "calibration_steps": 0,
    "sensitivity": "none",
    "damping": 0.01,
    "resolve": False,
    "refit": False,
}
"""of the fields that are None until a spec is made, for methods that have no other (methods.Traits.defaults)"""
TRAJECTORY = ("calibration_steps", "sensitivity", "refit")
"""fields that need the cached trajectory of packages: sequential"""
PASSING = ("trajectory_memory",)
"""fields of PruneSpec that change how a result is made, and not the result"""
SEEDS = 2**63
"""one more than the largest seed of a torch generator that all devices take"""


T = TypeVar("T")


def stated(value: T | None) -> T:
    """A field that is None only until its spec is made."""
    assert value is not None
    return value


@dataclass(frozen=True)
class PruneSpec:
    """One pruning run: method, pattern and amount, and the calibration behind it."""

    method: str = "obs_diff"
    """a file of obsdiff/methods"""
    pattern: str = "unstructured"
    """a file of obsdiff/patterns: unstructured, structured, heads, neurons; or N:M, such as 2:4"""
    sparsity: float | None = None
    """fraction removed, in [0, 1); by default 0.5, or what N:M says"""
    weights: str | None = None
    """of method checkpoint: the pruned weights, as a .safetensors file of the denoiser or a diffusers folder"""
    layer_sparsity: dict[str, float] = field(default_factory=dict)
    """other sparsities by layer-name pattern, such as '*.ff.*' 0.6; the first that matches counts"""
    allocation: str | None = None
    """a file of obsdiff/allocations: how the sparsity is shared out over layers; by default the method's, or uniform"""
    exclude: tuple[str, ...] = ()
    """layer-name patterns left dense, such as 'transformer_blocks.0.*'"""
    convolutions: bool = False
    """of UNets: prune 1×1 convolutions, too, of shortcuts and around the transformer blocks; elsewhere those inside the
    blocks always are"""
    indivisible: str = "refuse"
    """layers whose width is not a multiple of M: refuse or exclude them"""
    group: str = "method"
    """weights compared with each other: block, row or layer; method: the method's own"""
    compensate: bool = True
    """whether the OBS methods update the remaining weights; --no-compensate leaves the mask alone"""
    solver: str = "method"
    """of methods that compensate, for masks: sweep (by columns), admm, or best of the two; method: the method's own"""
    resolve: bool | None = None
    """solve the remaining weights of the sweep's mask again, exactly, as after admm; by default the method's, or no"""
    sensitivity: str | None = None
    """weigh errors by what they do to the denoiser's guided output: none, tokens, rows or both; needs packages:
    sequential; by default the method's, or none"""
    token_power: float = 0.5
    """of sensitivity tokens or both: a token weighs its squared sensitivity to this power, in [0, 1]; 0 weighs all
    alike"""
    bias: bool | None = None
    """move the removed inputs' mean into the layer's bias, where it has one; by default the method's, or no"""
    refit: bool | None = None
    """fit the denoiser's last linear layer to the dense output at the end; needs packages: sequential; by default the
    method's, or no"""
    weighting: str = "log_decrease"
    """a file of obsdiff/weightings: how much each denoising step counts"""
    alpha_min: float = 0.8
    """smallest timestep weight (official code's default)"""
    alpha_max: float = 1.2
    """largest timestep weight"""
    alphas: tuple[float, ...] = ()
    """timestep weights of weighting 'table', first step first"""
    packages: int | str | None = None
    """module packages, each calibrated on the model as pruned so far: a count, unit, or a budget such as 2GiB, with a
    sampling run each; or sequential: every layer by itself, along one sampling run of the dense model; by default the
    method's, or 4"""
    calibration_steps: int | None = None
    """of packages sequential: calibrate on so many steps of each batch of prompts, other ones for other batches; 0 for
    all; by default the method's, or half of them, rounded up"""
    trajectory_memory: str = "8GiB"
    """of packages sequential: host memory for denoiser calls that wait; files beyond it, or calls made again"""
    offload_statistics: bool = False
    """keep statistics in CPU memory"""
    damping: float | None = None
    """added to the Hessian's diagonal, in units of its mean; by default the method's, or 0.01"""
    block_size: int = 128
    """columns solved and compared together by the OBS methods"""
    seed: int = 0
    """of the calibration noise and of random masks"""
    prompts: tuple[str, ...] = ()
    """calibration prompts"""
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "pattern", patterns.canonical(self.pattern))
        try:
            registry.check("obsdiff.methods", self.method, "method")
            resolved = patterns.resolve(self.pattern)
            self.fill_in()
            for key in ("weighting", "allocation"):
                registry.check(f"obsdiff.{key}s", getattr(self, key), key)
        except registry.UnknownEntry as error:
            raise SpecError(str(error)) from None
        if self.sparsity is None:
            own = 0.5 if resolved.sparsity is None else resolved.sparsity
            object.__setattr__(self, "sparsity", own if self.traits.prunes else 0.0)
        self.check_amount()
        self.check_together()
        choices = {
            "indivisible": INDIVISIBLE,
            "group": ("method", *GROUPS),
            "solver": ("method", *SOLVERS),
            "sensitivity": SENSITIVITIES,
        }
        for key, allowed in choices.items():
            require(getattr(self, key) in allowed, key, getattr(self, key), f"one of {', '.join(allowed)}")
        ok = 0 < self.alpha_min <= self.alpha_max
        require(ok, "alpha_min, alpha_max", (self.alpha_min, self.alpha_max), "0 < alpha_min <= alpha_max")
        numbers = all(a >= 0 for a in self.alphas)
        require(numbers and (not self.alphas or max(self.alphas) > 0), "alphas", self.alphas, "numbers >= 0, one > 0")
        ok = bool(re.fullmatch(PACKAGES, str(self.packages)))
        what = "an integer >= 1, 'unit' (one per unit), 'sequential', or a memory budget such as '2GiB'"
        require(ok, "packages", self.packages, what)
        ok = bool(re.fullmatch(MEMORY, self.trajectory_memory))
        require(ok, "trajectory_memory", self.trajectory_memory, "a size such as '8GiB', or '0GiB'")
        if isinstance(self.packages, str) and self.packages.isdecimal():
            object.__setattr__(self, "packages", int(self.packages))
        require(self.block_size >= 1, "block_size", self.block_size, "an integer >= 1")
        require(stated(self.damping) > 0, "damping", self.damping, "a number > 0")
        require(0 <= self.token_power <= 1, "token_power", self.token_power, "in [0, 1]")
        steps = stated(self.calibration_steps)
        require(steps >= 0, "calibration_steps", steps, "an integer >= 0; 0 calibrates on all steps")
        require(0 <= self.seed < SEEDS, "seed", self.seed, "an integer in [0, 2**63)")

    def fill_in(self) -> None:
        """Give every field that is still None its default, the method's own first.

        A method's defaults that need the cached trajectory fall away where the spec has other packages, and its
        allocation where sparsities are fixed.
        """
        own = dict(self.traits.defaults)
        if self.resolved.structured:
            own |= self.traits.structured
        if self.packages not in (None, own.get("packages")):
            own = {key: value for key, value in own.items() if key not in TRAJECTORY}
        if self.resolved.structured or self.resolved.sparsity is not None or self.layer_sparsity:
            own.pop("allocation", None)
        if (self.packages or own.get("packages")) == "sequential":
            own.setdefault("calibration_steps", (self.sampling.steps + 1) // 2)
        for key, value in (DEFAULTS | own).items():
            if getattr(self, key) is None:
                object.__setattr__(self, key, value)

    def check_amount(self) -> None:
        s, fixed = self.amount, self.resolved.sparsity
        require(0 <= s < 1, "sparsity", s, "in [0, 1)")
        require(s == 0 or self.traits.prunes, "sparsity", s, f"0, the only one that method {self.method!r} takes")
        if fixed is not None and s:
            ok = abs(s - fixed) < 1e-9
            require(ok, "sparsity", s, f"{fixed:g}, the only one that pattern {self.pattern!r} has; leave it out")
        for name, value in self.layer_sparsity.items():
            require(0 <= value < 1, f"layer_sparsity.{name}", value, "in [0, 1)")

    def check_together(self) -> None:
        """Values that are allowed each, and not together."""
        pattern, kinds = self.resolved, self.traits.kinds
        self.check_weights()
        serves = f"served by method {self.method!r}, which takes {' and '.join(kinds)} patterns"
        require(pattern.traits.kind in kinds or not self.traits.prunes, "pattern", self.pattern, serves)
        if pattern.sparsity is not None:
            require(not self.layer_sparsity, "layer_sparsity", self.layer_sparsity, f"free with {self.pattern}")
            require(self.allocation == "uniform", "allocation", self.allocation, f"free with {self.pattern}; uniform")
        ok = not self.layer_sparsity or self.allocation == "uniform"
        require(ok, "allocation", self.allocation, "free with layer_sparsity; uniform")
        for key in TRAJECTORY:
            value = getattr(self, key)
            ok = value == DEFAULTS[key] or self.sequential or not self.statistic
            require(ok, key, value, f"possible with packages {self.packages!r}; give packages: sequential")
        ok = bool(self.alphas) or not self.takes_table or not self.traits.weighted
        require(ok, "alphas", self.alphas, f"what weighting {self.weighting!r} needs: numbers, first step first")

    def check_weights(self) -> None:
        """Given weights where the method takes them, and there nothing that would decide what they hold."""
        if not self.traits.given:
            unused = f"used by method {self.method!r}; leave it out, or give method: checkpoint"
            require(self.weights is None, "weights", self.weights, unused)
            return
        needed = f"what method {self.method!r} needs: a .safetensors file of the denoiser, or a diffusers folder"
        require(bool(self.weights and self.weights.strip()), "weights", self.weights, needed)
        for key, value in (("layer_sparsity", {}), ("allocation", "uniform"), ("bias", False)):
            found = getattr(self, key)
            require(found == value, key, found, "possible where the weights are given; leave it out")
        require(self.amount > 0, "sparsity", self.amount, "that of pruned weights; state theirs")

    @property
    def amount(self) -> float:
        """The sparsity, which is a number once the spec is made."""
        assert self.sparsity is not None
        return self.sparsity

    @property
    def traits(self) -> methods.Traits:
        """The method's, read without importing it."""
        return methods.traits(self.method)

    @property
    def resolved(self) -> patterns.Pattern:
        return patterns.resolve(self.pattern)

    @property
    def chosen_solver(self) -> str | None:
        """The solver of masks; None where the method scores weights."""
        return self.traits.solver if self.solver == "method" else self.solver

    @property
    def chosen_group(self) -> str:
        """The weights compared with each other where the pattern leaves that open."""
        return self.traits.group if self.group == "method" else self.group

    @property
    def takes_table(self) -> bool:
        return weightings.traits(self.weighting).table

    @property
    def statistic(self) -> str | None:
        """What calibration sums up for pruning: the method's need, or the means that bias compensation takes."""
        return self.traits.statistic or ("moments" if self.bias and self.traits.prunes else None)

    @property
    def sequential(self) -> bool:
        """Whether layers are calibrated one by one along the dense model's sampling run."""
        return self.packages == "sequential" and self.statistic is not None

    @property
    def weighed(self) -> str:
        """`sensitivity`, as far as it changes the result.

        Rows' weights do nothing where rows neither compete for the same mask nor decide on a layer's sparsity.
        """
        rows = self.resolved.sparsity is None and (self.resolved.structured or self.chosen_group != "row")
        if rows or allocations.traits(stated(self.allocation)).statistic:
            return stated(self.sensitivity)
        return {"rows": "none", "both": "tokens"}.get(stated(self.sensitivity), stated(self.sensitivity))

    @property
    def calibrates(self) -> bool:
        """Whether sampling runs, and so prompts, are needed at all."""
        allocated = allocations.traits(stated(self.allocation)).statistic
        return self.traits.prunes and (self.statistic or allocated) is not None
