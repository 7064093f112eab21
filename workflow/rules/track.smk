# metrics.json files → MLflow. One job a sweep; sweeps may be tracked at once (docs/architecture.md).


rule track:
    input:
        metrics=METRICS,
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
        code=code("eval.__main__:track", *entries("eval.model_metrics")),
        cells=LISTED,
        sweep=config["name"],
        results=lambda w: RESULTS,
        sources=lambda w: list(flags({"sources": prompt_sources()})),
        store=sha256(os.getenv("MLFLOW_TRACKING_URI", "").encode()).hexdigest(),  # another store is filled anew
    shell:
        "python -m eval track --metrics {params.cells:q} --files {input.files:q} --sweep {params.sweep:q}"
        " --results {params.results:q} {params.sources:q} --out {output:q} > {log:q} 2>&1"
