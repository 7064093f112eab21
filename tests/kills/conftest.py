"""The copy of the project that the tests of the DAG run in, with a finished sweep."""

from test_workflow import project

__all__ = ["project"]
