# Images of a cell. Only the manifest is an output: a killed job leaves its images, and goes on after them.
SHARDS = {name: model["evaluation"].get("shards", 1) for name, model in SWEEP.models.items()}

# the models whose images one job draws, and those that have several, as patterns; "(?!)" matches nothing
WHOLE, CUT = (
    "|".join(re.escape(name) for name, count in SHARDS.items() if (count > 1) == cut) or "(?!)" for cut in (False, True)
)


rule generate:
    input:
        checkpoint=rules.prune.output,
        prompts=f"{RESULTS}/prompts/{{model}}/evaluation.csv",
        model=tiny_model,
    output:
        f"{CELL}/images/manifest.json",
    log:
        f"{LOGS}/generate/{PATTERN}.log",
    wildcard_constraints:
        model=WHOLE,
    priority: 10  # the longest jobs before the short ones that need not wait for them
    conda:
        "../../environment.yml"
    resources:
        gpu=gpus,
    params:
        code=lambda w: code(
            "eval.commands.generate", "obsdiff.checkpoints.checkpoint", "obsdiff.pipelines.loading", family(w)
        ),
        model=model_state,
        source=lambda w: options(w, "source", "sampling"),
        shard=lambda w: ["--shard", w.shard, "--shards", w.shards] if "shard" in w.keys() else [],
        checkpoint=lambda w, input: folder(input.checkpoint[0]),
        folder=f"{CELL}/images",
        threads=config["threads"],
    shell:
        "python -m eval generate {params.source:q} --checkpoint {params.checkpoint:q}"
        " --prompts-file {input.prompts:q} --seed {wildcards.seed:q} --threads {params.threads} {params.shard:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


# the same by several jobs, where a model file asks for it
if max(SHARDS.values()) > 1:

    use rule generate as generate_shard with:
        output:
            f"{CELL}/images/shards/{{shard}}of{{shards}}.json",
        log:
            f"{LOGS}/generate/{PATTERN}.{{shard}}of{{shards}}.log",
        wildcard_constraints:
            model=CUT,
            shard=r"\d+",
            shards=r"\d+",

    rule merge_shards:
        input:
            parts=lambda w: [
                f"{CELL}/images/shards/{i + 1}of{SHARDS[w.model]}.json".format(**w) for i in range(SHARDS[w.model])
            ],
            prompts=f"{RESULTS}/prompts/{{model}}/evaluation.csv",
        output:
            f"{CELL}/images/manifest.json",
        log:
            f"{LOGS}/merge_shards/{PATTERN}.log",
        wildcard_constraints:
            model=CUT,
        conda:
            "../../environment.yml"
        params:
            code=code("eval.commands.merge"),
            shards=lambda w: SHARDS[w.model],
            folder=lambda w, output: folder(output[0]),
        shell:
            "python -m eval merge --images {params.folder:q} --prompts-file {input.prompts:q}"
            " --shards {params.shards} > {log:q} 2>&1"
