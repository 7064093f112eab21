"""The jobs of cells on the command line: prompts, share, generate, merge, profile, latency, measure, tiny."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from obsdiff import devices
from obsdiff.captions.prompts import choose_prompts, read_prompts, write_prompts
from obsdiff.jobs.leases import lease
from obsdiff.spec import Sampling, Source
from obsdiff.storage.files import read_json

Flat = tyro.conf.OmitArgPrefixes
Source_ = Annotated[Source, Flat]
Sampling_ = Annotated[Sampling, Flat]


def prompts(
    source: Path,
    count: int,
    out: Path,
    choice: Literal["first", "hash"] | None = None,
    disjoint_from: Path | None = None,
) -> None:
    """Choose some prompts of a file.

    Args:
        source: CSV or TSV with a column `caption` (and `id`), text, JSON, JSON lines, Conceptual Captions TSV, or
            MS-COCO captions JSON.
        count: how many.
        out: CSV with id and caption.
        choice: the first ones, or those of the lowest SHA-256 of their ids; hash for TSV and JSON where left out.
        disjoint_from: a prompt file whose captions are passed over.
    """
    write_prompts(out, choose_prompts(source, count, choice, disjoint_from))


def share(checkpoint: Path, out: Path) -> None:
    """Copy the checkpoint of the cell that this one is pinned to, verified.

    Args:
        checkpoint: that cell's.
        out: this cell's.
    """
    from eval.sweep.pinned import share as copy

    copy(checkpoint, out)


def generate(
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
    """Generate a cell's pictures with its pruned checkpoint.

    Args:
        shard: which part of them, counted from 1.
        shards: how many parts.
    """
    lease(source.device)

    import torch

    from eval.images.generate import generate as draw
    from obsdiff import load_pruned
    from obsdiff.pipelines.identity import identity_of_source
    from obsdiff.pipelines.loading import open_pipeline, place

    torch.set_num_threads(threads)
    pipe = open_pipeline(source, sampling)
    base = identity_of_source(source, pipe)
    manifest = load_pruned(pipe, checkpoint, base)
    place(pipe, source)
    draw(pipe, manifest, read_prompts(prompts_file), sampling, seed, out, shard, shards, base)


def merge(images: Path, prompts_file: Path, shards: int) -> None:
    """Make the records of a cell's shards one manifest.

    Args:
        images: the pictures' folder.
        shards: how many there are.
    """
    from eval.images.shards import merge as join

    join(images, read_prompts(prompts_file), shards)


def profile(
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
    lease(source.device)

    import torch

    from eval.measure import write_json
    from eval.profile.deviation import deviation
    from eval.profile.layers import counts, layer_errors
    from eval.profile.machine import machine
    from eval.profile.work import work
    from obsdiff.checkpoints.checkpoint import read_for
    from obsdiff.pipelines.identity import identity_of_source
    from obsdiff.pipelines.loading import open_pipeline, place

    torch.set_num_threads(threads)
    pipe = open_pipeline(source, sampling)
    pruned = read_for(pipe, checkpoint, identity_of_source(source, pipe))
    place(pipe, source)
    chosen = read_prompts(prompts_file)[:prompts]
    record = {
        "layers": layer_errors(pipe, pruned, chosen, sampling, seed),
        "deviation": deviation(pipe, pruned, chosen, sampling, seed),
        "work": work(pipe, pruned, sampling),
        "machine": machine(source),
    }
    write_json(out, record | counts(pipe, pruned))


def latency(
    source: Source_,
    sampling: Sampling_,
    out: Path,
    checkpoint: Path | None = None,
    threads: int = 1,
) -> None:
    """Time a checkpoint's weights against the dense ones, in turns; nothing else may be running.

    Args:
        checkpoint: one whose layers have other shapes. Where left out, the dense model is timed, against itself for the
            machine's noise, and with most of its weights set to zero.
        threads: CPU threads.
    """
    devices.require_whole(source.offload)
    lease(source.device)

    import torch

    from eval.measure import write_json
    from eval.profile.latency import ZEROED, zeroed
    from eval.profile.latency import latency as timed
    from eval.profile.machine import machine
    from obsdiff.checkpoints.checkpoint import Pruned, read_for
    from obsdiff.pipelines.identity import identity_of_source
    from obsdiff.pipelines.loading import open_pipeline, place

    torch.set_num_threads(threads)
    pipe = open_pipeline(source, sampling)
    if checkpoint:
        pruned = read_for(pipe, checkpoint, identity_of_source(source, pipe))
        place(pipe, source)
        record = timed(pipe, pruned, sampling)
    else:
        place(pipe, source)
        record = timed(pipe, Pruned({"sites": []}, {}), sampling, zeroed(pipe))
        record["zeros"] |= {"share": ZEROED}
    write_json(out, record | {"machine": machine(source)})


def measure(
    checkpoint: Path,
    profile: Path,
    images: Path,
    dense: Path,
    reference: Path,
    evaluator: str,
    prompts_file: Path,
    cache: Path,
    out: Path,
    latency: Path | None = None,
    fid_features: str | None = None,
    lpips: str | None = None,
    image_reward: str | None = None,
    device: str = "cpu",
    threads: int = 1,
) -> None:
    """All metrics of a cell → its metrics.json.

    Args:
        dense: pictures of the dense model from the same prompts and seed.
        reference: folder of real pictures.
        evaluator: open_clip folder, or architecture:weights.
        cache: folder of cached features.
        latency: the cell's timings; left out of one that stands with the dense model (eval/sweep/clocked.py).
        fid_features: network of FID and KID: inception, inception:/path/to/weights, or inception:download; the
            evaluator where left out.
        lpips: network of LPIPS: alex, squeeze or vgg, or alex:/path/to/weights; not measured where left out.
        image_reward: Python of ImageReward's own environment; not measured where left out.
        device: torch device of the networks that judge.
    """
    lease(device)
    devices.require(device)

    import torch

    from eval.measure import drawn_pictures, load_pictures, write_json
    from eval.measure import measure as compute
    from eval.model_metrics import Model
    from eval.networks.features import Evaluator
    from eval.networks.inception import Inception
    from obsdiff.checkpoints.manifest import read_manifest

    torch.set_num_threads(threads)
    judge, chosen = Evaluator(evaluator, cache, device), read_prompts(prompts_file)
    inception = Inception(fid_features, cache, device) if fid_features else None
    judges = {key: name for key, name in (("lpips", lpips), ("image_reward", image_reward)) if name}
    own, files, dense_files = drawn_pictures(images, dense, chosen)
    pictures = load_pictures(files, dense_files, reference, chosen, judge, inception, judges)
    model = Model(read_manifest(checkpoint), read_json(profile), read_json(latency) if latency else {})
    provenance = {
        "pictures": own.identity,
        "prompts": pictures.about["captions"],
        "evaluator": {"name": evaluator, "sha256": judge.hash},
        "fid_features": {"name": inception.name, "sha256": inception.weights} if inception else None,
        "reference": {k: v for k, v in pictures.about["reference"].items() if k != "passed_over"},
    }
    write_json(out, compute(out.parent, pictures, model, chosen, provenance, own.faults()))


def tiny(family: str, out: Path) -> None:
    """Write a randomly initialised pipeline of a family, for `scale: tiny`.

    Args:
        family: a file of obsdiff/models.
        out: the diffusers folder.
    """
    from obsdiff import registry

    registry.load("obsdiff.models", family).tiny().save_pretrained(out)
