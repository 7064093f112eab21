"""The commands of the library: `obsdiff NAME` is the file of that name, whose run() takes the options.

Options of a run are the fields of obsdiff/spec.py. A file is imported by its own command alone.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from obsdiff import registry
from obsdiff.captions.prompts import read_prompts
from obsdiff.errors import SpecError
from obsdiff.source import Source
from obsdiff.spec import PruneSpec
from obsdiff.typed import hints

Flat = tyro.conf.OmitArgPrefixes
Source_ = Annotated[Source, Flat]
Spec_ = Annotated[PruneSpec, Flat]


def dispatch(package: str, prog: str, argv: list[str]) -> None:
    """Run the command that `argv` begins with; the help lists all files of the package without importing them."""
    commands = {name: command(package, name, argv[:1] == [name]) for name in registry.names(package)}
    tyro.extras.subcommand_cli_from_dict(commands, args=list(valued(argv)), prog=prog)


def valued(argv: list[str]) -> Iterator[str]:
    """`--bias` and `--no-bias` as `--bias True` and `--bias False`, for fields of PruneSpec that are a boolean or None.

    tyro makes flags of booleans alone.
    """
    flags = {f"--{name.replace('_', '-')}" for name, kind in hints(PruneSpec).items() if kind == bool | None}
    for i, word in enumerate(argv):
        positive = word.replace("--no-", "--", 1)
        if positive not in flags or argv[i + 1 : i + 2] in (["True"], ["False"], ["None"]):
            yield word
        else:
            yield from (positive, str(word == positive))


def command(package: str, name: str, wanted: bool) -> Callable[..., None]:
    """A command's run(); a stand-in with its description if another one is wanted."""
    if wanted:
        function: Callable[..., None] = registry.load(package, name).run
        return function

    def listed() -> None:
        pass

    tree = ast.parse((registry.folder(package) / f"{name}.py").read_text(encoding="utf-8"))
    listed.__doc__ = next(ast.get_docstring(n) for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "run")
    return listed


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

    from obsdiff import models
    from obsdiff.pipelines import families
    from obsdiff.pipelines.identity import identity_of_source
    from obsdiff.pipelines.loading import open_pipeline, place

    if threads:
        torch.set_num_threads(threads)
    if spec.convolutions and (told := families.told(source)):
        models.require_convolutions(told.traits)
    pipe = open_pipeline(source, spec.sampling, own_scheduler=True)
    base = identity_of_source(source, pipe)
    place(pipe, source)
    return pipe, base
