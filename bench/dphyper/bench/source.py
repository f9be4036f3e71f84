"""The contract of a data source: one class that turns a `DataSpec` into a `Collection`.

A source reads what lies on disk, or fetches it, and names its families; the first line of its docstring is what
``dphyper ls data`` shows. Which records are public, held out for tuning or private is settled in the collection, whose
constructor refuses splits that share a record.
"""

from abc import ABC, abstractmethod

from dphyper.bench.tasks import Collection
from dphyper.core.specs import DataSpec


class Source(ABC):
    """Where records come from."""

    @classmethod
    @abstractmethod
    def load(cls, spec: DataSpec) -> Collection:
        """Read the data and cut them into tasks.

        Args:
            spec: The source's argument stands in ``spec.argument``.

        Raises:
            UserError: The data are missing or cannot be read; the message says what to do.
        """
