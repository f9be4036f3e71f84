"""``dphyper migrate``: what is no store is refused."""

from collections.abc import Callable
from pathlib import Path


def test_migrating_nothing(tmp_path: Path, refusal: Callable[..., str]) -> None:
    assert "has no row" in refusal("migrate", tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "expected the rows.parquet of a store" in refusal("migrate", tmp_path / "file")
    assert "search 'gone' is missing" in refusal("migrate", tmp_path / "nowhere", "--searches", "gone")
