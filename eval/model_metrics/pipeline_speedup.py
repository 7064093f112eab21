"""How many times faster the whole pipeline is for one prompt, text encoding and decoding included.

Median and quartiles over rounds as of `speedup`. What pruning leaves, text encoders, decoder and overhead, is in it.
"""

from eval.model_metrics import Model, Traits, Value

TRAITS = Traits(
    title="speed-up of the pipeline, one prompt",
    unit="×",
    higher_is_better=True,
    timed=True,
    clocked=True,
    table="cost",
    order=5,
)


def compute(model: Model) -> Value:
    low, high = model.latency["pipeline_speedup_quartiles"]
    return model.latency["pipeline_speedup"], (low, high)
