"""``dphyper pull``: what holds no runs is refused; stores are made of runs in tests/bench/test_tracking.py."""

from collections.abc import Callable
from pathlib import Path


def test_pulling_nothing(tmp_path: Path, refusal: Callable[..., str]) -> None:
    assert "has no run of a cell" in refusal("pull", tmp_path, "--store", tmp_path / "store")
    assert "expected wandb:ENTITY/PROJECT/GROUP" in refusal("pull", "wandb:x", "--store", tmp_path / "store")
    assert not (tmp_path / "store").exists()
