"""A sweep's records, and all that is computed from them, once.

Tables, sentences, figures and pages look up what they show here. The arithmetic is in estimates.py.
"""

from collections.abc import Sequence
from functools import cached_property

from eval.analysis.comparisons import Comparison, comparisons
from eval.analysis.configurations import Configuration, Configurations, by_configuration
from eval.analysis.groups import Setting, constant, settings
from eval.results import CellResult


class Analysis:
    """Of the records of a sweep.

    Args:
        records: measured cells, in the order of the rows.
    """

    def __init__(self, records: Sequence[CellResult]) -> None:
        self.records = list(records)

    @cached_property
    def configurations(self) -> Configurations:
        """Those of the same axes but the seed together."""
        return by_configuration(self.records)

    @cached_property
    def labels(self) -> dict[Configuration, str]:
        """What tells configurations of one pattern, sparsity and sampling apart."""
        same = [axis for axis in constant(self.configurations) if axis != "weighting"]
        return {one: one.label("pattern", "sparsity", "sampling", *same) for one in self.configurations.values()}

    @cached_property
    def settings(self) -> list[Setting]:
        """What is compared in one row of figures, in one paragraph."""
        return settings(self.configurations)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Paired differences within groups, as differences.csv has them."""
        return comparisons(self.configurations)
