"""Registries: short names of classes that are imported only when they are used.

What a registry holds comes from entry points alone, ours (``pyproject.toml``) and those of outside packages alike.
Importing a registry imports none of its classes. A name that is registered twice is an error that shows both parties,
when it is looked up: every other name stays usable.
A class that is not of the registry's kind is refused when it is looked up. Whether a class works is not checked here:
the contract suites do that.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from dphyper.core.cards import Card, read_card
from dphyper.core.errors import UserError, unknown_name

T = TypeVar("T")


class Registry(Mapping[str, type[T]], Generic[T]):
    """Names to classes.

    Args:
        kind: What an entry is, in the singular, for messages ("method").
        base: ``"module:Class"`` that every entry must be a subclass of.
        group: Entry-point group that the names come from, such as ``dphyper.methods``.

    Attributes:
        locations: Name to ``"module:Class"``.

    >>> methods: Registry[object] = Registry("method", "builtins:object", "dphyper.methods")
    >>> methods.locations["dp_sgd"], methods.card("dp_sgd").own["label"]
    ('dphyper.methods.dp_sgd:DPSGD', 'DP-SGD')
    """

    def __init__(self, kind: str, base: str, group: str) -> None:
        self.kind, self._base, self.group = kind, base, group
        self.locations: dict[str, str] = {}
        self._twice: dict[str, str] = {}
        for point in entry_points(group=group):
            if self.locations.setdefault(point.name, point.value) != point.value:
                self._twice[point.name] = point.value

    def __getitem__(self, name: str) -> type[T]:
        """The class of that name.

        Raises:
            UserError: The name is unknown or registered twice, its class cannot be imported, or it is of another kind.
        """
        location, base = self._location(name), _load(self._base)
        if name in self._twice:
            raise UserError(
                f"{self.kind} '{name}' is registered twice, as {location} and as {self._twice[name]}: rename one "
                "of them"
            )
        try:
            found = _load(location)
        except Exception as error:  # an outside module may raise anything while it is imported
            raise UserError(
                f"{self.kind} '{name}' is registered as {location}, which cannot be imported ({error}): expected "
                "module:Class; mend the entry point or install what is missing"
            ) from error
        if not (isinstance(found, type) and issubclass(found, base)):
            raise UserError(
                f"{self.kind} '{name}' is registered as {location}, which is no subclass of {self._base}: derive it "
                "from that class"
            )
        return found

    def card(self, name: str) -> Card:
        """What the source of a class says about itself; nothing is imported.

        Raises:
            UserError: The name is unknown.
        """
        return read_card(self._location(name))

    def _location(self, name: str) -> str:
        if name not in self.locations:
            raise unknown_name(self.kind, name, self.locations)
        return self.locations[name]

    def __contains__(self, name: object) -> bool:
        return name in self.locations

    def __iter__(self) -> Iterator[str]:
        return iter(self.locations)

    def __len__(self) -> int:
        return len(self.locations)


def _load(location: str) -> Any:
    module, attribute = location.split(":")
    return getattr(import_module(module), attribute)
