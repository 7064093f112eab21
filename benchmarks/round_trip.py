"""All that is done with a model of real size, by its commands: time, peak memory and bytes on disk of each step.

    python -m benchmarks.round_trip --cases unstructured=0.5 2:4 structured=0.3

Weights are random, shapes the paper's models' (benchmarks/shapes.py). Planned, pruned in packages, the first case also
with a SIGKILL in the middle, inspected, exported, and drawn with: by obsdiff.load_pruned, and by diffusers alone from
the export. The continued run has to give the same weights, and both ways the same image.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import tyro

from benchmarks.made import as_typed
from benchmarks.real_size import flags, spec_of, watched, write_model
from eval.profile.machine import hardware
from obsdiff.checkpoints.manifest import read_manifest
from obsdiff.packages import GIB
from obsdiff.source import Source

PACKAGES = 4
PIXELS, STEPS = 256, 8
"""of the image"""
DRAW = f"""
import sys, torch
from diffusers import DiffusionPipeline
model, checkpoint, out = sys.argv[1:]
pipe = DiffusionPipeline.from_pretrained(model, torch_dtype=torch.bfloat16, text_encoder_3=None, tokenizer_3=None)
if checkpoint:
    from obsdiff import load_pruned
    load_pruned(pipe, checkpoint, any_components=True)
noise = torch.Generator().manual_seed(0)
size = dict(height={PIXELS}, width={PIXELS}, num_inference_steps={STEPS})
pipe("a red apple", generator=noise, **size).images[0].save(out)
"""


def killed(command: Sequence[str], progress: Path) -> float:
    """Seconds after which a pruning run was killed: when half of its packages were finished."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (progress / f"package-{PACKAGES // 2}.safetensors").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise SystemExit("the run was over before it could be killed")
    return time.perf_counter() - begun


def gigabytes(path: Path) -> float:
    return sum(p.stat().st_size for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file()) / 1e9


def round_trip(case: str, source: Source, prompts: int, work: Path, interrupted: bool) -> list[str]:
    """One line per step.

    Args:
        interrupted: prune once more, with a kill.
    """
    spec = spec_of(case, str(PACKAGES), steps=2, size=64, prompts=prompts, batch=2)
    obsdiff, out, again = [sys.executable, "-m", "obsdiff"], work / "pruned", work / "again"
    (file := work / "prompts.txt").write_text("\n".join(spec.prompts) + "\n")
    own, plain = work / "own.png", work / "plain.png"
    lines = []

    def step(name: str, command: Sequence[str], on_disk: Path | None = None, note: str = "") -> None:
        seconds, peak = watched(command)
        size = f"{gigabytes(on_disk):.2f}" if on_disk else ""
        lines.append(f"| {case} | {name} | {seconds:.0f} | {peak / GIB:.2f} | {size} | {note} |")
        print(lines[-1], flush=True)

    step("plan", [*obsdiff, "plan", *flags(source, spec), "--calibration-prompts", str(prompts)])
    prune = [*obsdiff, "prune", *flags(source, spec), "--prompts-file", str(file), "--out"]
    step("prune", [*prune, str(out)], out)
    if interrupted:
        gone = killed([*prune, str(again)], again / "progress")
        step(f"prune, continued after a kill at {gone:.0f} s", [*prune, str(again)], again, "the same weights")
        if read_manifest(again).weights_sha256 != read_manifest(out).weights_sha256:
            raise SystemExit(f"{case}: the continued run gave other weights")
    step("inspect", [*obsdiff, "inspect", str(out)])
    draw = [sys.executable, "-c", DRAW]
    step("image, obsdiff.load_pruned", [*draw, source.model, str(out), str(own)])
    if spec.pattern != "structured":
        exported = work / "exported"
        export = [*obsdiff, "export", "--model", source.model, "--dtype", source.dtype, "--checkpoint", str(out)]
        step("export", [*export, "--out", str(exported)], exported)
        step("image, diffusers alone", [*draw, str(exported), "", str(plain)], note="the same image")
        if plain.read_bytes() != own.read_bytes():
            raise SystemExit(f"{case}: diffusers draws another image from the export")
    return lines


def main(
    model: str = "sd3-medium",
    blocks: int | None = None,
    cases: tuple[str, ...] = ("unstructured=0.5", "2:4", "structured=0.3"),
    prompts: int = 2,
    work: Path | None = None,
    out: Path = Path("benchmarks/round_trip.md"),
) -> None:
    """Write a table of every step.

    Args:
        model: sd3-medium or another of benchmarks/shapes.py with `text_encoder_3`.
        blocks: of the denoiser, for a quick look; all by default.
        cases: patterns and sparsities.
        work: a folder for the model, which takes its size three times; a temporary one by default.
    """
    lines = []
    with tempfile.TemporaryDirectory(dir=work) as place:
        folder = Path(place, "dense")
        write_model(model, blocks, folder)
        size = gigabytes(folder)
        for case in cases:
            with tempfile.TemporaryDirectory(dir=place) as own:
                lines += round_trip(case, Source(str(folder), dtype="bfloat16"), prompts, Path(own), case == cases[0])
    head = (
        f"{model}, {f'{blocks} blocks' if blocks else 'all blocks'}, random weights, bfloat16, {size:.2f} GB dense; "
        f"{PACKAGES} packages, {prompts} prompts; images of {PIXELS}×{PIXELS}, {STEPS} steps. {hardware('cpu')}, "
        f"threads: {torch.get_num_threads()}, torch {torch.__version__}. A continued run's weights are the same, and "
        f"so are both images, bit for bit; else there would be no table. "
        f"Made by `{as_typed('round_trip', '--work', '--out')}`."
    )
    names = "| run | step | s | peak, GiB | on disk, GB | |\n|:--|:--|--:|--:|--:|:--|"
    out.write_text("\n".join([head, "", names, *lines]) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
