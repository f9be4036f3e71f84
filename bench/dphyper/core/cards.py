"""What a registered class says about itself, read from its source and not by importing it.

So a list of methods needs no torch, and a report names methods on a machine that cannot run them. Only literals are
read: the docstring's first line and class attributes such as ``label = "DP-SGD"``, inherited ones included as far as
the bases lie in the same distribution or in dphyper. A class whose source is not there, or is no Python, has an empty
card.
"""

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Card:
    """Literals of a class.

    Attributes:
        summary: First line of its own docstring.
        own: Class attributes with literal values, of the class itself.
        attributes: The same with inherited ones.
    """

    summary: str = ""
    own: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)


@cache
def read_card(location: str) -> Card:
    """The card of ``"module:Class"``; an empty one where the source cannot be found.

    >>> read_card("dphyper.core.cards:Card").summary
    'Literals of a class.'
    """
    module, _, name = location.partition(":")
    tree = _parsed(module)
    own = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if own is None:
        return Card()
    attributes: dict[str, Any] = {}
    for base in reversed(own.bases):
        if isinstance(base, ast.Name) and (elsewhere := _origin(base.id, module, tree)):
            attributes |= read_card(elsewhere).attributes
    summary, *_ = (ast.get_docstring(own) or "").splitlines() or [""]
    literals = _literals(own)
    return Card(summary=summary, own=literals, attributes={**attributes, **literals})


@cache
def _parsed(module: str) -> ast.Module:
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            return ast.Module([], [])
        return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except Exception:  # the packages above a module are imported, and may raise anything
        return ast.Module([], [])


def _origin(name: str, module: str, tree: ast.Module) -> str:
    """Where a name of a module comes from, if that is known without importing a third party; else empty."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return f"{module}:{name}"
        if isinstance(node, ast.ImportFrom) and node.module:
            ours = node.module.partition(".")[0] in ("dphyper", module.partition(".")[0])
            for alias in node.names:
                if ours and (alias.asname or alias.name) == name:
                    return f"{node.module}:{alias.name}"
    return ""


def _literals(node: ast.ClassDef) -> dict[str, Any]:
    """Names that the body of a class binds to literals."""
    found: dict[str, Any] = {}
    for statement in node.body:
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, value = [statement.target], statement.value
        else:
            continue
        try:
            literal = ast.literal_eval(value)
        except ValueError:
            continue
        found |= {target.id: literal for target in targets if isinstance(target, ast.Name)}
    return found
