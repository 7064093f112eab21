"""Feed-forward neurons alone, removed for real: round(neurons · sparsity) of every one (see obsdiff/surgery.py)."""

KIND = "structured"
REMOVES = ("neurons",)
