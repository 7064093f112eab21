"""What a spec will do to a model, from its configuration alone: layers, packages, bytes, parameters, FLOPs."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from obsdiff import components, models, surgery, targets
from obsdiff.loading import class_named, configuration, denoiser_class
from obsdiff.memory import Memory, component_bytes, estimate, fitting
from obsdiff.sources import INDEX
from obsdiff.spec import PruneSpec, Sampling, Source
from obsdiff.surgery import State
from obsdiff.targets import Target

PAPER_TOKENS = 77
PAPER_MULTIPLY_ADD = {"transformer": 1, "unet": 2}
"""denoiser → FLOPs of a multiply-add in the paper's tables 4 and 9, and 3"""


@dataclass(frozen=True)
class PackagePlan:
    layers: list[str]
    statistics_bytes: int
    """of all its statistics at once, float32"""


@dataclass(frozen=True)
class Plan:
    """Counted on the meta device, no weights.

    Attributes:
        layers: every layer that loses weights → its sparsity.
        parameters, pruned_parameters: of the denoiser; a zero is no parameter.
        flops, pruned_flops: of one call of the denoiser for one prompt (two where guided), 2 a multiply-add, as counted
            by torch. Zeros are multiplied like any other number: pruned_flops falls only where heads or neurons go.
        attention_flops, pruned_attention_flops: what of those is the products of attention's queries, keys and values,
            which published counts often leave out.
        theoretical_flops: with the multiplications by zeros of the pruned layers left out.
        sampling_runs: of the whole calibration set; the same set once a package, twice where it is sequential.
        calibration_flops: of all those runs.
        reach: weights of the layers that the family can prune, over all parameters of the denoiser.
        left_dense: linear layers that it never prunes, their names with `*` for block numbers → how many there are.
        memory: estimated bytes on the device (obsdiff/memory.py).
        fits: the mildest way to run within the budget.
    """

    layers: dict[str, float]
    packages: list[PackagePlan]
    statistic: str | None
    parameters: int
    pruned_parameters: int
    flops: int
    pruned_flops: int
    attention_flops: int
    pruned_attention_flops: int
    theoretical_flops: int
    sampling_runs: int
    calibration_flops: int
    reach: float
    left_dense: dict[str, int]
    memory: Memory
    budget: int
    fits: str


def meta_denoiser(source: Source) -> tuple[Any, nn.Module, dict[str, Any]]:
    """The family, a pipeline's denoiser without weights, and its VAE's configuration.

    Raises:
        SpecError: no configuration is on this machine, or the class is not supported.
    """
    index = configuration(source, INDEX)
    family = models.family_named(class_named(index))
    cls = denoiser_class(family, index)
    config = configuration(source, f"{family.DENOISER}/config.json")
    with components.explained(family.DENOISER, Path(source.model)), torch.device("meta"):
        return family, cls.from_config(config), configuration(source, "vae/config.json")


def plan(source: Source, spec: PruneSpec, prompts: int = 100, budget: int = 24 * 2**30) -> Plan:
    """Find out what prune() would do.

    Args:
        prompts: calibration prompts, where the spec has none yet.
        budget: bytes of device memory to fit into.

    Raises:
        SpecError: the model or the spec cannot be used.
        LayerError: a layer does not fit the pattern.
    """
    family, denoiser, vae = meta_denoiser(source)
    weights = component_bytes(source)
    chosen = targets.find(family, denoiser, spec) if spec.facts["PRUNES"] else []
    cuts = targets.cut(denoiser, chosen, spec)
    packages = [
        PackagePlan(
            [name for target in package for name in target.layers],
            targets.package_bytes(denoiser, package, spec.statistic),
        )
        for package in cuts
    ]
    parameters, in_reach = sum(p.numel() for p in denoiser.parameters()), targets.reach(family, denoiser)
    work = count_flops(family, denoiser, spec, vae)
    memory = estimate(source, spec, weights, denoiser, cuts, work.widest)
    fits = fitting(budget, source, spec, weights, denoiser, chosen, work.widest)
    layers: dict[str, float] = {}
    saved, zeros = 0.0, 0
    for target in chosen:
        if target.sites:
            amount = targets.sparsity_of(target.layers, spec)
            layers |= dict.fromkeys(target.layers, remove(denoiser, target, amount))
            continue
        for name in target.layers:
            layers[name] = targets.sparsity_of([name], spec)
            saved += layers[name] * work.by_layer.get(name, 0)
            zeros += round(layers[name] * models.linear(denoiser, name).weight.numel())
    left = count_flops(family, denoiser, spec, vae) if any(t.sites for t in chosen) else work
    return Plan(
        layers,
        packages,
        spec.statistic,
        parameters,
        sum(p.numel() for p in denoiser.parameters()) - zeros,
        work.total,
        left.total,
        work.attention,
        left.attention,
        left.total - round(saved),
        runs := targets.runs(spec, cuts),
        runs * (len(spec.prompts) or prompts) * spec.sampling.steps * work.total,
        *in_reach,
        memory,
        budget,
        fits,
    )


