"""Attention heads alone, removed for real: round(heads · sparsity) of every attention (see obsdiff/surgery.py)."""

from obsdiff.patterns import Traits

TRAITS = Traits(kind="structured", removes=("heads",))
