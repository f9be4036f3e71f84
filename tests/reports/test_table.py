"""Tables in three formats, their captions, and their registry."""

import re
import sys
from types import ModuleType

import pytest

from dphyper.core.errors import UserError
from dphyper.reports.sections import ALL, Section
from dphyper.reports.table import TABLES, ReportTable, in_page_order
from dphyper.reports.tables.differences import Differences
from dphyper.reports.tables.main import methods_against_epsilon


def test_latex_is_balanced_booktabs_and_escaped_once(section: Section) -> None:
    for table in (
        methods_against_epsilon(section, "private", [ALL]),
        methods_against_epsilon(section, "private", section.tasks("private")),
        Differences.make(section, "private"),
    ):
        text = table.to_latex("tab:x")
        for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption{", r"\label{tab:x}"):
            assert rule in text
        assert text.count("{") == text.count("}")
        assert text.count(r"\begin{") == text.count(r"\end{")
        assert text.count("$") % 2 == 0
        assert r"add\_or\_remove\_one" in text
        assert not re.search(r"(?<!\\)_|\\\\_|[εδσ±†∞−]", text)
    assert r"\bfseries 43.6 \textpm{} 2.1" in methods_against_epsilon(section, "private", [ALL]).to_latex("tab:x")


def test_captions_name_the_conditions(section: Section) -> None:
    caption = methods_against_epsilon(section, "private", [ALL]).caption
    for part in (
        "FD (EfficientNet-Lite0)",
        "500 generated",
        "372 held-out",
        "δ = 1e-05",
        "0123456789abcdef",
        "n = 128",
    ):
        assert part in caption


def test_markdown_has_one_line_for_each_method(section: Section) -> None:
    lines = methods_against_epsilon(section, "private", [ALL]).to_markdown().splitlines()
    widths = {line.count("|") for line in lines if line.startswith("|")}
    assert len(widths) == 1
    assert any("**43.6 ± 2.1**" in line and "Hypernetwork" in line for line in lines)


def test_tables_follow_their_order_split_by_split_and_those_of_the_section_come_last() -> None:
    own = ["main", "tasks", "way_to_real", "differences", "embedding_dims", "memorisation"]
    expected = [
        *((name, split) for split in ("private", "tuning") for name in own),
        *((name, "") for name in ("noise_draws", "gains", "gap_closed", "cost")),
    ]
    assert [(name, split) for name, _, split in in_page_order()] == expected


def test_a_table_of_an_outside_package_is_found_and_anything_else_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("outside_tables")
    module.Own = type("Own", (ReportTable,), {"title": "Own", "label": "own", "order": 65})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "outside_tables", module)
    monkeypatch.setitem(TABLES.locations, "own", "outside_tables:Own")
    names = [name for name, _, _ in in_page_order()]
    assert names[names.index("own") - 1 : names.index("own") + 2] == ["gains", "own", "gap_closed"]
    monkeypatch.setitem(TABLES.locations, "own", "dphyper.reports.table:Table")
    with pytest.raises(UserError, match=r"no subclass of dphyper\.reports\.table:ReportTable"):
        [*in_page_order()]


def test_a_report_without_any_table_is_an_error_not_an_empty_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TABLES, "locations", {})
    with pytest.raises(UserError, match=r"no report table is registered in the group dphyper\.tables"):
        [*in_page_order()]
