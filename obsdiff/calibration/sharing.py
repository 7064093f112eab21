"""What of a pruning run does not depend on method, pattern and sparsity, in a folder that several runs use.

    calibration.json               what it is of, and every file's hash; written last
    statistics-1.safetensors       a group of layers: the sums over its inputs on the dense model, float32
    trajectory.json batch-*        in their place with packages: sequential, the sampling run (see trajectory)

Statistics are of all prunable layers, whatever the spec leaves out, and so serve every pattern, method and sparsity, as
the first of any number of packages. A folder with Hessians also holds the moments as they would be summed up alone,
so that what needs no Hessian gets the same bits.
"""

import json
import time
from pathlib import Path
from typing import Any

import torch

from obsdiff import models
from obsdiff.calibration.runs import Calibration, alphas_of, require_prompts
from obsdiff.calibration.stored import FORMAT, RECORD, about_of, trajectory_of
from obsdiff.calibration.trajectory import files_of
from obsdiff.devices import reset_peak_memory, stated_precision
from obsdiff.errors import SpecError
from obsdiff.pipelines import guard
from obsdiff.pipelines.identity import Identity, identity_of
from obsdiff.pipelines.staging import Stage, staged
from obsdiff.report import peak_memory
from obsdiff.sampling import steps_of
from obsdiff.spec import PruneSpec
from obsdiff.storage.files import seal, write_json
from obsdiff.storage.folders import CALIBRATION, claimed
from obsdiff.storage.tensors import write_tensors

STATISTIC_FILES = "statistics-*.safetensors"


@stated_precision()
@torch.no_grad()
def calibrate(pipe: Any, spec: PruneSpec, folder: str | Path, base: Identity | None = None) -> Path:
    """Write what prune(…, calibration=folder) needs of the dense model: its statistics or its sampling run.

    Args:
        pipe: the dense pipeline.
        spec: of one of the runs that will use it; method and weighting say which statistic, packages whether it is a
            sampling run, and sparsity, pattern and what is excluded do not matter.
        folder: made if missing; an earlier calibration is replaced.
        base: the pipeline's identity, if it is known.

    Raises:
        SpecError: the method does not calibrate, there are no prompts, or the folder cannot be used.
        LayerError: as prune().
        OSError: the disk is full.
    """
    with claimed(Path(folder), CALIBRATION):
        return write_calibration(pipe, spec, Path(folder), base)


def write_calibration(pipe: Any, spec: PruneSpec, folder: Path, base: Identity | None = None) -> Path:
    """calibrate() into a folder that is claimed already."""
    started, peak = time.perf_counter(), 0
    require_calibrating(spec)
    guard.check(pipe, spec.sampling, convolutions=True)
    base = base or identity_of(pipe)
    (folder / RECORD).unlink(missing_ok=True)
    with stated_precision(), torch.no_grad(), guard.eager(), staged(pipe) as stage:
        reset_peak_memory(stage.device)
        about = {"format": FORMAT, **about_of(spec, base)}
        if spec.sequential:
            for path in folder.glob(STATISTIC_FILES):
                path.unlink()
            trajectory = trajectory_of(spec, base, folder)
            if not trajectory.complete:
                trajectory.record(encoded(pipe, stage, spec), models.denoiser_of(pipe))
            about |= {"steps": trajectory.steps}
            started, peak = started - trajectory.spent, trajectory.peak
        else:
            for path in files_of(folder):
                path.unlink()
            about |= summed(pipe, stage, spec, folder)
        peak = max(peak, peak_memory(stage.device))
        about |= {"seconds": time.perf_counter() - started, "peak_memory_bytes": peak}
    write_json(folder / RECORD, seal(json.loads(json.dumps(about))))
    return folder


def require_calibrating(spec: PruneSpec) -> None:
    """Raise SpecError where there is nothing to calibrate, or nothing to do it with."""
    if not spec.calibrates:
        raise SpecError(f"method: {spec.method!r} does not calibrate, so there is nothing to share; run prune as it is")
    require_prompts(spec)


def encoded(pipe: Any, stage: Stage, spec: PruneSpec) -> Calibration:
    """The prompts, encoded; afterwards the denoiser is alone on the device."""
    stage.encoding(alone=models.denoiser_of(pipe).device != stage.device)
    calibration = Calibration(pipe, spec)
    stage.sampling()
    return calibration


def summed(pipe: Any, stage: Stage, spec: PruneSpec, folder: Path) -> dict[str, Any]:
    """Sample once, write a file of sums a group, and say what was written."""
    family, denoiser = models.family_of(pipe), models.denoiser_of(pipe)
    calibration = encoded(pipe, stage, spec)
    kinds = ("moments", "hessian") if spec.statistic == "hessian" else ("moments",)
    groups = models.groups(family, denoiser)
    found = calibration.several(denoiser, groups, kinds, "calibrating the dense model")
    written = []
    for number, group in enumerate(groups, 1):
        tensors: dict[str, torch.Tensor] = {}
        numbers: dict[str, float] = {}
        for kind in kinds:
            for name, value in vars(found[kind].pop(group)).items():
                held: dict[str, Any] = tensors if isinstance(value, torch.Tensor) else numbers
                held[f"{kind}.{name}"] = value
        path = folder / f"statistics-{number}.safetensors"
        written.append({"layers": group, "numbers": numbers, "sha256": write_tensors(path, tensors)})
    for path in folder.glob(STATISTIC_FILES):
        if int(path.stem.rpartition("-")[2]) > len(written):
            path.unlink()
    steps = steps_of(pipe)
    return {"kinds": kinds, "steps": steps, "alphas": alphas_of(spec)(steps).tolist(), "groups": written}
