# Timings, each alone on the machine. The dense model is timed once a model and sampling, whatever the cells, and needs
# no file of another job: at the start, when nothing runs that would have to end first. Cells of other shapes follow.
rule latency:
    input:
        model=tiny_model,
    output:
        f"{RESULTS}/latency/{{model}}/sampling-{{sampling}}.json",
    log:
        f"{LOGS}/latency/{{model}}/sampling-{{sampling}}.log",
    priority: 100
    conda:
        "../../environment.yml"
    threads: workflow.cores or 1
    resources:
        gpu=gpus,
    params:
        # noise is made beside calibration, whose sums and solver no timing depends on
        code=lambda w: code(
            "eval.commands.latency",
            "obsdiff.pipelines.loading",
            family(w),
            without=("obsdiff.solver.statistics", *SOLVER),
        ),
        model=model_state,
        source=lambda w: options(w, "source", "sampling"),
        checkpoint=lambda w, input: (
            ["--checkpoint", folder(input.checkpoint[0])] if "checkpoint" in input.keys() else []
        ),
    shell:
        "python -m eval latency {params.source:q} {params.checkpoint:q} --threads {threads} --out {output:q} > {log:q} 2>&1"


use rule latency as latency_of_cell with:
    input:
        checkpoint=rules.prune.output,
        model=tiny_model,
    output:
        f"{CELL}/latency.json",
    log:
        f"{LOGS}/latency/{PATTERN}.log",
    priority: 0
