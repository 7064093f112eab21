"""`obsdiff prune`."""

from pathlib import Path

from obsdiff.commands import Source_, Spec_, placed, prompted
from obsdiff.devices import require_whole
from obsdiff.jobs.leases import lease
from obsdiff.pipelines.published import require_fit
from obsdiff.storage.folders import CHECKPOINT, claimed


def run(
    source: Source_,
    spec: Spec_,
    out: Path,
    prompts_file: Path | None = None,
    threads: int | None = None,
    calibration: Path | None = None,
) -> None:
    """Prune a pipeline and save its pruned weights; a run that was killed goes on at the package where it stopped.

    Args:
        out: folder of the pruned checkpoint.
        prompts_file: calibration prompts: a text file, one per line, or a CSV file with a column `caption`.
        threads: CPU threads of torch.
        calibration: folder that `calibrate` wrote for this model, sampling and weighting, in the place of sampling.
    """
    require_whole(source.offload)
    spec = prompted(spec, prompts_file)
    if spec.weights:
        require_fit(spec.weights, source)
    with claimed(out, CHECKPOINT):
        lease(source.device)
        from obsdiff import prune
        from obsdiff.checkpoints.checkpoint import write_pruned
        from obsdiff.checkpoints.progress import discard

        if calibration is not None and spec.calibrates:
            from obsdiff.calibration.stored import read_record

            read_record(calibration)  # before any weights load
        pipe, base = placed(source, spec, threads)
        report = prune(pipe, spec, out / "progress", base, calibration)
        write_pruned(pipe, out, report)
        discard(out / "progress")
    errors = [layer.weight_error for layer in report.layers]
    print(
        f"{out}: {len(errors)} layers, sparsity {report.sparsity:.4f}, {report.seconds['total']:.1f} s, "
        f"mean weight error {sum(errors) / max(len(errors), 1):.4f}"
    )
