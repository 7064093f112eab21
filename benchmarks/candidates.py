"""What benchmarks compare with dense weights, by names such as `structured=0.5`."""

from obsdiff import PruneSpec
from obsdiff.errors import SpecError


def spec_of(text: str) -> PruneSpec:
    """`structured=0.5`, or a pattern alone such as 2:4, as a spec that needs no calibration."""
    pattern, _, amount = text.partition("=")
    try:
        sparsity = float(amount) if amount else None
    except ValueError:
        raise SpecError(f"patterns: {text!r} is not PATTERN=SPARSITY, such as structured=0.5") from None
    return PruneSpec(method="magnitude", pattern=pattern, sparsity=sparsity)
