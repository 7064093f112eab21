# The tables and figures of the sweep. A figure that has nothing to show is not drawn, so their folder is the output.
rule summarise:
    input:
        metrics=METRICS,
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
    params:
        code=code(
            "eval.commands.summarise",
            *entries("eval.figures"),
            *entries("eval.model_metrics"),
            *entries("obsdiff.weightings"),
        ),
        cells=LISTED,
        out=lambda w, output: folder(output[0]),
    shell:
        "python -m eval summarise --metrics {params.cells:q} --out {params.out:q} > {log:q} 2>&1"


# One page of all of it. The default sweep's shows the tables of the others, as far as they are there, as ablations.
rule report:
    input:
        metrics=METRICS,
        tables=rules.summarise.output,
        store=f"{TABLES}/store.json",
        others=lambda w: sorted(glob(f"{escape(RESULTS)}/sweeps/*/summary.md")) if config["name"] == "default" else [],
    output:
        f"{TABLES}/report.html",
    log:
        f"{LOGS}/report/{config['name']}.log",
    conda:
        "../../environment.yml"
    params:
        code=code("eval.commands.report", *entries("eval.model_metrics")),
        template=dag.state("template", ["eval/report/report.html.jinja", *sorted(Path("eval/report/assets").iterdir())]),
        cells=LISTED,
        tables=lambda w, input: folder(input.tables[0]),
        sweep=config["name"],
        scale=config.get("scale", "full"),
        others=lambda w, input: ["--others", *several(input.others)] if input.others else [],
    shell:
        "python -m eval report --metrics {params.cells:q} --tables {params.tables:q} --sweep {params.sweep:q}"
        " --scale {params.scale} --store {input.store:q} {params.others:q} --out {output:q} > {log:q} 2>&1"


# the paper's numbers and ours side by side, of a sweep that says which table it is
if "paper" in config:

    rule paper:
        input:
            metrics=METRICS,
        output:
            expand(f"{TABLES}/paper.{{kind}}", kind=("md", "csv", "tex")),
        log:
            f"{LOGS}/paper/{config['name']}.log",
        conda:
            "../../environment.yml"
        params:
            code=code("eval.commands.paper", *entries("eval.model_metrics")),
            state=dag.state("values", ["config/paper/values.csv"]),
            values="config/paper/values.csv",
            cells=LISTED,
            table=config["paper"],
            scale=config.get("scale", "full"),
            out=lambda w, output: folder(output[0]),
        shell:
            "python -m eval paper --metrics {params.cells:q} --table {params.table} --scale {params.scale}"
            " --values {params.values:q} --out {params.out:q} > {log:q} 2>&1"
