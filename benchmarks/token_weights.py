"""How many tokens a layer's Hessian is made of, effectively, when tokens weigh by a power of their sensitivity.

    python -m benchmarks.token_weights --out benchmarks/token_weights.md

The share is (Σw)² / (n Σw²) over the n tokens that calibrate a group of layers: 1 where all weigh alike, 1/n where one
has all the weight (Kish's effective sample size). solace's own calibration, dense models of the zoo.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import tyro
from tabulate import tabulate
from torch import Tensor

from benchmarks.made import as_typed
from eval.sweep.config import read_model
from obsdiff import PruneSpec, Sampling, Source, load_pipeline, models
from obsdiff.calibration import sensitivity
from obsdiff.calibration.runs import Calibration
from obsdiff.calibration.sensitivity import Sensitivity
from obsdiff.calibration.stored import trajectory_of
from obsdiff.captions.prompts import read_prompts
from obsdiff.packages import Group
from obsdiff.pipelines import staging

POWERS = (0.25, 0.5, 0.75, 1.0)
MODELS = ("emoji-sd3", "emoji-unet", "emoji-flux")


def effective(weights: Sequence[Tensor]) -> float:
    """(Σw)² / (n Σw²) of all n weights."""
    values = torch.cat([one.flatten() for one in weights]).double()
    return float(values.sum() ** 2 / values.square().sum() / values.numel())


def measured(name: str, prompts: int) -> tuple[list[Group], Sensitivity]:
    """The sensitivities of a model's groups of layers, on the first calibration captions."""
    model = read_model(name)
    pipe = load_pipeline(Source(**model["source"]))
    captions = tuple(p.caption for p in read_prompts("zoo/emoji-data/calibration.csv"))[:prompts]
    spec = PruneSpec(method="solace", sparsity=0.7, prompts=captions, sampling=Sampling(**model["sampling"]))
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    trajectory, groups = trajectory_of(spec, {}, None), family.groups(denoiser)
    with torch.no_grad(), staging.staged(pipe):
        trajectory.record(Calibration(pipe, spec), denoiser)
        device, guidance = torch.device("cpu"), spec.sampling.guidance_scale
        parts = (denoiser, groups, device, guidance, spec.seed, None, 1.0)
        return groups, sensitivity.measure(trajectory, trajectory.calls(), *parts)


def main(out: Path = Path("benchmarks/token_weights.md"), prompts: int = 64) -> None:
    """Write a table of effective shares by power.

    Args:
        prompts: calibration captions.
    """
    rows = []
    for name in MODELS:
        groups, found = measured(name, prompts)
        for power in POWERS:
            found.power = power
            shares = [effective(list(w.values())) for g in groups if (w := found.token_weights(g)) is not None]
            low, median, high = np.quantile(shares, (0, 0.5, 1))
            rows.append([name, power, len(shares), f"{median:.1%}", f"{low:.1%}", f"{high:.1%}"])
    heads = ["model", "`token_power`", "groups of layers", "effective share of tokens, median", "lowest", "highest"]
    about = (
        f"`{as_typed('token_weights')}`: {prompts} captions, the two of twelve steps that solace calibrates on. The\n"
        "share is (Σw)² / (n Σw²): 100 % where all tokens weigh alike. What the powers do to images:\n"
        "[the ablation](../docs/results/method.md)."
    )
    table = tabulate(rows, heads, tablefmt="github", disable_numparse=True)
    out.write_text(f"# How many tokens a Hessian is made of\n\n{about}\n\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
