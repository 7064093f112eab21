"""The algorithm, top to bottom (OBS-Diff, arXiv 2510.06751, algorithm 1).

For each module package: calibrate on the model as pruned so far, then prune the package's layers one by one, each from
its own statistic. What a run keeps in order beside (resuming, clocks, memory, the report) is in running.py.
"""

from pathlib import Path
from typing import Any

import torch

from obsdiff.calibration.stored import opened
from obsdiff.checkpoints.progress import held
from obsdiff.devices import stated_precision
from obsdiff.pipelines import guard
from obsdiff.pipelines.identity import Identity, identity_of
from obsdiff.pipelines.staging import staged
from obsdiff.report import Report
from obsdiff.running import Run
from obsdiff.spec import PruneSpec


@stated_precision()
@torch.no_grad()
def prune(
    pipe: Any,
    spec: PruneSpec,
    progress: str | Path | None = None,
    base: Identity | None = None,
    calibration: str | Path | None = None,
) -> Report:
    """Prune a diffusers pipeline's denoiser in place.

    Args:
        pipe: a pipeline of one of the classes of obsdiff/models, or of another text-to-image class of diffusers.
        spec: what to do; spec.prompts may be empty for methods that need no calibration.
        progress: a folder that keeps finished packages until the end; a run that was killed goes on after them and
            gives the same weights. Remove it when the result is saved.
        base: the pipeline's identity, if it is known (identity.identity_of_source); computed by default.
        calibration: a folder that calibrate() wrote; it is used in the place of sampling, and gives the same weights.

    Raises:
        SpecError: the pipeline is not supported or sequentially offloaded, the spec does not fit it, a calibrating
            method has no prompts, another run is writing to `progress`, or `calibration` is damaged or of another
            model, sampling or weighting.
        LayerError: a layer is not a plain linear layer with finite weights (see guard), does not fit the pattern, or
            has an input or a Hessian that cannot be used, by name.
    """
    guard.check(pipe, spec.sampling, spec.resolved.structured, spec.convolutions)
    base = base or identity_of(pipe)
    shared = None if calibration is None else opened(Path(calibration), spec, base)
    with guard.eager(), staged(pipe) as stage, held(progress):
        run = Run(pipe, stage, spec, None if progress is None else Path(progress), base, shared)
        algorithm(run)
        return run.finish()


def algorithm(run: Run) -> None:
    """OBS-Diff's algorithm 1; every other method is the same with another statistic or solver."""
    for package in run.unfinished():  # in order of execution
        statistics = run.calibrate(package)  # timestep-weighted, on the model as pruned so far
        for target in package:  # layers of shared inputs, or heads and neurons
            run.solve(target, statistics)  # masks by the pattern, the remaining weights compensated
    run.refit()
