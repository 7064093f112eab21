"""`obsdiff calibrate`."""

from pathlib import Path

from obsdiff.commands import Source_, Spec_, placed, prompted
from obsdiff.devices import require_whole
from obsdiff.jobs.leases import lease
from obsdiff.storage.folders import CALIBRATION, claimed


def run(
    source: Source_,
    spec: Spec_,
    out: Path,
    prompts_file: Path | None = None,
    threads: int | None = None,
) -> None:
    """Do once what runs of `prune` share that differ in sparsity, pattern or method; they take it by --calibration.

    The dense model's statistics of all layers; with --packages sequential the denoiser's inputs of its sampling run.

    Args:
        out: folder of the calibration.
        prompts_file: as of `prune`.
        threads: CPU threads of torch.
    """
    require_whole(source.offload)
    spec = prompted(spec, prompts_file)
    with claimed(out, CALIBRATION):
        lease(source.device)
        from obsdiff.calibration.sharing import require_calibrating, write_calibration

        require_calibrating(spec)
        pipe, base = placed(source, spec, threads)
        write_calibration(pipe, spec, out, base)
    held = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {len(spec.prompts)} prompts, {held / 2**20:.1f} MiB")
