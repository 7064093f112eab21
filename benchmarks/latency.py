"""Time of block, denoiser call and pipeline over batches and resolutions, dense against patterns, all in turns.

    python -m benchmarks.latency --model zoo/emoji-sd3 --steps 12 --guidance-scale 3 --max-sequence-length 0 \\
        --batches 1 8 32 --out results/latency

Weights are pruned by magnitude, since time depends on where zeros are and not on their choice; `--checkpoints` adds
pruned checkpoints of the same model. `--variants` also judges other kernels for the denoiser's call, at the last batch
and resolution (benchmarks/variants.py).
"""

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from benchmarks.candidates import spec_of
from benchmarks.variants import TOLERANCE, VARIANTS, judge
from eval.profile.calls import Calls, caught, pipeline_of, ready
from eval.profile.latency import in_turns, quartiles, ratios
from eval.profile.machine import machine
from eval.profile.work import flops, nbytes, peak_bytes, zero_flops
from eval.results import write_record
from obsdiff import devices, load_pipeline, load_pruned, models, prune
from obsdiff.captions.prompts import Prompt
from obsdiff.checkpoints.pruned import Pruned
from obsdiff.checkpoints.swapping import swaps, taken_off
from obsdiff.errors import CheckpointError, LayerError, SpecError
from obsdiff.jobs.leases import lease
from obsdiff.sampling import Sampling
from obsdiff.source import Source
from obsdiff.typed import require

PROMPT = Prompt("0", "a red heart")
KINDS = ("block", "denoiser", "pipeline")
Flat = tyro.conf.OmitArgPrefixes


@torch.no_grad()
def point(pipe: Any, weights: Mapping[str, Pruned], sampling: Sampling, size: int, rounds: int, pipelines: int) -> list:
    """Rows of one batch and resolution.

    Args:
        size: prompts at once.
        pipelines: rounds of the whole pipeline; none at 0.

    Returns:
        A row for each of the weights and each of block, denoiser and pipeline: ms and speed-up over dense as quartiles;
        the denoiser's also FLOPs measured and ideal, and peak bytes.
    """
    denoiser, install = models.denoiser_of(pipe), swaps(pipe, weights)

    def turn(name: str, timed: Calls) -> Calls:
        install[name]()
        return timed

    def work_of(name: str, call: Callable[[], Any]) -> dict[str, int]:
        install[name]()
        done, layers = flops(call), weights[name].states if name in weights else {}
        memory = nbytes(denoiser.parameters()) + peak_bytes(call, denoiser.device)
        return {"flops": done, "ideal_flops": done - zero_flops(denoiser, layers, call), "memory": memory}

    with ready(pipe, PROMPT, sampling, [size]) as calls:
        times = in_turns({name: partial(turn, name, calls[size]) for name in install}, rounds)
        work = {name: work_of(name, calls[size]["denoiser"]) for name in install}
        install["dense"]()
    whole = {"pipeline": pipeline_of(pipe, PROMPT, sampling, size)}
    times |= in_turns({name: partial(turn, name, whole) for name in install}, pipelines)
    install["dense"]()
    rows = []
    for what, name in ((what, name) for what in KINDS for name in install if (name, what) in times):
        row = {"weights": name, "prompts": size, "height": sampling.height, "width": sampling.width, "what": what}
        speedup = ratios(times["dense", what], times[name, what])
        row |= {"ms": quartiles(times[name, what]), "speedup": speedup}
        rows.append(row | (work[name] if what == "denoiser" else {}))
    return rows


@torch.no_grad()
def judged(pipe: Any, weights: Mapping[str, Pruned], sampling: Sampling, size: int, names: Any, rounds: int) -> list:
    """Rows of variants of the denoiser's call, for dense and every other weights."""
    denoiser, install = models.denoiser_of(pipe), swaps(pipe, weights)
    tolerance, rows = TOLERANCE[str(denoiser.dtype).removeprefix("torch.")], []
    with ready(pipe, PROMPT, sampling, [size]) as calls:
        args, kwargs = caught(denoiser, calls[size]["denoiser"])

        def output(module: Callable[..., Any]) -> torch.Tensor:
            return module(*args, **kwargs)[0]

        def made(variant: str) -> Callable[[], torch.Tensor]:
            return partial(output, VARIANTS[variant](denoiser))

        for name, begin in install.items():
            for variant in names:
                begin()
                verdict = judge(
                    partial(output, denoiser),
                    partial(made, variant),
                    tolerance,
                    rounds,
                    0.1,
                )
                rows.append({"weights": name, "variant": variant, "prompts": size, "tolerance": tolerance})
                rows[-1] |= asdict(verdict) | {"verdict": str(verdict)}
                print(f"{name}, {variant}: {verdict}", flush=True)
        install["dense"]()
    return rows


def shown(found: Any, digits: int = 4) -> str:
    """Quartiles as `median [25th, 75th]`."""
    low, median, high = found
    return f"{median:.{digits}g} [{low:.{digits}g}, {high:.{digits}g}]"


