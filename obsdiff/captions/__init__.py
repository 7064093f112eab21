"""Captions and prompts, and the file formats that hold them."""
