"""The page on all methods, from the registry: ``python -m dphyper.cli.methods_page > docs/methods.md``.

What it says is what the code declares: `Method.about`, the class attributes, and the options with their defaults and
the ``Attributes:`` of their docstrings. A test holds the committed page to it. It measures nothing.
"""

import dataclasses
import json
from collections.abc import Iterator

import docstring_parser

from dphyper.bench.catalog import METHODS
from dphyper.bench.method import Method, Options
from dphyper.core.labels import SELECTIONS

ROLES = ("method", "control", "floor", "ceiling")  # as they follow on the page

HEAD = """# Methods

Made from the code by `python -m dphyper.cli.methods_page > docs/methods.md`; do not edit.

There are n private records. Each enters one of T steps with probability q, for K draws of time and noise; C is the clip
norm. Whatever is clipped and noised is charged to the ledger, and the noise is calibrated to the whole budget. Every
method starts from the same base model, which public data have trained."""


def page() -> Iterator[str]:
    """The lines of the page, in Markdown."""
    yield HEAD
    yield "\n| method | role | what it is | reads of each private record |\n|---|---|---|---|"
    methods = sorted(METHODS.items(), key=lambda entry: (ROLES.index(entry[1].role), entry[1].order))
    for name, kind in methods:
        yield f"| [`{name}`](#{name}) | {kind.role} | {_summary(kind)} | {kind.about.passes} |"
    shown: dict[type[Options], str] = {}
    for name, kind in methods:
        yield from section(name, kind)
        if kind.options_type in shown:
            yield f"\nIts options are those of `{shown[kind.options_type]}`."
        else:
            shown[kind.options_type] = name
            yield from options_table(kind.options_type)


def section(name: str, kind: type[Method]) -> Iterator[str]:
    """The lines on one method, without its options."""
    about = kind.about
    facts = {
        "Role": kind.role,
        "Source": about.source,
        "Public data": about.public_data,
        "Clipped and noised": about.private_release,
        "Reads of each private record": about.passes,
        "Departures": about.departures,
        "Choice of hyper-parameters": SELECTIONS[kind.selection] if dataclasses.fields(kind.options_type) else "",
    }
    yield f"\n## {name}\n{_summary(kind)}\n"
    yield from (f"- **{title}:** {text}" for title, text in facts.items() if text)


def options_table(options: type[Options]) -> Iterator[str]:
    """The lines of a table of options; none where there is no option."""
    meanings = option_meanings(options)
    if meanings:
        yield "\n| option | default | meaning |\n|---|---|---|"
    for field in dataclasses.fields(options):
        yield f"| `{field.name}` | `{_plain(field.default)}` | {meanings[field.name]} |"


def option_meanings(options: type[Options]) -> dict[str, str]:
    """What the docstrings of a class of options and of its bases say of each option.

    >>> from dphyper.methods.descent import DescentOptions
    >>> option_meanings(DescentOptions)["l2_clip_norm"]
    "C, bound on a record's gradient."
    """
    meanings = {}
    for base in reversed(options.__mro__):
        for entry in docstring_parser.parse(base.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE).params:
            text = " ".join((entry.description or "").split())
            meanings[entry.arg_name] = text.replace("``", "`").replace("|", r"\|")
    return meanings


def _summary(kind: type[Method]) -> str:
    return (kind.__doc__ or "").splitlines()[0]


def _plain(default: object) -> str:
    """A default as it would be written in a sweep file."""
    return f"{default:g}" if isinstance(default, float) else json.dumps(default)


if __name__ == "__main__":
    print("\n".join(page()))
