# profile: layer errors, deviation, parameters, FLOPs. measure: all metrics of a cell.
rule profile:
    input:
        checkpoint=rules.prune.output,
        prompts=f"{RESULTS}/prompts/{{model}}/evaluation.csv",
        model=tiny_model,
    output:
        f"{CELL}/profile.json",
    log:
        f"{LOGS}/profile/{PATTERN}.log",
    conda:
        "../../environment.yml"
    resources:
        gpu=gpus,
    params:
        code=lambda w: code("eval.commands.profile", "obsdiff.pipelines.loading", family(w)),
        model=model_state,
        source=lambda w: options(w, "source", "sampling"),
        checkpoint=lambda w, input: folder(input.checkpoint[0]),
        threads=config["threads"],
    shell:
        "python -m eval profile {params.source:q} --checkpoint {params.checkpoint:q} --prompts-file {input.prompts:q}"
        " --seed {wildcards.seed:q} --threads {params.threads} --out {output:q} > {log:q} 2>&1"


JUDGES = ("reference", "evaluator", "fid_features", "fid_references", "device")


rule measure:
    input:
        checkpoint=rules.prune.output.manifest,
        profile=rules.profile.output,
        latency=timings,
        images=f"{CELL}/images/manifest.json",
        dense=lambda w: dense(w, "images/manifest.json"),
        prompts=f"{RESULTS}/prompts/{{model}}/evaluation.csv",
    output:
        f"{CELL}/metrics.json",
    log:
        f"{LOGS}/measure/{PATTERN}.log",
    conda:
        "../../environment.yml"
    resources:
        gpu=lambda w: int(evaluation(w, "device", "cpu").startswith("cuda")),
    params:
        code=code("eval.commands.measure", *entries("eval.image_metrics"), *entries("eval.model_metrics")),
        worker=dag.state("worker", ["eval/networks/image_reward_worker.py"]),
        images=images_state,
        reference=lambda w: states(w.model).reference,
        networks=lambda w: states(w.model).networks,
        judges=lambda w: list(
            flags(
                {key: evaluation(w, key) for key in JUDGES}
                | {"judges": {key: name for key in OPTIONAL if (name := evaluation(w, key))}}
            )
        ),
        cache=f"{RESULTS}/cache/features",
        threads=config["threads"],
        folders=lambda w, input: [
            *("--checkpoint", folder(input.checkpoint), "--images", folder(input.images)),
            *("--dense", folder(input.dense)),
            *(["--latency", str(input.latency)] if input.latency else []),
        ],
    shell:
        "python -m eval measure {params.folders:q} --profile {input.profile:q} --prompts-file {input.prompts:q}"
        " {params.judges:q} --cache {params.cache:q} --threads {params.threads} --out {output:q} > {log:q} 2>&1"
