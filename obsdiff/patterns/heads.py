"""Attention heads alone, removed for real: round(heads · sparsity) of every attention (see obsdiff/surgery.py)."""

KIND = "structured"
REMOVES = ("heads",)
