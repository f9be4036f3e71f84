"""The reference pages of the docs, from the code: ``python -m dphyper.cli.reference_pages --out docs/reference``.

What they say is what the code declares: parsers, the ``Attributes:`` of dataclasses, the comments of `Row`, the first
lines of registered classes. A test holds the committed pages to it. The methods have a page of their own
(`dphyper.cli.methods_page`). Nothing is measured here.
"""

import argparse
import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from docstring_parser import DocstringStyle, parse
from jsonargparse import auto_cli

from dphyper.bench.catalog import DATASETS
from dphyper.bench.store import Row
from dphyper.cli.main import COMMANDS
from dphyper.core.registry import Registry
from dphyper.core.specs import BaseSpec, Cell, DataSpec, Performance, Protocol
from dphyper.metrics.metric import METRICS
from dphyper.reports.table import TABLES
from dphyper.sweeps.plan import Sweep
from dphyper.targets.registry import TARGETS

MADE = "*Made from the code by `make reference`; do not edit.*"
SPECS = {"": Sweep, "cell.": Cell, "cell.data.": DataSpec, "cell.base.": BaseSpec, "cell.protocol.": Protocol,
         "performance.": Performance}  # fmt: skip
PARTS = ("data", "base", "protocol", "performance")  # keys that have a table of their own


def command_line() -> Iterator[str]:
    """Every command with its arguments."""
    yield f"# Command line\n\n{MADE}\n\nKeys of a cell (`--data.…`, `--base.…`, `--n`, …) are in [sweep keys](keys.md)."
    known = {field.name for kind in (Cell, Performance) for field in dataclasses.fields(kind)}
    for name in COMMANDS:
        module = import_module(f"dphyper.cli.{name}")
        yield f"\n## dphyper {name}\n\n{_sentence(module.HELP)}\n"
        yield from ("| argument | default | meaning |", "|---|---|---|")
        for action in module.parser()._actions:
            if action.help in (None, argparse.SUPPRESS) or action.dest.partition(".")[0] in {"help", *known, *PARTS}:
                continue
            shown = action.option_strings[-1] if action.option_strings else action.dest.upper()
            choices = f" One of {', '.join(f'`{choice}`' for choice in action.choices)}." if action.choices else ""
            default = "" if action.default in (None, argparse.SUPPRESS, "", []) else f"`{_plain(action.default)}`"
            yield f"| `{shown}` | {default} | {_cell(_sentence(action.help))}{choices} |"


def keys() -> Iterator[str]:
    """Every key of a sweep file, and so of ``dphyper run``."""
    yield f"# Sweep keys\n\n{MADE}\n\nA sweep file is YAML. `dphyper run` takes the keys of a cell, without `cell.`."
    for prefix, kind in SPECS.items():
        documentation = parse(kind.__doc__ or "", DocstringStyle.GOOGLE)
        yield f"\n## {f'`{prefix[:-1]}`' if prefix else 'The file'}\n\n{documentation.short_description}\n"
        yield from ("| key | default | meaning |", "|---|---|---|")
        meanings = {entry.arg_name: entry.description or "" for entry in documentation.params}
        for field in dataclasses.fields(kind):
            if field.default is dataclasses.MISSING:
                default = "see below" if field.name in PARTS else "" if _required(field) else "empty"
            else:
                default = f"`{_plain(field.default)}`"
            yield f"| `{prefix}{field.name}` | {default} | {_cell(meanings[field.name])} |"


def rows() -> Iterator[str]:
    """Every column of a row."""
    yield f"# Row schema\n\n{MADE}\n\nOne row for each cell, in `row.json` and, of all cells, in `rows.parquet`.\n"
    yield from ("| key | type | meaning |", "|---|---|---|")
    for line in inspect.getsource(Row).splitlines():
        if found := re.fullmatch(r"    (\w+): ([\w\[\], ]+?)(?:  # (.*))?", line):
            name, kind, meaning = found.groups()
            optional = kind.startswith("NotRequired")
            kind = kind.removeprefix("NotRequired[").removesuffix("]" if optional else "")
            absent = "; absent from some rows" if optional else ""
            yield f"| `{name}` | `{kind}`{absent} | {_cell(meaning or '')} |"


def registered() -> Iterator[str]:
    """Everything with a name, but for the methods."""
    yield f"# Sources, targets, metrics, tables\n\n{MADE}\n\nThe [methods](../methods.md) have a page of their own."
    kinds: dict[str, Registry[Any]] = {
        "Data sources": DATASETS, "Kinds of target": TARGETS, "Metrics": METRICS, "Report tables": TABLES,
    }  # fmt: skip
    for title, registry in kinds.items():
        yield f"\n## {title}\n\n| name | what it is |\n|---|---|"
        yield from (f"| `{name}` | {_cell(registry.card(name).summary)} |" for name in sorted(registry))


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "cli": command_line, "keys": keys, "rows": rows, "registered": registered,
}  # fmt: skip


def write(out: Path = Path("docs/reference")) -> None:
    """Write every page.

    Args:
        out: Folder of the pages.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (out / f"{name}.md").write_text("\n".join(page()) + "\n", encoding="utf-8")


def _required(field: "dataclasses.Field[Any]") -> bool:
    return field.default_factory is dataclasses.MISSING


def _sentence(text: str) -> str:
    """With a capital and a full stop.

    >>> _sentence("folder of results")
    'Folder of results.'
    """
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").replace("|", r"\|")


def _plain(default: object) -> str:
    """A default as it would be written in a sweep file."""
    return f"{default:g}" if isinstance(default, float) else json.dumps(default, ensure_ascii=False)


if __name__ == "__main__":
    auto_cli(write)
