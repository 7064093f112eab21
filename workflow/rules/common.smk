# The checked sweep, where things lie, and the options that jobs are called with.
import os
import re
import sys
from glob import glob
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

from snakemake.exceptions import WorkflowError

sys.path.insert(0, workflow.basedir)
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]))  # jobs run in this one
from eval.cells import AXES, PATTERN, PINNED, Cell, flags
from eval.config import read_sweep, results_of
from eval.scale import LAYERS
from eval.weights import judge_files
from obsdiff import registry
from obsdiff.errors import SpecError
from obsdiff.spec import PruneSpec

try:
    SWEEP = read_sweep(config)
except SpecError as error:
    raise WorkflowError(str(error)) from None

TINY = config.get("scale") == "tiny"
RESULTS = results_of(config)
TABLES = RESULTS if config["name"] == "default" else f"{RESULTS}/sweeps/{config['name']}"
CELL = f"{RESULTS}/cells/{PATTERN}"
LOGS = f"{RESULTS}/logs"
CELLS = [f"{RESULTS}/cells/{cell.path}" for cell in SWEEP.cells]

# libraries imported once for all short jobs of this sweep (obsdiff/warm.py); a GPU wants a process a job
if all(model["source"].get("device", "cpu") == "cpu" for model in SWEEP.models.values()):
    os.environ.setdefault("OBSDIFF_WARM", str(Path(RESULTS, ".warm", "socket")))


wildcard_constraints:
    **{axis: "[^/]+" for axis in AXES},


def code(*modules):
    """Source files that a stage depends on: these modules and all that they import."""
    return list(registry.sources(*modules))


def entries(package):
    return [f"{package}.{name}" for name in registry.names(package)]


def weights_in(place):
    """Configuration and weights in a local folder; nothing for a hub id."""
    return sorted(str(p) for p in Path(place).rglob("*") if p.suffix in (".json", ".safetensors"))


def model_files(wildcards):
    """The family's code and, where the model is a local folder, its files."""
    model = SWEEP.models[wildcards.model]
    place = model["source"]["model"]
    files = [f"{place}/model_index.json"] if TINY else weights_in(place)
    return [*code(f"obsdiff.models.{model['family']}"), *files]


def evaluation(wildcards, key, default=None):
    return SWEEP.models[wildcards.model]["evaluation"].get(key, default)


def gpus(wildcards):
    """1 where the model is on a GPU: with `--resources gpu=4` at most four such jobs run at once."""
    return int(SWEEP.models[wildcards.model]["source"].get("device", "cpu").startswith("cuda"))


def options(wildcards, *parts):
    """Command-line options of parts of the model's file, the sampling as the cell has it."""
    values = SWEEP.models[wildcards.model] | {"sampling": sampling(wildcards)}
    return " ".join(flag for part in parts for flag in flags(values[part]))


def sampling(wildcards):
    """The cell's sampling in use."""
    return SWEEP.models[wildcards.model]["sampling"] | SWEEP.sampling[wildcards.sampling]


def calibration(wildcards):
    """Command-line options of the sampling in calibration; none where the cell has no calibration."""
    own = SWEEP.calibration[wildcards.calibration].get("sampling", {})
    return " ".join(flags(sampling(wildcards) | own)) if calibrates(wildcards) else ""


def captions(wildcards):
    """Which prompts a prompt file holds: the evaluation's, or those of a calibration as in the cells' paths."""
    part, _, text = wildcards.split.partition("-")
    return SWEEP.models[wildcards.model][part] | (SWEEP.calibration[text] if text else {})


def calibrates(wildcards):
    """Whether a cell depends on calibration prompts."""
    return spec_of(wildcards).calibrates


def spec_of(wildcards):
    axes = {key: getattr(wildcards, key) for key in ("method", "pattern", "weighting", "packages")}
    return PruneSpec(**{**pruning(wildcards), **axes, "sparsity": float(wildcards.sparsity)})


def pruning(wildcards):
    """The config's fields of PruneSpec, with the cell's options."""
    own = {key: value for key, value in config["pruning"].items() if not (TINY and key in LAYERS)}
    return own | SWEEP.options[wildcards.options]


def dense(wildcards, file):
    """A file of the dense cell that a cell is compared with."""
    return f"{RESULTS}/cells/{Cell(**{axis: wildcards[axis] for axis in AXES}).dense().path}/{file}"


def pruned_as(wildcards, file):
    """A file of the cell that prunes the model of a cell pinned to it."""
    return f"{RESULTS}/cells/{Cell(**{axis: wildcards[axis] for axis in AXES}).pruned_as().path}/{file}"


def prompt_sources():
    """Key of a prompt file among the results → the file it was chosen from."""
    splits = {(c.model, split) for c in SWEEP.cells for split in ("evaluation", f"calibration-{c.calibration}")}
    return {f"{m}/{s}": captions(SimpleNamespace(model=m, split=s))["prompts"] for m, s in sorted(splits)}
