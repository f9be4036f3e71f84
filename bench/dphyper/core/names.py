"""Names as people type them: of families and tasks, and of parts of other sources.

Guarantees that a name is compared in one form wherever it is given: Unicode's composed form (NFC), with one space where
there was any white space. What YAML reads as no text and no whole number is refused, since the name that was meant is
lost by then (``true``, ``1.10``). On the command line a name is taken as it was typed. Nothing here knows which names
there are.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse.typing import register_type

from dphyper.core.errors import UserError


def family_name(label: object) -> str:
    r"""A label as the name of a family or task.

    Bytes that are no UTF-8, such as those of an old folder's name, are read as Latin-1.

    >>> ascii(family_name(" cafe\u0301  bar")), family_name(b"caf\xe9"), family_name(7)
    ("'caf\\xe9 bar'", 'café', '7')
    """
    raw = label if isinstance(label, bytes) else str(label).encode("utf-8", "surrogateescape")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return " ".join(unicodedata.normalize("NFC", text).split()) or "(blank)"


def typed_name(value: object) -> str:
    """A name from a YAML file: text or a whole number.

    Raises:
        UserError: YAML has read something else.

    >>> typed_name("01"), typed_name(8)
    ('01', '8')
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(f"YAML reads a name as {value!r}: expected text, put the name in quotes")
    return family_name(value)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A source, whole or some of its families.

    Attributes:
        source: A registered source with its argument, as in ``data.source``.
        families: The families that are taken; empty for all.
    """

    source: str
    families: tuple[str, ...] = ()


if TYPE_CHECKING:
    Names = tuple[str | Part, ...]
    Value = Any
else:

    class Names:
        """A name, a list of names, or of sources as ``SCHEME:PATH`` or ``{source: …, families: […]}``."""

    class Value:
        """Any value of YAML, as it stands: a quoted name stays text, which `Any` would read once more."""


def names(given: object) -> Names:
    """Names and parts in one form, from what a YAML file, a command line or a stored spec holds.

    Raises:
        UserError: Something that is neither a name nor a part.

    >>> names("A"), names(["01", 8]), names({"source": "folder:scans", "families": "A"})
    (('A',), ('01', '8'), (Part(source='folder:scans', families=('A',)),))
    """
    if isinstance(given, str | Mapping | Part) or not isinstance(given, Sequence):
        given = [] if given == "" else [given]
    return tuple(dict.fromkeys(_entry(item) for item in given))


def as_typed(argument: str) -> str:
    """The value of an option that takes names, as YAML in which each name is quoted.

    Raises:
        UserError: A list that does not end.

    >>> as_typed("[01, on, CT scans]"), as_typed("1.10")
    ('["01", "on", "CT scans"]', '["1.10"]')
    """
    if not argument.lstrip().startswith(("[", "{")):
        return json.dumps([argument] if argument else [])
    try:
        return json.dumps(yaml.load(argument, Loader=yaml.BaseLoader))  # every scalar stays text
    except yaml.YAMLError as error:
        raise UserError(f"'{argument}' is no list of names: expected NAME or '[NAME, NAME]'") from error


def _entry(item: object) -> str | Part:
    if isinstance(item, Part):
        return item
    if not isinstance(item, Mapping):
        return typed_name(item)
    if not isinstance(item.get("source"), str) or item.keys() - {"source", "families"}:
        raise UserError(f"{dict(item)} is no part of the data: expected {{source: SOURCE, families: [NAME, NAME]}}")
    families = names(item.get("families", ()))
    if any(isinstance(family, Part) for family in families):
        raise UserError(f"families of '{item['source']}' are {item['families']}: expected names")
    return Part(source=item["source"], families=tuple(map(str, families)))


if not TYPE_CHECKING:
    register_type(
        Names,
        serializer=list,
        deserializer=names,
        deserializer_exceptions=(),
        type_check=lambda value, _: isinstance(value, tuple),
    )
    register_type(Value, serializer=lambda value: value, deserializer=lambda v: v, type_check=lambda *_: True)
