"""What a run would do, computed from shapes: layers, packages, FLOPs, minutes and memory."""
