"""`python -m eval generate`."""

from pathlib import Path

from eval.commands import Sampling_, Source_
from obsdiff.jobs.leases import lease


def run(
    source: Source_,
    sampling: Sampling_,
    checkpoint: Path,
    prompts_file: Path,
    out: Path,
    seed: int = 0,
    shard: int = 1,
    shards: int = 1,
    threads: int = 1,
) -> None:
    """Generate a cell's images with its pruned checkpoint.

    Args:
        shard: which part of them, counted from 1.
        shards: how many parts.
    """
    # before anything that could look for a GPU is imported
    lease(source.device)

    import torch

    from eval.images.generate import generate as draw
    from obsdiff import load_pruned
    from obsdiff.captions.prompts import read_prompts
    from obsdiff.pipelines.identity import identity_of_source
    from obsdiff.pipelines.loading import open_pipeline, place

    torch.set_num_threads(threads)
    pipe = open_pipeline(source, sampling)
    base = identity_of_source(source, pipe)
    manifest = load_pruned(pipe, checkpoint, base)
    place(pipe, source)
    draw(pipe, manifest, read_prompts(prompts_file), sampling, seed, out, shard, shards, base)