def remove(denoiser: nn.Module, target: Target, sparsity: float) -> float:
    """Take the last groups of a target's sites, for the sake of shapes; the share of their channels that went."""
    states: dict[str, State] = {name: surgery.state_of(models.linear(denoiser, name)) for name in target.touched}
    kept = [(s, torch.arange(s.groups - targets.removed_groups(s, sparsity))) for s in target.sites]
    heads = {site.owner: len(groups) for site, groups in kept if site.owner}
    surgery.install(denoiser, surgery.shrink(states, kept), heads)
    channels = sum(site.groups * site.size for site, _ in kept)
    return 1 - sum(len(groups) * site.size for site, groups in kept) / channels


class Work(NamedTuple):
    """FLOPs of one call of the denoiser."""

    total: int
    attention: int
    by_layer: dict[str, int]
    """of the linear layers"""
    widest: int
    """numbers that the layer with the most reads and writes"""


def own_side(denoiser: nn.Module) -> int:
    """Side of the latents where no size is asked for; FluxTransformer2DModel's configuration does not say it."""
    side: int = getattr(denoiser.config, "sample_size", 128)
    return side


def count_flops(family: Any, denoiser: nn.Module, spec: PruneSpec, vae: dict[str, Any]) -> Work:
    """Of a call for one prompt as the spec samples.

    Args:
        denoiser: on the meta device.
        vae: its configuration.
    """
    sampling = spec.sampling
    scale = 2 ** (len(vae["block_out_channels"]) - 1)
    side = own_side(denoiser)
    sides = (given // scale if given else side for given in (sampling.height, sampling.width))
    return work_of(denoiser, family.example(denoiser, *sides, sampling))


def paper_flops(family: Any, denoiser: nn.Module) -> int:
    """Work of one call as the OBS-Diff paper's tables count it (docs/paper.md), in its "FLOPs".

    The call is unguided, for one prompt, on the pipeline's own size (1024² for Stable Diffusion 3, 3.5 and XL), with 77
    text tokens, and attention's own products are left out. A multiply-add is one for transformers and two for UNets.

    Args:
        denoiser: on the meta device, dense or with heads and neurons removed.
    """
    side = own_side(denoiser)
    tokens = PAPER_TOKENS - getattr(family, "CLIP_TOKENS", 0)
    unguided = Sampling(guidance_scale=1.0, max_sequence_length=tokens)
    work = work_of(denoiser, family.example(denoiser, side, side, unguided))
    return (work.total - work.attention) * PAPER_MULTIPLY_ADD[family.DENOISER] // 2


def work_of(denoiser: nn.Module, arguments: dict[str, Any]) -> Work:
    """Of a call with these arguments, both on the meta device."""
    by_layer: dict[str, int] = {}
    numbers: list[int] = []
    handles = []
    for name, module in denoiser.named_modules():
        if isinstance(module, nn.Linear):

            def hook(m: nn.Linear, args: tuple[torch.Tensor, ...], name: str = name) -> None:
                by_layer[name] = by_layer.get(name, 0) + 2 * args[0].numel() * m.out_features
                numbers.append(args[0].numel() // m.in_features * (m.in_features + m.out_features))

            handles.append(module.register_forward_pre_hook(hook))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        denoiser(**arguments)
    for handle in handles:
        handle.remove()
    operations = {str(operation): count for operation, count in counter.get_flop_counts()["Global"].items()}
    attention = sum(count for name, count in operations.items() if "bmm" in name or "attention" in name)
    return Work(int(counter.get_total_flops()), int(attention), by_layer, max(numbers))


def readable(size: int) -> str:
    """Bytes as KiB, MiB or GiB."""
    exponent = 1 if size < 2**20 else 2 if size < 2**30 else 3
    return f"{size / 1024**exponent:,.1f} {('KiB', 'MiB', 'GiB')[exponent - 1]}"


def describe(found: Plan, as_json: bool = False) -> str:
    """A plan for people, or for programs."""
    if as_json:
        return json.dumps(asdict(found), indent=1)
    width = max((len(name) for name in found.layers), default=5)
    lines = [f"{'layer':{width}}  package  sparsity"]
    for number, package in enumerate(found.packages, 1):
        lines += [f"{name:{width}}  {number:7}  {found.layers[name]:.4f}" for name in package.layers]
    lines.append("")
    for number, package in enumerate(found.packages, 1):
        size = f"{readable(package.statistics_bytes)} of {found.statistic}" if found.statistic else "no statistics"
        lines.append(f"package {number}: {len(package.layers)} layers, {size}")
    memory = found.memory
    less = 1 - found.pruned_parameters / found.parameters
    lines += [
        "",
        f"sampling runs over the calibration prompts: {found.sampling_runs}",
        targets.describe_reach(found.reach, found.left_dense),
        f"parameters: {found.parameters:,} → {found.pruned_parameters:,} nonzero ({less:.1%} fewer)",
        f"FLOPs of one denoiser call: {found.flops / 1e9:,.2f} G → {found.pruned_flops / 1e9:,.2f} G "
        f"({1 - found.pruned_flops / found.flops:.1%} fewer); "
        f"{found.theoretical_flops / 1e9:,.2f} G if zeros were skipped",
        f"calibration: {found.calibration_flops / 1e15:,.3f} PFLOP",
        f"device memory, estimated: {readable(memory.encoding)} with the prompts' encoders, "
        f"{readable(memory.calibration)} calibrating, {readable(memory.solving)} solving",
        f"within {readable(found.budget)}: {found.fits}",
    ]
    return "\n".join(lines)
