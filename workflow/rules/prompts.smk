# The captions of a model's benchmark, and of its calibrations, which pass over the benchmark's.
rule prompts:
    input:
        source=lambda w: captions(w)["prompts"],
        other=lambda w: SWEEP.models[w.model]["evaluation"]["prompts"] if w.split != "evaluation" else [],
        code=code("obsdiff.prompts"),
    output:
        f"{RESULTS}/prompts/{{model}}/{{split}}.csv",
    log:
        f"{LOGS}/prompts/{{model}}/{{split}}.log",
    wildcard_constraints:
        split="evaluation|calibration-[^/]+",
    conda:
        "../../environment.yml"
    params:
        number=lambda w: captions(w)["count"],
        disjoint=lambda w, input: f"--disjoint-from {input.other}" if input.other else "",
        choice=lambda w: " ".join(flags({"choice": captions(w).get("choice")})),
    shell:
        "python -m eval prompts --source {input.source} {params.disjoint} --count {params.number}"
        " {params.choice} --out {output} > {log} 2>&1"
