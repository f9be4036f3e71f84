"""Command lines, YAML files and plain data, parsed by one schema: the dataclasses of the specs.

A mistake becomes one line that names the nearest known key; the known keys are those that the parser itself takes.
Whether values fit together is checked by the dataclasses when they are built. YAML means what it looks like, as in
YAML 1.2: ``off`` is a word and ``1:30`` no number. A key that stands twice is a mistake. No torch is imported.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, _loaders_dumpers

from dphyper.core.errors import UserError, unknown_name
from dphyper.core.names import Names, as_typed

T = TypeVar("T")


def parse(
    parser: ArgumentParser, given: Sequence[str] | Mapping[str, Any], *, command: ArgumentParser | None = None
) -> Namespace:
    """The values that a parser finds, with its dataclasses built.

    Args:
        parser: Made with ``exit_on_error=False``.
        given: Arguments of a command line, or nested plain data.
        command: The parser of the subcommand in ``given``, whose keys a mistake is compared with.

    Raises:
        UserError: An unknown key, or a value that does not fit.
    """
    try:
        if isinstance(given, Mapping):
            parsed = parser.parse_object(dict(given))
        else:
            parsed = parser.parse_args(_with_names_quoted(given, command or parser))
    except ArgumentError as error:
        raise _in_one_line(error.message, command or parser) from error
    except UnicodeDecodeError as error:
        raise UserError(f"a file that is no text in UTF-8 ({error.reason}): expected YAML") from error
    except RecursionError as error:
        raise UserError("a value that contains itself: expected plain YAML without such an alias") from error
    for key, value in parsed.items():
        if value is None and _default(command or parser, key) is not None:
            raise UserError(f"{key} is null: expected a value, or leave the key out for its default")
    values: Namespace = parser.instantiate(parsed)
    return values


def _with_names_quoted(arguments: Sequence[str], parser: ArgumentParser) -> list[str]:
    """Arguments with the values of name options as quoted YAML, which the parser would read as numbers and booleans."""
    options = {
        option
        for action in parser._actions
        if getattr(action, "_typehint", None) is Names
        for option in action.option_strings
    }
    quoted: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if quoted and quoted[-1] in options:
            quoted.append(as_typed(argument))
        elif equals and option in options:
            quoted.append(f"{option}={as_typed(value)}")
        else:
            quoted.append(argument)
    return quoted


def _default(parser: ArgumentParser, key: str) -> Any:
    """The default of a key, which may stand behind the name of its subcommand."""
    defaults = parser.get_defaults()
    return defaults.get(key, defaults.get(key.partition(".")[2]))


def build(kind: type[T], values: Namespace) -> T:
    """A dataclass from the values of its fields among those that `parse` found."""
    return kind(**{name: values[name] for name in kind.__dataclass_fields__})  # type: ignore[attr-defined]


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the words and numbers of YAML 1.2, which refuses a key that stands twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        known = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in known:
                where = f"in line {key.start_mark.line + 1}"
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' stands twice, again {where}")
            known.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


# The core schema of YAML 1.2 (https://yaml.org/spec/1.2.2, section 10.3.2) without its octal and hexadecimal numbers,
# and `<<`, which sweep files use. A number with a leading zero stays a word: a task may be called 007.
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", "<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


# Of jsonargparse's own: `set_loader` would set it for files alone, and not for words that it turns into numbers.
_loaders_dumpers.yaml_default_loader = _Loader


def _in_one_line(message: str, parser: ArgumentParser) -> UserError:
    unknown = re.search(
        r"unrecognized arguments: --([\w.-]+)|Option '([\w.-]+)' is not|does not accept option '([\w.-]+)'", message
    )
    if unknown:
        key = next(filter(None, unknown.groups()))
        group = re.search(r"Group '([\w.]+)' does not accept", message)
        return unknown_name("key", f"{group[1]}.{key}" if group else key, _keys(parser))
    if "Unexpected config" in message:
        return UserError("a file that holds no mapping of keys to values: expected YAML such as  name: demo")
    number = re.search(
        r'Parser key "([^"]*)":\s*Not of type \w+: (\S+) does not conform to restriction v(>=?)0', message
    )
    if number:
        return UserError(f"{number[1]} = {number[2]}: expected at least {1 if number[3] == '>' else 0}")
    for pattern, plain in ((r'Parser key "([^"]*)":', r"\1:"), (r"<class '(\w+)'>", r"\1"), (r"typing\.", "")):
        message = re.sub(pattern, plain, message)
    return UserError(" ".join(message.split()))


def _keys(parser: ArgumentParser) -> set[str]:
    """Every option of a parser, dotted where it is nested."""
    options = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    return {option.removeprefix("--") for option in options} - {"help"}
