"""A sweep: its configuration, its cells, and what its jobs depend on."""
