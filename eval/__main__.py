"""Command line of the suite's stages and of `compare`: `python -m eval --help`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import tyro

from obsdiff.errors import CheckpointError, LayerError, SpecError
from obsdiff.prompts import read_prompts, write_prompts
from obsdiff.spec import Sampling, Source, require
from obsdiff.warm import run

Flat = tyro.conf.OmitArgPrefixes
Source_ = Annotated[Source, Flat]
Sampling_ = Annotated[Sampling, Flat]


def prompts(source: Path, count: int, out: Path, disjoint_from: Path | None = None) -> None:
    """Take the first prompts of a file, in the file's order.

    Args:
        source: CSV with a column `caption` (and `id`), or text, one a line.
        count: how many.
        out: CSV with id and caption.
        disjoint_from: a prompt file that must share no caption.
    """
    found = read_prompts(source)
    require(0 < count <= len(found), "count", count, f"in [1, {len(found)}], the prompts of {source}")
    chosen = found[:count]
    if disjoint_from:
        shared = {p.caption for p in chosen} & {p.caption for p in read_prompts(disjoint_from)}
        if shared:
            raise SpecError(f"prompts: {min(shared)!r} is in both {source} and {disjoint_from}; they must be disjoint")
    write_prompts(out, chosen)


def generate(
    source: Source_,
    sampling: Sampling_,
    checkpoint: Path,
    prompts_file: Path,
    out: Path,
    seed: int = 0,
    threads: int = 1,
) -> None:
    """Generate a cell's pictures with its pruned checkpoint."""
    import torch

    from eval.generate import generate as draw
    from obsdiff import load_pipeline, load_pruned

    torch.set_num_threads(threads)
    pipe = load_pipeline(source)
    manifest = load_pruned(pipe, checkpoint)
    draw(pipe, manifest, read_prompts(prompts_file), sampling, seed, out)


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
    """Layer errors, parameters and latency of a pruned checkpoint; nothing else may be running.

    Args:
        prompts: how many prompts the layer errors are averaged over.
        threads: CPU threads of the timings; the errors are computed on one.
    """
    import torch

    from eval.measure import write_json
    from eval.profile import counts, latency, layer_errors
    from obsdiff import load_pipeline
    from obsdiff.checkpoint import read_pruned

    torch.set_num_threads(1)
    pipe = load_pipeline(source)
    chosen = read_prompts(prompts_file)[:prompts]
    pruned = read_pruned(checkpoint)
    layers = layer_errors(pipe, pruned, chosen, sampling, seed)
    torch.set_num_threads(threads)
    timings = latency(pipe, pruned, chosen[0], sampling)
    write_json(out, {"layers": layers, "latency": timings} | counts(pipe, pruned))


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
    threads: int = 1,
) -> None:
    """All metrics of a cell → its metrics.json.

    Args:
        dense: pictures of the dense model from the same prompts and seed.
        reference: folder of real pictures.
        evaluator: open_clip folder, or architecture:weights.
        cache: folder of cached features.
    """
    import torch

    from eval.features import Evaluator
    from eval.measure import load_pictures, write_json
    from eval.measure import measure as compute
    from eval.model_metrics import Model
    from obsdiff.checkpoint import read_manifest

    torch.set_num_threads(threads)
    judge, chosen = Evaluator(evaluator, cache), read_prompts(prompts_file)
    pictures = load_pictures(images, dense, reference, chosen, judge)
    model = Model(read_manifest(checkpoint), json.loads(profile.read_text()))
    provenance = {
        "pictures": json.loads((images / "manifest.json").read_text())["identity"],
        "evaluator": {"name": evaluator, "sha256": judge.hash},
        "reference": {"folder": str(reference), "count": len(pictures.reference)},
    }
    write_json(out, compute(out.parent, pictures, model, chosen, provenance))


def summarise(metrics: list[Path], out: Path) -> None:
    """Tables and figures of finished cells.

    Args:
        metrics: their metrics.json files, in the order of the rows.
        out: folder of summary.csv, summary.md and figures/.
    """
    from eval.figures import picture_grid, quality_against_sparsity
    from eval.tables import read_cells, write_tables

    cells = read_cells(metrics)
    write_tables(cells, out)
    quality_against_sparsity(cells, out / "figures")
    picture_grid(cells, [path.parent for path in metrics], out / "figures")


def compare(first: list[Path], second: list[Path]) -> None:
    """Print the paired difference first − second of each metric, with a 95 % interval over prompts.

    Args:
        first: metrics.json files of a method, one a seed.
        second: those of the other, in the same order.
    """
    from eval.compare import compare as difference
    from eval.tables import read_cells

    print(difference(read_cells(first), read_cells(second)).to_string(index=False, float_format="{:.4f}".format))


def track(
    metrics: list[Path], sweep: str, results: Path, out: Path, experiment: str = "obsdiff", files: tuple[Path, ...] = ()
) -> None:
    """Carry finished cells to MLflow: one parent run a sweep, one child a cell; what is there already is resumed.

    Args:
        metrics: the cells' metrics.json files.
        sweep: name of the parent run.
        results: folder of the default store, mlflow.db; MLFLOW_TRACKING_URI names another.
        out: a JSON record of the runs.
        files: artifacts of the parent run.
    """
    from eval.tracking import track as carry

    carry(metrics, sweep, experiment, files, results, out)


COMMANDS = {f.__name__: f for f in (prompts, generate, profile, measure, summarise, compare, track)}


def main(argv: list[str]) -> int:
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, args=argv, prog="python -m eval")
    except (SpecError, CheckpointError, LayerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run("eval.__main__", main, sys.argv[1:]))
