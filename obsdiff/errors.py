"""The errors that a user can fix, whose message alone the command line prints; and what others say, in a line."""


class SpecError(Exception):
    """A key holds a value that is not allowed; the message says the key, the value and what is allowed."""


class CheckpointError(Exception):
    """A pruned checkpoint is damaged, or belongs to another dense model."""


class LayerError(Exception):
    """A layer cannot be pruned as it is; the message begins with its name."""


def first_line(error: BaseException) -> str:
    """The first line of what an error of another library says; its type's name where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
