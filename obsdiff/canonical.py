"""What of a spec defines the result: two specs whose canonical records are equal prune alike."""

from dataclasses import asdict, fields
from hashlib import sha256
from typing import Any

from obsdiff import weightings
from obsdiff.spec import DEFAULTS, PASSING, TRAJECTORY, PruneSpec


def canonical(spec: PruneSpec) -> dict[str, Any]:
    """All that defines the result, with the prompts as their hash and what the method ignores at its neutral."""
    record = {key: value for key, value in asdict(spec).items() if key not in PASSING}
    traits, pattern = spec.traits, spec.resolved
    ignored = set()
    if not traits.prunes:
        ignored |= {"pattern", "layer_sparsity", "allocation", "exclude", "bias", "convolutions"}
    if not traits.weighted:
        record |= {"weighting": "uniform", "alpha_min": 1.0, "alpha_max": 1.0, "alphas": ()}
    elif not weightings.traits(spec.weighting).ranged:
        record |= {"alpha_min": 1.0, "alpha_max": 1.0}
    if not spec.takes_table:
        ignored.add("alphas")
    if not traits.compensates:
        ignored |= {"compensate", "damping"}
    masks = traits.compensates and not pattern.structured
    if not masks or not spec.compensate or spec.chosen_solver != "sweep":
        ignored.add("resolve")
    if not masks or spec.solver == traits.solver:
        record["solver"] = "method"
    record["sensitivity"] = spec.weighed
    if not spec.sequential:
        ignored |= set(TRAJECTORY)
    if not spec.sequential or spec.weighed not in ("tokens", "both"):
        ignored.add("token_power")
    if pattern.structured:
        ignored.add("convolutions")
    if pattern.structured or not pattern.traits.grouped or not traits.prunes:
        ignored.add("group")
    elif spec.group == traits.group:
        record["group"] = "method"
    swept = traits.compensates and spec.chosen_solver != "admm"
    if pattern.structured or not (swept or spec.group == "block"):
        ignored.add("block_size")
    if pattern.sparsity is None:
        ignored.add("indivisible")
    if spec.statistic is None:
        record["packages"] = 1
        ignored.add("offload_statistics")
    if not spec.calibrates:
        record |= {"prompts": (), "sampling": {}}
    else:
        record["sampling"] = spec.sampling.record()
    defaults = {f.name: f.default_factory() if callable(f.default_factory) else f.default for f in fields(spec)}
    defaults |= DEFAULTS
    record |= {key: defaults[key] for key in ignored}
    record["prompts"] = sha256("\n".join(record["prompts"]).encode()).hexdigest()
    return record
