# The tables and figures of the sweep. A figure that has nothing to show is not drawn, so their folder is the output.
rule summarise:
    input:
        metrics=expand("{cell}/metrics.json", cell=CELLS),
        code=code("eval.tables", "eval.figures", *entries("eval.figures"), *entries("obsdiff.weightings")),
    output:
        table=report(f"{TABLES}/summary.csv", category="Tables", caption="../report/table.rst"),
        markdown=f"{TABLES}/summary.md",
        differences=f"{TABLES}/differences.csv",
        figures=report(
            directory(f"{TABLES}/figures"),
            patterns=["{figure}.svg"],
            category="Figures",
            caption="../report/figures.rst",
        ),
    log:
        f"{LOGS}/summarise/{config['name']}.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m eval summarise --metrics {input.metrics} --out $(dirname {output.table}) > {log} 2>&1"


# One page of all of it. The default sweep's shows the tables of the others, as far as they are there, as ablations.
rule report:
    input:
        metrics=expand("{cell}/metrics.json", cell=CELLS),
        tables=rules.summarise.output,
        others=sorted(glob(f"{RESULTS}/sweeps/*/summary.md")) if config["name"] == "default" else [],
        code=code("eval.report"),
        template="eval/report.html.jinja",
    output:
        f"{TABLES}/report.html",
    log:
        f"{LOGS}/report/{config['name']}.log",
    conda:
        "../../environment.yml"
    params:
        sweep=config["name"],
        scale=config.get("scale", "full"),
        others=lambda w, input: f"--others {input.others}" if input.others else "",
    shell:
        "python -m eval report --metrics {input.metrics} --tables $(dirname {input.tables[0]}) --sweep {params.sweep}"
        " --scale {params.scale} {params.others} --out {output} > {log} 2>&1"


# the paper's numbers and ours side by side, of a sweep that says which table it is
if "paper" in config:

    rule paper:
        input:
            metrics=expand("{cell}/metrics.json", cell=CELLS),
            values="config/paper/values.csv",
            code=code("eval.paper"),
        output:
            expand(f"{TABLES}/paper.{{kind}}", kind=("md", "csv", "tex")),
        log:
            f"{LOGS}/paper/{config['name']}.log",
        conda:
            "../../environment.yml"
        params:
            table=config["paper"],
            scale=config.get("scale", "full"),
        shell:
            "python -m eval paper --metrics {input.metrics} --table {params.table} --scale {params.scale}"
            " --values {input.values} --out $(dirname {output[0]}) > {log} 2>&1"
