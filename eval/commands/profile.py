"""`python -m eval profile`."""

from dataclasses import asdict
from pathlib import Path

from eval.commands import Sampling_, Source_
from obsdiff import devices, models
from obsdiff.jobs.leases import lease


def run(
    source: Source_,
    sampling: Sampling_,
    checkpoint: Path,
    prompts_file: Path,
    out: Path,
    seed: int = 0,
    prompts: int = 8,
    threads: int = 1,
) -> None:
    """Layer errors, deviation by depth and step, parameters, bytes, FLOPs and memory of a checkpoint.

    Args:
        prompts: how many prompts layer errors and deviation are averaged over.
    """
    devices.require_whole(source.offload)
    # before anything that could look for a GPU is imported
    lease(source.device)

    import torch

    from eval.model_metrics import Profile
    from eval.profile.deviation import deviation
    from eval.profile.layers import counts, layer_errors
    from eval.profile.machine import machine
    from eval.profile.work import work
    from eval.results import write_record
    from obsdiff.captions.prompts import read_prompts
    from obsdiff.checkpoints.checkpoint import read_for
    from obsdiff.pipelines.identity import identity_of_source
    from obsdiff.pipelines.loading import open_pipeline, place

    torch.set_num_threads(threads)
    pipe = open_pipeline(source, sampling)
    pruned = read_for(pipe, checkpoint, identity_of_source(source, pipe))
    place(pipe, source)
    models.family_of(pipe, sampling)  # one without a file finds its layers by a call
    chosen = read_prompts(prompts_file)[:prompts]
    found = Profile(
        layers=layer_errors(pipe, pruned, chosen, sampling, seed),
        deviation=deviation(pipe, pruned, chosen, sampling, seed),
        work=work(pipe, pruned, sampling),
        machine=machine(source),
        **counts(pipe, pruned),
    )
    write_record(out, asdict(found))
