"""Tables and figures of the theory study, from the runs in the docs."""

from pathlib import Path

import pandas as pd
import pytest

from dphyper.studies.theory.report import write_report

RESULTS = Path(__file__).parents[3] / "docs" / "results" / "theory"
TABLES = ["README.md", "summary.csv", "exponents.csv", "crossings.csv", "learned.csv", "exponents.tex"]


def test_the_runs_in_the_docs_give_the_tables_in_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("dphyper.studies.theory.report._figure", lambda path, *given: drawn.append(path.name))
    runs, points = pd.read_parquet(RESULTS / "runs.parquet"), pd.read_csv(RESULTS / "points.csv")
    text = write_report(runs, points, tmp_path)
    assert drawn == ["rates", "rivals", "angle", "public_tasks"]
    assert {name: (tmp_path / name).read_text() for name in TABLES} == {
        name: (RESULTS / name).read_text() for name in TABLES
    }
    assert text == (RESULTS / "README.md").read_text()
