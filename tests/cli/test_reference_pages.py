"""The reference pages are what the code declares."""

import dataclasses
from pathlib import Path

import pytest

from dphyper.bench.store import Row
from dphyper.cli import reference_pages
from dphyper.cli.main import COMMANDS
from dphyper.cli.reference_pages import PAGES, SPECS

COMMITTED = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", sorted(PAGES))
def test_committed_page_is_what_the_command_writes(name: str) -> None:
    assert (COMMITTED / f"{name}.md").read_text() == "\n".join(PAGES[name]()) + "\n", "run make reference"


def test_nothing_that_the_code_declares_is_left_out() -> None:
    pages = {name: "\n".join(page()) for name, page in PAGES.items()}
    assert all(f"\n## dphyper {command}\n" in pages["cli"] for command in COMMANDS)
    assert all(f"\n| `{key}` |" in pages["rows"] for key in Row.__annotations__)
    keys = [f"{prefix}{field.name}" for prefix, kind in SPECS.items() for field in dataclasses.fields(kind)]
    assert all(f"\n| `{key}` |" in pages["keys"] for key in keys)
    assert len(keys) > 50


def test_pages_follow_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can fail: a command less is another page."""
    before = "\n".join(PAGES["cli"]())
    monkeypatch.setattr(reference_pages, "COMMANDS", COMMANDS[1:])
    assert "\n".join(PAGES["cli"]()) != before
