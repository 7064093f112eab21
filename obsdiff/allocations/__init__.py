"""How a sparsity is shared out over layers (or sites of structured pruning), at the same total.

STATISTIC    None or 'moments': what a sampling run of the dense model must sum up over each layer's input first
measure(weight, input)
             (rows, columns) float32 and its statistics.Input → a number, the higher the more it should keep;
             absent where STATISTIC is None
allocate(measures, sizes, sparsity)
             (n,) float64 each, sizes in weights → (n,) float64 sparsities that remove sparsity · Σ sizes weights
"""
