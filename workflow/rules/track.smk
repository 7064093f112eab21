# metrics.json files → MLflow. One job: a fresh SQLite store must not be met by several processes at once.
rule track:
    input:
        metrics=expand("{cell}/metrics.json", cell=CELLS),
        files=rules.summarise.output,
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
        store=sha256(os.getenv("MLFLOW_TRACKING_URI", "").encode()).hexdigest(),  # another store is filled anew
    shell:
        "python -m eval track --metrics {input.metrics} --files {input.files} --sweep {params.sweep}"
        " --results {params.results} --out {output} > {log} 2>&1"
