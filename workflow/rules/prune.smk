# One-shot pruning: a pruned checkpoint a cell. Methods without calibration do not depend on prompts or packages.
rule prune:
    input:
        prompts=lambda w: f"{RESULTS}/prompts/{w.model}/calibration.csv" if facts(w)["STATISTIC"] else [],
        model=model_files,
        code=shared(
            "obsdiff/__main__",
            "obsdiff/calibration",
            "obsdiff/checkpoint",
            "obsdiff/loading",
            "obsdiff/obs",
            "obsdiff/packages",
            "obsdiff/pruning",
            "obsdiff/spec",
            "obsdiff/statistics",
        ),
        entries=lambda w: [
            f"obsdiff/methods/{w.method}.py",
            f"obsdiff/patterns/{w.pattern}.py",
            f"obsdiff/weightings/{w.weighting}.py",
        ],
    output:
        manifest=f"{CELL}/checkpoint/manifest.json",
        weights=f"{CELL}/checkpoint/weights.safetensors",
    log:
        f"{LOGS}/prune/{PATTERN}.log",
    conda:
        "../../environment.yml"
    params:
        source=lambda w: options(w, "source", "sampling"),
        pruning=lambda w: " ".join(flags(config["pruning"])),
        prompts=lambda w, input: f"--prompts-file {input.prompts}" if input.prompts else "",
        threads=config["threads"],
    shell:
        "python -m obsdiff prune {params.source} {params.pruning} {params.prompts} --method {wildcards.method}"
        " --pattern {wildcards.pattern} --sparsity {wildcards.sparsity} --weighting {wildcards.weighting}"
        " --packages {wildcards.packages} --seed {wildcards.seed} --threads {params.threads}"
        " --out $(dirname {output.manifest}) > {log} 2>&1"
