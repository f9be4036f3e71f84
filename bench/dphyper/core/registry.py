"""Lazy registries that join methods, datasets and targets to the harness.

A registry maps a short name to ``"module:attribute"`` and imports the module only when the name is used, so
that importing the harness costs nothing and the report side never loads torch. Packages outside this
repository add entries through the entry-point groups ``dphyper.methods`` and ``dphyper.datasets``. A name
registered twice is an error that shows both parties.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from dphyper.core.errors import UserError, unknown_name


class Registry(Mapping[str, Any]):
    """Names to lazily imported objects.

    Args:
        kind: What the entries are, in the singular, for messages ("method").
        entries: Name to ``"module:attribute"``.
        group: Entry-point group that outside packages use, if any.

    Attributes:
        entries: Name to ``"module:attribute"``, those of outside packages included.
    """

    def __init__(self, kind: str, entries: Mapping[str, str], group: str | None = None) -> None:
        self.kind = kind
        self.entries = dict(entries)
        for point in entry_points(group=group) if group else ():
            self.add(point.name, point.value)

    def add(self, name: str, location: str) -> None:
        """Register ``location`` ("module:attribute") under ``name``.

        Raises:
            UserError: ``name`` is taken by another location.
        """
        taken = self.entries.setdefault(name, location)
        if taken != location:
            raise UserError(
                f"{self.kind} '{name}' is registered twice, as {taken} and as {location}: rename one of them"
            )

    def __getitem__(self, name: str) -> Any:
        if name not in self.entries:
            raise unknown_name(self.kind, name, self.entries)
        module, attribute = self.entries[name].split(":")
        return getattr(import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)
