# One-shot pruning: a pruned checkpoint a cell. Methods without calibration do not depend on prompts or packages.
# A killed job leaves checkpoint/progress behind, which is no output, and goes on from it.
rule prune:
    input:
        prompts=lambda w: f"{RESULTS}/prompts/{w.model}/calibration-{w.calibration}.csv" if calibrates(w) else [],
        model=model_files,
        code=code("obsdiff.pruning", "obsdiff.checkpoint", "obsdiff.loading", "obsdiff.prompts"),
        entries=lambda w: [
            *code(f"obsdiff.methods.{w.method}"),
            f"obsdiff/patterns/{spec_of(w).resolved.entry}.py",
            f"obsdiff/weightings/{w.weighting}.py",
            f"obsdiff/allocations/{spec_of(w).allocation}.py",
        ],
    output:
        manifest=f"{CELL}/checkpoint/manifest.json",
        weights=f"{CELL}/checkpoint/weights.safetensors",
    log:
        f"{LOGS}/prune/{PATTERN}.log",
    conda:
        "../../environment.yml"
    resources:
        gpu=gpus,
    params:
        source=lambda w: options(w, "source"),
        sampling=calibration,
        pruning=lambda w: " ".join(flags(pruning(w))),
        prompts=lambda w, input: f"--prompts-file {input.prompts}" if input.prompts else "",
        threads=config["threads"],
    shell:
        "python -m obsdiff prune {params.source} {params.sampling} {params.pruning} {params.prompts}"
        " --method {wildcards.method}"
        " --pattern {wildcards.pattern} --sparsity {wildcards.sparsity} --weighting {wildcards.weighting}"
        " --packages {wildcards.packages} --seed {wildcards.seed} --threads {params.threads}"
        " --out $(dirname {output.manifest}) > {log} 2>&1"


# A cell whose calibration is pinned to the model file's sampling has the checkpoint of the plain cell.
rule share:
    input:
        manifest=lambda w: pruned_as(w, "checkpoint/manifest.json"),
        weights=lambda w: pruned_as(w, "checkpoint/weights.safetensors"),
        code=code("eval.sharing"),
    output:
        manifest=f"{CELL}/checkpoint/manifest.json",
        weights=f"{CELL}/checkpoint/weights.safetensors",
    log:
        f"{LOGS}/share/{PATTERN}.log",
    wildcard_constraints:
        calibration=rf"(?:[^/]+\+)?{PINNED}",
    conda:
        "../../environment.yml"
    shell:
        "python -m eval share --checkpoint $(dirname {input.manifest:q}) --out $(dirname {output.manifest:q})"
        " > {log:q} 2>&1"


ruleorder: share > prune
