"""Pruning at real size against what `obsdiff plan` says of it: time by phase, and peak memory.

    python -m benchmarks.real_size --model sd3-medium --size 64 --steps 2 --prompts 2

Weights are random, shapes the paper's models' (benchmarks/shapes.py). A model that fits is written as a folder and
pruned by the command, in a process of its own whose resident set is watched; with --in-memory, and for models of which
a folder would take more than 8 GB, the library is called on a pipeline that is made on the device.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.made import as_typed
from benchmarks.shapes import denoiser_config, pipeline
from eval.profile.machine import hardware
from obsdiff import PruneSpec, Sampling, Source, methods, plan, prune
from obsdiff.packages import GIB

CASES = ("unstructured=0.5",)
WORDS = ("a red apple", "two dogs in the snow", "a tiger", "the sun over a harbour")
LARGEST = 8e9
"""bytes of a denoiser that is written to a folder"""


@dataclass
class Row:
    """One run: what was planned, and what was measured."""

    case: str
    packages: str
    planned: dict[str, Any]
    plan_seconds: float
    wall: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    peak: int = 0
    allocated: int | None = None
    """of a GPU"""


def watched(command: Sequence[str]) -> tuple[float, int]:
    """Wall-clock seconds of a command and its peak resident set in bytes; raises where it fails.

    The peak is read from the kernel while it runs: what wait() tells of a child counts its parent's memory too.
    """
    begun, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            peak = max(peak, 1024 * int(lines.get("VmHWM", "0 kB").split()[0]))
            time.sleep(0.05)
        wall = time.perf_counter() - begun
        if process.wait():
            said.seek(0)
            raise SystemExit(f"{' '.join(command)}\n{said.read().decode()[-2000:]}")
    return wall, peak


def write_model(model: str, blocks: int | None, folder: Path) -> None:
    """A model of benchmarks/shapes.py as a diffusers folder, by a process of its own, whose memory ends with it."""
    shape = [sys.executable, "-m", "benchmarks.shapes", "--model", model, "--folder", str(folder)]
    subprocess.run([*shape, *(["--blocks", str(blocks)] if blocks else [])], check=True, capture_output=True)


def flags(source: Source, spec: PruneSpec) -> list[str]:
    """A run's options on the command line."""
    made = ["--model", source.model, "--dtype", source.dtype, "--device", source.device]
    made += ["--method", spec.method, "--pattern", spec.pattern, "--sparsity", str(spec.sparsity)]
    made += ["--packages", str(spec.packages)]
    for key, value in (spec.sampling.arguments() | {"batch_size": spec.sampling.batch_size}).items():
        made += [f"--{key.replace('num_inference_', '').replace('_', '-')}", str(value)]
    return made


def by_command(source: Source, spec: PruneSpec, rate: str, case: str, folder: Path) -> Row:
    """Plan and prune a folder's model by the two commands."""
    python, out = [sys.executable, "-m", "obsdiff"], folder.parent / "pruned"
    (prompts := folder.parent / "prompts.txt").write_text("\n".join(spec.prompts) + "\n")
    begun = time.perf_counter()
    more = ["--rate", rate, "--calibration-prompts", str(len(spec.prompts)), "--as-json"]
    said = subprocess.run([*python, "plan", *flags(source, spec), *more], capture_output=True, text=True, check=True)
    row = Row(case, str(spec.packages), json.loads(said.stdout), time.perf_counter() - begun)
    command = [*python, "prune", *flags(source, spec), "--prompts-file", str(prompts), "--out", str(out)]
    row.wall, row.peak = watched(command)
    report = json.loads((out / "manifest.json").read_text())
    row.seconds = report["seconds"]
    row.allocated = report["peak_memory_bytes"] if source.device != "cpu" else None
    for path in out.iterdir():
        path.unlink()
    return row


def in_memory(model: str, blocks: int | None, source: Source, spec: PruneSpec, rate: str, case: str) -> Row:
    """Plan by the library, and prune a pipeline that was made on the device."""
    from dataclasses import asdict

    with tempfile.TemporaryDirectory() as folder:
        outline(model, blocks, Path(folder))
        begun = time.perf_counter()
        found = asdict(plan(Source(folder, dtype=source.dtype, device=source.device), spec, rate=rate))
        row = Row(case, str(spec.packages), found, time.perf_counter() - begun)
    pipe = pipeline(model, blocks, source.device).to(source.device)
    begun = time.perf_counter()
    report = prune(pipe, spec, base={"pipeline": "random"})
    row.wall, row.seconds, row.peak = time.perf_counter() - begun, report.seconds, report.peak_memory_bytes
    row.allocated = row.peak if source.device != "cpu" else None
    return row


