"""Command line of the suite's stages and of `compare`: `python -m eval --help`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from obsdiff.errors import CheckpointError, LayerError, SpecError
from obsdiff.leases import lease
from obsdiff.prompts import choose_prompts, read_prompts, write_prompts
from obsdiff.spec import Sampling, Source
from obsdiff.warm import run

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
        source: CSV with a column `caption` (and `id`), text, Conceptual Captions TSV or MS-COCO captions JSON.
        count: how many.
        out: CSV with id and caption.
        choice: the first ones, or those of the lowest SHA-256 of their ids; hash for TSV and JSON where left out.
        disjoint_from: a prompt file whose captions are passed over.
    """
    write_prompts(out, choose_prompts(source, count, choice, disjoint_from))


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

    from eval.generate import generate as draw
    from obsdiff import load_pruned
    from obsdiff.loading import open_pipeline, place

    torch.set_num_threads(threads)
    pipe = open_pipeline(source, sampling)
    manifest = load_pruned(pipe, checkpoint)
    place(pipe, source)
    draw(pipe, manifest, read_prompts(prompts_file), sampling, seed, out, shard, shards)


def merge(images: Path, prompts_file: Path, shards: int) -> None:
    """Make the records of a cell's shards one manifest.

    Args:
        images: the pictures' folder.
        shards: how many there are.
    """
    from eval.shards import merge as join

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
    """Layer errors, deviation by depth and step, parameters, bytes, FLOPs, memory and latency of a checkpoint.

    Nothing else may be running.

    Args:
        prompts: how many prompts layer errors and deviation are averaged over.
        threads: CPU threads of the timings; the errors are computed on one.
    """
    lease(source.device)

    import torch

    from eval.deviation import deviation
    from eval.latency import latency, machine
    from eval.measure import write_json
    from eval.profile import counts, layer_errors
    from obsdiff import load_pipeline
    from obsdiff.checkpoint import read_pruned

    torch.set_num_threads(1)
    pipe = load_pipeline(source, sampling)
    chosen = read_prompts(prompts_file)[:prompts]
    pruned = read_pruned(checkpoint)
    errors = {
        "layers": layer_errors(pipe, pruned, chosen, sampling, seed),
        "deviation": deviation(pipe, pruned, chosen, sampling, seed),
    }
    torch.set_num_threads(threads)
    timings = latency(pipe, pruned, chosen[0], sampling)
    write_json(out, errors | {"latency": timings, "machine": machine(source)} | counts(pipe, pruned))


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
        fid_features: network of FID and KID: inception, inception:/path/to/weights, or inception:download; the
            evaluator where left out.
        lpips: network of LPIPS: alex, squeeze or vgg, or alex:/path/to/weights; not measured where left out.
        image_reward: Python of ImageReward's own environment; not measured where left out.
        device: torch device of the networks that judge.
    """
    lease(device)

    import torch

    from eval.features import Evaluator
    from eval.inception import Inception
    from eval.measure import load_pictures, write_json
    from eval.measure import measure as compute
    from eval.model_metrics import Model
    from obsdiff.checkpoint import read_manifest

    torch.set_num_threads(threads)
    judge, chosen = Evaluator(evaluator, cache, device), read_prompts(prompts_file)
    inception = Inception(fid_features, cache, device) if fid_features else None
    judges = {key: name for key, name in (("lpips", lpips), ("image_reward", image_reward)) if name}
    pictures = load_pictures(images, dense, reference, chosen, judge, inception, judges)
    model = Model(read_manifest(checkpoint), json.loads(profile.read_text()))
    provenance = {
        "pictures": json.loads((images / "manifest.json").read_text())["identity"],
        "prompts": pictures.about["captions"],
        "evaluator": {"name": evaluator, "sha256": judge.hash},
        "fid_features": {"name": inception.name, "sha256": inception.weights} if inception else None,
        "reference": pictures.about["reference"],
    }
    write_json(out, compute(out.parent, pictures, model, chosen, provenance))


def summarise(metrics: list[Path], out: Path) -> None:
    """Tables and figures of finished cells.

    Args:
        metrics: their metrics.json files, in the order of the rows.
        out: folder of summary.csv, summary.md, differences.csv and figures/.
    """
    from eval.figures import write_figures
    from eval.tables import read_cells, write_tables

    cells = read_cells(metrics)
    write_tables(cells, out)
    write_figures(cells, [path.parent for path in metrics], out / "figures")


def report(
    metrics: list[Path],
    tables: Path,
    sweep: str,
    out: Path,
    others: tuple[Path, ...] = (),
    scale: Literal["full", "tiny"] = "full",
) -> None:
    """Bind a summarised sweep into one HTML page that needs nothing beside it.

    Args:
        metrics: the cells' metrics.json files, in the order of the rows.
        tables: folder of summary.md and figures/.
        sweep: the sweep's name.
        out: the page.
        others: summary.md files of other sweeps, shown as ablations.
        scale: what the cells are of.
    """
    from eval.report import write_report
    from eval.tables import read_cells

    write_report(read_cells(metrics), metrics, tables, sweep, out, others, scale)


def progress(configfile: tuple[Path, ...] = (), config: tuple[str, ...] = ()) -> None:
    """Print how far a sweep is: cells by stage, and the last line of every job that has not ended.

    Args:
        configfile: as snakemake is given them; config/config.yaml is always there.
        config: KEY=VALUE, as snakemake is given them.
    """
    from eval.progress import overview, read_config

    print(overview(read_config(configfile, config)))


def paper(
    metrics: list[Path],
    table: int,
    out: Path,
    scale: Literal["full", "tiny"] = "full",
    values: Path = Path("config/paper/values.csv"),
) -> None:
    """A table of the paper with its numbers and those of finished cells side by side.

    Args:
        metrics: the cells' metrics.json files, in the order of the rows.
        table: its number.
        out: folder of paper.md, paper.csv and paper.tex.
        scale: what the cells are of.
        values: the paper's numbers.
    """
    from eval.paper import write_paper
    from eval.tables import read_cells

    write_paper(read_cells(metrics), table, out, scale, values)


def compare(first: list[Path], second: list[Path]) -> None:
    """Print the paired difference first − second of each metric, with a 95 % interval over prompts and seeds.

    Args:
        first: metrics.json files of a configuration, one a seed.
        second: those of the other, in the same order.
    """
    from eval.compare import compare as difference
    from eval.tables import read_cells

    table = difference(read_cells(first), read_cells(second))
    print(table.to_string(index=False, float_format="{:.4f}".format, na_rep=""))


def track(
    metrics: list[Path],
    sweep: str,
    results: Path,
    out: Path,
    experiment: str = "obsdiff",
    files: tuple[Path, ...] = (),
    sources: dict[str, str] | None = None,
) -> None:
    """Carry finished cells to MLflow: one parent run a sweep, one child a cell; what is there already is resumed.

    Args:
        metrics: the cells' metrics.json files.
        sweep: name of the parent run.
        results: folder of the default store, mlflow.db; MLFLOW_TRACKING_URI names another.
        out: a JSON record of the runs.
        files: artifacts of the parent run.
        sources: prompt files by `<model>/evaluation` and `<model>/calibration-<the cells'>`.
    """
    from eval.tracking import track as carry

    carry(metrics, sweep, experiment, files, results, out, sources)


def ui(results: Path = Path("results"), experiment: str = "obsdiff", port: int = 5000) -> None:
    """Show the tracked runs in MLflow's pages; prints the experiment's.

    Args:
        results: folder of the default store, mlflow.db; MLFLOW_TRACKING_URI names another.
        port: of the server on this machine.
    """
    from eval.tracking.pages import serve

    serve(results, experiment, port)


def tiny(family: str, out: Path) -> None:
    """Write a randomly initialised pipeline of a family, for `scale: tiny`.

    Args:
        family: a file of obsdiff/models.
        out: the diffusers folder.
    """
    from obsdiff import registry

    registry.load("obsdiff.models", family).tiny().save_pretrained(out)


COMMANDS = {
    f.__name__: f
    for f in (
        *(tiny, prompts, generate, merge, profile, measure),
        *(summarise, report, paper, compare, track, ui, progress),
    )
}


def main(argv: list[str]) -> int:
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, args=argv, prog="python -m eval")
    except (SpecError, CheckpointError, LayerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run("eval.__main__", main, sys.argv[1:]))
