"""Cards: literals and first lines of classes, read from source without importing it."""

import subprocess
import sys
from pathlib import Path

import pytest

from dphyper.bench.catalog import DATASETS, METHODS
from dphyper.core.cards import read_card

SOURCE = '''
"""A module."""
from torch import Tensor  # must not be imported
from typing import ClassVar

class Base(Tensor):
    """Base."""
    label = "base"
    order: ClassVar[int] = 3
    computed = 1 + len("x")

class Derived(Base):
    """First line.

    Second paragraph.
    """
    label = "derived"
    options = {"steps": 2}
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "card_module.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    read_card.cache_clear()
    return "card_module"


def test_own_literals_and_those_of_the_bases(module: str) -> None:
    card = read_card(f"{module}:Derived")
    assert card.summary == "First line."
    assert card.own == {"label": "derived", "options": {"steps": 2}}
    assert card.attributes == {"label": "derived", "options": {"steps": 2}, "order": 3}
    assert module not in sys.modules


def test_what_cannot_be_found_has_an_empty_card(module: str) -> None:
    for location in (f"{module}:Missing", "no_such_module:Class", "no.such.module:Class"):
        assert read_card(location).summary == ""
        assert read_card(location).attributes == {}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_cards_of_methods_are_what_their_classes_say(name: str) -> None:
    card, kind = METHODS.card(name), METHODS[name]
    assert card.summary == (kind.__doc__ or "").splitlines()[0]
    assert card.own["label"] == kind.label
    for attribute in ("role", "private", "selection", "colour", "marker", "order"):
        assert card.attributes.get(attribute, getattr(kind, attribute)) == getattr(kind, attribute)
    assert "role" in card.attributes


def test_reading_all_cards_imports_nothing_heavy() -> None:
    code = (
        "import sys; from dphyper.bench.catalog import DATASETS, METHODS; "
        "assert all(r.card(n).summary for r in (DATASETS, METHODS) for n in r); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_labels_and_looks_of_methods_differ() -> None:
    labels = [METHODS.card(name).own["label"] for name in METHODS]
    assert len(set(labels)) == len(labels) >= 25
    assert len(DATASETS) >= 7
