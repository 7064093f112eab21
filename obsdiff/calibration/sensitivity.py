"""What an error of a layer's output does to the denoiser's guided output, by one backward pass of the dense model.

Let v be the denoiser's output as the sampler uses it: u + s (c − u) under classifier-free guidance of scale s, else the
output itself. To first order an error E of a layer's output moves v by J E, and for a random Gaussian λ of v's shape
g = ∂⟨v, λ⟩/∂(layer output) = Jᵀλ has E[g gᵀ] = JᵀJ (Hutchinson 1989): the mean of g² over λ is what a unit error of one
entry adds to ‖Δv‖². It is kept as a product of two parts, a weight for each token and one for each output row.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from obsdiff import matrices, models
from obsdiff.calibration.calls import Call
from obsdiff.calibration.trajectory import Trajectory
from obsdiff.packages import Group
from obsdiff.sampling import prompt_seed

LEAST = 1e-4
"""of a row's weight, in units of the mean: rows are divided by the weights' roots again"""


@dataclass
class Sensitivity:
    """Sums of g² over the calls of a trajectory, as far as they were asked for.

    Attributes:
        power: a token weighs its sum of g² to this power.
        tokens: (call, group, use) → (batch, …) float32 on the CPU, summed over the rows of the group's layers; uses are
            counted from 0, and a layer has several where a call reads it again with other tokens.
        rows: layer → (rows,) float32 on its device, summed over all calls and tokens.
        outputs: call → the dense output of the layer that is refitted, on the CPU.
    """

    power: float
    tokens: dict[tuple[int, Group, int], Tensor] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[int, Tensor] = field(default_factory=dict)

    def token_weights(self, group: Group) -> dict[tuple[int, int], Tensor] | None:
        """(call, use) → weights of the tokens, of mean 1 over all; None where no output depends on the group.

        A use on which no output depends is left out.
        """
        found = {(call, use): energy**self.power for (call, of, use), energy in self.tokens.items() if of == group}
        total = sum(float(weights.sum()) for weights in found.values())
        if not total:
            return None
        mean = total / sum(weights.numel() for weights in found.values())
        return {place: weights / mean for place, weights in found.items()}

    def row_weights(self, layer: str) -> Tensor | None:
        """(rows,) float32, of mean near 1; None where no output depends on the layer."""
        rows = self.rows.get(layer)
        if rows is None or not float(rows.sum()):
            return None
        return (rows / rows.mean()).clamp_min(LEAST)

    def importance(self, layer: str, group: Group) -> float:
        """The mean of g² over the layer's tokens and rows; 1 where rows were not asked for."""
        if layer not in self.rows:
            return 1.0
        tokens = sum(energy.numel() for (_, of, _), energy in self.tokens.items() if of == group)
        return float(self.rows[layer].mean()) / max(1, tokens)


def measure(
    trajectory: Trajectory,
    calls: Sequence[Call],
    denoiser: nn.Module,
    groups: Sequence[Group],
    device: torch.device,
    guidance: float | None,
    seed: int,
    last: str | None,
    power: float,
) -> Sensitivity:
    """Run calls of the dense model forward, and backward where layers are asked for.

    A λ is drawn for every call, on the CPU, from the run's seed and the call's place.

    Args:
        groups: whose layers to measure; none to run forward only.
        guidance: s; not used where a call has one row per prompt. None where it is not known which rows are which:
            both sides count alike then.
        last: name of the layer whose outputs are kept.
        power: of tokens' weights, see Sensitivity.
    """
    found = Sensitivity(power)
    outputs = {name: models.shape(denoiser, name)[0] for group in groups for name in group}
    rows = {name: torch.zeros(count, device=device) for name, count in outputs.items()}
    with listening(denoiser, groups, found, rows, last) as at:
        for number, call in enumerate(calls):
            at[:] = [number]
            with torch.set_grad_enabled(bool(groups)):
                output = trajectory.run(call, denoiser, device, differentiable=bool(groups))
                output = output[0] if isinstance(output, tuple | list) else output.sample
                output = torch.stack(output) if isinstance(output, list) else output  # one of each image
            if not groups:
                continue
            prompts = trajectory.prompts[call.batch]
            probe = direction(output.detach(), prompts.stop - prompts.start, guidance, seed, call)
            output.backward(probe)
            del output
    if groups:
        found.rows = rows
    return found


def direction(output: Tensor, prompts: int, guidance: float | None, seed: int, call: Call) -> Tensor:
    """∂⟨v, λ⟩/∂(output) for a Gaussian λ: λ itself, or ((1 − s) λ, s λ) where a call holds both sides of guidance."""
    generator = torch.Generator("cpu").manual_seed(prompt_seed(f"sensitivity/{call.batch}/{call.step}", seed))
    shape = (prompts, *output.shape[1:])
    probe = torch.randn(shape, generator=generator).to(output.device, output.dtype)
    if output.shape[0] == 2 * prompts:
        sides = (1.0, 1.0) if guidance is None else (1 - guidance, guidance)
        return torch.cat([side * probe for side in sides])
    return probe


@contextmanager
def listening(
    denoiser: nn.Module, groups: Sequence[Group], found: Sensitivity, rows: dict[str, Tensor], last: str | None
) -> Iterator[list[int]]:
    """Inside the block, backward passes add to `found` and `rows`; yields a list that holds the call's number."""
    at = [0]
    uses: Counter[tuple[int, str]] = Counter()
    handles: list[Any] = []
    network: Any = denoiser

    def listen(name: str, group: Group) -> None:
        layer = models.linear(denoiser, name)

        def note(use: int, gradient: Tensor) -> None:
            energy = matrices.tokens(layer, gradient).float().square()
            key = (at[0], group, use)
            tokens = energy.sum(dim=-1).cpu()
            found.tokens[key] = found.tokens[key] + tokens if key in found.tokens else tokens
            rows[name] += energy.reshape(-1, energy.shape[-1]).sum(dim=0)

        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            if output.requires_grad:
                output.register_hook(partial(note, uses[at[0], name]))
                uses[at[0], name] += 1

        handles.append(layer.register_forward_hook(hook))

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        found.outputs[at[0]] = output.detach().cpu()

    wanted = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    saves = bool(groups) and checkpointing(denoiser)
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        for group in groups:
            for name in group:
                listen(name, group)
        if last is not None:
            handles.append(denoiser.get_submodule(last).register_forward_hook(keep))
        yield at
    finally:
        for handle in handles:
            handle.remove()
        for parameter in wanted:
            parameter.requires_grad_(True)
        if saves:
            network.disable_gradient_checkpointing()


def checkpointing(denoiser: Any) -> bool:
    """Turn gradient checkpointing on, so that a pass holds one block's activations; False if it cannot or was on."""
    if not getattr(denoiser, "_supports_gradient_checkpointing", False) or denoiser.is_gradient_checkpointing:
        return False
    denoiser.enable_gradient_checkpointing()
    return True
