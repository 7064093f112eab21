"""Sparsity patterns: `keep(scores, sparsity, group, start)` → bool mask of the weights that stay.

scores is (rows, b), the lowest to be removed first; `start` is the index of its first column in the layer, 0 unless
the layer is decided in blocks. Counts are exact over the whole layer.
"""
