"""A pruned model measured without images: layer errors, deviation, latency, FLOPs and memory."""
