"""``dphyper merge``: a file without rows is refused; rows are merged in tests/sweeps/test_end_to_end.py."""

from collections.abc import Callable
from pathlib import Path


def test_merging_what_holds_no_rows(tmp_path: Path, refusal: Callable[..., str]) -> None:
    assert "expected the rows.parquet of a store" in refusal("merge", tmp_path / "gone", "--store", tmp_path / "store")
    (tmp_path / "file").write_text("no parquet")
    assert "expected the rows.parquet of a store" in refusal("merge", tmp_path / "file", "--store", tmp_path / "store")
    assert not (tmp_path / "store").exists()
