"""The DAG of images drawn by several jobs, planned in a copy of the project."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PARTS = ("requirements.lock", "Snakefile", "config", "eval", "obsdiff", "profiles", "workflow", "zoo")


def test_models_with_shards_and_without_share_a_sweep(tmp_path):
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    whole = yaml.safe_load((ROOT / "config/models/emoji-sd3.yaml").read_text())
    cut = whole | {"evaluation": whole["evaluation"] | {"shards": 3}}
    sweep = {"models": ["whole", "cut"], "grid": {"method": ["magnitude"], "sparsity": [0.5]}}
    for name, record in (("models/whole", whole), ("models/cut", cut), ("sweep", sweep)):
        (tmp_path / "config" / f"{name}.yaml").write_text(yaml.safe_dump(record))
    command = [str(Path(sys.executable).parent / "snakemake"), "--dry-run", "--cores", "2"]
    command += ["--configfile", "config/sweep.yaml", "--resources", "gpu=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.M))
    assert {"generate": "2", "generate_shard": "6", "merge_shards": "2", "measure": "4"}.items() <= jobs.items()
