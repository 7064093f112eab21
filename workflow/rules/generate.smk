# Pictures of a cell. Only the manifest is an output: a killed job leaves its pictures, and goes on after them.
rule generate:
    input:
        checkpoint=rules.prune.output,
        prompts=f"{RESULTS}/prompts/{{model}}/evaluation.csv",
        model=model_files,
        code=code("eval.generate", "obsdiff.checkpoint", "obsdiff.loading", "obsdiff.prompts"),
    output:
        f"{CELL}/images/manifest.json",
    log:
        f"{LOGS}/generate/{PATTERN}.log",
    conda:
        "../../environment.yml"
    params:
        source=lambda w: options(w, "source", "sampling"),
        threads=config["threads"],
    shell:
        "python -m eval generate {params.source} --checkpoint $(dirname {input.checkpoint[0]})"
        " --prompts-file {input.prompts} --seed {wildcards.seed} --threads {params.threads}"
        " --out $(dirname {output}) > {log} 2>&1"
