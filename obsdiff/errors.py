"""The errors that a user can fix; the command line prints their message and nothing else."""


class SpecError(Exception):
    """A key holds a value that is not allowed; the message says the key, the value and what is allowed."""


class CheckpointError(Exception):
    """A pruned checkpoint is damaged, or belongs to another dense model."""


class LayerError(Exception):
    """A layer cannot be pruned as it is; the message begins with its name."""
