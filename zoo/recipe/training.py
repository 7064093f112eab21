"""One training loop for every zoo model: seeded by step, checkpointed, resumable, with an EMA of the weights.

Batches and noise depend on (seed, step) alone, so a run killed and resumed walks the same path. The learning rate
warms up, stays, and falls linearly to zero over the last fifth; a run can be given another length while it
stays on the plateau, and is then the run that had that length from the start.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

Loss = Callable[[int, torch.Generator], Tensor]


def learning_rate(step: int, steps: int, peak: float, warmup: int = 300) -> float:
    return peak * min(1.0, (step + 1) / warmup, (steps - step) / (0.2 * steps))


class Checkpoint:
    """Weights, EMA and AdamW state of one run as safetensors, written to a side file and renamed."""

    def __init__(self, path: Path, model: nn.Module, ema: dict[str, Tensor], optimizer: torch.optim.AdamW):
        self.path, self.model, self.ema, self.optimizer = path, model, ema, optimizer

    def save(self, step: int) -> None:
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema/{k}": v for k, v in self.ema.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{i}/{k}": v for k, v in state.items()}
        side = self.path.with_suffix(".tmp")
        save_file({k: v.clone().contiguous() for k, v in tensors.items()}, side, {"step": str(step)})
        side.rename(self.path)

    def load(self) -> int:
        """Restore in place; the step to go on from, 0 without a checkpoint."""
        if not self.path.exists():
            return 0
        tensors = load_file(self.path)

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model/"))
        for k, v in part("ema/").items():
            self.ema[k].copy_(v)
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in part("optimizer/").items():
            i, k = key.split("/")
            state.setdefault(int(i), {})[k] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        return int(state[0]["step"])


def indices(n: int, batch: int, step: int, seed: int) -> Tensor:
    """The step's batch of an endless walk through shuffled epochs: (batch,) int64, each epoch every index once."""
    per_epoch = n // batch
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step // per_epoch)
    at = step % per_epoch * batch
    return torch.randperm(n, generator=generator)[at : at + batch]


def train(
    name: str,
    model: nn.Module,
    loss: Loss,
    *,
    steps: int,
    lr: float,
    work: Path,
    batch: int,
    seed: int = 0,
    weight_decay: float = 0.01,
    ema_decay: float = 0.999,
    minutes_between_checkpoints: float = 3,
) -> dict:
    """Train to `steps`, resuming where `work/name.safetensors` stopped; the model ends with its EMA weights.

    Args:
        loss: step and its seeded generator → scalar float32.
        steps: optimiser steps in all.
        batch: images per step, for the record only.

    Returns:
        {steps, batch, images, minutes, device, curve: [[step, loss] …]} of the whole run, all resumptions included.
    """
    device = next(model.parameters()).device
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, betas=(0.9, 0.99), fused=True)
    ema = {k: v.detach().clone() for k, v in model.state_dict().items()}
    checkpoint = Checkpoint(work / f"{name}.safetensors", model, ema, optimizer)
    log_path = work / f"{name}.json"
    start = checkpoint.load()
    log: dict[str, Any] = json.loads(log_path.read_text()) if start else {"minutes": 0.0, "curve": []}
    log["curve"] = [row for row in log["curve"] if row[0] <= start]
    log |= {"steps": steps, "batch": batch, "pictures": steps * batch, "device": device_name(device)}
    since, running, before = time.monotonic(), [], log["minutes"]
    begun = since

    def record(step: int) -> None:
        log["minutes"] = before + (time.monotonic() - begun) / 60
        checkpoint.save(step)
        log_path.write_text(json.dumps(log))

    model.train()
    for step in progress(start, steps, name):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, lr)
        generator = torch.Generator(device).manual_seed(seed * 1_000_003 + step)
        value = loss(step, generator)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay = min(ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_([ema[k] for k, _ in model.named_parameters()], list(model.parameters()), 1 - decay)
        running.append(value.detach())
        if (step + 1) % 100 == 0:
            log["curve"].append([step + 1, round(float(torch.stack(running).mean()), 5)])
            running.clear()
        if time.monotonic() - since > 60 * minutes_between_checkpoints:
            record(step + 1)
            since = time.monotonic()
    if start < steps:
        record(steps)
    model.load_state_dict(ema)
    model.eval()
    return log


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "one to two busy CPU cores"


def command(fit: Callable[[int, int, str], None], steps: int, batch: int, doc: str | None) -> None:
    """The command line of a recipe: --steps, --batch and --device."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=steps, help="optimiser steps in all (%(default)s)")
    parser.add_argument("--batch", type=int, default=batch, help="images per step (%(default)s)")
    parser.add_argument("--device", default="cpu", help="torch device (%(default)s)")
    args = parser.parse_args()
    fit(args.steps, args.batch, args.device)


def progress(start: int, steps: int, name: str) -> Iterator[int]:
    return iter(tqdm(range(start, steps), initial=start, total=steps, desc=name, mininterval=10))
