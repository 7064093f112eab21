"""The paper's configurations against its protocol: every row, one pruned model where it has one, every choice told."""

import csv
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import spec_of
from project import ALONE, LEFT_OUT, planned

from eval.profile.layers import as_the_paper_counts
from eval.sweep.cells import PLAIN
from eval.sweep.config import read_record, read_sweep
from eval.sweep.overrides import sampling_of
from eval.sweep.pinned import share
from obsdiff import PruneSpec, Source, load_pruned, models, plan, prune, registry, save_pruned
from obsdiff.checkpoints.checkpoint import read_pruned
from obsdiff.errors import CheckpointError, SpecError
from obsdiff.planning.counting import paper_flops

ROOT = Path(__file__).parents[1]
VALUES = list(csv.DictReader((ROOT / "config/paper/values.csv").read_text().splitlines()))
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
IN_USE = (11, 12, 13)
"""tables of one pruned model under other settings of use"""


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def config(table: int, **more: Any) -> dict:
    base = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    own = yaml.safe_load((ROOT / f"config/paper/table{table}.yaml").read_text())
    grid = own["grid"]
    return base | own | {"grid": grid if isinstance(grid, list) else base["grid"] | grid} | more


def rows(model: str, methods: str, sparsities: str, pattern: str = "unstructured") -> set[tuple[str, ...]]:
    return {(model, m, pattern, s) for m, s in product(methods.split(), sparsities.split())}


def dense(*models: str) -> set[tuple[str, ...]]:
    return {(model, "dense", "unstructured", "0.00") for model in models}


MASKS, L1 = "magnitude dsnot wanda obs_diff", "l1_norm ecodiff obs_diff"
FEW = "sd3-medium-1000"
TABLES = {  # table → model, method, pattern, sparsity; numbers; their sum
    1: (
        dense("sd21-base", "sd3-medium", "sd35-large", "flux1-dev")
        | rows("sd21-base", MASKS, "0.40 0.50")
        | rows("sd3-medium", MASKS, "0.50 0.60")
        | rows("sd35-large", MASKS, "0.50 0.60")
        | rows("flux1-dev", MASKS, "0.60 0.70"),
        108,
        2544.9854,
    ),
    2: (dense("sd35-large") | rows("sd35-large", MASKS, "0.50", "2:4"), 15, 175.7516),
    3: (dense("sdxl") | rows("sdxl", L1, "0.15 0.20 0.30", "structured"), 50, 745.6255),
    4: (dense("sd35-large") | rows("sd35-large", L1, "0.15 0.20 0.25 0.30", "structured"), 65, 2445.9508),
    5: (
        dense("sd35-large-latency")
        | rows("sd35-large-latency", "obs_diff", "0.50", "2:4")
        | rows("sd35-large-latency", "obs_diff", "0.15 0.20 0.25 0.30", "structured"),
        11,
        80.2,
    ),
    6: (rows(FEW, "obs_diff", "0.50"), 5, 3.1595),
    7: (rows(FEW, "obs_diff", "0.30"), 12, 5705.9904),
    8: (rows("sd3-medium", MASKS, "0.50"), 4, 36.52),
    9: (
        dense("sd3-medium") | rows("sd3-medium", "l1_norm obs_diff", "0.10 0.15 0.20 0.25", "structured"),
        45,
        1515.3021,
    ),
    11: (dense(FEW) | rows(FEW, "obs_diff", "0.50"), 6, 4.387),
    12: (dense(FEW) | rows(FEW, "obs_diff", "0.50"), 6, 4.335),
    13: (
        dense(FEW, "sd21-base-1000") | rows(FEW, "obs_diff", "0.50") | rows("sd21-base-1000", "obs_diff", "0.40"),
        12,
        5.2727,
    ),
    14: (rows("sd3-medium", "obs_diff", "0.50"), 6, 57.0651),
}
SETTINGS = {  # table → the other axes that tell its rows apart
    6: ("weighting", {"uniform", "linear_increase", "linear_decrease", "log_increase", "log_decrease"}),
    7: ("packages", {"1", "4", "10", "20"}),
    11: ("sampling", {"guidance_scale=5", PLAIN, "guidance_scale=9"}),
    12: ("sampling", {"steps=15", PLAIN, "steps=50"}),
    13: ("sampling", {PLAIN, "scheduler=heun", "scheduler=dpmpp", "scheduler=edm", "scheduler=ddim"}),
    14: ("calibration", {PLAIN, "prompts=captions_train2014.json"}),
}


def test_every_number_of_the_paper_is_there():
    """Told by the tables' own structure, and by sums that were taken from the paper and not from the file."""
    assert {int(row["table"]) for row in VALUES} == TABLES.keys()
    for table, (expected, count, total) in TABLES.items():
        mine = [row for row in VALUES if row["table"] == str(table)]
        assert {(r["model"], r["method"], r["pattern"], r["sparsity"]) for r in mine} == expected, table
        assert len(mine) == count and sum(float(r["value"]) for r in mine) == pytest.approx(total, abs=1e-6), table
        if table in SETTINGS:
            axis, texts = SETTINGS[table]
            assert {row[axis] for row in mine} == texts
    assert max(Counter(tuple(v for k, v in row.items() if k != "value") for row in VALUES).values()) == 1


@pytest.mark.parametrize("table", IN_USE)
def test_settings_of_use_share_one_pruned_model(table):
    """Every pruned cell of a model has the checkpoint of one cell, which calibrates as its model file says."""
    found = read_sweep(config(table, scale="tiny"))
    pruned = [cell for cell in found.cells if cell.method != "dense"]
    assert len({cell.sampling for cell in pruned if cell.model == FEW}) > 1
    origins = {cell.pruned_as() for cell in pruned}
    assert len(origins) == len({cell.model for cell in pruned}) and origins <= set(pruned)
    assert all(cell.sampling == cell.calibration == PLAIN for cell in origins)
    assert all(cell.dense().sampling == cell.sampling and cell.dense() in found.cells for cell in pruned)


