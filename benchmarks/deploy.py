"""What survives of the zeros, and of the images, when a pruned model is treated as people treat models.

    pip install peft torchao optimum-quanto gguf
    python -m benchmarks.deploy --out benchmarks/deploy.md

Each treatment gets the same pruned emoji-sd3. Zeros kept are counted in the pruned layers, over those that pruning
left. PSNR is of the images of the same captions and noise, to those of the pruned model without the treatment.
"""

from collections.abc import Callable
from importlib.metadata import version
from math import isinf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import tyro
from diffusers import DiffusionPipeline, SD3Transformer2DModel
from tabulate import tabulate
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio

from benchmarks.packages import SAMPLING, SOURCE
from obsdiff import PruneSpec, Report, export_denoiser, export_pruned, load_pipeline, models, prune
from obsdiff.captions.prompts import read_prompts

LORA = ["to_q", "to_k", "to_v", "to_out.0"]
LIBRARIES = ("torch", "diffusers", "peft", "torchao", "optimum-quanto", "gguf")

Treatment = Callable[[Any, Report], Any]


def exported(pipe: Any, report: Report) -> Any:
    with TemporaryDirectory() as folder:
        export_pruned(pipe, folder, report)
        return DiffusionPipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)


def one_file(pipe: Any, report: Report) -> Any:
    with TemporaryDirectory() as folder:
        file = export_denoiser(pipe, Path(folder, "half.safetensors"), report)
        pipe.transformer = SD3Transformer2DModel.from_single_file(file, config=SOURCE.model, subfolder="transformer")
    return pipe


def bfloat16(pipe: Any, report: Report) -> Any:
    return pipe.to(torch.bfloat16)


def compiled(pipe: Any, report: Report) -> Any:
    pipe.transformer.compile()
    return pipe


def adapted(pipe: Any, report: Report) -> Any:
    """A LoRA of rank 4 beside the weights, with random numbers as large as those of trained ones."""
    from peft import LoraConfig

    pipe.transformer.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=LORA, init_lora_weights="gaussian"))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in pipe.transformer.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.01 * torch.randn(parameter.shape, generator=generator)
    return pipe


def fused(pipe: Any, report: Report) -> Any:
    adapted(pipe, report)
    pipe.transformer.fuse_lora()
    pipe.transformer.unload_lora()
    return pipe


def masked_fused(pipe: Any, report: Report) -> Any:
    """The adapter's product set to zero where the weight is, by the mask that was kept from before."""
    masks = {layer.name: dense_of(pipe, layer.name) != 0 for layer in report.layers}
    fused(pipe, report)
    for name, mask in masks.items():
        models.linear(pipe.transformer, name).weight.data *= mask
    return pipe


def int8_torchao(pipe: Any, report: Report) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(pipe.transformer, Int8WeightOnlyConfig())
    return pipe


def int8_quanto(pipe: Any, report: Report) -> Any:
    from optimum.quanto import freeze, qint8, quantize

    quantize(pipe.transformer, weights=qint8)
    freeze(pipe.transformer)
    return pipe


def gguf_type(kind: str) -> Treatment:
    """Through a GGUF type and back, of the layers whose width it takes."""

    def treated(pipe: Any, report: Report) -> Any:
        from gguf import GGMLQuantizationType, quants

        code = GGMLQuantizationType[kind]
        for layer in report.layers:
            weight = models.linear(pipe.transformer, layer.name).weight
            if weight.shape[1] % 32 == 0:
                weight.data = torch.from_numpy(quants.dequantize(quants.quantize(weight.numpy(force=True), code), code))
        return pipe

    return treated


TREATMENTS: dict[str, Treatment] = {
    "exported as a folder, opened by diffusers": exported,
    "exported as one file, read by diffusers": one_file,
    "bfloat16": bfloat16,
    "torch.compile": compiled,
    "LoRA beside the weights": adapted,
    "LoRA fused": fused,
    "LoRA fused, masked afterwards": masked_fused,
    "int8 weights (torchao)": int8_torchao,
    "int8 weights (optimum-quanto)": int8_quanto,
} | {f"GGUF {kind}": gguf_type(kind) for kind in ("Q8_0", "Q5_0", "Q4_0", "Q5_1", "Q4_1")}


def dense_of(pipe: Any, name: str) -> Tensor:
    """A layer's weight as an ordinary tensor, whatever holds it."""
    module: nn.Module = pipe.transformer.get_submodule(name)
    weight: Any = getattr(module, "base_layer", module).weight
    found: Tensor = weight if type(weight) is nn.Parameter else weight.dequantize()
    return found.detach().float()


@torch.no_grad()
def images(pipe: Any, prompts: list[str]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    drawn = pipe(prompts, **SAMPLING.arguments(), generator=generator, output_type="pt").images
    return torch.as_tensor(drawn).float()


def pruned(pattern: str) -> tuple[Any, Report]:
    pipe = load_pipeline(SOURCE)
    pipe.set_progress_bar_config(disable=True)
    return pipe, prune(pipe, PruneSpec(method="magnitude", pattern=pattern, sparsity=0.5))


def main(out: Path = Path("benchmarks/deploy.md"), count: int = 32) -> None:
    """Write a table of treatments.

    Args:
        count: captions that images are drawn of.
    """
    torch.set_num_threads(1)
    prompts = [p.caption for p in read_prompts("zoo/emoji-data/benchmark.csv")][:count]
    rows = []
    for name, treat in TREATMENTS.items():
        row: dict[str, Any] = {"treatment": name}
        for pattern in ("unstructured", "2:4"):
            pipe, report = pruned(pattern)
            zeros = {layer.name: dense_of(pipe, layer.name) == 0 for layer in report.layers}
            before = images(pipe, prompts)
            treated = treat(pipe, report)
            kept = sum(int((dense_of(treated, layer)[zero] == 0).sum()) for layer, zero in zeros.items())
            psnr = float(peak_signal_noise_ratio(images(treated, prompts), before, 1.0))
            row[f"{pattern}: zeros kept"] = f"{kept / sum(int(zero.sum()) for zero in zeros.values()):.1%}"
            row[f"{pattern}: PSNR, dB"] = "the same" if isinf(psnr) else f"{psnr:.1f}"
        rows.append(row)
        print(row, flush=True)
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    head = (
        "# Treatments of a pruned model\n\n`python -m benchmarks.deploy`: emoji-sd3, magnitude at 50 %, "
        f"{count} captions; {versions}.\nThe LoRA is on the attention's layers, whose zeros fusing fills.\n"
    )
    out.write_text(f"{head}\n{tabulate(rows, 'keys', 'pipe', disable_numparse=True)}\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
