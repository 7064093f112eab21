"""Command line: `python -m obsdiff prune --model FOLDER --out FOLDER …`; every option is a field of obsdiff/spec.py."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from obsdiff.errors import CheckpointError, LayerError, SpecError
from obsdiff.prompts import read_prompts
from obsdiff.spec import PruneSpec, Source
from obsdiff.warm import run

Flat = tyro.conf.OmitArgPrefixes


def prune(
    source: Annotated[Source, Flat],
    spec: Annotated[PruneSpec, Flat],
    out: Path,
    prompts_file: Path | None = None,
    threads: int | None = None,
) -> None:
    """Prune a pipeline and save its pruned weights.

    Args:
        out: folder of the pruned checkpoint.
        prompts_file: calibration prompts: a text file, one a line, or a CSV file with a column `caption`.
        threads: CPU threads of torch.
    """
    prompts = [p.caption for p in read_prompts(prompts_file)] if prompts_file else list(spec.prompts)
    spec = replace(spec, prompts=tuple(prompts))
    if spec.facts["STATISTIC"] and not prompts:
        raise SpecError(f"prompts: method {spec.method!r} calibrates and was given none; pass --prompts-file FILE")

    import torch

    from obsdiff import load_pipeline, save_pruned
    from obsdiff import prune as run_prune

    if threads:
        torch.set_num_threads(threads)
    pipe = load_pipeline(source)
    report = run_prune(pipe, spec)
    save_pruned(pipe, out, report)
    errors = [layer.weight_error for layer in report.layers]
    print(
        f"{out}: {len(errors)} layers, sparsity {report.sparsity:.4f}, {report.seconds['total']:.1f} s, "
        f"mean weight error {sum(errors) / max(len(errors), 1):.4f}"
    )


def main(argv: list[str]) -> int:
    try:
        tyro.extras.subcommand_cli_from_dict({"prune": prune}, args=argv, prog="python -m obsdiff")
    except (SpecError, CheckpointError, LayerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def entry() -> None:
    """The console script `obsdiff`."""
    sys.exit(run("obsdiff.__main__", main, sys.argv[1:]))


if __name__ == "__main__":
    entry()
