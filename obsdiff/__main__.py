"""Command line: `obsdiff COMMAND`, see COMMANDS; options of a run are fields of obsdiff/spec.py."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from obsdiff.captions.prompts import read_prompts
from obsdiff.devices import require_whole
from obsdiff.errors import CheckpointError, LayerError, SpecError
from obsdiff.jobs.leases import lease
from obsdiff.jobs.warm import run
from obsdiff.spec import PruneSpec, Source
from obsdiff.storage.folders import CALIBRATION, CHECKPOINT, EXPORT, claimed, require_free

if TYPE_CHECKING:
    from obsdiff.report import Report

Flat = tyro.conf.OmitArgPrefixes


def prune(
    source: Annotated[Source, Flat],
    spec: Annotated[PruneSpec, Flat],
    out: Path,
    prompts_file: Path | None = None,
    threads: int | None = None,
    calibration: Path | None = None,
) -> None:
    """Prune a pipeline and save its pruned weights; a run that was killed goes on at the package where it stopped.

    Args:
        out: folder of the pruned checkpoint.
        prompts_file: calibration prompts: a text file, one a line, or a CSV file with a column `caption`.
        threads: CPU threads of torch.
        calibration: folder that `calibrate` wrote for this model, sampling and weighting, in the place of sampling.
    """
    require_whole(source.offload)
    spec = prompted(spec, prompts_file)
    with claimed(out, CHECKPOINT):
        lease(source.device)
        report = pruned(source, spec, out, threads, calibration)
    errors = [layer.weight_error for layer in report.layers]
    print(
        f"{out}: {len(errors)} layers, sparsity {report.sparsity:.4f}, {report.seconds['total']:.1f} s, "
        f"mean weight error {sum(errors) / max(len(errors), 1):.4f}"
    )


def calibrate(
    source: Annotated[Source, Flat],
    spec: Annotated[PruneSpec, Flat],
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


def prompted(spec: PruneSpec, prompts_file: Path | None) -> PruneSpec:
    """The spec with a file's prompts; SpecError where it needs some and has none."""
    prompts = [p.caption for p in read_prompts(prompts_file)] if prompts_file else list(spec.prompts)
    spec = replace(spec, prompts=tuple(prompts))
    if spec.calibrates and not prompts:
        raise SpecError(f"prompts: method {spec.method!r} calibrates and was given none; pass --prompts-file FILE")
    return spec


def placed(source: Source, spec: PruneSpec, threads: int | None) -> tuple[Any, dict[str, str]]:
    """The pipeline with its own scheduler where it is to be, and its identity."""
    import torch

    from obsdiff.pipelines.identity import identity_of_source
    from obsdiff.pipelines.loading import open_pipeline, place

    if threads:
        torch.set_num_threads(threads)
    pipe = open_pipeline(source, spec.sampling, own_scheduler=True)
    base = identity_of_source(source, pipe)
    place(pipe, source)
    return pipe, base


def pruned(
    source: Source, spec: PruneSpec, out: Path, threads: int | None, calibration: Path | None = None
) -> "Report":
    from obsdiff import prune as run
    from obsdiff.checkpoints.checkpoint import write_pruned
    from obsdiff.checkpoints.progress import discard

    if calibration is not None and spec.calibrates:
        from obsdiff.calibration.sharing import read_record

        read_record(calibration)  # before any weights load
    pipe, base = placed(source, spec, threads)
    report = run(pipe, spec, out / "progress", base, calibration)
    write_pruned(pipe, out, report)
    discard(out / "progress")
    return report


def plan(
    source: Annotated[Source, Flat],
    spec: Annotated[PruneSpec, Flat],
    calibration_prompts: int = 100,
    memory_gib: float = 24,
    rate: str | None = None,
    calibrated: bool = False,
    as_json: bool = False,
) -> None:
    """Say what `prune` would do and how long it takes, from the model's configuration alone: no weights are opened.

    Args:
        calibration_prompts: how many there will be.
        memory_gib: of the device; whether the run fits into it, and how.
        rate: of its matrix products in TFLOP/s, such as 300TFLOPS; or a device (a100, cpu, h100, h200, l40s, rtx4090),
            or `here`, measured. Where it is left out, that of the CPU here in the table, or of an a100.
        calibrated: the dense model's statistics are at hand, so that the first package is not sampled for.
        as_json: for programs.
    """
    from obsdiff.planning.rates import check

    check(rate)
    from obsdiff.planning.plan import describe
    from obsdiff.planning.plan import plan as find_out

    found = find_out(source, spec, calibration_prompts, int(memory_gib * 2**30), rate, calibrated)
    print(describe(found, as_json))


def inspect(checkpoint: Annotated[Path, tyro.conf.Positional], as_json: bool = False) -> None:
    """Print the layers of a pruned checkpoint, after checking it against its hash.

    Args:
        checkpoint: folder that `prune` wrote.
        as_json: its manifest.
    """
    from obsdiff.checkpoints.checkpoint import read_pruned
    from obsdiff.checkpoints.inspection import describe

    pruned = read_pruned(checkpoint)
    print(json.dumps(pruned.manifest, indent=1) if as_json else describe(checkpoint, pruned.manifest))


def export(
    source: Annotated[Source, Flat],
    checkpoint: Path,
    out: Path,
    any_components: bool = False,
    max_shard_size: str | None = None,
) -> None:
    """Write a pruned pipeline as an ordinary diffusers folder, which from_pretrained opens without obsdiff.

    Args:
        checkpoint: folder that `prune` wrote from the same --model.
        out: the diffusers folder; an earlier export is replaced.
        any_components: check the denoiser alone, not the VAE, text encoders and the rest.
        max_shard_size: size from which a component's weights are split into files, such as 5GB; 10GB by default.
    """
    require_free(out, EXPORT)

    from obsdiff import export_pruned, load_pruned
    from obsdiff.checkpoints.exporting import opened_by, require_exportable, require_size
    from obsdiff.checkpoints.manifest import read_manifest
    from obsdiff.pipelines.identity import identity_of_source
    from obsdiff.pipelines.loading import open_pipeline

    require_size(max_shard_size)
    require_exportable(read_manifest(checkpoint))
    pipe = open_pipeline(source)
    manifest = load_pruned(pipe, checkpoint, identity_of_source(source, pipe), any_components)
    export_pruned(pipe, out, manifest, max_shard_size)
    print(f"{out}: {opened_by(pipe, out)}")


def compare(
    first: Annotated[str, tyro.conf.Positional],
    second: Annotated[str, tyro.conf.Positional],
    results: Path = Path("results"),
) -> None:
    """Print the paired difference of two cells of the suite, metric by metric, with 95 % intervals over prompts.

    Args:
        first: a cell's folder, its metrics.json, or the id of its MLflow run.
        second: the same of the cell that is subtracted.
        results: whose mlflow.db run ids are looked up in; MLFLOW_TRACKING_URI names another store.
    """
    from eval.report.compare_runs import described, read_run  # the suite is imported by this command alone

    print(described(read_run(first, results), read_run(second, results)))


COMMANDS = {f.__name__: f for f in (prune, calibrate, plan, inspect, export, compare)}


def main(argv: list[str]) -> int:
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, args=argv, prog="obsdiff")
        sys.stdout.flush()
    except (SpecError, CheckpointError, LayerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `obsdiff inspect … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a full disk, a file that may not be read
        print(f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", file=sys.stderr)
        return 2
    return 0


def entry() -> None:
    """The console script `obsdiff`."""
    sys.exit(run("obsdiff.__main__", main, sys.argv[1:]))


if __name__ == "__main__":
    entry()
