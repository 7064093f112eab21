# The checked sweep, where things lie, and what jobs depend on and are called with.
import os
import re
import sys
from functools import cache
from glob import escape, glob
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

from snakemake.exceptions import WorkflowError
from snakemake.persistence import PersistenceBase
from snakemake.scheduling.job_scheduler import JobScheduler

sys.path.insert(0, workflow.basedir)
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]))  # jobs run in this one
from eval.sweep import calibrations, dag, live, specs
from eval.sweep.cells import AXES, PATTERN, PINNED, Cell, flags
from eval.sweep.clocked import timed_as
from eval.sweep.config import is_tiny, read_sweep, results_of
from eval.sweep.reading import read_mapping
from eval.network_weights import OPTIONAL, judge_files
from obsdiff import models, patterns, registry
from obsdiff.errors import SpecError
from obsdiff.jobs.user import settle
from obsdiff.storage.files import write_text
from obsdiff.pipelines.published import files_for
from obsdiff.pipelines.sources import component_files, files_below
from obsdiff.source import Source

settle()  # Snakemake asks who runs it, too

if {"{", "}"} & set(workflow.basedir):
    raise WorkflowError(f"folder: {workflow.basedir} holds a brace, which Snakemake takes for a wildcard; rename it")
try:
    for file in workflow.configfiles:
        read_mapping(Path(file))
    SWEEP = read_sweep(config)
    if workflow.is_main_process:
        live.join(Path(".snakemake"))
except SpecError as error:
    raise WorkflowError(str(error)) from None

# Snakemake 9.27 imports pandas, for a second of every run, to see whether a param is a table of its; none is here
if hasattr(PersistenceBase, "_serialize_param"):
    PersistenceBase._serialize_param = property(lambda self: self._serialize_param_builtin)

# Snakemake 9.27 looks for jobs again a timespan after every look (--max-jobs-per-timespan, by default 1 s), so looks add up
# with every job that ends, until they take a core; it need look again only where the limit may have held a job back
if hasattr(JobScheduler, "_schedule_reevalutation"):

    def look_again(scheduler, delay, after=JobScheduler._schedule_reevalutation):
        limiter = scheduler.job_rate_limiter
        if limiter is None or not limiter.get_free_jobs() or scheduler.workflow.dag.has_unfinished_queue_input_jobs():
            after(scheduler, delay)

    JobScheduler._schedule_reevalutation = look_again

TINY = is_tiny(config)
RESULTS = results_of(config)
TABLES = RESULTS if config["name"] == "default" else f"{RESULTS}/sweeps/{config['name']}"
CELL = f"{RESULTS}/cells/{PATTERN}"
LOGS = f"{RESULTS}/logs"
CELLS = [f"{RESULTS}/cells/{cell.path}" for cell in SWEEP.cells]
METRICS = [f"{cell}/metrics.json" for cell in CELLS]

# the cells' files by name, one per line: a shell's command line cannot hold thousands of them
LISTED = f"{TABLES}/cells.txt"


onstart:
    write_text(Path(LISTED), "\n".join(METRICS) + "\n")


# libraries imported once for all short jobs of this sweep (obsdiff/jobs/warm.py); a GPU wants a process per job, and a
# cluster's job ends with all its processes
if workflow.remote_exec:
    os.environ.update(OBSDIFF_WARM="")
elif all(model["source"].get("device", "cpu") == "cpu" for model in SWEEP.models.values()):
    os.environ.setdefault("OBSDIFF_WARM", str(Path(RESULTS, ".warm", "socket")))


wildcard_constraints:
    **{axis: "[^/]+" for axis in AXES},


def code(command, *modules, without=()):
    """State of the sources and libraries of a job: its command's module, and modules that it finds by name."""
    return dag.code(f"{command.partition('.')[0]}.__main__", command, "obsdiff.jobs.warm", *modules, without=without)


def entries(package):
    return [f"{package}.{name}" for name in registry.names(package)]


def several(paths):
    """A rule's input of one name as a list, however many files it has."""
    return [str(paths)] if isinstance(paths, str) else list(paths)


def folder(path):
    return str(Path(str(path)).parent)


def family(wildcards):
    return models.module_of(SWEEP.models[wildcards.model]["family"])


def watched(wildcards):
    """Whether the layers of a model are found while it samples, as of a class without a file in obsdiff/models."""
    return SWEEP.models[wildcards.model]["family"] == models.AUTO


def tiny_model(wildcards):
    """At tiny scale the pipeline that another job writes."""
    return f"{SWEEP.models[wildcards.model]['source']['model']}/model_index.json" if TINY else []


