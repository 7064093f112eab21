"""Command line of the suite: jobs of cells (eval/jobs.py) and what reads finished cells: `python -m eval --help`."""

import sys
from pathlib import Path
from typing import Literal

import tyro

from eval.jobs import generate, latency, measure, merge, profile, prompts, share, tiny
from eval.sweep.cells import listed
from obsdiff.errors import CheckpointError, LayerError, SpecError
from obsdiff.jobs.warm import run
from obsdiff.storage.files import DamagedFile


def summarise(metrics: list[Path], out: Path) -> None:
    """Tables and figures of finished cells.

    Args:
        metrics: their metrics.json files in the order of the rows, or a .txt file that lists them.
        out: folder of summary.csv, summary.md, differences.csv and figures/.
    """
    from eval.figures import write_figures
    from eval.report.tables import read_cells, write_tables

    metrics = listed(metrics)
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
        metrics: the cells' metrics.json files in the order of the rows, or a .txt file that lists them.
        tables: folder of summary.md and figures/.
        sweep: the sweep's name.
        out: the page.
        others: summary.md files of other sweeps, shown as ablations.
        scale: what the cells are of.
    """
    from eval.report.page import write_report
    from eval.report.tables import read_cells

    metrics = listed(metrics)
    write_report(read_cells(metrics), metrics, tables, sweep, out, others, scale)


def publish(tables: Path, page: Path, figures: tuple[str, ...] = ()) -> None:
    """Put a summarised sweep's tables and figures into a page of docs/results, below what a person wrote there.

    Args:
        tables: folder of summary.md and figures/.
        page: a Markdown file that is there.
        figures: names of those to show.
    """
    from eval.report.publish import publish as put

    put(tables, page, figures)


def progress(configfile: tuple[Path, ...] = (), config: tuple[str, ...] = ()) -> None:
    """Print how far a sweep is: cells by stage, and the last line of every job that has not ended.

    Args:
        configfile: as snakemake is given them; config/config.yaml is always there.
        config: KEY=VALUE, as snakemake is given them.
    """
    from eval.sweep.progress import overview, read_config

    print(overview(read_config(configfile, config)))


def check(configfile: tuple[Path, ...] = (), config: tuple[str, ...] = ()) -> None:
    """Say whether a sweep can run here: checkpoints, data, networks, devices and disk, one line each.

    The exit status is 0 where nothing is missing, else 2.

    Args:
        configfile: as snakemake is given them; config/config.yaml is always there.
        config: KEY=VALUE, as snakemake is given them.
    """
    from eval.sweep.check import items
    from eval.sweep.progress import read_config

    lost = 0
    for item in items(read_config(configfile, config)):
        print(f"{'ok     ' if item.ok else 'missing'}  {item.text}", flush=True)
        lost += not item.ok
    if lost:
        raise SpecError(f"{lost} things are missing; their lines say what to do")


def cost(configfile: tuple[Path, ...] = (), config: tuple[str, ...] = ()) -> None:
    """Say how often a sweep samples to calibrate, each cell by itself and with what cells share made once.

    Args:
        configfile: as snakemake is given them; config/config.yaml is always there.
        config: KEY=VALUE, as snakemake is given them.
    """
    from eval.sweep.cost import described
    from eval.sweep.progress import read_config

    print(described(read_config(configfile, config)))


def paper(
    metrics: list[Path],
    table: int,
    out: Path,
    scale: Literal["full", "tiny"] = "full",
    values: Path = Path("config/paper/values.csv"),
) -> None:
    """A table of the paper with its numbers and those of finished cells side by side.

    Args:
        metrics: the cells' metrics.json files in the order of the rows, or a .txt file that lists them.
        table: its number.
        out: folder of paper.md, paper.csv and paper.tex.
        scale: what the cells are of.
        values: the paper's numbers.
    """
    from eval.report.paper import write_paper
    from eval.report.tables import read_cells

    write_paper(read_cells(listed(metrics)), table, out, scale, values)


def compare(first: list[Path], second: list[Path]) -> None:
    """Print the paired difference first − second of each metric, with a 95 % interval over prompts and seeds.

    Args:
        first: metrics.json files of a configuration, one a seed.
        second: those of the other, in the same order.
    """
    from eval.report.compare import compare as difference
    from eval.report.tables import read_cells

    table = difference(read_cells(first), read_cells(second))
    print(table.to_string(index=False, float_format="{:.4f}".format, na_rep=""))


def store(results: Path, out: Path, experiment: str = "obsdiff") -> None:
    """Make MLflow's store, where it is missing, before there is anything to track.

    Args:
        results: folder of the default store, mlflow.db; MLFLOW_TRACKING_URI names another.
        out: a JSON record.
    """
    from eval.tracking.store import prepare

    prepare(results, experiment, out)


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
        metrics: the cells' metrics.json files, or a .txt file that lists them.
        sweep: name of the parent run.
        results: folder of the default store, mlflow.db; MLFLOW_TRACKING_URI names another.
        out: a JSON record of the runs.
        files: artifacts of the parent run.
        sources: prompt files by `<model>/evaluation` and `<model>/calibration-<the cells'>`.
    """
    from eval.tracking import track as carry

    carry(listed(metrics), sweep, experiment, files, results, out, sources)


def ui(results: Path = Path("results"), experiment: str = "obsdiff", port: int = 5000) -> None:
    """Show the tracked runs in MLflow's pages; prints the experiment's.

    Args:
        results: folder of the default store, mlflow.db; MLFLOW_TRACKING_URI names another.
        port: of the server on this machine.
    """
    from eval.tracking.pages import serve

    serve(results, experiment, port)


COMMANDS = {
    f.__name__: f
    for f in (
        *(tiny, prompts, share, generate, merge, profile, latency, measure),
        *(summarise, report, publish, paper, compare, store, track, ui, progress, check, cost),
    )
}


def main(argv: list[str]) -> int:
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, args=argv, prog="python -m eval")
    except (SpecError, CheckpointError, LayerError, DamagedFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run("eval.__main__", main, sys.argv[1:]))