def test_a_pinned_calibration_keeps_what_else_it_says():
    grid = {"method": ["magnitude", "obs_diff"], "sparsity": [0.5], "sampling": [{"steps": 5}]}
    base = config(11) | {"models": ["emoji-sd3"]}
    found = read_sweep(
        base | {"grid": grid | {"calibration": [{"sampling": "model"}, {"count": 8, "sampling": "model"}]}}
    )
    assert [(c.method, c.calibration) for c in found.cells] == [
        ("dense", PLAIN),
        ("magnitude", PLAIN),
        ("obs_diff", "sampling=model"),
        ("obs_diff", "count=8+sampling=model"),
    ]
    origin = found.cells[-1].pruned_as()
    assert (origin.sampling, origin.calibration) == (PLAIN, "count=8") and origin.pruned_as() == origin
    assert found.sampling[PLAIN] == {} and found.calibration["count=8"] == {"count": 8}
    with pytest.raises(SpecError, match=r"grid\.calibration\.0\.sampling"):
        read_sweep(base | {"grid": grid | {"calibration": [{"sampling": "modell"}]}})


def test_table_11_runs_end_to_end_and_prunes_once(tmp_path, warm):
    folder = tmp_path / "obsdiff"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    table = yaml.safe_load((ROOT / "config/paper/table11.yaml").read_text())
    assert table["grid"]["sampling"].pop(0) == {"guidance_scale": 5}
    (folder / "config/paper/table11.yaml").write_text(yaml.safe_dump(table))
    options = ["--configfile", "config/paper/table11.yaml", "--config", "scale=tiny", "--"]
    command = [SNAKEMAKE, "--cores", "2", *ALONE, *options]
    target = "results/tiny/sweeps/table11/paper.md"
    done = subprocess.run([*command, target], cwd=folder, env=os.environ | warm, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    logs = sorted(path for path in folder.glob("results/tiny/logs/prune/**/*.log") if "obs_diff" in path.parts)
    assert len(logs) == 1 and "sampling-plain" in logs[0].parts
    pruned = sorted(folder.glob("results/tiny/cells/*/obs_diff/**/checkpoint"))
    assert len(pruned) == 2
    assert len({(path / "weights.safetensors").read_bytes() for path in pruned}) == 1
    assert len({(path / "manifest.json").read_text() for path in pruned}) == 1
    text = (folder / target).read_text()
    assert re.search(r"\| guidance_scale=9 +\| sampling=model +\| +0\.7044 ", text), text
    assert text.count("Calibrated (") == 1
    assert "Nothing to be done" in planned(folder, tmp_path / "said", *command[1:], target)[1]


def test_a_shared_checkpoint_is_verified(tmp_path):
    pipe = registry.load("obsdiff.models", "sd3").tiny()
    save_pruned(pipe, tmp_path / "one", prune(pipe, spec_of("magnitude")))
    share(tmp_path / "one", tmp_path / "two")
    assert load_pruned(registry.load("obsdiff.models", "sd3").tiny(), tmp_path / "two")
    weights = tmp_path / "one" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged or altered"):
        share(tmp_path / "one", tmp_path / "three")
    assert not list((tmp_path / "three").iterdir())


def test_work_is_counted_without_weights_in_every_family(family, tmp_path):
    """As the paper counts it falls with heads and neurons, and zeros leave it."""
    found = {}
    for pattern in ("unstructured", "structured"):
        pipe = family.tiny()
        save_pruned(pipe, tmp_path / pattern, prune(pipe, spec_of("random", pattern=pattern)))
        found[pattern] = as_the_paper_counts(family.tiny(), read_pruned(tmp_path / pattern))
    denoiser = models.denoiser_of(family.tiny())
    assert 0 < found["structured"] < found["unstructured"] == paper_flops(family, denoiser.to("meta"))


@pytest.mark.parametrize("name", ["sd35-large", "sd35-large-latency", "flux1-dev"])
def test_large_models_fit_80_gb_as_they_are(name):
    model = read_record(name)
    source, spec = Source(**model["source"]), PruneSpec(sampling=sampling_of(model))
    assert source.offload == "none" and plan(source, spec, budget=80 * 10**9).fits == "as it is"


def test_images_are_512_and_tables_as_the_paper_says():
    for row in VALUES:
        sampling = sampling_of(read_record(row["model"]))
        side = 1024 if row["table"] == "5" else 512
        assert (sampling.height, sampling.width) == (side, side)
        assert (sampling.batch_size, sampling.guidance_scale) == (4, 1.0) or row["table"] != "5"


MARK, ENTRY = r"^ *(?:- )?(.*?) +# ours$", r"^\| `(config/[^`]+)` \| `([^`]+)` \| (.*\S) \|$"


def test_every_choice_of_ours_is_marked_and_told():
    """A line of config/ that ends in `# ours` has its reason in docs/paper.md, and every reason there its line."""
    marked = [
        (str(path.relative_to(ROOT)), text)
        for path in sorted((ROOT / "config").rglob("*.yaml"))
        for text in re.findall(MARK, path.read_text(), re.M)
    ]
    lines = sum(len(re.findall(r"# ours\b", path.read_text())) for path in (ROOT / "config").rglob("*.yaml"))
    told = re.findall(ENTRY, (ROOT / "docs/paper.md").read_text(), re.M)
    assert marked and len(marked) == lines == len(set(marked)), "a mark is the end of its line, one value each"
    assert sorted(marked) == sorted((path, text) for path, text, _ in told)
