# What cells share of their calibration: sums or the trajectory of the dense model's sampling (eval/sweep/calibrations.py).
# A solver is not among what it depends on, so that an edit of one prunes anew from what is here. The record is the
# output; the sums lie beside it.
SOLVER = ("obsdiff.solver.factors",)  # imported by obsdiff.solver.statistics, for what methods make of a finished sum
WEIGHTS = {
    calibrations.weights_text(own): own
    for cell in {cell.pruned_as() for cell in SWEEP.cells}
    if spec_of(cell).calibrates and (own := calibrations.weights_of(spec_of(cell)))
} | {"any": {"weighting": "uniform"}}
OFFLOAD = {key: value for key, value in config["pruning"].items() if key == "offload_statistics"}


rule calibrate:
    input:
        prompts=f"{RESULTS}/prompts/{{model}}/calibration-{{calibration}}.csv",
        model=tiny_model,
    output:
        f"{RESULTS}/calibrations/{calibrations.PATTERN}/calibration.json",
    log:
        f"{LOGS}/calibrate/{calibrations.PATTERN}.log",
    priority: 50  # most cells wait for it
    conda:
        "../../environment.yml"
    resources:
        gpu=gpus,
    params:
        code=lambda w: code(
            "obsdiff.commands.calibrate",
            "obsdiff.calibration.sharing",
            "obsdiff.pipelines.loading",
            family(w),
            f"obsdiff.weightings.{WEIGHTS[w.weights]['weighting']}",
            without=SOLVER,
        ),
        model=model_state,
        source=lambda w: options(w, "source"),
        sampling=calibration_sampling,
        weights=lambda w: list(flags(WEIGHTS[w.weights] | OFFLOAD)),
        method=calibrations.METHOD,
        threads=config["threads"],
        out=lambda w, output: folder(output[0]),
    shell:
        "python -m obsdiff calibrate {params.source:q} {params.sampling:q} --method {params.method:q} {params.weights:q}"
        " --packages {wildcards.packages:q} --prompts-file {input.prompts:q} --seed {wildcards.seed:q}"
        " --threads {params.threads} --out {params.out:q} > {log:q} 2>&1"
