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
