"""`python -m eval latency`."""

from pathlib import Path

from eval.commands import Sampling_, Source_
from obsdiff import devices, models
from obsdiff.jobs.leases import lease


def run(
    source: Source_,
    sampling: Sampling_,
    out: Path,
    checkpoint: Path | None = None,
    threads: int = 1,
) -> None:
    """Time a checkpoint's weights against the dense ones, in turns; nothing else may be running.

    Args:
        checkpoint: one whose layers have other shapes. By default the dense model is timed, against itself for the
            machine's noise, and with most of its weights set to zero.
        threads: CPU threads.
    """
    devices.require_whole(source.offload)
    # before anything that could look for a GPU is imported
    lease(source.device)

    import torch

    from eval.profile.latency import ZEROED, zeroed
    from eval.profile.latency import latency as timed
    from eval.profile.machine import machine
    from eval.results import write_record
    from obsdiff.checkpoints.checkpoint import read_for
    from obsdiff.checkpoints.pruned import Pruned
    from obsdiff.pipelines.identity import identity_of_source
    from obsdiff.pipelines.loading import open_pipeline, place

    torch.set_num_threads(threads)
    pipe = open_pipeline(source, sampling)
    pruned = read_for(pipe, checkpoint, identity_of_source(source, pipe)) if checkpoint else Pruned({})
    place(pipe, source)
    models.family_of(pipe, sampling)  # one without a file finds its layers by a call
    record = timed(pipe, pruned, sampling, None if checkpoint else zeroed(pipe))
    if not checkpoint:
        record["zeros"] |= {"share": ZEROED}
    write_record(out, record | {"machine": machine(source)})
