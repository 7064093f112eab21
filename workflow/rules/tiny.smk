# `scale: tiny`: randomly initialised pipelines in the models' place, see eval/sweep/tiny.py.
rule tiny:
    output:
        f"{RESULTS}/models/{{family}}/model_index.json",
    log:
        f"{LOGS}/tiny/{{family}}.log",
    wildcard_constraints:
        family="[^/]+",
    conda:
        "../../environment.yml"
    params:
        code=lambda w: code("eval.commands.tiny", f"obsdiff.models.{w.family}"),
        out=lambda w: f"{RESULTS}/models/{w.family}",
    shell:
        "python -m eval tiny --family {wildcards.family:q} --out {params.out:q} > {log:q} 2>&1"
