"""What is bold, and which marks stand beside a number."""

from pathlib import Path
from typing import Any

import pytest
from toy_store import LEVEL, add, change, fill, only, told, winning

from dphyper.bench.store import Store
from dphyper.core.specs import Cell
from dphyper.reports.sections import ALL, Section, support
from dphyper.reports.tables.differences import Differences
from dphyper.reports.tables.gains import Gains
from dphyper.reports.tables.gap_closed import GapClosed
from dphyper.reports.tables.main import methods_against_epsilon


def test_bold_is_the_best_private_number_and_its_ties_only(tmp_path: Path) -> None:
    def level(method: str, epsilon: float) -> float:
        return {"hypernetwork": 50.0, "dp_sgd": 51.0}.get(method) or LEVEL[method]

    table = methods_against_epsilon(only(fill(Store(tmp_path), level)), "private", [ALL])
    bold = {method for (_, method, _), row in table.bold.iterrows() if row["ε = 1"]}
    # Noise of ±1 hides a difference of 1 but not one of 10; the two lowest numbers are not private.
    assert bold == {"Hypernetwork, k = 8", "DP-SGD", "Public mean, k = 8"}
    assert table.cells.loc[("Ceiling: no privacy", "Non-private LoRA†", "non-private"), "ε = 1"].endswith("†")


def test_a_clear_winner_is_bold_alone_and_infinity_has_no_bold(section: Section) -> None:
    table = methods_against_epsilon(section, "private", [ALL])
    assert [method for (_, method, _), row in table.bold.iterrows() if row["ε = 1"]] == ["Hypernetwork, k = 8"]
    assert table.cells.loc[("Private methods", "DP-SGD†", "non-private"), "ε = ∞"] == "1.0 ± n/a†"
    assert not table.bold["ε = ∞"].any()


@pytest.mark.parametrize("changes", [{"harness": "0.1.0"}, {"commit": "c0ffee-dirty"}, {"commit": ""}])
def test_a_number_with_a_row_behind_it_that_supports_no_claim_is_marked_and_never_bold(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    store = fill(Store(tmp_path / "store"), winning)
    best = "Hypernetwork, k = 8"
    clean = methods_against_epsilon(only(store), "private", [ALL])
    assert [method for (_, method, _), row in clean.bold.iterrows() if row["ε = 1"]] == [best]
    assert "‡" not in clean.to_markdown()
    # One seed of one task, at one ε.
    cell = Cell(task="kettle", method="hypernetwork", epsilon=1.0, seed=1, embedding_dim=8)
    add(store, cell, "private", 45.0, **changes)
    section = only(store)
    table = methods_against_epsilon(section, "private", [ALL])
    row = ("Private methods", best, "tuned on public tasks")
    assert table.cells.loc[row, "ε = 1"].endswith("‡")
    assert not table.cells.loc[row, "ε = 4"].endswith("‡")
    assert [method for (_, method, _), row in table.bold.iterrows() if row["ε = 1"]] == ["Public mean, k = 8"]
    assert table.bold.loc[row, "ε = 4"]
    assert "‡: from code with known faults or of an unknown state" in table.caption
    assert r"\textdaggerdbl{}" in table.to_latex("tab:x")
    gaps = Differences.make(section, "private")
    assert {budget for (_, _, budget), line in gaps.cells.iterrows() if "‡" in line.iloc[0]} == {"ε = 1"}
    assert "‡" in Gains.make(section, "").to_markdown()
    assert "‡" in GapClosed.make(section, "").to_markdown()
    private = int(section.rows["private"].sum())
    sentence = f"1 of {private} private rows come from code with known faults or of an unknown state"
    assert f"bad: {sentence}" in told(section, "In short")
    assert support(section.rows).startswith(sentence)


def test_rows_without_a_claim_are_not_marked(tmp_path: Path) -> None:
    store = fill(Store(tmp_path), winning, private=False, harness="0.1.0", commit="")
    assert "‡" not in methods_against_epsilon(only(store), "private", [ALL]).to_markdown()
    assert support(only(store).rows) == ""


def test_a_choice_that_is_not_recorded_is_said_to_be_unknown_and_never_bold(tmp_path: Path) -> None:
    store = fill(Store(tmp_path), winning)
    change(store, "method == 'hypernetwork'", selection="unknown")
    table = methods_against_epsilon(only(store), "private", [ALL])
    row = ("Private methods", "Hypernetwork, k = 8", "unknown")
    assert table.cells.loc[row, "ε = 1"] == "43.6 ± 2.1"
    assert not table.bold.loc[row].any()
    assert table.bold["ε = 1"].any()  # of the others, the best
    assert "Unknown: how the hyper-parameters were chosen is not recorded" in table.caption


def test_one_method_with_two_ways_of_tuning_has_two_rows(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for epsilon, selection in ((1.0, "fixed"), (4.0, "tuned_private")):
        add(store, Cell(task="kettle", method="dp_sgd", epsilon=epsilon), "private", 9.0, selection=selection)
    table = methods_against_epsilon(only(store), "private", ["kettle"])
    assert {how for _, method, how in table.cells.index if method == "DP-SGD"} == {"fixed", "tuned privately, charged"}
    assert table.to_latex("tab:x").count(r"\cmidrule{1-6}") == 1


def test_where_more_is_better_bold_goes_to_the_highest(tmp_path: Path, rising_headline: None) -> None:
    section = only(fill(Store(tmp_path), winning))
    table = methods_against_epsilon(section, "private", [ALL])
    assert [method for (_, method, _), row in table.bold.iterrows() if row["ε = 1"]] == ["DP-SGD"]
    assert table.caption.startswith("Coverage (higher is better) of the private tasks")
