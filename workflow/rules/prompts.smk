# The captions of a model's benchmark, and of its calibrations, which pass over the benchmark's.
rule prompts:
    output:
        f"{RESULTS}/prompts/{{model}}/{{split}}.csv",
    log:
        f"{LOGS}/prompts/{{model}}/{{split}}.log",
    wildcard_constraints:
        split="evaluation|calibration-[^/]+",
    conda:
        "../../environment.yml"
    params:
        code=code("eval.commands.prompts"),
        state=lambda w: dag.state("prompts", [captions(w)["prompts"], *others(w)]),
        source=lambda w: captions(w)["prompts"],
        choice=lambda w: list(flags({"count": captions(w)["count"], "choice": captions(w).get("choice")})),
        disjoint=lambda w: ["--disjoint-from", *others(w)] if others(w) else [],
    shell:
        "python -m eval prompts --source {params.source:q} {params.choice:q} {params.disjoint:q}"
        " --out {output:q} > {log:q} 2>&1"
