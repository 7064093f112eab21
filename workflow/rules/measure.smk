# profile: layer errors, parameters and latency, alone on the machine. measure: all metrics of a cell.
rule profile:
    input:
        checkpoint=rules.prune.output,
        prompts=f"{RESULTS}/prompts/{{model}}/evaluation.csv",
        model=model_files,
        code=code("eval.profile", "obsdiff.loading", "obsdiff.prompts"),
    output:
        f"{CELL}/profile.json",
    log:
        f"{LOGS}/profile/{PATTERN}.log",
    conda:
        "../../environment.yml"
    threads: workflow.cores or 1
    params:
        source=lambda w: options(w, "source", "sampling"),
    shell:
        "python -m eval profile {params.source} --checkpoint $(dirname {input.checkpoint[0]})"
        " --prompts-file {input.prompts} --seed {wildcards.seed} --threads {threads} --out {output} > {log} 2>&1"


rule measure:
    input:
        checkpoint=rules.prune.output.manifest,
        profile=rules.profile.output,
        images=rules.generate.output,
        dense=lambda w: dense(w, "images/manifest.json"),
        prompts=f"{RESULTS}/prompts/{{model}}/evaluation.csv",
        reference=lambda w: evaluation(w, "reference"),
        evaluator=lambda w: weights_in(evaluation(w, "evaluator")),
        code=code("eval.measure") + folder("eval.image_metrics") + folder("eval.model_metrics"),
    output:
        f"{CELL}/metrics.json",
    log:
        f"{LOGS}/measure/{PATTERN}.log",
    conda:
        "../../environment.yml"
    params:
        evaluator=lambda w: evaluation(w, "evaluator"),
        cache=f"{RESULTS}/cache/features",
        threads=config["threads"],
    shell:
        "python -m eval measure --checkpoint $(dirname {input.checkpoint}) --profile {input.profile}"
        " --images $(dirname {input.images}) --dense $(dirname {input.dense}) --prompts-file {input.prompts}"
        " --reference {input.reference} --evaluator {params.evaluator} --cache {params.cache}"
        " --threads {params.threads} --out {output} > {log} 2>&1"
