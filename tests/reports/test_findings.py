"""The pages of findings and the README hold the numbers of the committed rows, and nothing else."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from dphyper.core.errors import UserError
from dphyper.reports.findings import FIGURES, RESULTS, TEMPLATES, Findings, given, pages, tables

ROOT = Path(__file__).parents[2]
HYPERNETWORK = "small_target/hypernetwork"


@pytest.fixture(scope="module")
def found() -> Findings:
    return Findings(ROOT / RESULTS)


@pytest.mark.slow
def test_committed_pages_are_what_the_rows_say() -> None:
    made = pages(ROOT)
    assert len(made) >= 11
    for path, text in made.items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, f"{path}: run make findings"


@pytest.mark.slow
def test_committed_tables_are_what_the_rows_say() -> None:
    made = tables(ROOT)
    for path, text in made.items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, f"{path}: run make findings"
    committed = {path.relative_to(ROOT) for path in (ROOT / RESULTS / "small_target").rglob("*.md")}
    assert committed == {path for path in made if path.suffix == ".md"}, "tables that no rows make, or the reverse"


def test_every_committed_figure_is_one_that_the_command_draws() -> None:
    drawn = {(name, stem if n == 128 else f"{stem}_n{n}") for name, n, stem in FIGURES}
    committed = {(path.parent.name, path.stem) for path in (ROOT / RESULTS / "small_target").rglob("*.png")}
    assert committed == drawn


def test_means_and_leads_are_those_of_the_rows_by_hand(found: Findings) -> None:
    rows = pd.read_parquet(ROOT / RESULTS / HYPERNETWORK / "rows.parquet")
    rows = rows[(rows["n"] == 128) & (rows["epsilon"] == 1.0) & (rows["task"] == "documents")]
    seeds = rows.groupby(["method", "seed"])["frechet"].mean().groupby("method").mean()
    assert found.mean(HYPERNETWORK, "dp_sgd", 1.0, "documents") == pytest.approx(seeds["dp_sgd"])
    lead = found.lead(HYPERNETWORK, "dp_sgd", 1.0, "documents")
    assert lead.mean == pytest.approx(seeds["dp_sgd"] - seeds["hypernetwork"])
    assert lead.sign == 1, "above 0 the hypernetwork is better"


def test_other_rows_are_another_number(found: Findings, tmp_path: Path) -> None:
    """It can fail: rows with one distance changed give another mean."""
    path = tmp_path / "study" / "rows.parquet"
    path.parent.mkdir()
    rows = pd.read_parquet(ROOT / RESULTS / HYPERNETWORK / "rows.parquet")
    rows = rows[(rows["task"] == "documents") & (rows["n"] == 128) & (rows["epsilon"] == 1.0) & (rows["seed"] == 0)]
    rows = rows[rows["method"] == "dp_sgd"].head(1)
    rows.to_parquet(path, index=False)
    alone = Findings(tmp_path).mean("study", "dp_sgd", 1.0, "documents")
    assert alone == pytest.approx(rows["frechet"].iloc[0])
    assert alone != found.mean(HYPERNETWORK, "dp_sgd", 1.0, "documents")


def test_a_sentence_that_the_rows_do_not_bear_is_refused() -> None:
    assert given("It is ahead.", [1]) == "It is ahead."
    with pytest.raises(UserError, match="no longer bear this sentence"):
        given("It is ahead.", [])


def test_what_the_rows_do_not_have_is_refused(found: Findings) -> None:
    with pytest.raises(UserError, match="has no rows"):
        found.mean("no_study", "dp_sgd", 1.0)
    with pytest.raises(UserError, match="expected one number in the rows, found 0"):
        found.mean(HYPERNETWORK, "dp_sgd", 3.0)


def test_no_measured_number_is_typed_into_a_template() -> None:
    """Intervals and distances come from expressions; a template that types one is caught."""
    typed = re.compile(r"\d+(\.\d+)? ± \d|\b\d+(\.\d+)? per cent|\bFI?D (of )?\d")
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / TEMPLATES).rglob("*.j2")}
    assert len(texts) >= 11
    assert not [path.name for path, text in texts.items() if typed.search(text)]
    assert typed.search("it is 495 ± 9 there")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 900


def test_a_missing_study_stops_the_command(tmp_path: Path) -> None:
    (tmp_path / TEMPLATES / "findings").mkdir(parents=True)
    for name in ("_macros.j2", "findings/dp_sgd.md.j2"):
        shutil.copy(ROOT / TEMPLATES / name, tmp_path / TEMPLATES / name)
    with pytest.raises(UserError, match="has no rows"):
        pages(tmp_path)
