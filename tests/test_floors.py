"""The import graph: rooms stand on the rooms below them, no module reaches itself, the library knows no suite."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from obsdiff import registry

LIBRARY = (
    ("errors", "typed", "registry", "onednn", "devices", "observing", "flops", "matrices"),
    ("storage",),
    ("solver",),
    ("weightings", "patterns", "allocations", "methods", "schedulers", "packages"),
    ("sampling", "source"),
    ("spec",),
    ("canonical",),
    ("captions",),
    ("sites",),
    ("surgery", "models"),
    ("pipelines",),
    ("report",),
    ("calibration", "targets"),
    ("solving", "applying", "allocating", "given"),
    ("checkpoints",),
    ("running", "pruning"),
    ("planning",),
    ("__init__",),
    ("jobs",),
    ("commands", "__main__"),
)
SUITE = (
    ("bootstrap", "network_weights", "model_metrics"),
    ("sweep",),
    ("images",),
    ("networks",),
    ("profile",),
    ("image_metrics", "results"),
    ("loading", "measure"),
    ("analysis",),
    ("figures", "report"),
    ("tracking",),
    ("commands", "__main__"),
)
"""rooms from the ground up; those of one floor may import each other"""


@cache
def modules() -> dict[str, Path]:
    """Name → file of every module of the library and the suite."""
    found = {}
    for package in ("obsdiff", "eval"):
        for path in sorted((registry.ROOT / package).rglob("*.py")):
            parts = path.relative_to(registry.ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(name: str, lazy: bool) -> frozenset[str]:
    """The project's modules that a module imports; those inside of functions only if `lazy`."""
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    if not lazy:
        tree.body = [n for n in tree.body if not isinstance(n, ast.FunctionDef | ast.ClassDef)]
    wanted = {part for part in registry.imported(tree) if part in modules() and part != name}
    packages = {module.rpartition(".")[0] for module in wanted}
    # `from obsdiff import models` needs the package only for the module's name
    return frozenset(wanted - (packages & {"obsdiff", "eval"}))


def floor_of(name: str) -> tuple[str, int]:
    package, _, rest = name.partition(".")
    room = rest.partition(".")[0] or "__init__"
    floors = LIBRARY if package == "obsdiff" else SUITE
    found = [i for i, rooms in enumerate(floors) if room in rooms]
    assert len(found) == 1 or (package, room) == ("eval", "__init__"), f"{name}: {room} has no floor in this table"
    return package, found[0] if found else -1


@pytest.mark.parametrize("name", modules())
def test_no_module_imports_from_a_floor_above(name):
    package, floor = floor_of(name)
    upwards = []
    for other in imports(name, lazy=True):
        its_package, its_floor = floor_of(other)
        if (its_package == package and its_floor > floor) or (package, its_package) == ("obsdiff", "eval"):
            upwards.append(other)
    assert not upwards


def test_no_module_reaches_itself():
    """By what is imported when a module is; what a function imports when it is called makes no circle."""
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in imports(name, lazy=False):
                visit(other, (*path, name))
            done.add(name)

    for name in modules():
        visit(name, ())


def test_process_machinery_is_for_command_lines():
    for name in modules():
        package, _, rest = name.partition(".")
        room = rest.partition(".")[0]
        if package == "obsdiff" and room not in ("jobs", "commands", "__main__"):
            assert not any(other.startswith("obsdiff.jobs") for other in imports(name, lazy=True)), name


def test_a_sweep_is_read_without_the_large_libraries():
    """Every run of snakemake does this first; torch alone takes seconds."""
    rules = (registry.ROOT / "workflow/rules/common.smk").read_text().splitlines()
    lines = [line for line in rules if line.startswith(("from eval", "from obsdiff"))]
    lines += ["import sys, yaml", "read_sweep(yaml.safe_load(open('config/config.yaml')))"]
    lines += ["print(sorted({'torch', 'diffusers', 'transformers', 'pandas', 'mlflow'} & sys.modules.keys()))"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=registry.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
