"""Feed-forward neurons alone, removed for real: round(neurons · sparsity) of every one (see obsdiff/surgery.py)."""

from obsdiff.patterns import Traits

TRAITS = Traits(kind="structured", removes=("neurons",))
