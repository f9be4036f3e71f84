"""Tables of audits grow over calls and hold one answer to each question."""

from pathlib import Path

import pandas as pd

from dphyper.audits.tables import Table


def test_a_line_that_was_measured_again_replaces_the_former_one(tmp_path: Path) -> None:
    table = Table(stem="t", keys=("method", "claimed"))
    lines = [
        {"method": "a", "claimed": 0.99999999, "bound": 0.5},
        {"method": "b", "claimed": float("inf"), "bound": 2.0},
    ]
    table.write(tmp_path, lines)
    table.write(tmp_path, [lines[0] | {"bound": 0.7}, lines[1]])
    frame = pd.read_csv(tmp_path / "t.csv")
    assert frame.set_index("method")["bound"].to_dict() == {"a": 0.7, "b": 2.0}
    assert "| b | ∞ | 2 |" in (tmp_path / "t.md").read_text()


def test_no_line_writes_no_file(tmp_path: Path) -> None:
    Table(stem="t", keys=("method",)).write(tmp_path / "out", [])
    assert not (tmp_path / "out").exists()
