# profile: layer errors, parameters and latency, alone on the machine. measure: all metrics of a cell.
rule profile:
    input:
        checkpoint=rules.prune.output,
        prompts=f"{RESULTS}/prompts/{{model}}/evaluation.csv",
        model=model_files,
        code=code("eval.deviation", "eval.latency", "eval.profile", "obsdiff.loading", "obsdiff.prompts"),
    output:
        f"{CELL}/profile.json",
    log:
        f"{LOGS}/profile/{PATTERN}.log",
    conda:
        "../../environment.yml"
    threads: workflow.cores or 1
    resources:
        gpu=gpus,
    params:
        source=lambda w: options(w, "source", "sampling"),
    shell:
        "python -m eval profile {params.source} --checkpoint $(dirname {input.checkpoint[0]})"
        " --prompts-file {input.prompts} --seed {wildcards.seed} --threads {threads} --out {output} > {log} 2>&1"


rule measure:
    input:
        checkpoint=rules.prune.output.manifest,
        profile=rules.profile.output,
        images=f"{CELL}/images/manifest.json",
        dense=lambda w: dense(w, "images/manifest.json"),
        prompts=f"{RESULTS}/prompts/{{model}}/evaluation.csv",
        reference=lambda w: evaluation(w, "reference"),
        evaluator=lambda w: weights_in(evaluation(w, "evaluator")),
        networks=lambda w: judge_files(SWEEP.models[w.model]["evaluation"]),
        worker="eval/image_reward_worker.py",
        code=code("eval.measure", *entries("eval.image_metrics"), *entries("eval.model_metrics")),
    output:
        f"{CELL}/metrics.json",
    log:
        f"{LOGS}/measure/{PATTERN}.log",
    conda:
        "../../environment.yml"
    resources:
        gpu=lambda w: int(evaluation(w, "device", "cpu").startswith("cuda")),
    params:
        evaluator=lambda w: evaluation(w, "evaluator"),
        networks=lambda w: " ".join(flags({key: evaluation(w, key) for key in ("fid_features", "lpips")})),
        image_reward=lambda w: " ".join(flags({"image_reward": evaluation(w, "image_reward")})),
        device=lambda w: " ".join(flags({"device": evaluation(w, "device")})),
        cache=f"{RESULTS}/cache/features",
        threads=config["threads"],
    shell:
        "python -m eval measure --checkpoint $(dirname {input.checkpoint}) --profile {input.profile}"
        " --images $(dirname {input.images}) --dense $(dirname {input.dense}) --prompts-file {input.prompts}"
        " --reference {input.reference} --evaluator {params.evaluator} {params.networks} {params.image_reward}"
        " {params.device} --cache {params.cache}"
        " --threads {params.threads} --out {output} > {log} 2>&1"
