"""Diffusers pipelines: their files, loading them, their identity, and what is refused."""
