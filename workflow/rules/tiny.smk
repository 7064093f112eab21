# `scale: tiny`: randomly initialised pipelines in the models' place, see eval/scale.py.
rule tiny:
    input:
        code=lambda w: code(f"obsdiff.models.{w.family}"),
    output:
        f"{RESULTS}/models/{{family}}/model_index.json",
    log:
        f"{LOGS}/tiny/{{family}}.log",
    wildcard_constraints:
        family="[^/]+",
    conda:
        "../../environment.yml"
    shell:
        "python -m eval tiny --family {wildcards.family} --out $(dirname {output}) > {log} 2>&1"
