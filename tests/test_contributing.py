"""CONTRIBUTING's examples: each is put where it says, read by the linters, and used as an entry of its folder."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from obsdiff import registry

TEXT = (registry.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^`((?:obsdiff|eval)/[\w/]+\.py)`.*?^```python\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE))
USES = {
    "obsdiff/methods": """
        report = prune(registry.load("obsdiff.models", "sd3").tiny(), spec_of(NAME, sparsity=0.5, packages=1))
        assert abs(report.sparsity - 0.5) < 0.01 and len(report.layers) > 1""",
    "obsdiff/weightings": """
        from obsdiff import weightings
        found = weightings.alphas(NAME, 8, 0.8, 1.2)
        assert len(found) == 8 and 0.8 <= float(found.min()) <= float(found.max()) <= 1.2""",
    "obsdiff/patterns": """
        spec = spec_of("magnitude", pattern=NAME, sparsity=0.25, packages=1)
        report = prune(registry.load("obsdiff.models", "sd3").tiny(), spec)
        assert abs(report.sparsity - 0.25) < 0.02""",
    "obsdiff/allocations": """
        spec = spec_of("magnitude", allocation=NAME, sparsity=0.5, packages=1)
        report = prune(registry.load("obsdiff.models", "sd3").tiny(), spec)
        assert abs(report.sparsity - 0.5) < 0.01
        assert len({round(layer.sparsity, 3) for layer in report.layers}) > 1""",
    "eval/image_metrics": """
        from eval.image_metrics import traits
        import torch
        class Two:
            def pairs(self):
                yield torch.full((2, 3, 4, 4), 255.0), torch.zeros(2, 3, 4, 4)
        assert registry.load("eval.image_metrics", NAME).compute(Two()) == (100.0, [100.0, 100.0])
        assert traits(NAME).title""",
    "eval/model_metrics": """
        from eval.model_metrics import Model, traits
        from types import SimpleNamespace as Made
        checkpoint = Made(layers=[Made(removed=2_000_000), Made(removed=500_000)])
        model = Model(checkpoint, profile=None)
        assert registry.load("eval.model_metrics", NAME).compute(model) == (2.5, None) and traits(NAME).title""",
    "eval/figures": """
        from pathlib import Path
        from synthetic import sweep
        from eval.analysis.analysis import Analysis
        from eval.figures import ordered, save, traits
        figure = registry.load("eval.figures", NAME).draw(Analysis(sweep()), [])
        save(figure, Path("figures"), NAME)
        assert NAME in ordered() and Path("figures", f"{NAME}.svg").is_file() and traits(NAME).caption""",
}


def test_every_extension_point_has_an_example():
    assert {str(Path(path).parent) for path in EXAMPLES} == set(USES)
    assert not any((registry.ROOT / path).exists() for path in EXAMPLES)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project's packages with all examples in it."""
    folder = tmp_path_factory.mktemp("contributing")
    for package in ("obsdiff", "eval", "tests"):
        shutil.copytree(registry.ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "data"))
    for path, text in EXAMPLES.items():
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def test_examples_pass_the_linters(project):
    config = registry.ROOT / "pyproject.toml"
    files = [str(project / path) for path in EXAMPLES]
    for command in (["check", "--extend-select", "ANN"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", command[0], "--config", str(config), "--no-cache", *command[1:], *files],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_examples_do_what_they_say(project):
    """One process, in which each is found by its name alone."""
    lines = ["import sys", "sys.path[:0] = ['.', 'tests']", "from conftest import spec_of"]
    lines += ["from obsdiff import prune, registry"]
    for path in EXAMPLES:
        body = re.sub("^        ", "", USES[str(Path(path).parent)], flags=re.MULTILINE)
        lines += [f"NAME = {Path(path).stem!r}", body]
    lines += ["print(prune.__module__, registry.ROOT)"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["obsdiff.pruning", str(project)]