def outline(model: str, blocks: int | None, folder: Path) -> None:
    """The JSON files of a model, for a plan."""
    pipe = pipeline(model, 1)
    config = pipe.components["transformer"].config
    pipe.save_config(folder)
    for name, part in pipe.components.items():
        if getattr(part, "config", None) is None:
            continue
        written = dict(part.config if isinstance(part.config, dict) else part.config.to_dict())
        if name == "transformer":
            written = dict(config) | denoiser_config(model, blocks)
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(written, default=list))


def spec_of(case: str, packages: str, steps: int, size: int, prompts: int, batch: int) -> PruneSpec:
    amount, _, method = case.partition("@")
    pattern, _, sparsity = amount.partition("=")
    method = method or "obs_diff"
    return PruneSpec(
        method=method,
        pattern=pattern,
        sparsity=float(sparsity) if sparsity else None,
        packages=None if "packages" in methods.traits(method).defaults else packages,
        prompts=tuple(f"{WORDS[i % len(WORDS)]} {i}" for i in range(prompts)),
        sampling=Sampling(steps=steps, height=size, width=size, batch_size=batch),
    )


def table(rows: Sequence[Row]) -> list[str]:
    """One line per run; each cell says planned → measured."""
    lines = [
        "| run | plan, s | encode, s | sample and statistics, s | solve, s | whole command, s | peak, GiB | off by |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        minutes, memory, took = row.planned["minutes"], row.planned["memory"], row.seconds
        moments = [memory[m] for m in ("loading", "encoding", "calibration", "solving", "saving")]
        peak = row.allocated or row.peak
        planned = {name: 60 * minutes[name] for name in ("encode", "solve")}
        planned["calibrate"] = 60 * (minutes["sample"] + minutes["statistics"])
        calibrated = sum(took.get(p, 0) for p in ("sample", "sensitivities", "allocate", "calibrate", "refit"))
        took = took | {"calibrate": calibrated}
        parts = [f"{planned[p]:.1f} → {took.get(p, 0):.1f}" for p in ("encode", "calibrate", "solve")]
        beside = f" (process {row.peak / GIB:.1f})" if row.allocated and row.allocated != row.peak else ""
        lines.append(
            f"| {row.case}, packages {row.packages} | {row.plan_seconds:.1f} | {' | '.join(parts)} | {row.wall:.0f} "
            f"| {max(moments) / GIB:.2f} → {peak / GIB:.2f}{beside} | {max(moments) / peak - 1:+.0%} |"
        )
    return lines


def main(
    model: str = "sd3-medium",
    blocks: int | None = None,
    cases: tuple[str, ...] = CASES,
    packages: str = "1",
    device: str = "cpu",
    steps: int = 2,
    size: int = 64,
    prompts: int = 2,
    batch_size: int = 2,
    rate: str = "here",
    in_memory_only: bool = False,
    work: Path | None = None,
    out: Path = Path("benchmarks/real_size.md"),
) -> None:
    """Write a table of what was planned and measured.

    Args:
        model: sd3-medium, sd35-large or flux1-dev.
        blocks: of the denoiser, for a quick look; all by default.
        cases: patterns, sparsities, and methods other than obs_diff: unstructured=0.5 2:4 structured=0.3@solace
        packages: as `obsdiff prune` takes it; `sequential` too.
        size: pixels of a side.
        rate: as `obsdiff plan` takes it; `here` measures the machine.
        in_memory_only: no folder and no command: the library on a pipeline made on the device.
        work: a folder for the model, which takes its size twice; a temporary one by default.
    """
    config = denoiser_config(model, blocks)
    config_blocks = [config[k] for k in ("num_layers", "num_single_layers") if k in config]
    width = config["num_attention_heads"] * config["attention_head_dim"]
    large = sum(config_blocks) * 14 * 2 * width**2 > LARGEST
    rows = []
    with tempfile.TemporaryDirectory(dir=work) as place:
        folder = Path(place, "dense")
        if not (large or in_memory_only):
            write_model(model, blocks, folder)
        source = Source(str(folder), dtype="bfloat16", device=device)
        for case in cases:
            spec = spec_of(case, packages, steps, size, prompts, batch_size)
            if large or in_memory_only:
                rows.append(in_memory(model, blocks, source, spec, rate, case))
            else:
                rows.append(by_command(source, spec, rate, case, folder))
            print(table(rows)[-1], flush=True)
    machine = hardware(device)
    threads = f", threads: {torch.get_num_threads()}" if device == "cpu" else ""
    head = (
        f"{model}, blocks: {' + '.join(map(str, config_blocks))}, random weights, bfloat16, {size}×{size}, "
        f"{steps} steps, {prompts} prompts; {machine}{threads}, torch {torch.__version__}. Planned → measured; the "
        f"peak is {'the resident set of the process' if device == 'cpu' else 'what the allocator gave out'}. Made by "
        f"`{as_typed('real_size', '--work', '--out')}`."
    )
    out.write_text("\n".join([head, "", *table(rows)]) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
