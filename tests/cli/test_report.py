"""``dphyper report``: what is no store is refused."""

from collections.abc import Callable
from pathlib import Path


def test_report_of_nothing(tmp_path: Path, refusal: Callable[..., str]) -> None:
    assert "has no row" in refusal("report", "--store", tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "is a file" in refusal("report", "--store", tmp_path / "file")
