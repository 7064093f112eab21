# The calibration and the benchmark captions of a model, disjoint.
rule prompts:
    input:
        source=lambda w: SWEEP.models[w.model][w.split]["prompts"],
        other=lambda w: SWEEP.models[w.model]["calibration" if w.split == "evaluation" else "evaluation"]["prompts"],
        code=code("obsdiff.prompts"),
    output:
        f"{RESULTS}/prompts/{{model}}/{{split}}.csv",
    log:
        f"{LOGS}/prompts/{{model}}/{{split}}.log",
    wildcard_constraints:
        split="calibration|evaluation",
    conda:
        "../../environment.yml"
    params:
        number=lambda w: SWEEP.models[w.model][w.split]["count"],
        choice=lambda w: " ".join(flags({"choice": SWEEP.models[w.model][w.split].get("choice")})),
    shell:
        "python -m eval prompts --source {input.source} --disjoint-from {input.other} --count {params.number}"
        " {params.choice} --out {output} > {log} 2>&1"
