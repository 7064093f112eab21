"""pyproject.toml, requirements.lock and environment.yml hold the same set within the same bounds."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import scheduling
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LISTED = [
    *PROJECT["project"]["dependencies"],
    *PROJECT["project"]["optional-dependencies"]["suite"],
    *PROJECT["dependency-groups"]["dev"],
]
WANTED = [Requirement(text) for text in LISTED]


def test_lock_is_within_the_bounds_and_hashed():
    text = (ROOT / "requirements.lock").read_text()
    pinned: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", text, re.M):
        pinned.setdefault(canonicalize_name(name), set()).add(version)
    for requirement in WANTED:
        versions = pinned.get(canonicalize_name(requirement.name))
        assert versions, f"{requirement.name} is not in requirements.lock; run make lock"
        assert all(requirement.specifier.contains(v) for v in versions), f"{requirement} is locked at {versions}"
    entries = re.split(r"\n(?=[A-Za-z0-9])", text)
    assert all("--hash=sha256:" in entry for entry in entries if "==" in entry.split("\n")[0])
    assert "://" not in text


def test_environment_yml_is_the_same_set():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert f"python{PROJECT['project']['requires-python']}" in environment["dependencies"]
    listed = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert sorted(listed) == sorted(LISTED)


def test_installed_set_is_the_locked_one():
    from importlib.metadata import version

    text = (ROOT / "requirements.lock").read_text()
    for requirement in WANTED:
        assert re.search(
            rf"^{re.escape(requirement.name)}(\[[^]]*\])?=={re.escape(version(requirement.name))}\b", text, re.M | re.I
        )


LIBRARY = """
import importlib, pkgutil, sys

missing = set(sys.argv[1].split(","))

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import obsdiff

for module in pkgutil.walk_packages(obsdiff.__path__, "obsdiff."):
    importlib.import_module(module.name)
"""


def test_library_imports_without_the_suite():
    """`pip install obsdiff` prunes; only the extra `suite` brings MLflow, Snakemake and what they are used with."""
    absent = ("torchmetrics", "torch_fidelity", "open_clip", "matplotlib", "tabulate", "jinja2", "mlflow", "snakemake")
    run = subprocess.run([sys.executable, "-c", LIBRARY, ",".join(absent)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_slow_tests_are_tests():
    """A renamed test would run in `make check` unnoticed."""
    folder = Path(scheduling.__file__).parent
    functions = {name for path in folder.glob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    assert functions | {path.stem for path in folder.glob("test_*.py")} >= scheduling.SLOW | set(scheduling.LONGEST)
