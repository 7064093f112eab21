# metrics.json files → MLflow. One job per sweep; sweeps may be tracked at once (docs/architecture.md).
STORE = sha256(os.getenv("MLFLOW_TRACKING_URI", "").encode()).hexdigest()  # another store is filled anew


# MLflow makes its tables for longer than it takes to fill them: meanwhile, where a core is free. The store itself is no
# output, as it is filled later; `track` makes one that is gone.
rule store:
    output:
        f"{TABLES}/store.json",
    log:
        f"{LOGS}/store/{config['name']}.log",
    priority: -10
    conda:
        "../../environment.yml"
    params:
        code=code("eval.commands.store"),
        results=lambda w: RESULTS,
        store=STORE,
    shell:
        "python -m eval store --results {params.results:q} --out {output:q} > {log:q} 2>&1"


rule track:
    input:
        metrics=METRICS,
        store=rules.store.output,
        files=[
            *rules.summarise.output,
            *rules.report.output,
            "requirements.lock",
        ],
    output:
        f"{TABLES}/mlflow.json",
    log:
        f"{LOGS}/track/{config['name']}.log",
    conda:
        "../../environment.yml"
    params:
        code=code("eval.commands.track", *entries("eval.model_metrics")),
        cells=LISTED,
        sweep=config["name"],
        results=lambda w: RESULTS,
        sources=lambda w: list(flags({"sources": prompt_sources()})),
        store=STORE,
    shell:
        "python -m eval track --metrics {params.cells:q} --files {input.files:q} --sweep {params.sweep:q}"
        " --results {params.results:q} {params.sources:q} --out {output:q} > {log:q} 2>&1"
