# metrics.json files → MLflow. One job a sweep; sweeps may be tracked at once (docs/architecture.md).


rule track:
    input:
        metrics=expand("{cell}/metrics.json", cell=CELLS),
        files=[
            *rules.summarise.output,
            *(rules.report.output if rules.has("report") else []),
            "requirements.lock",
        ],
        code=code("eval.tracking"),
    output:
        f"{TABLES}/mlflow.json",
    log:
        f"{LOGS}/track/{config['name']}.log",
    conda:
        "../../environment.yml"
    params:
        sweep=config["name"],
        results=lambda w: RESULTS,
        sources=" ".join(flags({"sources": prompt_sources()})),
        store=sha256(os.getenv("MLFLOW_TRACKING_URI", "").encode()).hexdigest(),  # another store is filled anew
    shell:
        "python -m eval track --metrics {input.metrics} --files {input.files} --sweep {params.sweep}"
        " --results {params.results} {params.sources} --out {output} > {log} 2>&1"
