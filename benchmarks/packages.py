"""What calibrating layer by layer costs: pruning runs of one model that differ in `packages` alone, in turns.

    python -m benchmarks.packages --out benchmarks/packages.md

Runs take turns in one process, fastest of several; a ratio is to one package, whose statistics are all of the dense
model. `shared` runs take what they can from a folder of `obsdiff calibrate`, which is made before and not counted.
Beside wall-clock seconds stand those of the process's own CPU, which other work on the machine disturbs less.
"""

import resource
import time
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import tyro
from tabulate import tabulate

from eval.profile.machine import processor
from obsdiff import PruneSpec, Report, Sampling, Source, calibrate, load_pipeline, prune
from obsdiff.captions.prompts import read_prompts

SOURCE = Source("zoo/emoji-sd3", without=("text_encoder_3", "tokenizer_3"))
SAMPLING = Sampling(12, 3.0, 32, 32, max_sequence_length=0, batch_size=32)
RUNS: dict[str, dict[str, Any]] = {
    "1": {"packages": 1},
    "4": {"packages": 4},
    "sequential": {"packages": "sequential"},
    "sequential, all steps": {"packages": "sequential", "calibration_steps": 0},
    "sequential, 4 steps": {"packages": "sequential", "calibration_steps": 4},
    "sequential, 2 steps": {"packages": "sequential", "calibration_steps": 2},
    "1 shared": {"packages": 1},
    "sequential shared": {"packages": "sequential"},
    "sequential, all steps shared": {"packages": "sequential", "calibration_steps": 0},
    "sequential, 4 steps shared": {"packages": "sequential", "calibration_steps": 4},
}
"""rows of the table → options"""


def once(spec: PruneSpec, shared: Path | None) -> tuple[float, float, Report]:
    """Wall-clock and CPU seconds of a pruning run on a fresh pipeline, without loading it."""
    pipe = load_pipeline(SOURCE)
    with redirect_stderr(StringIO()):
        begun, used = time.perf_counter(), time.process_time()
        report = prune(pipe, spec, calibration=shared)
        return time.perf_counter() - begun, time.process_time() - used, report


def main(
    out: Path = Path("benchmarks/packages.md"), prompts: int = 64, rounds: int = 5, unit: bool = False, threads: int = 1
) -> None:
    """Write a table of seconds by `packages`.

    Args:
        prompts: calibration captions.
        rounds: of which the fastest counts.
        unit: also one package a unit, which takes minutes.
    """
    torch.set_num_threads(threads)
    captions = tuple(p.caption for p in read_prompts("zoo/emoji-data/calibration.csv"))[:prompts]
    names = RUNS | ({"unit": {"packages": "unit"}} if unit else {})
    specs = {
        name: PruneSpec(sparsity=0.7, prompts=captions, sampling=SAMPLING, **options) for name, options in names.items()
    }
    with TemporaryDirectory() as folder:
        shared = {name: Path(folder, name) if "shared" in name else None for name in names}
        for name, path in shared.items():
            if path:
                calibrate(load_pipeline(SOURCE), specs[name], path)
        found = {name: [once(specs[name], shared[name])] for name in names}
        for _ in range(rounds - 1):
            for name in names:
                found[name].append(once(specs[name], shared[name]))
    rows, base = [], (min(run[0] for run in found["1"]), min(run[1] for run in found["1"]))
    for name, runs in found.items():
        wall, cpu, report = min(run[0] for run in runs), min(run[1] for run in runs), min(runs, key=lambda r: r[0])[2]
        seconds = [report.seconds.get(key, 0.0) for key in ("sample", "calibrate", "solve")]
        error = np.mean([layer.calibration_error or 0.0 for layer in report.layers])
        rows.append([name, len(report.packages), wall, wall / base[0], cpu, cpu / base[1], *seconds, error])
    head = [
        "packages",
        "calibrated apart",
        "s",
        "ratio",
        "CPU s",
        "ratio",
        "sample",
        "calibrate",
        "solve",
        "layer error",
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    command = (
        f"python -m benchmarks.packages --prompts {prompts} --rounds {rounds}{' --unit' * unit} --threads {threads}"
    )
    text = [
        "# What calibrating layer by layer costs",
        "",
        f"`{command}`:",
        f"OBS-Diff on emoji-sd3, unstructured 0.7, {len(captions)} captions, 12 steps, on {processor()}",
        f"with {threads} thread(s), torch {torch.__version__}. Fastest of {rounds} in turns; peak {peak:.2f} GiB.",
        "`sequential` samples the dense model (`sample`), then takes its calls through the denoiser once more",
        "(`calibrate`): by default those of half of the steps for each batch of captions, others for others",
        "(`calibration_steps`); `shared` has a folder of `obsdiff calibrate`, with statistics or that sampling run.",
        "",
        tabulate(rows, head, "pipe", floatfmt=("", "", ".2f", ".2f", ".2f", ".2f", ".2f", ".2f", ".2f", ".4f")),
        "",
    ]
    out.write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    tyro.cli(main)
