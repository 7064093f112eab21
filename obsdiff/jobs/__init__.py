"""Processes: one job per GPU, and short CPU jobs on a fork server."""
