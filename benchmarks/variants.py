"""Other ways to run the same weights: torch.compile and kernels for 2:4, each let in only if it is numerically right.

A variant makes another module of a denoiser, or raises Refused. `judge` compares its output with the eager one's and
times the two in turns; a variant that is right and slower is reported as slower, a wrong one is not timed at all.
"""

import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.sparse import to_sparse_semi_structured

from eval.profile.latency import in_turns, ratios
from obsdiff import models, registry

TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""of ‖variant − eager‖ / ‖eager‖, by the weights' dtype"""


class Refused(Exception):
    """Why a variant cannot run these weights here."""


@dataclass(frozen=True)
class Verdict:
    """What a variant was found to be.

    Attributes:
        error: ‖variant − eager‖ / ‖eager‖ of the output; None where it did not run.
        speedup: quartiles of eager time over the variant's; None where it was refused.
        seconds: what making and first running it took.
        reason: why it was refused; '' where it was accepted.
    """

    error: float | None
    speedup: tuple[float, float, float] | None
    seconds: float
    reason: str = ""

    def __str__(self) -> str:
        if self.speedup is None:
            return f"refused: {self.reason}"
        low, _, high = self.speedup
        return "faster" if low > 1 else "slower" if high < 1 else "no difference shown"


def judge(
    eager: Callable[[], Tensor],
    make: Callable[[], Callable[[], Tensor]],
    tolerance: float,
    rounds: int,
    seconds: float,
) -> Verdict:
    """Whether a variant gives what eager gives, and how fast.

    Args:
        make: makes the variant's call; what it or its first call raises is the reason of the refusal.
        rounds, seconds: as in eval.profile.latency.in_turns().
    """
    expected = eager().float()
    begun = time.perf_counter()
    try:
        call = make()
        found = call().float()
    except Exception as error:  # compilers raise what they like
        return Verdict(None, None, time.perf_counter() - begun, first_line(error))
    took = time.perf_counter() - begun
    off = float((found - expected).norm() / expected.norm())
    if not off <= tolerance:  # NaN is not
        return Verdict(off, None, took, f"its output is off by {off:.2g}, more than {tolerance:g}")
    times = in_turns({"eager": lambda: {"": eager}, "variant": lambda: {"": call}}, rounds, seconds)
    low, median, high = ratios(times["eager", ""], times["variant", ""])
    return Verdict(off, (low, median, high), took)


def first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def compiled(denoiser: nn.Module) -> nn.Module:
    """A twin whose blocks are compiled, for these shapes alone; the whole of a network of no family.

    Blocks that are alike share one graph, so this takes a fraction of compiling the whole.
    """
    torch.compiler.reset()
    made = twin(denoiser)
    kinds = {models.traits(name).network: name for name in registry.names(models.__name__)}
    family = kinds.get(type(denoiser).__name__)
    names = registry.load(models.__name__, family).blocks(denoiser) if family else [""]
    for name in names:
        made.get_submodule(name).compile(dynamic=False)
    return made


def semi_structured(denoiser: nn.Module) -> nn.Module:
    """A twin whose 2:4 layers run on the GPU's sparse kernels; layers that these do not take stay dense.

    Raises:
        Refused: not on CUDA, neither float16 nor bfloat16, no layer is 2:4, or none has a shape that the kernels take.
    """
    weight = next(denoiser.parameters())
    if weight.device.type != "cuda":
        raise Refused(f"kernels for 2:4 run on CUDA, not on {weight.device.type}")
    if weight.dtype not in (torch.float16, torch.bfloat16):
        raise Refused(f"kernels for 2:4 take float16 and bfloat16, not {str(weight.dtype).removeprefix('torch.')}")
    made = twin(denoiser)
    layers = [m for m in made.modules() if isinstance(m, nn.Linear) and is_two_of_four(m.weight)]
    if not layers:
        raise Refused("no layer is 2:4")
    reasons = []
    for layer in layers:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that the class is a prototype
                sparse = to_sparse_semi_structured(layer.weight.detach().contiguous())
        except RuntimeError as error:  # a shape
            reasons.append(first_line(error))
        else:
            layer.weight = nn.Parameter(sparse, requires_grad=False)
    if len(reasons) == len(layers):
        raise Refused(reasons[0])
    return made


def twin(denoiser: nn.Module) -> nn.Module:
    """A copy of the modules that shares every parameter and buffer."""
    shared = {id(t): t for t in [*denoiser.parameters(), *denoiser.buffers()]}
    return copy.deepcopy(denoiser, shared)


def is_two_of_four(weight: Tensor) -> bool:
    """Whether no four neighbours in a row have more than two nonzeros, and some weight is zero."""
    if weight.ndim != 2 or weight.shape[1] % 4:
        return False
    return int(weight.detach().unflatten(1, (-1, 4)).count_nonzero(2).max()) <= 2


VARIANTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compile": compiled,
    "semi_structured": semi_structured,
    "semi_structured_compile": lambda denoiser: compiled(semi_structured(denoiser)),
}