@cache
def states(name):
    """State of all files that a model's pipeline is opened from, of its reference images, and of the networks."""
    model = SWEEP.models[name]
    source = Source(**model["source"])
    fetched = not source.local_files_only and not Path(source.model).is_dir()  # by a job, so told by its revision alone
    found = {} if TINY or fetched else component_files(source)
    reference = sorted(files_below(Path(model["evaluation"]["reference"])))
    return SimpleNamespace(
        model=dag.state("model", [path for files in found.values() for path in files]),
        reference=dag.state("reference", reference),
        networks=dag.state("networks", judge_files(model["evaluation"])),
    )


def model_state(wildcards):
    return states(wildcards.model).model


def given_state(wildcards):
    """State of the pruned weights that a cell takes, where its method takes any."""
    weights = spec_of(wildcards).weights
    if weights is None:
        return []
    return [dag.state("weights", files_for(weights, Source(**SWEEP.models[wildcards.model]["source"])))]


def evaluation(wildcards, key, default=None):
    return SWEEP.models[wildcards.model]["evaluation"].get(key, default)


def gpus(wildcards):
    """1 where the model is on a GPU: with `--resources gpu=4` at most four such jobs run at once."""
    return int(SWEEP.models[wildcards.model]["source"].get("device", "cpu").startswith("cuda"))


def options(wildcards, *parts):
    """Command-line options of parts of the model's file, the sampling as in the cell."""
    values = SWEEP.models[wildcards.model] | {"sampling": sampling(wildcards)}
    return [argument for part in parts for argument in flags(values[part])]


def sampling(wildcards):
    """The cell's sampling in use."""
    return SWEEP.models[wildcards.model]["sampling"] | SWEEP.sampling[wildcards.sampling]


def calibration_sampling(wildcards):
    """Command-line options of the sampling in calibration."""
    return list(flags(sampling(wildcards) | SWEEP.calibration[wildcards.calibration].get("sampling", {})))


def captions(wildcards):
    """Which prompts a prompt file holds: the evaluation's, or those of a calibration as in the cells' paths."""
    part, _, text = wildcards.split.partition("-")
    return SWEEP.models[wildcards.model][part] | (SWEEP.calibration[text] if text else {})


def others(wildcards):
    """The benchmark's prompt file, which a calibration passes over."""
    return [] if wildcards.split == "evaluation" else [evaluation(wildcards, "prompts")]


def calibrates(wildcards):
    """Whether a cell depends on calibration prompts."""
    return spec_of(wildcards).calibrates


def spec_of(wildcards):
    return specs.spec_of(wildcards, SWEEP, config)


def pruning(wildcards):
    return specs.pruning_of(wildcards, SWEEP, config)


def cell_of(wildcards):
    return Cell(**{axis: wildcards[axis] for axis in AXES} | {"pattern": patterns.canonical(wildcards.pattern)})


def dense(wildcards, file):
    """A file of the dense cell that a cell is compared with."""
    return f"{RESULTS}/cells/{cell_of(wildcards).dense().path}/{file}"


def images_state(wildcards):
    """Whether the images of a cell, and of the dense one beside it, are still those that were drawn."""
    own = dag.images(Path(f"{CELL}/images".format(**wildcards)))
    return own, dag.images(Path(dense(wildcards, "images")))


def pruned_as(wildcards, file):
    """A file of the cell that prunes the model of a cell pinned to it."""
    return f"{RESULTS}/cells/{cell_of(wildcards).pruned_as().path}/{file}"


def prompt_sources():
    """Key of a prompt file among the results → the file it was chosen from."""
    splits = {(c.model, split) for c in SWEEP.cells for split in ("evaluation", f"calibration-{c.calibration}")}
    return {f"{m}/{s}": captions(SimpleNamespace(model=m, split=s))["prompts"] for m, s in sorted(splits)}


def calibration_record(wildcards):
    """The record of what a cell shares; none where it samples by itself."""
    found = calibrations.calibration_of(cell_of(wildcards), spec_of(wildcards))
    return f"{RESULTS}/calibrations/{found.path}/calibration.json" if found else []


def timings(wildcards):
    """The file of a cell's timings; none of a cell that stands with the dense model (eval/sweep/clocked.py)."""
    cell = cell_of(wildcards)
    if timed_as(cell) == "dense":
        return []
    if cell == cell.dense():
        return f"{RESULTS}/latency/{cell.model}/sampling-{cell.sampling}.json"
    return f"{RESULTS}/cells/{cell.path}/latency.json"
