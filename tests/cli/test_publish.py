"""``dphyper publish``: what is no store is refused."""

from collections.abc import Callable
from pathlib import Path


def test_publishing_nothing(tmp_path: Path, refusal: Callable[..., str]) -> None:
    assert "has no row" in refusal("publish", tmp_path / "nowhere", "--out", tmp_path / "out")
    (tmp_path / "file").touch()
    assert "is a file: name a folder" in refusal("publish", tmp_path / "file", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
