# metrics.json files → MLflow. One job: a fresh SQLite store must not be met by several processes at once.
rule track:
    input:
        metrics=expand("{cell}/metrics.json", cell=CELLS),
        files=rules.summarise.output,
        code=shared("eval/tracking"),
    output:
        f"{TABLES}/mlflow.json",
    params:
        sweep=config["name"],
    log:
        f"{LOGS}/track/{config['name']}.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m eval track --metrics {input.metrics} --files {input.files} --sweep {params.sweep}"
        " --results {RESULTS} --out {output} > {log} 2>&1"