def table(rows: list[list[str]], head: str) -> list[str]:
    columns = [cell.strip() for cell in head.split("|")]
    rule = [":--"] * 3 + ["--:"] * (len(columns) - 3)
    return [f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows)] + [""]


def markdown(record: Mapping[str, Any]) -> str:
    about = record["about"]
    lines = [
        f"`{about['model']}`, {about['dtype']}, {about['device']}, threads: {about['threads']}, torch "
        f"{about['torch']}, diffusers {about['diffusers']}; weights in turns, {about['rounds']} rounds "
        f"({about['pipeline_rounds']} of the pipeline): median [25th, 75th percentile], of speed-ups over the rounds' "
        f"ratios to dense. Made by `python -m benchmarks.latency {about['arguments']}`.",
        "",
    ]
    rows = []
    for row in record["timings"]:
        pixels = f"{row['height']}×{row['width']}" if row["height"] else "own"
        work = [f"{row[k] / unit:.4g}" if k in row else "" for k, unit in WORK]
        times = [shown(row["ms"]), shown(row["speedup"], 3) if row["weights"] != "dense" else ""]
        rows.append([row["what"], row["weights"], pixels, str(row["prompts"]), *times, *work])
    head = "what | weights | pixels | prompts | ms | speed-up | GFLOP, measured | GFLOP, zeros skipped | peak MiB"
    lines += table(rows, head)
    if record["variants"]:
        rows = [
            [
                row["variant"], row["weights"], row["verdict"], str(row["prompts"]),
                f"{row['error']:.2g}" if row["error"] is not None else "",
                shown(row["speedup"], 3) if row["speedup"] else "", f"{row['seconds']:.0f}",
            ]
            for row in record["variants"]
        ]  # fmt: skip
        head = "variant | weights | verdict | prompts | error | speed-up over eager | s to make"
        lines += [
            f"Variants of the denoiser's call; refused above an error of {record['variants'][0]['tolerance']:g}.",
            "",
        ]
        lines += table(rows, head)
    return "\n".join(lines)


WORK = (("flops", 1e9), ("ideal_flops", 1e9), ("memory", 2**20))


@devices.stated_precision(None)
def main(
    source: Annotated[Source, Flat],
    sampling: Annotated[Sampling, Flat],
    out: Path,
    patterns: tuple[str, ...] = ("unstructured=0.5", "2:4", "structured=0.3", "structured=0.5"),
    checkpoints: tuple[Path, ...] = (),
    batches: tuple[int, ...] = (1, 8),
    resolutions: tuple[int, ...] = (),
    variants: tuple[Literal["compile", "semi_structured", "semi_structured_compile"], ...] = (),
    rounds: int = 9,
    pipeline_rounds: int = 5,
    threads: int = 2,
) -> None:
    """Write latency.json and latency.md; nothing else may be running.

    Args:
        out: their folder.
        patterns: PATTERN=SPARSITY, or N:M.
        checkpoints: folders that `obsdiff prune` wrote from the same model.
        batches: prompts at once.
        resolutions: pixels of square images; the sampling's height and width by default.
        variants: other kernels to judge.
        pipeline_rounds: of the whole pipeline; 0 leaves it out.
        threads: CPU threads of torch.
    """
    specs = {text: spec_of(text) for text in patterns}
    for key, values in (("batches", batches), ("resolutions", resolutions)):
        require(all(v >= 1 for v in values) and (bool(values) or key == "resolutions"), key, values, "integers >= 1")
    require(rounds >= 1 and pipeline_rounds >= 0, "rounds, pipeline_rounds", (rounds, pipeline_rounds), ">= 1 and >= 0")
    devices.require_whole(source.offload)
    lease(source.device)
    devices.require(source.device)
    torch.set_num_threads(threads)
    pipe = load_pipeline(source, sampling)
    weights = {text: taken_off(pipe, partial(prune, pipe, spec)) for text, spec in specs.items()}
    weights |= {str(folder): taken_off(pipe, partial(load_pruned, pipe, folder)) for folder in checkpoints}
    squares = [replace(sampling, height=side, width=side) for side in resolutions] or [sampling]
    libraries = {name: version(name) for name in ("torch", "diffusers", "obsdiff")}
    arguments = {"model": source.model, "arguments": shlex.join(sys.argv[1:])}
    timing = {"threads": threads, "rounds": rounds, "pipeline_rounds": pipeline_rounds}
    record: dict[str, Any] = {"about": machine(source) | libraries | timing | arguments, "timings": [], "variants": []}
    out.mkdir(parents=True, exist_ok=True)

    def write() -> None:
        write_record(out / "latency.json", record)
        (out / "latency.md").write_text(markdown(record))

    for square in squares:
        for size in batches:
            record["timings"] += point(pipe, weights, square, size, rounds, pipeline_rounds)
            print(f"{square.height or 'own'} pixels, {size} prompts: done", flush=True)
            write()
    record["variants"] = judged(pipe, weights, squares[-1], batches[-1], variants, rounds)
    write()


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (SpecError, CheckpointError, LayerError) as error:
        sys.exit(f"error: {error}")
