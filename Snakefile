# Prune, generate, measure, track, report over the grid of config/config.yaml: `snakemake --cores all`
from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/tiny.smk"
include: "workflow/rules/prompts.smk"
include: "workflow/rules/calibrate.smk"
include: "workflow/rules/prune.smk"
include: "workflow/rules/generate.smk"
include: "workflow/rules/latency.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/track.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        rules.summarise.output,
        rules.report.output,
        rules.track.output,
        rules.paper.output if "paper" in config else [],
