"""Pruned weights on disk: their format, saving, loading, resuming and exporting."""
