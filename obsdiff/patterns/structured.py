"""Attention heads and feed-forward neurons, removed for real.

round(heads · sparsity) heads and round(neurons · sparsity) neurons of every site; see obsdiff/surgery.py.
"""

from obsdiff.patterns import Traits

TRAITS = Traits(kind="structured", removes=("heads", "neurons"))
