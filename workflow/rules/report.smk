# The tables and figures of the sweep; `snakemake --report` binds them into one page.
rule summarise:
    input:
        metrics=expand("{cell}/metrics.json", cell=CELLS),
        code=code("eval.tables", "eval.figures"),
    output:
        table=report(f"{TABLES}/summary.csv", category="Tables", caption="../report/table.rst"),
        markdown=f"{TABLES}/summary.md",
        quality=report(f"{TABLES}/figures/quality.svg", category="Figures", caption="../report/quality.rst"),
        pictures=report(f"{TABLES}/figures/pictures.png", category="Pictures", caption="../report/pictures.rst"),
        others=[f"{TABLES}/figures/quality.png", f"{TABLES}/figures/pictures.svg"],
    log:
        f"{LOGS}/summarise/{config['name']}.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m eval summarise --metrics {input.metrics} --out $(dirname {output.table}) > {log} 2>&1"


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
