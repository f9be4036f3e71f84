"""The page on all methods is what the registry says."""

import dataclasses
import re
from pathlib import Path

import pytest

from dphyper.bench.catalog import METHODS
from dphyper.cli.methods_page import option_meanings, options_table, page

COMMITTED = Path(__file__).parents[2] / "docs" / "methods.md"
COMMAND = "python -m dphyper.cli.methods_page > docs/methods.md"


def test_committed_page_is_what_the_command_prints() -> None:
    assert COMMITTED.read_text() == "\n".join(page()) + "\n", f"run {COMMAND}"


def test_page_follows_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can fail: another default, or other words of a method, are another page."""
    kind, before = METHODS["dp_sgd"], "\n".join(page())
    assert "| `steps` | `30` | T, optimiser steps. |" in "\n".join(options_table(kind.options_type))
    assert "| `steps` | `400` | T, optimiser steps. |" in "\n".join(
        options_table(METHODS["nonprivate_lora"].options_type)
    )
    monkeypatch.setattr(kind, "about", dataclasses.replace(kind.about, passes="Twice."))
    after = "\n".join(page())
    assert before.count("q T K gradients.") - after.count("q T K gradients.") == 2  # in the overview and the section
    assert after.count("Twice.") == 2


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_and_option_is_explained(name: str) -> None:
    options = METHODS[name].options_type
    assert f"\n## {name}\n" in COMMITTED.read_text()
    assert set(option_meanings(options)) == {field.name for field in dataclasses.fields(options)}
    assert all(re.search(r"[.;]$", text) for text in option_meanings(options).values())
