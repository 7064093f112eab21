# One-shot pruning: a pruned checkpoint a cell. Methods without calibration do not depend on prompts or packages.
# A killed job leaves checkpoint/progress behind, which is no output, and goes on from it. A shared calibration is no
# `ancient` input: Snakemake does not look at the params of a job behind one whose maker runs again.
rule prune:
    input:
        prompts=lambda w: f"{RESULTS}/prompts/{w.model}/calibration-{w.calibration}.csv" if calibrates(w) else [],
        calibration=calibration_record,
        model=tiny_model,
    output:
        manifest=f"{CELL}/checkpoint/manifest.json",
        weights=f"{CELL}/checkpoint/weights.safetensors",
    log:
        f"{LOGS}/prune/{PATTERN}.log",
    priority: 20
    conda:
        "../../environment.yml"
    resources:
        gpu=gpus,
    params:
        code=lambda w: code(
            "obsdiff.commands.prune",
            "obsdiff.pruning",
            "obsdiff.checkpoints.checkpoint",
            "obsdiff.pipelines.loading",
            family(w),
            f"obsdiff.methods.{w.method}",
            f"obsdiff.patterns.{spec_of(w).resolved.entry}",
            f"obsdiff.weightings.{w.weighting}",
            f"obsdiff.allocations.{spec_of(w).allocation}",
        ),
        model=model_state,
        given=given_state,
        source=lambda w: options(w, "source"),
        sampling=lambda w: calibration_sampling(w) if calibrates(w) or watched(w) else [],
        pruning=lambda w: list(flags(pruning(w))),
        prompts=lambda w, input: ["--prompts-file", str(input.prompts)] if input.prompts else [],
        calibration=lambda w, input: ["--calibration", folder(input.calibration)] if input.calibration else [],
        threads=config["threads"],
        out=lambda w, output: folder(output.manifest),
    shell:
        "python -m obsdiff prune {params.source:q} {params.sampling:q} {params.pruning:q} {params.prompts:q}"
        " {params.calibration:q}"
        " --method {wildcards.method:q} --pattern {wildcards.pattern:q} --sparsity {wildcards.sparsity:q}"
        " --weighting {wildcards.weighting:q} --packages {wildcards.packages:q} --seed {wildcards.seed:q}"
        " --threads {params.threads} --out {params.out:q} > {log:q} 2>&1"


# A cell whose calibration is pinned to the model file's sampling has the checkpoint of the plain cell.
rule share:
    input:
        manifest=lambda w: pruned_as(w, "checkpoint/manifest.json"),
        weights=lambda w: pruned_as(w, "checkpoint/weights.safetensors"),
    output:
        manifest=f"{CELL}/checkpoint/manifest.json",
        weights=f"{CELL}/checkpoint/weights.safetensors",
    log:
        f"{LOGS}/share/{PATTERN}.log",
    wildcard_constraints:
        calibration=rf"(?:[^/]+\+)?{PINNED}",
    conda:
        "../../environment.yml"
    params:
        code=code("eval.commands.share", "eval.sweep.pinned"),
        checkpoint=lambda w, input: folder(input.manifest),
        out=lambda w, output: folder(output.manifest),
    shell:
        "python -m eval share --checkpoint {params.checkpoint:q} --out {params.out:q} > {log:q} 2>&1"


ruleorder: share > prune
